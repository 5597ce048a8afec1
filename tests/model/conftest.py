from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from embedcode import Encoder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a layout, written once."""
    from checkpoints import write
    from layouts import LAYOUTS

    @cache
    def written(name: str) -> Path:
        return write(LAYOUTS[name], tmp_path_factory.mktemp("checkpoint"))

    return written


@pytest.fixture(scope="session")
def encoder(folder: Callable[[str], Path]) -> Callable[[str], Encoder]:
    """The encoder of a layout, loaded once, in fp32."""
    import embedcode

    @cache
    def loaded(name: str) -> Encoder:
        return embedcode.load(str(folder(name)), threads=1, precision="fp32")

    return loaded

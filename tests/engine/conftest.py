from __future__ import annotations

import pytest

from embedcode import load
from embedcode.engine.light import LightEncoder


@pytest.fixture(scope="session")
def encoder() -> LightEncoder:
    """The packaged model, loaded once."""
    return load(threads=2)

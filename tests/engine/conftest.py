from __future__ import annotations

import pytest

from embedcode import load
from embedcode.engine.graph import GraphEncoder


@pytest.fixture(scope="session")
def encoder() -> GraphEncoder:
    """The packaged model, loaded once."""
    return load(threads=2)

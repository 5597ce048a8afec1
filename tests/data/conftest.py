"""A disk that takes no more."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest


@pytest.fixture
def little_disk() -> Callable[[int], AbstractContextManager[None]]:
    """`with little_disk(1000):` no file may grow above so many bytes. The system then fails writes as on a full disk,
    under another error number."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    return limited

"""Prepare many files on all cores. Knows nothing of what is done with the results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embedcode.index.pool import Pool
from embedcode.index.prepare import Job, Prepared

FEW = 100
"""Files up to which workers are not worth starting: one takes 0.2 s."""


class Workers(Pool[Job, Prepared]):
    """A parser that crashes on a file costs that file."""

    def __init__(self, cores: int) -> None:
        super().__init__(cores, "embedcode.index.prepare:prepare", lambda job, why: Prepared(job.found, failed=why))

    def prepared(self, jobs: Sequence[Job]) -> Iterator[Prepared]:
        """Every job's result, in order, as it is done."""
        return self.map(jobs)

"""Watching in this process: what stands in its way later. The rest is tested as a command in `tests/cli`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embedcode import Index
from embedcode.index import watch as module
from embedcode.index.watch import watch

Open = Callable[..., Index]
Write = Callable[[Path, dict[str, str]], Path]


def test_ignore_rules_that_cannot_be_read_are_waited_for(
    shop: Path, opened: Open, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.1)
    remarks: list[str] = []

    def remark(sentence: str) -> None:
        remarks.append(sentence)
        (shop / ".gitignore").write_text("web/\n")

    reports = watch(opened(shop), remark)
    assert next(reports).files == 6
    write(shop, {".gitignore": "# rules\n" * 200_000})
    assert next(report for report in reports if report.removed).files == 6
    assert len(remarks) == 1 and ".gitignore" in remarks[0]
    reports.close()

"""What the scripts of bench/ share."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCH)
    return import_module("record")


def test_rows_of_an_earlier_model_are_not_gone_on_with(record: Any, tmp_path: Path) -> None:
    """They were kept by the name of their task, under the name of the new model."""
    file = tmp_path / "out.json"
    assert record.begun(file, {"space": "a"}) == []
    record.write(file, {"space": "a", "build": "int8", "rows": [{"task": "go"}]})
    assert record.begun(file, {"space": "a", "build": "int8"}) == [{"task": "go"}]
    for about in ({"space": "b", "build": "int8"}, {"space": "a", "base_space": "c"}):
        with pytest.raises(SystemExit, match=r"has rows of another run .*: give another --out"):
            record.begun(file, about)

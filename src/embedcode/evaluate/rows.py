"""Lines of text files and rows of JSON lines or parquet, each with its place. The only file that imports pyarrow.

Knows no field. What cannot be read is said with file, line and the caller's cure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from embedcode.errors import UsageError


def rows(path: Path, cure: str) -> Iterator[tuple[dict[str, Any], str]]:
    """(object, "file, line n,") of a .parquet file, else of JSON lines."""
    for value, where in _parquet(path, cure) if path.suffix == ".parquet" else _json(path, cure):
        if not isinstance(value, dict):
            raise UsageError(f"{where} is no object: {cure}")
        yield value, where


def lines(path: Path, cure: str) -> Iterator[tuple[str, str]]:
    """(line, "file, line n,") of each line of UTF-8 text that is not blank."""
    try:
        with path.open(encoding="utf-8") as text:
            for number, line in enumerate(text, 1):
                if line.strip():
                    yield line.rstrip("\n"), f"{path}, line {number},"
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist: {cure}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} cannot be read (it is not UTF-8 text): {cure}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}): {cure}") from None


def _json(path: Path, cure: str) -> Iterator[tuple[Any, str]]:
    for line, where in lines(path, cure):
        try:
            value = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{where} is not JSON ({error}): {cure}") from None
        yield value, where


def _parquet(path: Path, cure: str) -> Iterator[tuple[Any, str]]:
    try:
        pyarrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        raise UsageError(
            f"{path} needs pyarrow: run `pip install '.[eval]'` in your clone of embedcode, or give JSON lines"
        ) from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for value in batch.to_pylist():
                    number += 1
                    yield value, f"{path}, row {number},"
    except (OSError, pyarrow.ArrowException) as error:
        raise UsageError(f"{path} cannot be read ({error}): {cure}") from None

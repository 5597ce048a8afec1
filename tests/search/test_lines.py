"""What the lines of a chunk say of a name: where it stands, and where it gets its value."""

from __future__ import annotations

import time

import pytest

from embedcode.search.lines import defines, holds, passes_on


@pytest.mark.parametrize("text", ["a.max_size > 1", "MAX_SIZE", "f(maxSize)", "Max-Size: 3", "_MAX_SIZE", "$maxSize"])
def test_a_name_stands_in_any_style(text: str) -> None:
    assert holds(text, "maxsize")


@pytest.mark.parametrize("text", ["MAX_SIZES", "the max size", "get_max_size()", "max_size2", "max"])
def test_a_part_of_another_name_is_not_it(text: str) -> None:
    assert not holds(text, "maxsize")


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "MAX_SIZE = 3"),
        ("python", "MAX_SIZE: Final[int] = 3"),
        ("python", "class A:\n    MAX_SIZE = 3"),
        ("c", "#define MAX_SIZE 3"),
        ("c", "# define MAX_SIZE(x) x"),
        ("c", "static const char *max_size[] = {"),
        ("cpp", "enum Limit { MIN_SIZE, MAX_SIZE };"),
        ("rust", "pub const MAX_SIZE: usize = 3;"),
        ("rust", "pub enum Limit {\n    MinSize,\n    MaxSize(u32),\n}"),
        ("typescript", "export const maxSize = 3;"),
        ("javascript", "module.exports.maxSize = 3"),
        ("go", "const (\n\tMaxSize = 3\n)"),
        ("java", "    public static final int MAX_SIZE = 3;"),
        ("php", "define('MAX_SIZE', 3);"),
        ("bash", "export MAX_SIZE=3"),
        ("yaml", "limits:\n  - max_size: 3"),
        ("toml", "max-size = 3"),
        ("json", '{"maxSize": 3}'),
        ("makefile", "MAX_SIZE ?= 3"),
        ("dockerfile", "ENV MAX_SIZE=3"),
    ],
)
def test_where_a_name_gets_its_value(language: str, text: str) -> None:
    assert defines(text, "maxsize", language, within=True)


@pytest.mark.parametrize(
    "text",
    [
        "if size == MAX_SIZE:",
        "MAX_SIZE == 3",
        "size = MAX_SIZE",
        "f(\n    MAX_SIZE=3,\n)",
        "def f():\n    max_size = 3",
        "self.MAX_SIZE = 3",
        "# MAX_SIZE = 3",
        "from limits import (\n    MAX_SIZE,\n)",
        "x = [MAX_SIZE]",
        "MAX_SIZE += 1",
    ],
)
def test_where_it_is_only_used(text: str) -> None:
    assert not defines(text, "maxsize", "python", within=True)


def test_without_a_function_around_it_an_indented_one_is_defined() -> None:
    assert defines("if WINDOWS:\n    max_size = 3", "maxsize", "python", within=False)


@pytest.mark.parametrize(
    "text", ["a " * 4000, "a_" * 4000, "A = enum {" * 800, "a: " * 3000, "[" * 8000, "'a' " * 2000, "\n" * 8000]
)
def test_no_text_takes_long(text: str) -> None:
    start = time.perf_counter()
    for name in ("a", "aa", "a" * 64):
        defines(f"{text}\n{name}", name, "yaml", within=False)
    passes_on(text, wholly=False)
    assert time.perf_counter() - start < 1

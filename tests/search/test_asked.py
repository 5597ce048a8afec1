"""What is read of a query besides its words, and that no query takes long to read."""

from __future__ import annotations

import time

import pytest

from embedcode.search.asked import read

INDEX = "node_modules/@scope/pkg/index.js"


@pytest.mark.parametrize(
    ("query", "paths", "frames"),
    [
        ("see a/cart.py:14, then ./b.ts:3", ("a/cart.py", "./b.ts"), (("a/cart.py", 14), ("./b.ts", 3))),
        ("at total (C:\\shop\\Cart.java:7)", ("Cart.java",), (("\\shop\\Cart.java", 7),)),
        ('File "/srv/a b.py", line 9, in f', ("b.py",), (("/srv/a b.py", 9),)),
        (f"({INDEX}:2)", (INDEX,), ((INDEX, 2),)),
        ("from @scope/pkg, and src/lib", ("@scope/pkg", "src/lib"), ()),
        ("git@example.org:group/name.git", ("git@example.org", "group/name.git"), ()),
        (f"a.py:{'1' * 5000}", ("a.py",), (("a.py", 111_111_111),)),  # more digits than int() takes
    ],
)
def test_paths_and_frames(query: str, paths: tuple[str, ...], frames: tuple[tuple[str, int], ...]) -> None:
    asked = read(query)
    assert (asked.paths, asked.frames) == (paths, frames)


@pytest.mark.parametrize(
    "unit", ["a", "@", ".", "a.", "@a/", "../", "\\", "a_", "a.b1", "a::", "(a.", "aB", "? ", "é", 'File "']
)
def test_a_long_run_of_characters_is_read_at_once(unit: str) -> None:
    before = time.process_time()
    read(unit * (200_000 // len(unit)))
    assert time.process_time() - before < 5  # with each run read again from its every character, minutes

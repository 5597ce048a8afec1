"""Lines as runs: nothing of the text is lost, and what any programmer would call a keyword, a string or a comment is
classed so, in every language with a grammar."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcode.index.grammars import GRAMMARS
from embedcode.serve.highlight import COLUMNS, LIMIT, coloured

# language: (source, path, {class: tokens that have it})
SOURCES = {
    "python": ('def act(x: int):  # note\n    return "a" + 12\n', "a.py", {"k": "def return", "t": "int"}),
    "javascript": ('function act() { return "a" + 12 } // note\n', "a.js", {"k": "function return"}),
    "typescript": ('function act(x: number) { return "a" + 12 } // note\n', "a.ts", {"k": "function", "t": "number"}),
    "tsx": ('function act() { const a = "a" + 12; return <b>hi</b> } // note\n', "a.tsx", {"k": "function const"}),
    "java": ('class A { String act() { return "a" + 12; } } // note\n', "A.java", {"k": "class", "t": "String"}),
    "go": (
        'package a\nfunc act() string {\n return f("a", 12) // note\n}\n',
        "a.go",
        {"k": "package func", "t": "string"},
    ),
    "rust": ('fn act(x: u8) { let y = ("a", 12); } // note\n', "a.rs", {"k": "fn let", "t": "u8"}),
    "c": ('static int act(void) { return f("a", 12); } // note\n', "a.c", {"k": "static return", "t": "int"}),
    "cpp": ('class A { int act() { return f("a", 12); } }; // note\n', "a.cpp", {"k": "class", "t": "int"}),
    "csharp": ('class A { string act() { return "a" + 12; } } // note\n', "a.cs", {"k": "class", "t": "string"}),
    "ruby": ('def act\n  return "a" + 12 # note\nend\n', "a.rb", {"k": "def return end"}),
    "php": ('<?php function act() { return "a" . 12; } // note\n', "a.php", {"k": "function return"}),
    "kotlin": ('fun act(): Int { return f("a", 12) } // note\n', "a.kt", {"k": "fun return", "t": "Int"}),
    "scala": ('object A { def act = f("a", 12) } // note\n', "a.scala", {"k": "object def"}),
    "swift": ('func act() -> Int { return f("a", 12) } // note\n', "a.swift", {"k": "func return", "t": "Int"}),
    "bash": ('act() { if true; then f "a" 12; fi; } # note\n', "a.sh", {"k": "if then fi"}),
    "sql": ('SELECT "a", b FROM t WHERE b > 12 -- note\n', "a.sql", {"k": "SELECT FROM WHERE"}),
}


def classes(text: str, language: str, path: str) -> dict[str, str]:
    """The text of each class, its runs joined by blanks."""
    found: dict[str, str] = {}
    for runs in coloured(text, language, path):
        for part, kind in runs:
            found[kind] = f"{found[kind]} {part}" if kind in found else part
    return found


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_every_grammar_tells_keywords_strings_comments_and_names_apart(grammar: str) -> None:
    text, path, wanted = SOURCES[grammar]
    found = classes(text, "typescript" if grammar == "tsx" else grammar, path)
    for kind, tokens in wanted.items():
        assert set(tokens.split()) <= set(found[kind].split()), found
    assert "note" in found["c"]
    if grammar != "sql":  # which defines nothing here, and where double quotes are for names
        assert "a" in found["s"]
        assert "note" not in found["s"]
        assert "act" in found["d"].split()


@given(st.text(st.characters() | st.sampled_from("\n\r\"'#/*{}"), max_size=400), st.sampled_from([*GRAMMARS, "text"]))
def test_no_text_is_lost_whatever_it_is(text: str, language: str) -> None:
    rows = coloured(text, language, "a")
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    assert ["".join(part for part, _ in runs) for runs in rows] == lines


def test_columns_are_characters_where_bytes_are_more() -> None:
    (runs,) = coloured('s = "ä😀é" + "b"  # ünd\n', "python", "a.py")
    assert ('"ä😀é"', "s") in runs
    assert ('"b"', "s") in runs
    assert ("# ünd", "c") in runs


def test_a_part_of_a_file_has_the_colours_it_has_in_the_whole() -> None:
    text = 'def f():\n    """Begins\n    if this is prose\n    ends"""\n    return 1\n'
    assert coloured(text, "python", "a.py", 2, 4) == [
        [("    if this is prose", "s")],
        [('    ends"""', "s")],
    ]
    assert coloured(text, "python", "a.py", 2, 5) == coloured(text, "python", "a.py")[2:]


def test_words_that_were_asked_for_are_marked_inside_names_too() -> None:
    (runs,) = coloured("def closeSession(old_session): Sessions # session\n", "python", "a.py", asked={"session"})
    assert [part for part, kind in runs if kind.endswith("m")] == ["Session", "session", "session"]
    (runs,) = coloured("closeSession close_session\n", "text", "a.txt", asked={"closesession", "close"})
    assert [part for part, kind in runs if kind.endswith("m")] == ["closeSession", "close_session"]


def test_long_lines_are_cut_and_long_files_plain_in_time() -> None:
    start = time.monotonic()
    (runs,) = coloured("x = '" + "a" * 1_000_000 + "'", "python", "a.py", asked={"x"})
    assert runs[0] == ("x", "m")
    assert runs[-1] == (f"… {1_000_006 - COLUMNS:,} more characters", "more")
    assert sum(len(part) for part, _ in runs[:-1]) == COLUMNS
    line = "value = compute(value)  # and so on\n"
    just, over = (coloured(line * (LIMIT // len(line) + more), "python", "a.py") for more in (0, 1))
    assert just[-1][-1] == ("# and so on", "c")
    assert over[-1] == [(line.strip(), "")]
    assert time.monotonic() - start < 10

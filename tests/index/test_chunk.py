"""Chunks: every line in exactly one of them, definitions found whole under their names."""

from __future__ import annotations

import json
import random
import sysconfig
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedcode.index.chunk import chunk
from embedcode.index.grammars import GRAMMARS
from embedcode.index.headings import sections
from embedcode.index.languages import NAMES, Language, language_of
from embedcode.index.pieces import CAP, TARGET
from embedcode.store.terms import searchable
from embedcode.types import Chunk

FIXTURES = Path(__file__).parent / "fixtures_chunk"


def cut(path: str, text: str) -> list[Chunk]:
    language = language_of(path, text[:4096].encode("utf-8", "replace").replace(b"\0", b""))
    assert language is not None
    chunks = chunk(path, text, language, "here")
    check(text, chunks)
    return chunks


def check(text: str, chunks: list[Chunk]) -> None:
    """Every line lies in exactly one chunk, in order, none is blank, and only a single line is above the cap."""
    if not text.strip():
        assert chunks == []
        return
    assert "\n".join(c.text for c in chunks) == text.removesuffix("\n")
    ends = [0, *(c.end_line for c in chunks)]
    assert [c.start_line for c in chunks] == [end + 1 for end in ends[:-1]]
    assert ends[-1] == text.removesuffix("\n").count("\n") + 1
    for c in chunks:
        lines = [line.strip() for line in c.text.split("\n")]
        assert len(lines) == c.end_line - c.start_line + 1
        assert any(lines)
        assert sum(map(len, lines)) <= CAP or sum(map(bool, lines)) == 1


def size(c: Chunk) -> int:
    return sum(len(line.strip()) for line in c.text.split("\n"))


def fill(comment: str, characters: int) -> str:
    """Filler of about `size` characters that is a comment in the language."""
    return "\n".join(f"{comment} filler {i:04} filler filler" for i in range(characters // 30))


# The files hold containers too large for a chunk; FILL in them stands for 900 characters of comment.
SOURCES = {
    "a.py": "Store.open, Store.close, main",
    "a.js": "Store.open, Store.close, main, other, Store.late, api.get, api.put, a store.opens",
    "a.ts": "Store.open, Store.close, Shape, Kind, Deep.inner, Deep.Alias",
    "a.tsx": "View, Row, Page",
    "A.java": "Store.Store, Store.open, Shape, Kind, Pair",
    "a.go": "Store, Store.Open, Box.Get, main, Shape",
    "a.rs": "Store, Store.fmt, Store.open, deep.inner, deep.Shape, twice",
    "a.c": "open_it, store, pair_t, big, small, choose",
    "a.cpp": "Store.Store, Store.open, Store.Inner, Box.get, Store.operator<, Store.~Store, Suite.Works",
    "A.cs": "Store.Store, Store.Open, Store.Size, IShape, Kind",
    "a.rb": "Deep.Store.open, Deep.Store.build, Deep.Store.late, Deep.Store.hidden, a store.opens, a store.closes",
    "a.php": "Store.open, Store.close, Shape, Able, main",
    "a.kt": "Store.open, Store.Companion.build, Shape, Single, twice",
    "a.scala": "Store.open, Store.close, Single, Shape",
    "a.swift": "Store.init, Store.open, Shape, Box.get, Box.put, Kind",
    "a.sh": "open_it, close_it",
    "a.sql": "person, shop.adult, twice",
}


def source(path: str) -> str:
    comment = "#" if path.endswith((".py", ".rb", ".sh")) else "--" if path.endswith(".sql") else "//"
    return (FIXTURES / f"{path}.in").read_text(encoding="utf-8").replace("FILL", fill(comment, 900))


def test_there_is_a_source_for_every_grammar() -> None:
    assert {language.grammar for path in SOURCES if (language := language_of(path))} == set(GRAMMARS)


@pytest.mark.parametrize("path", SOURCES)
def test_definitions_are_chunks_of_their_own(path: str) -> None:
    chunks = cut(path, source(path))
    for name in SOURCES[path].split(", "):
        # A bare `class Store {` may stand before its first method, but there is one definition's filler, whole.
        named = [c for c in chunks if name in c.symbol.split(", ")]
        assert {(1, 1)} == {
            (c.text.count("filler 0000"), c.text.count("filler 0029")) for c in named if "filler" in c.text
        }, f"{name} in {[c.symbol for c in chunks]}"


def test_lines_of_a_method_with_its_comment_and_decorator() -> None:
    text = source("a.py")
    rows = text.split("\n")
    (head, opens, closes) = [c for c in cut("a.py", text) if "Store" in c.symbol]
    assert (head.repo, head.path, head.language, head.symbol) == ("here", "a.py", "python", "Store")
    assert head.text.startswith("# About it.\n@register\nclass Store(Base):") and "size = 1" in head.text
    assert (opens.symbol, opens.start_line) == ("Store.open", rows.index("    # Opens it.") + 1)
    assert opens.end_line == rows.index("        return 1") + 2  # and the blank line
    assert (closes.symbol, closes.start_line) == ("Store.close", opens.end_line + 1)


@pytest.mark.parametrize(
    ("path", "lead", "symbol"),
    [
        ("A.java", "  /** Opens it. */", "Store.open"),
        ("a.go", "// Open opens.", "Store.Open"),
        ("a.rs", "/// About it.", "Store"),
        ("a.c", "/* Opens it. */", "open_it"),
        ("a.rb", "    # Opens it.", "Deep.Store.open"),
        ("a.php", "  /** Opens it. */", "Store.open"),
        ("a.kt", "  /** Opens it. */", "Store.open"),
        ("a.scala", "  /** Opens it. */", "Store.open"),
        ("a.swift", "  /// Opens it.", "Store.open"),
        ("a.sh", "# Opens it.", "open_it"),
        ("a.js", "  // Opens it.", "Store.open"),
    ],
)
def test_a_leading_comment_goes_with_its_definition(path: str, lead: str, symbol: str) -> None:
    found = [c for c in cut(path, source(path)) if symbol in c.symbol.split(", ")]
    assert lead in found[0].text.split("\n")


def test_a_definition_that_fits_is_one_chunk_and_one_that_does_not_keeps_its_name() -> None:
    fits = "def fits():\n" + "    call_something(with_this)\n" * 40
    large = "def large():\n" + "".join(f"    call_something(with_this, {i:04})\n" for i in range(200))
    chunks = cut("a.py", f"{fits}\n{large}\nX = 1\n")
    assert [c.symbol for c in chunks].count("fits") == 1
    pieces = [c for c in chunks if c.symbol == "large"]
    assert len(pieces) >= 7000 // CAP
    assert pieces[0].text.startswith("def large():\n    call")
    assert chunks[-1].symbol == "" and chunks[-1].text == "X = 1"  # never joined with a part of `large`


@pytest.mark.parametrize(
    ("path", "text", "symbol"),
    [
        (
            "a.rb",
            "module A\n  module B\n    class Json < Base\n      def f\n      end\n    end\n  end\nend\n",
            "A.B.Json",
        ),
        ("a.rb", "module A\n  class B\n  end\n\n  class C\n  end\nend\n", "A.B, A.C"),
        ("a.rb", "module A\n  def self.f\n  end\n  class C\n  end\nend\n", "A.f, A.C, A"),
        ("a.rb", "module A\n  class << self\n    def f\n    end\n  end\nend\n", "A.f, A"),
        ("a.rb", "module A\n  SIZE = 1\nend\n", "A"),
        ("a.rb", "module A::B\n  class C\n    class D\n    end\n  end\nend\n", "A.B.C"),
        ("a.rb", "module A; class B; end; end\n", "A.B"),
        ("a.rs", "use a::b;\n\npub mod outer {\n    pub struct Parser;\n    impl Parser {\n    }\n}\n", "outer.Parser"),
        ("a.rs", "#[cfg(test)]\nmod tests {\n    #[test]\n    fn works() {\n    }\n}\n", "tests.works, tests"),
        ("a.ts", "export namespace A.B {\n  export class Parser {\n    f() {}\n  }\n}\n", "A.B.Parser"),
        ("a.tsx", "declare module Outer {\n  interface Shape {\n  }\n}\n", "Outer.Shape"),
    ],
)
def test_a_container_that_fits_has_the_names_of_what_it_holds(path: str, text: str, symbol: str) -> None:
    (only,) = cut(path, text)
    assert only.symbol == symbol


@pytest.mark.parametrize(
    ("path", "text", "symbol"),
    [
        ("a.rs", "impl<K, V> Cache<HashMap<K, Vec<V>>> {\n    fn insert(&self) {\n    }\n}\n", "Cache"),
        ("a.rs", "impl Task<Box<dyn Fn(i32) -> Vec<i32>>> {\n    fn run(&self) {\n    }\n}\n", "Task"),
        ("a.cpp", "void Pool<std::map<int, std::set<int>>>::insert(int a) {\n    add(a);\n}\n", "Pool.insert"),
        ("a.cpp", "bool Pool::operator<(const Pool &other) {\n    return less(other);\n}\n", "Pool.operator<"),
    ],
)
def test_type_arguments_are_no_part_of_a_name(path: str, text: str, symbol: str) -> None:
    (only,) = cut(path, text)
    assert only.symbol == symbol


def test_the_names_in_a_container_are_bounded() -> None:
    (only,) = cut("a.rb", "module A\n" + "".join(f"class Name{i}; end\n" for i in range(60)) + "end\n")
    assert only.symbol.startswith("A.Name0, A.Name1, ") and 100 < len(only.symbol) <= 120
    cut("a.rb", "module A\n" * 200 + "end\n" * 200)  # deeper than is followed


def test_small_neighbours_are_joined_up_to_the_target() -> None:
    text = "import os\nimport sys\n\n" + "".join(f"def f{i}():\n    return {i}\n\n\n" for i in range(60))
    chunks = cut("a.py", text)
    sizes = [size(c) for c in chunks]
    assert all(TARGET * 0.9 < one <= TARGET for one in sizes[:-1])
    assert chunks[0].symbol.startswith("f0, f1, f2")
    assert all(len(c.symbol) <= 120 for c in chunks)
    assert text.count("def ") == sum(c.text.count("def ") for c in chunks)


def test_two_functions_of_some_size_are_not_joined() -> None:
    body = "    call_something(with_this)\n" * 10
    assert [c.symbol for c in cut("a.py", f"def one():\n{body}\n\ndef two():\n{body}")] == ["one", "two"]


@pytest.mark.parametrize("path", SOURCES)
def test_broken_and_odd_sources_lose_no_line(path: str) -> None:
    text = source(path)
    rng = random.Random(path)
    cut(path, text.replace("\n", "\r\n"))
    cut(path, text.replace("FILL", "ünïcödé 漢字 🎉"))
    cut(path, "\n\n\n" + text.rstrip("\n") + "\n\n \n\t\n")
    for _ in range(5):
        at, width = rng.randrange(len(text)), rng.randrange(200)
        cut(path, text[:at] + rng.choice(["", "{", "}}", "'", '"""', "((", "\0", "\f", "\u2028"]) + text[at + width :])


def test_a_syntax_error_does_not_hide_the_definitions_around_it() -> None:
    text = source("a.py").replace("async def close(self):", "async def close(self:")
    assert {"Store.open", "main"} <= {c.symbol for c in cut("a.py", text)}


def test_windows_line_ends_change_no_border() -> None:
    text = source("A.java")
    unix, windows = cut("A.java", text), cut("A.java", text.replace("\n", "\r\n"))
    assert [(c.start_line, c.end_line, c.symbol) for c in unix] == [
        (c.start_line, c.end_line, c.symbol) for c in windows
    ]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.py", "x = " + "(" * 50_000 + ")" * 50_000),
        ("a.py", "x = (1\n" + "    + 1\n" * 20_000 + ")\n"),
        ("a.py", "\n".join(" " * i + "if x:" for i in range(600))),
        ("a.js", "f(function () {\n" * 2_000 + "});\n" * 2_000),
        ("a.js", "[\n" * 20_000),
        ("a.cpp", "namespace a {\n" * 3_000 + "int x;\n" + "}\n" * 3_000),
        ("a.cpp", "a < b > c ( d * e ) & f ;; { [ <\n" * 2_000),
        ("a.rs", "mod a {\n" * 2_000),
        ("a.ipynb", "[" * 100_000),
        ("a.md", "> " * 100_000),
    ],
)
def test_deep_nesting(path: str, text: str) -> None:
    assert cut(path, text)


def test_a_source_too_large_to_parse_is_cut_at_lines() -> None:
    text = "def f():\n    return 1\n\n" * 60_000
    chunks = cut("a.py", text)
    assert {c.symbol for c in chunks} == {""}


def test_a_line_above_the_cap_is_left_alone() -> None:
    long = "x = '" + "a b " * CAP + "'"
    for path in ("a.py", "a.js", "a.txt", "a.yaml"):
        chunks = cut(path, f"y = 1\n\n{long}\nz = 2\n")
        assert [c.text.strip() for c in chunks] == ["y = 1", long, "z = 2"]


@pytest.mark.parametrize("text", ["", "\n", "\n\n  \n\t\n", "\r\n\r\n", "\f\n"])
def test_nothing_but_blanks_has_no_chunks(text: str) -> None:
    assert cut("a.py", text) == cut("a.txt", text) == cut("a.ipynb", text) == []


def test_plain_text_is_cut_at_blank_lines() -> None:
    paragraph = "word word word word word word word word word\n" * 5
    for c in cut("a.txt", "\n".join([paragraph] * 20))[:-1]:
        assert c.text.endswith("\n") and c.text.lstrip() == c.text  # ends with the blank line behind a paragraph


def test_unparsed_code_is_cut_where_the_indentation_is_least() -> None:
    block = "local function f()\n" + "    call_something(with_this)\n" * 12 + "end\n"
    for c in cut("a.lua", block * 10)[1:]:
        assert not c.text.startswith("    ")


MARKDOWN = """---
title: x
---
Words first.

FILL

# Install `it` #

FILL

## Linux

FILL

```sh
# not a heading
```

## [macOS](http://x)

FILL

Usage
-----

FILL
"""


def test_markdown_by_headings() -> None:
    chunks = cut("a.md", MARKDOWN.replace("FILL", "Some words of prose here.\n" * 16))
    expected = [
        ("Install it", "# Install `it` #"),
        ("Install it > Linux", "## Linux"),
        ("Install it > macOS", "## [macOS](http://x)"),
        ("Install it > Usage", "Usage"),
    ]
    assert [(c.symbol, c.text.split("\n")[0]) for c in chunks] == [("", "---"), *expected]
    assert "# not a heading" in chunks[2].text


@pytest.mark.parametrize("mark", ["- ", "* ", "1. ", "10. ", "- 1) ", "-\t"])
def test_a_fence_that_opens_behind_the_mark_of_a_list(mark: str) -> None:
    indent = " " * len(mark)
    block = f"{mark}```sh\n{indent}# get it\n# here\n{indent}```\n"
    text = f"# Install\n\n{block}\n# Usage\n\n## Options\n\n```\n# no\n```\n\n# FAQ\n"
    assert [title for _, title in sections(text.split("\n"), "markdown")] == [
        "Install",
        "Usage",
        "Usage > Options",
        "FAQ",
    ]


@pytest.mark.parametrize("closing", ["    ```", "``", "``` sh", "~~~"])
def test_what_does_not_close_a_fence(closing: str) -> None:
    lines = ["# A", "```sh", closing, "# no heading", "```", "# B"]
    assert sections(lines, "markdown") == [(0, "A"), (5, "B")]


def test_a_large_section_keeps_its_heading_and_small_ones_are_joined() -> None:
    chunks = cut("a.md", "# A\n\n" + "Some words.\n" * 300 + "\n# B\n\nb\n\n# C\n\nc\n")
    assert {c.symbol for c in chunks[:-1]} == {"A"}
    assert chunks[-1].symbol == "B, C"


def test_restructuredtext_and_asciidoc_by_headings() -> None:
    words = "Some words of prose here.\n" * 16
    rst = f"=====\nTitle\n=====\n\n{words}\nPart\n====\n\n{words}\nDeep\n----\n\n{words}\nNext\n====\n\n{words}"
    assert [c.symbol for c in cut("a.rst", rst)] == ["Title", "Title > Part", "Title > Part > Deep", "Title > Next"]
    adoc = f"= Title\n\n{words}\n== Part\n\n----\n== no\n----\n\n{words}"
    assert [c.symbol for c in cut("a.adoc", adoc)] == ["Title", "Title > Part"]


def notebook(*cells: dict[str, object]) -> dict[str, object]:
    return {"cells": list(cells), "metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}


def code(source: str, *outputs: dict[str, object]) -> dict[str, object]:
    return {"cell_type": "code", "metadata": {}, "outputs": list(outputs), "source": source.splitlines(True)}


def prose(source: str) -> dict[str, object]:
    return {"cell_type": "markdown", "metadata": {}, "source": source.splitlines(True)}


IMAGE = "iVBORw0KGgo" + "Ab1/" * 5_000
NOTEBOOK = notebook(
    prose("# Train\n\nWords."),
    code("import a\nmodel = a.Model()\n"),
    prose("## Plot\n"),
    code("plot(model)\n", {"data": {"image/png": IMAGE}, "output_type": "display_data"}),
    code("".join(f"step_number_{i:03}(model)\n" for i in range(150))),
)


@pytest.mark.parametrize("indent", [1, 2, 4])
def test_a_notebook_by_cells(indent: int) -> None:
    chunks = cut("a.ipynb", json.dumps(NOTEBOOK, indent=indent) + "\n")

    def holding(words: str) -> list[Chunk]:
        return [c for c in chunks if words in c.text]

    (first,), (imports,), (plot,), (picture,) = map(holding, ("Words.", "import a", "plot(model)", "iVBOR"))
    assert len({first.id, imports.id, plot.id, picture.id}) == 4
    assert (first.symbol, imports.symbol, plot.symbol) == ("Train", "Train", "Train > Plot")
    assert len(holding("step_number_")) > 1


def test_images_in_a_notebook_are_not_searched() -> None:
    chunks = cut("a.ipynb", json.dumps(NOTEBOOK, indent=1))
    kept = "".join(searchable(c.text) for c in chunks)
    assert "Ab1/Ab1/" not in kept
    assert "image/png" in kept and "plot(model)" in kept and "step_number_149" in kept


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(NOTEBOOK),
        json.dumps({"worksheets": []}, indent=1),
        json.dumps({"cells": {"a": 1}}, indent=1),
        json.dumps({"cells": [1, 2]}, indent=1),
        json.dumps(notebook({"cell_type": "markdown", "source": None}), indent=1),
        json.dumps(notebook({"cell_type": "code", "outputs": [1], "source": 5}), indent=1),
        json.dumps(NOTEBOOK, indent=1)[:3000],
        "not json\n",
    ],
)
def test_odd_notebooks_lose_no_line(text: str) -> None:
    assert cut("a.ipynb", text)


def test_searchable_leaves_code_alone() -> None:
    text = source("a.py")
    assert searchable(text) == text


LANGUAGES = [Language(name, "code", name) for name in NAMES if name in GRAMMARS]
LANGUAGES += [Language("typescript", "code", "tsx"), Language("text", "docs")]
LANGUAGES += [Language(name, "docs") for name in ("markdown", "restructuredtext", "asciidoc", "jupyter")]
TOKENS = st.sampled_from([
    "\n", "\n", "\n\n", "\r\n", "\r", "\f", "\u2028", "\0", " ", "    ", "\t", "def f():", "class A", "{", "}", "(",
    ")", "[", "]", ":", "=", "==\n", "---\n", "# x", "```", "~~~", "@d", "// c", "/* c", "*/", "#if X\n", "#endif\n",
    "'", "\"", "\"\"\"", "`", "é", "漢", "🎉", "\ud800", "function f()",
    "=> {", "if x:", "else", "end", "do", "module M",
    "impl X", "fn f()", "<?php", "?>", "$$", "CREATE TABLE t", "<<EOF", "EOF", "\\", "word ",
    "wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww",
])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(LANGUAGES), st.lists(st.one_of(TOKENS, st.text(max_size=20)), max_size=150))
@example(Language("python", "code", "python"), ["a\n" * 2000])
def test_any_text_in_any_language_is_covered(language: Language, parts: list[str]) -> None:
    text = "".join(parts)
    check(text, chunk("a", text, language))


def test_real_files_are_covered_and_their_chunks_are_of_the_size_promised() -> None:
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
    files = [path for path in files if "site-packages" not in path.parts and path.stat().st_size < 200_000]
    sizes: list[int] = []
    for path in random.Random(0).sample(files, min(300, len(files))):
        sizes += map(size, cut(path.name, path.read_bytes().decode("utf-8", "replace")))
    sizes.sort()
    assert len(sizes) > 1000
    assert TARGET * 0.4 < sizes[len(sizes) // 2] < TARGET * 1.2
    assert sum(one < 60 for one in sizes) < len(sizes) * 0.05  # few crumbs


def test_real_files_of_other_languages_are_covered() -> None:
    """Whatever the installed packages and Python's headers bring: C, C++, JavaScript, shell, Markdown, notebooks."""
    folders = [Path(sysconfig.get_path(name)) for name in ("include", "purelib", "data")]
    found: dict[str, list[Path]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            language = language_of(path.name)
            if language and language.name != "python" and path.is_file() and path.stat().st_size < 100_000:
                found.setdefault(language.name, []).append(path)
    assert len(found.get("c", [])) > 50
    for paths in found.values():
        for path in random.Random(0).sample(paths, min(25, len(paths))):
            raw = path.read_bytes()
            if b"\0" not in raw:
                cut(path.name, raw.decode("utf-8", "replace"))


def test_a_call_without_arguments_that_is_named_like_a_test_block() -> None:
    """`context()` in a method: tree-sitter 0.26 raises for a first argument that is not there. Found in eslint."""
    body = "\n".join(f"    this.step{number}(context())" for number in range(120))
    source = f"class Fork {{\n  run() {{\n    context()\n{body}\n  }}\n}}\n"
    language = language_of("fork.js")
    assert language is not None
    assert chunk("fork.js", source, language)[-1].end_line == 125

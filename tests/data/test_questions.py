from __future__ import annotations

import ast

import pytest

from embedcode.data.questions import asked, documented, imperative
from embedcode.types import Pair


def pair(query: str, code: str, language: str = "python") -> Pair:
    return Pair(query, (code,), (), "docstring", language, "pypi:x 1.0", "MIT")


READ = "def read_blocks(file, size):\n    while block := file.read(size):\n        yield block"
TEXT = "Reads the given file in blocks."


def all_of(given: Pair) -> list[Pair]:
    return [found for seed in range(200) if (found := asked(given, seed))]


def test_a_docstring_is_asked_for_the_function_as_it_was() -> None:
    of = {found.query for found in all_of(pair(TEXT, READ)) if found.positives == (READ,)}
    assert "how to read file in blocks in python" in of
    assert "read file in blocks python" in of
    assert not any("Reads" in query or "given" in query or query.endswith(".") for query in of)


def test_a_name_is_asked_for_the_function_with_its_docstring() -> None:
    documented = [found for found in all_of(pair(TEXT, READ)) if found.positives != (READ,)]
    assert {"how to read blocks in python", "read blocks"} <= {found.query for found in documented}
    for found in documented:
        tree = ast.parse(found.positives[0]).body[0]
        assert isinstance(tree, ast.FunctionDef)
        assert ast.get_docstring(tree) == TEXT
        assert len(tree.body) == 2


def test_a_question_of_no_known_language_names_none() -> None:
    acts, thing = all_of(pair(TEXT, "x", "")), all_of(pair("Size of the file.", "x", ""))
    assert {found.query for found in acts} == {f"{form}read file in blocks" for form in ("", "how to ", "how can i ")}
    assert {found.query for found in thing} == {"size of file"}


def test_what_a_question_is_of_stays() -> None:
    found = all_of(pair(TEXT, READ))[0]
    assert (found.language, found.source, found.licence, found.task) == ("python", "pypi:x 1.0", "MIT", "question")


def test_the_same_pair_and_seed_give_the_same_question_and_others_another() -> None:
    given = pair(TEXT, READ)
    assert asked(given, 3) == asked(given, 3)
    assert len({found.query for found in all_of(given)}) > 8


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("See `Foo::bar(x)`.", "def x(a):\n    return a"),  # code, and no name
        ("Frobnicates.", "function (a) { return a; }"),
        ("One two three four five six seven eight nine ten eleven twelve thirteen fourteen", "def f(a):\n    return a"),
    ],
)
def test_a_pair_that_gives_no_question_gives_none(query: str, code: str) -> None:
    assert all_of(pair(query, code)) == []


@pytest.mark.parametrize(
    ("code", "language", "name"),
    [
        ("func (s *Server) StartListening() error {\n\treturn nil\n}", "go", "start listening"),
        ("@Override\npublic int countRows(Table t) {\n  return 1;\n}", "java", "count rows"),
        ("goog.i18n.Format.prototype.parseDate = function(text) {\n  return 1;\n}", "javascript", "parse date"),
        ("static int\nparse_http_header(char *s)\n{\n  return 0;\n}", "c", "parse http header"),
        ("pub fn read_all<R>(r: R) -> u8 {\n  0\n}", "rust", "read all"),
        ("const loadAll = async (x) => { return x; }", "javascript", "load all"),
        ("function loadAll(onDone: (x: number) => void) {\n  onDone(1);\n}", "typescript", "load all"),
        ("loadAll(onDone: (x: number) => void) {\n  onDone(1);\n}", "typescript", "load all"),
        ("def merge_all(default_args=()):\n    return default_args", "python", "merge all"),
        ("def open_files\n  load_config(path)\nend", "ruby", "open files"),
        ("def self.open_files(path)\n  load(path)\nend", "ruby", "open files"),
    ],
)
def test_names_are_read_in_every_language(code: str, language: str, name: str) -> None:
    assert any(name in found.query for found in all_of(pair("See `x::y`.", code, language)))


@pytest.mark.parametrize(
    ("language", "first"), [("go", "// Says."), ("ruby", "# Says."), ("rust", "/// Says."), ("java", "/** Says. */")]
)
def test_a_docstring_goes_where_the_language_has_it(language: str, first: str) -> None:
    assert documented("code", "Says.", language) == f"{first}\ncode"


@pytest.mark.parametrize(
    ("word", "root"),
    [("Returns", "return"), ("Applies", "apply"), ("Searches", "search"), ("Passes", "pass"), ("Fixes", "fix"),
     ("Status", "status"), ("Class", "class"), ("Writes", "write"), ("get", "get")],
)  # fmt: skip
def test_verbs_are_as_asked(word: str, root: str) -> None:
    assert imperative(word) == root

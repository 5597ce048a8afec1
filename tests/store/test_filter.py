"""Filters: the globs a user types, as .gitignore and the documentation have them."""

from __future__ import annotations

import time

import pytest

from embedcode.store.filter import also_from, from_top, matches, unsupported
from embedcode.types import File, Filter


def file(path: str = "a.py", language: str = "python", repo: str = "r") -> File:
    return File(path, repo, language, "code", 1, 1, b"")


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("src", "src/a.py", True),
        ("src", "src/deep/a.py", True),
        ("src/", "src/deep/a.py", True),
        ("./src", "src/a.py", True),
        ("/src", "src/a.py", True),
        ("src", "src", True),
        ("src", "srcs/a.py", False),
        ("src", "lib/src/a.py", True),
        ("src/", "lib/src/a.py", True),
        ("src", "lib/src", True),
        ("src", "lib/srcs/a.py", False),
        ("/src", "lib/src/a.py", False),
        ("./src", "lib/src/a.py", False),
        ("lib/src", "x/lib/src/a.py", False),
        ("y.py", "a/y.py", True),
        ("y.py", "a/b/y.py", True),
        ("y.py", "a/by.py", False),
        ("/y.py", "y.py", True),
        ("/y.py", "a/y.py", False),
        ("./y.py", "a/y.py", False),
        ("[id]", "app/[id]/page.tsx", True),
        ("src/**", "src/deep/a.py", True),
        ("src/*", "src/a.py", True),
        ("src/*", "src/deep/a.py", False),
        ("src/*.py", "src/deep/a.py", False),
        ("src/**/*.py", "src/a.py", True),
        ("src/**/*.py", "src/x/y/a.py", True),
        ("*.py", "a.py", True),
        ("*.py", "x/y/a.py", True),
        ("*.py", "a.pyc", False),
        ("/*.py", "x/a.py", False),
        ("/*.py", "a.py", True),
        ("**/tests", "a/b/tests/c/d.py", True),
        ("**/tests", "tests/d.py", True),
        ("test_?.py", "x/test_a.py", True),
        ("test_?.py", "x/test_/.py", False),
        ("[ab].py", "b.py", True),
        ("[!ab].py", "b.py", False),
        ("x[!a]y", "x/y", False),
        ("app/[id]", "app/[id]/page.tsx", True),
        ("[", "[", True),
        ("[z-a].py", "[z-a].py", True),
        ("a+(b).py", "a+(b).py", True),
        ("SRC", "src/a.py", False),
        (".", "anything/a.py", True),
        ("", "anything/a.py", True),
        ("**", "anything/a.py", True),
        ("src/a\nb*", "src/a\nbc", True),
        ("src/**.py", "src/x/a.py", True),
        ("a*b**/c.py", "axbxb/x/c.py", True),
        ("a*b**/c.py", "axbxc.py", False),
        ("*a*b/*c*d", "xaxbxb/ccxd", True),
        ("**/a*b/**/c", "ab/axb/x/c", True),
        ("**/**/a/**/**", "x/a/b", True),
    ],
)
def test_paths(glob: str, path: str, expected: bool) -> None:
    assert matches(Filter(paths=(glob,)), file(path)) is expected


@pytest.mark.parametrize("unit", ["*a", "**a", "**/*a", "**/a*/", "*?", "[a]*", "**", "**/"])
@pytest.mark.parametrize("path", ["a" * 200, "a/" * 100])
def test_no_glob_takes_long(unit: str, path: str) -> None:
    before = time.process_time()
    assert not matches(Filter(paths=(unit * 20 + "b",)), file(path))
    assert time.process_time() - before < 5


def test_values_are_joined_by_or_and_fields_by_and() -> None:
    where = Filter(paths=("*.py", "*.go"), languages=("go", "rust"))
    assert matches(where, file("x.go", "go"))
    assert not matches(where, file("x.py", "python"))
    assert not matches(where, file("x.rs", "rust"))


@pytest.mark.parametrize(
    ("name", "language", "expected"),
    [
        ("Python", "python", True),
        (" python ", "python", True),
        ("c", "cpp", False),
        ("typescript", "tsx", False),  # other names of a language are index/languages.py's
    ],
)
def test_languages(name: str, language: str, expected: bool) -> None:
    assert matches(Filter(languages=(name,)), file(language=language)) is expected


def test_repositories_are_compared_exactly() -> None:
    assert matches(Filter(repos=("r",)), file(repo="r"))
    assert not matches(Filter(repos=("R",)), file(repo="r"))


def test_only_an_empty_set_admits_nothing() -> None:
    assert not matches(Filter(only=frozenset()), file())
    assert matches(Filter(only=frozenset({"a.py"})), file())
    assert matches(Filter(), file())


@pytest.mark.parametrize(
    ("folder", "glob", "path", "expected"),
    [
        ("packages/app", "src/**", "packages/app/src/a.py", True),
        ("packages/app", "./src/*.py", "packages/app/src/a.py", True),
        ("packages/app", "packages/app/src/**", "packages/app/src/a.py", True),
        ("packages/app", "/src/**", "packages/app/src/a.py", False),
        ("packages/app", "src/**", "packages/other/src/a.py", False),
        ("app/[id]", "src/*.py", "app/[id]/src/a.py", True),
        ("app/[id]", "src/*.py", "app/i/src/a.py", False),
        ("", "src/**", "packages/app/src/a.py", False),
    ],
)
def test_globs_read_from_a_folder_too(folder: str, glob: str, path: str, expected: bool) -> None:
    assert matches(also_from(folder, Filter(paths=(glob,))), file(path)) is expected


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("/work/shop/src/a.py", "src/a.py", True),
        ("/work/shop/src/*.py", "src/a.py", True),
        ("/work/shop/src", "src/a.py", True),
        ("/work/shop", "src/a.py", True),
        ("/work/shop/", "src/a.py", True),
        ("/work/shop/a.py", "src/a.py", False),
        ("/work/shops/a.py", "a.py", False),
        ("/src", "src/a.py", True),
        ("work/shop/a.py", "a.py", False),
    ],
)
def test_globs_that_are_absolute_paths(glob: str, path: str, expected: bool) -> None:
    for folder in ("", "src"):
        where = also_from(folder, from_top("/work/shop", Filter(paths=(glob,))))
        assert matches(where, file(path)) is expected


@pytest.mark.parametrize(
    ("glob", "sign"),
    [
        ("!n.py", "excludes nothing"),
        ("{n,m}.py", "has braces"),
        ("src/**/*.{ts,tsx}", "has braces"),
        ("{{cookiecutter.name}}/a.py", ""),
        ("[!a]*.py", ""),
    ],
)
def test_what_globs_of_other_programs_can_is_not_passed_over(glob: str, sign: str) -> None:
    assert unsupported(glob).startswith(sign)
    assert bool(unsupported(glob)) is bool(sign)

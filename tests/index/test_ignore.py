"""Ignore rules against git itself, which is the only authority on them."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import repositories
from embedcode.index.ignore import Rules, verdict
from embedcode.index.walk import Found, Skipped, walk

NAMES = ["a", "b", "ab", "foo", "a.txt", "b.cfg", "foo.py", " x", "x ", "[q]", "!n", "#h", "a-b", "a\\b", "]", "9"]
PARTS = [
    *[
        "a",
        "b",
        "foo",
        " x",
        "*",
        "**",
        "***",
        "?",
        "*.txt",
        "f*",
        "*o*",
        "*.p?",
        "*.*",
        "?*",
        "*a*b*",
        "\\a",
        "\\[q\\]",
    ],
    *["[ab]", "[!a]*", "[^b]*", "[[:alpha:]]", "[[:digit:]]", "[a-f]oo", "*.[cp]*", "a[!x]b", "[[q]*", "[\\]q]"],
    *["[]]", "[]a]", "[a-]", "[--9]", "a[", "[[:nope:]]", "[b-a]", "[[:]", "[[::]]", "\\#h", "\\!n"],
]
# Never a character straight before "**/", the one known difference: git 2.39 reads that as if it stood alone.
HEADS = ["", "", "", "/", "!", "!", "!/", "#"]
TAILS = ["", "", "", "/", "/", "/**", "/*", " ", "\\ ", "\\", "\t", "\r"]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to make trees in, with a user's configuration of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    yield tmp_path


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return root


def kept_by_git(root: Path) -> set[str]:
    """What git would list or add: untracked files that no rule ignores."""
    if not (root / ".git").exists():
        subprocess.run(["git", "init", "-q", "--template=", root], check=True)
    command = ["git", "-C", root, "ls-files", "-z", "--others", "--cached", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True).stdout
    return {name.decode("utf-8", "surrogateescape") for name in listed.split(b"\0") if name}


def kept_by_us(root: Path) -> set[str]:
    return {found.path for found in walk(root) if isinstance(found, Found)}


def random_pattern(rng: random.Random) -> str:
    parts = "/".join(rng.choice(PARTS) for _ in range(rng.choice([1, 1, 1, 2, 2, 3])))
    return rng.choice(HEADS) + parts + rng.choice(TAILS)


def random_tree(rng: random.Random) -> dict[str, str]:
    files = {}
    for _ in range(25):
        files["/".join(rng.choice(NAMES) for _ in range(rng.randint(1, 4)))] = ""
    folders = {""} | {f"{path.rpartition('/')[0]}/" for path in files if "/" in path}
    # A name is a file or a folder, not both.
    files = {path: text for path, text in files.items() if f"{path}/" not in folders and not has_file(path, files)}
    for folder in rng.sample(sorted(folders), min(len(folders), 3)):
        if not has_file(folder + "x", files) and folder.rstrip("/") not in files:
            files[f"{folder}.gitignore"] = "\n".join(random_pattern(rng) for _ in range(rng.randint(1, 5)))
    return files


def has_file(path: str, files: Mapping[str, str]) -> bool:
    """Whether a file stands where `path` needs a folder."""
    parts = path.split("/")
    return any("/".join(parts[:depth]) in files for depth in range(1, len(parts)))


def test_random_trees_are_cut_as_git_cuts_them(git: Path) -> None:
    removed = 0
    root = git / "tree"
    subprocess.run(["git", "init", "-q", "--template=", root], check=True)
    for seed in range(80):
        rng = random.Random(seed)
        files = random_tree(rng)
        tree(root, files)
        tree(root, {".git/info/exclude": "\n".join(random_pattern(rng) for _ in range(2))})
        tree(git, {"config/git/ignore": random_pattern(rng)})
        expected = kept_by_git(root)
        assert kept_by_us(root) == expected, f"seed {seed}"
        removed += expected != files.keys()
        for name in {path.partition("/")[0] for path in files}:
            shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()
    assert removed > 40, "the patterns should bite, or the comparison says nothing"


@pytest.mark.parametrize(
    ("patterns", "paths"),
    [
        ("*.cfg\n!keep.cfg\n", "a.cfg keep.cfg d/a.cfg d/keep.cfg"),
        ("build/\n!build/keep.txt\n", "build/keep.txt build/x src/build"),  # a parent is excluded: no way back
        ("build/*\n!build/keep.txt\n", "build/keep.txt build/x"),
        ("a/**\n!a/keep\n", "a/keep a/x a/b/keep"),
        ("/only-top\n", "only-top d/only-top"),
        ("d/mid\n", "d/mid e/d/mid"),
        ("**/any/x\n", "any/x d/any/x d/e/any/x any/y"),
        ("a/**/z\n", "a/z a/b/z a/b/c/z a/b/zz"),
        ("*/x\n", "x d/x d/e/x"),
        ("a*b/x\n", "ab/x acb/x a/b/x"),
        ("\\#hash\n#comment\n\\!bang\n", "#hash #comment !bang bang"),
        ("trail \nkept\\ \ntab\t\n", "trail kept tab 'tab\t'"),
        ("crlf\r\ndir/\r\n", "crlf dir/x other"),
        ("\ufefffirst\n", "first second"),
        ("[a-c].x\n[!a-c].y\n[[:digit:]].z\n", "a.x d.x a.y d.y 1.z a.z"),
        ("a[/]b\na[!x]b\n", "a/b axb ayb"),
        ("*\n!*/\n!*.py\n", "a.py b.txt d/c.py d/e.txt"),
        ("foo\\\n[\n/\n!\n//\n", "foo d/foo ["),
        ("d/\n", "d e/d/x"),  # the pattern is for folders; the file d stays
        ("Case\n", "case Case"),
        ("été.txt\n", "été.txt ete.txt"),
        ("x***\n**\n!**/\n!*.c\n", "xa.c x/b.c d/e.c d/f"),
    ],
)
def test_rules_a_user_writes(git: Path, patterns: str, paths: str) -> None:
    root = tree(git / "root", {name.strip("'"): "" for name in paths.replace("'tab\t'", "tab\t").split(" ")})
    tree(root, {".gitignore": patterns})
    assert kept_by_us(root) == kept_by_git(root)


def test_nested_rules_decide_over_outer_ones_and_only_below_themselves(git: Path) -> None:
    root = tree(
        git / "root",
        {
            ".gitignore": "*.cfg\n/sub/top.txt\n",
            "sub/.gitignore": "!important.cfg\n/here\n",
            "sub/important.cfg": "",
            "sub/other.cfg": "",
            "sub/top.txt": "",
            "sub/here": "",
            "sub/deep/here": "",
            "sub/deep/important.cfg": "",
            "important.cfg": "",
        },
    )
    expected = {".gitignore", "sub/.gitignore", "sub/important.cfg", "sub/deep/here", "sub/deep/important.cfg"}
    assert kept_by_us(root) == kept_by_git(root) == expected


def test_the_exclude_file_of_a_worktree_is_that_of_its_repository(git: Path) -> None:
    main = tree(git / "main", {"x.py": "", "scratch.py": ""})
    repositories.git(main, "init", "-q")
    repositories.git(main, "commit", "-q", "--allow-empty", "-m", "m")
    repositories.git(main, "worktree", "add", "-q", str(git / "wt"))
    tree(main, {".git/info/exclude": "scratch.py\n"})
    worktree = tree(git / "wt", {"y.py": "", "scratch.py": ""})
    assert (worktree / ".git").is_file()
    assert kept_by_us(worktree) == kept_by_git(worktree) == {"y.py"}


def test_rules_hold_without_git_and_without_a_repository(git: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    root = tree(git / "root", {".gitignore": "out/\n", "out/x.py": "", "a.py": ""})
    assert kept_by_us(root) == {".gitignore", "a.py"}


def test_a_reason_names_the_file_and_the_pattern(git: Path) -> None:
    root = tree(git / "root", {"docs/.gitignore": "# built\n_build/\n", "docs/_build/x.html": ""})
    assert Skipped("docs/_build/", "ignored by docs/.gitignore: _build/") in set(walk(root))


def test_double_star_glued_to_a_name_is_a_single_star_as_the_manual_says() -> None:
    rules = Rules("foo**/bar", ".gitignore")
    assert rules.match("foox/bar", "bar", False) is not None
    assert rules.match("foo/x/bar", "bar", False) is None


def test_hostile_patterns_do_not_hang() -> None:
    rules = Rules("*a*a*a*a*a*a*a*a*a*a*a*a*b\n" + "**/a/" * 40 + "b\n" + "x" + "/**/*" * 40 + "/y\n", ".gitignore")
    started = time.perf_counter()
    assert verdict([rules], "a" * 250, "a" * 250, False) is None
    assert verdict([rules], "a/" * 200 + "c", "c", False) is None
    assert verdict([rules], "x/" * 200 + "c", "c", False) is None
    assert time.perf_counter() - started < 1

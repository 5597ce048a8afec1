"""Histories: commits with the functions and chunks they edit, as those were before."""

from __future__ import annotations

import json
import os
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from embedcode.data import history
from embedcode.data.history import Issues, Mined, message_reason, mine, read_issues, said
from embedcode.engine.tokens import TextTokenizer
from embedcode.errors import UsageError
from embedcode.model.passage import passage
from embedcode.types import Pair

MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions: The above copyright notice and
this permission notice shall be included in all copies or substantial portions of the Software. THE SOFTWARE IS PROVIDED
"AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT
HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
OLD = '''"""Shapes."""


class Shape:
    def width(self):
        return self.right - self.left

    def area(self, scale):
        """Compute the area."""
        total = self.width() * scale
        return total


def outside(value):
    return value + 1
'''


@pytest.fixture
def tokenizer() -> TextTokenizer:
    return history.tokenizer()


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def commit(root: Path, message: str, **files: str) -> str:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_py", ".py").replace("_md", ".md")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(root, "add", ".")
    git(root, "commit", "-qm", message)
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "shapes"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    commit(root, "First version of the shapes library", src__shape_py=OLD, README_md="# a\n")
    return root


def found(root: Path, tokenizer: TextTokenizer, issues: Issues | None = None) -> tuple[list[Pair], Mined]:
    mined = Mined(root.name)
    return list(mine(root, tokenizer, mined, issues, "MIT")), mined


def test_a_commit_is_paired_with_what_it_edits_as_it_was(repository: Path, tokenizer: TextTokenizer) -> None:
    new = OLD.replace("* scale\n", "* scale * self.height()\n")
    message = "Take the height into account for areas (#12)\n\nIt was left out.\n\nSigned-off-by: A <a@example.org>"
    name = commit(repository, message, src__shape_py=new)
    (functions, chunks), mined = found(repository, tokenizer)
    assert functions.query == chunks.query == "Take the height into account for areas\n\nIt was left out."
    assert functions.positives == ("def area(self, scale):\n    total = self.width() * scale\n    return total",)
    assert chunks.positives == (f"src/shape.py\n{OLD}".rstrip(),)
    assert (functions.task, chunks.task) == ("commit", "commit-chunk")
    assert functions.source == f"git:shapes@{name[:12]}"
    assert (functions.language, functions.licence) == ("python", "MIT")
    assert (mined.commits, mined.used, dict(mined.skipped)) == (2, 1, {history.MERGE: 1})


def test_lines_that_are_only_added_belong_to_the_function_around_them(
    repository: Path, tokenizer: TextTokenizer
) -> None:
    new = OLD.replace("        return self.right", "        self.check()\n        return self.right")
    commit(repository, "Check a shape before its width is taken", src__shape_py=new)
    (functions, _), _ = found(repository, tokenizer)
    assert functions.positives == ("def width(self):\n    return self.right - self.left",)


def test_a_chunk_holds_512_tokens_with_its_path_and_only_edited_ones_count(
    repository: Path, tokenizer: TextTokenizer
) -> None:
    lines = [f"value_{i} = compute({i})\n" for i in range(400)]
    commit(repository, "Many values for the big table", src__big_py="".join(lines))
    lines[200] = "value_200 = compute(-200)\n"
    commit(repository, "Correct the sign of one value in the table", src__big_py="".join(lines))
    pairs, _ = found(repository, tokenizer)
    (chunks,) = [pair for pair in pairs if pair.task == "commit-chunk"]
    (text,) = chunks.positives
    assert text.startswith("src/big.py\n") and "value_200 = compute(200)" in text
    assert 480 < len(tokenizer.places("", text)) <= 512


def test_issues_are_the_query_where_they_are_at_hand(
    repository: Path, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    new = OLD.replace("* scale\n", "* scale * 2\n")
    first = commit(repository, "Fix #7", src__shape_py=new)
    commit(repository, "Fixes", src__shape_py=OLD)
    file = tmp_path / "issues.jsonl"
    second = git(repository, "rev-parse", "--short=10", "HEAD")
    rows = [
        b'{"text": "Areas are half of what they should be", "number": 7}', b"broken", b'{"text": "x"}',
        b'{"text": "\xff", "number": 1}', b"[" * 100_000, b"7", b'{"text": "x", "number": 1, "repository": 2}',
        json.dumps({"text": "Areas are doubled now", "commit": second}).encode(),
    ]  # fmt: skip
    file.write_bytes(b"\n".join(rows))
    issues, wrong = read_issues(file)
    assert [message.partition(": ")[0] for message in wrong] == [f"{file}, line {number}" for number in range(2, 8)]
    pairs, _ = found(repository, tokenizer, issues)
    asked = {(pair.task, pair.query) for pair in pairs}
    assert ("issue", "Areas are doubled now") in asked
    assert ("issue-chunk", "Areas are half of what they should be") in asked
    assert any(first[:12] in pair.source for pair in pairs)


@pytest.mark.parametrize("length", [7, 11, 40, 63, 64])
def test_an_issue_names_its_commit_by_any_beginning_of_the_hash(length: int) -> None:
    name = "0123456789abcdef" * 4
    assert Issues({name[:length]: "It fails"}).of(name, "") == "It fails"


def test_issues_are_ended_by_line_breaks_alone(tmp_path: Path) -> None:
    text = "One\u2028two\u2029three\x85four"
    (tmp_path / "issues.jsonl").write_text(f'{{"text": "{text}", "number": 7}}\r\n', "utf-8")
    assert read_issues(tmp_path / "issues.jsonl") == (Issues({}, {("", "7"): text}), [])


def test_an_issue_is_of_its_repository(tmp_path: Path) -> None:
    rows = [{"text": name, "number": 7, "repository": name} for name in ("a/shop", "b/shop")]
    (tmp_path / "issues.jsonl").write_text("\n".join(map(json.dumps, rows)))
    issues, _ = read_issues(tmp_path / "issues.jsonl")
    assert [issues.of("", "Fix #7", name) for name in ("a/shop", "b/shop", "c/shop")] == ["a/shop", "b/shop", ""]
    assert issues.of("", "Take over the fix of b/shop#7", "a/shop") == ""


def test_a_repository_cannot_have_its_own_programs_run(repository: Path, tokenizer: TextTokenizer) -> None:
    """git checks signatures by a program of its configuration, where that says to show them."""
    evil = repository / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {repository / 'was-run'}\n")
    evil.chmod(0o755)
    text = git(repository, "cat-file", "commit", "HEAD").replace(
        "\n\n", "\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\n", 1
    )
    made = ["git", "hash-object", "-t", "commit", "-w", "--stdin"]
    signed = subprocess.run(made, cwd=repository, input=text, check=True, capture_output=True, text=True).stdout.strip()
    git(repository, "update-ref", "HEAD", signed)
    for name, value in (("gpg.program", str(evil)), ("log.showSignature", "true")):
        git(repository, "config", name, value)
    git(repository, "log", "-1")
    assert (repository / "was-run").exists()  # as a person's own git does
    (repository / "was-run").unlink()
    found(repository, tokenizer)
    assert not (repository / "was-run").exists()


def test_what_says_or_edits_nothing_is_skipped_and_counted(repository: Path, tokenizer: TextTokenizer) -> None:
    commit(repository, "wip", src__shape_py=OLD + "\n\n")
    commit(repository, "Describe how shapes are to be used", README_md="# b\n")
    commit(repository, "Put many small values into files of their own", **{f"m{i}_py": "a = 1\n" for i in range(12)})
    commit(repository, "Change all of the small values at once", **{f"m{i}_py": "a = 2\n" for i in range(12)})
    commit(repository, "Another test of the width of shapes", tests__test_shape_py="def test(): pass\n")
    pairs, mined = found(repository, tokenizer)
    assert pairs == []
    assert mined.skipped == {history.MERGE: 1, history.MESSAGE: 1, history.NO_CODE: 3, history.MANY: 1}


def test_files_that_are_moved_as_they_are_edited_count_under_their_path_of_before(
    repository: Path, tokenizer: TextTokenizer
) -> None:
    git(repository, "mv", "src/shape.py", "src/figure.py")
    commit(repository, "Take areas to the scale of their figure", src__figure_py=OLD.replace("* scale\n", "/ scale\n"))
    (functions, chunks), _ = found(repository, tokenizer)
    assert functions.positives == ("def area(self, scale):\n    total = self.width() * scale\n    return total",)
    assert chunks.positives == (f"src/shape.py\n{OLD}".rstrip(),)


def test_names_that_git_writes_in_quotes(repository: Path, tokenizer: TextTokenizer) -> None:
    """All beyond ASCII are, unless it is asked otherwise; one that holds a quote is left out and counted."""
    names = ["größe.py", os.fsdecode(b"src/\xff.py"), 'a"b.py']
    for text in (OLD, OLD.replace("* scale\n", "/ scale\n")):
        for name in names:
            (repository / name).write_text(text)
        commit(repository, "Divide the area of figures by their scale")
    pairs, mined = found(repository, tokenizer)
    assert [text.partition("\n")[0] for text in pairs[1].positives] == ["größe.py", "src/?.py"]
    assert mined.left == {history.QUOTED: 1}


def test_an_edit_in_too_many_places_is_skipped_and_counted(repository: Path, tokenizer: TextTokenizer) -> None:
    words = "first second third fourth " * 30
    steps = [f"def step_{n}(value):\n    # {words}\n    return value + {n}\n\n\n" for n in range(40)]
    many = "".join(steps)
    commit(repository, "Add the steps that shapes are made by", steps_py=many)
    commit(repository, "Count the steps of shapes from one on", steps_py=many.replace("value + ", "value + 1 + "))
    _, mined = found(repository, tokenizer)
    assert mined.skipped[history.MANY_PLACES] == 1
    assert mined.commits == mined.used + mined.skipped.total()


@pytest.mark.parametrize(("fails", "why"), [("os._exit(11)", "crashed"), ("1 / 0", "failed (ZeroDivisionError)")])
def test_a_parser_that_ends_or_fails_costs_the_functions_of_a_file(
    repository: Path, tokenizer: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str], fails: str, why: str,
) -> None:  # fmt: skip
    """It ended `data history`, and `data collect` at the same repository each time."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "crashing_history.py").write_text(
        "import os\nfrom embedcode.data import history\nbefore = history._edited\n"
        f"def inner(file):\n    return {fails} if 'crash' in file.path else before(file)\n"
        "def edited(file):\n    history._edited = inner\n    return history.edited(file)\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "modules"), os.environ.get("PYTHONPATH", "")]))
    from crashing_history import edited

    monkeypatch.setattr(history, "edited", edited)
    commit(repository, "Another file to crash at", src__crash_py=OLD)
    new = OLD.replace("* scale\n", "* scale * self.height()\n")
    commit(repository, "Take the height into account for areas", src__shape_py=new, src__crash_py=new)
    (functions, chunks), mined = found(repository, tokenizer)
    assert functions.positives == ("def area(self, scale):\n    total = self.width() * scale\n    return total",)
    assert {one.partition("\n")[0] for one in chunks.positives} == {"src/shape.py", "src/crash.py"}
    assert dict(mined.left) == {f"parser {why}": 1}
    assert "Traceback" not in capfd.readouterr().err


def test_files_under_another_licence_are_left_out_and_counted(repository: Path, tokenizer: TextTokenizer) -> None:
    foreign = f"# This is free software under the GNU General Public License, version 3.\n{OLD}"
    commit(repository, "Add the shapes of somebody else", src__foreign_py=foreign)
    commit(
        repository,
        "Take twice the scale for every area",
        src__shape_py=OLD.replace("* scale\n", "* scale * 2\n"),
        src__foreign_py=foreign.replace("* scale\n", "* scale * 2\n"),
    )
    commit(repository, "Take one more from outside than before", src__foreign_py=foreign.replace("+ 1", "+ 2"))
    pairs, mined = found(repository, tokenizer)
    (functions, chunks) = pairs
    assert len(functions.positives) == len(chunks.positives) == 1 and chunks.positives[0].startswith("src/shape.py\n")
    assert mined.left == {history.FOREIGN_HEADER: 2} and mined.skipped[history.FOREIGN_HEADER] == 1
    own = list(mine(repository, tokenizer, Mined("shapes"), licence="GPL-3.0-only"))
    assert len(own) == 4, "one's own code may be under any licence"


def test_a_licence_that_the_repository_does_not_grant_is_refused(repository: Path, tokenizer: TextTokenizer) -> None:
    commit(repository, "Take twice the scale for every area", src__shape_py=OLD.replace("* scale\n", "* scale * 2\n"))
    assert len(found(repository, tokenizer)[0]) == 2, "where it has no licence file its owner knows"
    (repository / "LICENSE").write_text("GNU GENERAL PUBLIC LICENSE, version 3")
    commit(repository, "Say under which licence the shapes are")
    pairs, mined = found(repository, tokenizer)
    assert pairs == [] and mined.refused == "licence not of the allow-list: LICENSE does not grant MIT"
    assert len(list(mine(repository, tokenizer, Mined("shapes"), licence="GPL-3.0-only"))) == 2


def test_code_is_taken_under_the_licence_that_it_had_then(repository: Path, tokenizer: TextTokenizer) -> None:
    """What was relicensed later was stamped with the licence of HEAD, and so was a folder that is gone."""
    gpl = "GNU GENERAL PUBLIC LICENSE, version 3"
    commit(repository, "Say under which licence the shapes are", LICENSE=gpl, engine__COPYING=gpl, engine__e_py=OLD)
    twice, thrice = (OLD.replace("* scale\n", f"* scale * {times}\n") for times in (2, 3))
    commit(repository, "Take twice the scale for every area", src__shape_py=twice)
    commit(repository, "Put the shapes under another licence", LICENSE=MIT)
    commit(repository, "Take twice the scale for every engine", engine__e_py=twice)
    commit(repository, "Take thrice the scale for every area", src__shape_py=thrice)
    git(repository, "rm", "-rq", "engine")
    git(repository, "commit", "-qm", "Leave the engine to somebody else")
    commit(repository, "Have parts whose licence is said later", part__p_py=OLD)
    commit(repository, "Take twice the scale for every part", part__p_py=twice)
    commit(repository, "Say under which licence the parts are", part__COPYING=gpl)
    pairs, mined = found(repository, tokenizer)
    assert {pair.query for pair in pairs} == {"Take thrice the scale for every area"}
    assert mined.skipped[history.OTHERWISE] == 1 and mined.skipped[history.FOREIGN_FOLDER] == 2
    assert len(list(mine(repository, tokenizer, Mined("shapes")))) == 8, "who claims no licence is not asked for one"


def test_code_from_before_there_was_a_licence_is_unknown(repository: Path, tokenizer: TextTokenizer) -> None:
    """It was taken under the one that came later."""
    for times in (2, 3):
        new = OLD.replace("* scale\n", f"* scale * {times}\n")
        commit(repository, f"Take {times} times the scale for every area", src__shape_py=new)
        commit(repository, "Say under which licence the shapes are", LICENSE=MIT, README_md=f"# {times}\n")
    pairs, mined = found(repository, tokenizer)
    assert {pair.query for pair in pairs} == {"Take 3 times the scale for every area"}
    assert mined.skipped[history.UNSAID] == 1 and not mined.skipped[history.OTHERWISE]


def test_licences_are_looked_up_only_where_they_change(
    repository: Path, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(repository, "Say under which licence the shapes are", LICENSE=MIT)
    for times in range(5):
        commit(repository, f"Scale every area {times} times", src__shape_py=OLD.replace("* scale\n", f"* {times}\n"))
    listed = list[str]()
    files = history.git.Repository.files
    monkeypatch.setattr(
        history.git.Repository, "files", lambda self, commit: listed.append(commit) or files(self, commit)
    )
    assert len(found(repository, tokenizer)[0]) == 10 and listed == ["HEAD"]


def test_code_that_is_called_a_licence_is_none(repository: Path, tokenizer: TextTokenizer) -> None:
    (repository / "src" / "License.tsx").write_text("export const License = () => <p>MIT</p>;\n")
    (repository / "LICENSE").write_text(MIT, "utf-16")
    (repository / "LICENSE.pdf").write_bytes(b"%PDF\0\1\2")
    commit(repository, "Show the licence and its text")
    commit(repository, "Take twice the scale for every area", src__shape_py=OLD.replace("* scale\n", "* scale * 2\n"))
    pairs, mined = found(repository, tokenizer)
    assert len(pairs) == 2 and not mined.left and not mined.refused


def test_an_edited_line_is_of_the_chunk_that_holds_its_words(tokenizer: TextTokenizer) -> None:
    """A run of 512 tokens ends where the next token begins: behind the indentation of a line that lies in the next."""
    text = "".join(f"    total_{i} = first_{i} + second_{i}\n" for i in range(200))
    rows, lines = text.split("\n")[:-1], history._Lines(tokenizer)
    for row in range(200):
        places = list(history._chunks("a.py", text, [(row, row)], lines))
        words = {*rows[row].split()} - {"=", "+"}
        assert places and all(words & {*place.split()} for place in places), row


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n\t "])
def test_chunks_end_where_the_tokens_of_the_whole_file_say(tokenizer: TextTokenizer, end: str) -> None:
    words = ["größe = Σ[i]", "", "x" * 150, "日本語のコメント", "\u2028 a\u0301 e\u0000f", "[SEP] refresh(token)"]
    text = end.join(f"{word} {i * i}" for i in range(150) for word in words)
    firsts = [first for first, last in tokenizer.places("", text) if last]
    room = 512 - len(tokenizer.places("", "src/a.py\n"))
    cuts = [0, *firsts[room::room], len(text)]
    expected = [passage("src/a.py", "", text[a:b]) for a, b in pairwise(cuts)]
    assert len(expected) > 5
    whole = [(0, text.count("\n"))]
    assert list(history._chunks("src/a.py", text, whole, history._Lines(tokenizer))) == expected


@pytest.mark.parametrize("byte", ["\x01", "\x02", "\x1e"])
def test_a_message_may_hold_any_byte(repository: Path, tokenizer: TextTokenizer, byte: str) -> None:
    new = OLD.replace("* scale\n", "* scale * 2\n")
    message = f"Take twice{byte} the scale{byte}{byte} for every area"
    commit(repository, message, src__shape_py=new)
    pairs, mined = found(repository, tokenizer)
    assert {pair.query for pair in pairs} == {message}
    assert (mined.commits, mined.used) == (2, 1)


def test_a_message_cannot_hold_a_nul(repository: Path, tokenizer: TextTokenizer) -> None:
    """It can in an object that git did not write: git reads the words before it."""
    new = OLD.replace("* scale\n", "* scale * 2\n")
    head = commit(repository, "Take twice the scale for every area", src__shape_py=new)
    raw = subprocess.run(["git", "cat-file", "commit", head], cwd=repository, check=True, capture_output=True).stdout
    raw = raw.replace(b"every area", b"every area\n\nand\0" + b"f" * 40 + b"\0\0more")
    write = ["git", "hash-object", "-t", "commit", "-w", "--literally", "--stdin"]
    made = subprocess.run(write, cwd=repository, input=raw, check=True, capture_output=True).stdout.decode().strip()
    git(repository, "update-ref", "refs/heads/main", made)
    pairs, mined = found(repository, tokenizer)
    assert {pair.query for pair in pairs} == {"Take twice the scale for every area\n\nand"}
    assert mined.commits == 2


def test_a_bare_clone_is_read_too_and_a_shallow_one_is_refused(
    repository: Path, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    commit(repository, "Take twice the scale for every area", src__shape_py=OLD.replace("* scale\n", "* scale * 2\n"))
    git(tmp_path, "clone", "-q", "--bare", "shapes", "bare.git")
    assert len(found(tmp_path / "bare.git", tokenizer)[0]) == 2
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository}", "shallow")
    with pytest.raises(UsageError, match=r"shallow is a shallow clone: .* run `git fetch --unshallow` there"):
        found(tmp_path / "shallow", tokenizer)
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="none"):
        found(tmp_path / "none", tokenizer)


def test_what_an_evaluation_uses_is_never_mined(repository: Path, tokenizer: TextTokenizer) -> None:
    git(repository, "remote", "add", "origin", "https://example.org/django/django.git")
    pairs, mined = found(repository, tokenizer)
    assert pairs == [] and mined.refused.startswith("never trained on")


@pytest.mark.parametrize(
    ("message", "text", "taken"),
    [
        ("fix(core): handle empty lists in the sorter", "handle empty lists in the sorter", True),
        ("[ENH] Add a way to sort by two columns (#31)", "Add a way to sort by two columns", True),
        (
            "[PR #9/ee53d65 backport][3.14] Drop each copy of a header\n\n"
            "**This is a backport of PR #9 as merged\n(ee53d65).**\n\nIt was sent twice.",
            "Drop each copy of a header\n\nIt was sent twice.",
            True,
        ),
        ("[stable][3.14] Drop each copy of a header", "Drop each copy of a header", True),
        ("This is a backport of the new pool\n\nSigned-off-by: A <a@b>", "This is a backport of the new pool", True),
        (
            "Close sessions in order\n\nBackport to 3.14 needs the guard, because of x.",
            "Close sessions in order\n\nBackport to 3.14 needs the guard, because of x.",
            True,
        ),
        ("Backport of the drop of each copy of a header", "Backport of the drop of each copy of a header", True),
        ("Bump version to 3.2 for the release", "Bump version to 3.2 for the release", False),
        ("Merge branch 'main' of elsewhere into here", "Merge branch 'main' of elsewhere into here", False),
        ("fix", "fix", False),
        ("Fix typo in the name of a function", "Fix typo in the name of a function", False),
    ],
)
def test_messages(message: str, text: str, taken: bool) -> None:
    assert said(message) == text
    assert (message_reason(text) is None) is taken

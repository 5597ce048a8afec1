"""The verbs on a real repository: what is found, said, left running and deleted."""

from __future__ import annotations

import errno
import io
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from embedcode import Index
from embedcode.errors import StoreError
from embedcode.index import walk
from embedcode.index.locks import Lock
from repositories import git, write

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
OnTerminal = Callable[..., tuple[int, str]]
FILES = {
    "shop/session.py": '''"""Sessions of visitors."""


def invalidate_session(store, session_id):
    """Forget a visitor's session, so that they have to log in again."""
    store.delete(session_id)
    store.publish("session.closed", session_id)
''',
    "shop/prices.py": '''def gross_price(net, rate):
    """Add value added tax to a net price."""
    return round(net * (1 + rate), 2)


def net_price(gross, rate):
    """Take value added tax out of a gross price."""
    return round(gross / (1 + rate), 2)
''',
    "web/retry.js": """// Call again with growing pauses.
export async function retryWithBackoff(call, attempts) {
  for (let attempt = 0; attempt < attempts; attempt++) {
    try { return await call(); } catch { await sleep(2 ** attempt * 100); }
  }
}
""",
    "README.md": "# Shop\n\nHow to install the shop and log in.\n",
    "settings.toml": "[server]\nport = 8000\n",
}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    root = write(tmp_path / "shop", FILES)
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "all")
    return root


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """More chunks than one search embeds on its way."""
    return write(
        tmp_path / "large",
        {
            f"part{number}.py": f'def step_{number}(value):\n    """Step {number} of the computation."""\n'
            + "".join(f"    value = value * {number} + {line}\n" for line in range(2))
            for number in range(280)
        },
    )


def answer(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    assert done.stderr == b""
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def paths(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    return [hit["path"] for hit in answer(done)["hits"]]


def test_a_search_in_a_pipe(call: Run, shop: Path) -> None:
    done = call("search", "where are sessions invalidated?", cwd=shop)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith(" 1  shop/session.py:")
    assert "       4  def invalidate_session(store, session_id):" in lines
    assert "\x1b" not in done.stdout.decode()


def test_json_says_where_and_what(call: Run, shop: Path) -> None:
    found = answer(call("search", "add tax to a net price", str(shop), "--json", "-k", "1"))
    assert found["query"] == "add tax to a net price"
    assert found["root"] == str(shop)
    (hit,) = found["hits"]
    assert hit["path"] == "shop/prices.py"
    assert hit["language"] == "python"
    lines = FILES["shop/prices.py"].splitlines()[hit["start_line"] - 1 : hit["end_line"]]
    assert hit["snippet"].rstrip("\n") == "\n".join(lines)
    assert hit["why"]
    indexed = found["indexed"]
    assert indexed["files"] == len(FILES)
    assert indexed["embedded"] == indexed["chunks"]
    assert 0 <= indexed["age_seconds"] < 30
    assert found["notes"] == []


def test_no_hit_is_exit_code_1(call: Run, shop: Path) -> None:
    done = call("search", "session", "--path", "nowhere/**", cwd=shop)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"no hits" in done.stderr
    as_json = call("search", "session", "--path", "nowhere/**", "--json", cwd=shop)
    assert as_json.returncode == 1
    assert answer(as_json)["hits"] == []
    assert answer(as_json)["notes"] == [done.stderr.decode().rstrip("\n")]


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("node_modules", ["dependency or vendored folder", "!/node_modules/"]),
        ("node_modules/left-pad/lib", ["dependency or vendored folder", "!/node_modules/"]),
        ("tables", ["data, media or binary format", "!/tables/prices.csv"]),
        (".ssh", ["looks like credentials"]),
        ("build", ["ignored by", "!/build/"]),
    ],
)
def test_a_folder_that_was_left_out_is_an_error_with_the_cure(
    call: Run, shop: Path, path: str, parts: list[str]
) -> None:
    left_out = ("node_modules/left-pad/lib/index.js", "tables/prices.csv", ".ssh/config", "build/a.py")
    write(shop, dict.fromkeys(left_out, "session = 1\n") | {".gitignore": "build/\n"})
    done = call("search", "session", str(shop / path))
    assert (done.returncode, done.stdout) == (2, b"")
    for part in (str(shop / path), *parts):
        assert part in done.stderr.decode()
    assert list(answer(call("search", "session", str(shop / path), "--json"))) == ["error"]


def test_a_folder_beside_one_that_was_left_out_is_searched(call: Run, shop: Path) -> None:
    write(shop, {".gitignore": "lib\n", "lib": "session = 1\n", "library/a.py": "session = 2\n"})
    assert paths(call("search", "session", str(shop / "library"), "--json")) == ["library/a.py"]
    (shop / "libempty").mkdir()
    done = call("search", "session", str(shop / "libempty"))
    assert done.returncode == 1
    assert f"no file of the index lies in {shop / 'libempty'}" in done.stderr.decode()


def test_filters(call: Run, shop: Path) -> None:
    def only(*arguments: str) -> set[str]:
        return set(paths(call("search", "log in with a session", "--json", *arguments, cwd=shop)))

    assert only("--lang", "js") == {"web/retry.js"}
    assert only("--path", "shop") == {"shop/session.py", "shop/prices.py"}
    assert only("--content", "docs") == {"README.md"}
    assert only("--content", "docs", "--content", "config") == {"README.md", "settings.toml"}
    assert only("--lang", "python", "--path", "**/s*.py") == {"shop/session.py"}
    assert {path.split("/")[0] for path in paths(call("search", "session", str(shop / "shop"), "--json"))} == {"shop"}


def test_globs_are_read_from_the_folder_that_is_searched_too(call: Run, tmp_path: Path) -> None:
    app = {"a.py": "def renew_session(store):\n    return store.renew()\n", "b.py": "def end_session():\n    pass\n"}
    root = write(tmp_path / "mono", {f"packages/app/src/{name}": text for name, text in app.items()} | {"x.py": ""})
    git(root, "init", "-q")
    folder = root / "packages" / "app"
    found = {"packages/app/src/a.py", "packages/app/src/b.py"}
    for glob in ("src/**", "./src/*.py", "packages/app/src/**"):
        assert set(paths(call("search", "session", "--path", glob, "--json", cwd=folder))) == found
        near = call("related", "src/a.py:1", "--path", glob, "--json", cwd=folder)
        assert paths(near) == ["packages/app/src/b.py"]
    many = [option for i in range(99) for option in ("--path", f"none{i}")]
    for asked in (("search", "session"), ("related", "src/a.py:1")):
        assert paths(call(*asked, *many, "--path", "src/b.py", "--json", cwd=folder)) == ["packages/app/src/b.py"]
    nothing = call("search", "wombat", "--mode", "lexical", "--path", "src/**", cwd=folder)
    assert b"try other words" in nothing.stderr
    assert paths(call("search", "session", "--path", "/src/**", "--json", cwd=folder)) == []


def test_languages_may_come_with_commas_and_a_misspelt_variable_is_named(
    call: Run, shop: Path, environment: dict[str, str]
) -> None:
    environment["EMBEDCODE_THREAD"] = "1"
    done = call("search", "session price retry", "--lang", "python,javascript", cwd=shop)
    assert done.returncode == 0
    assert b"EMBEDCODE_THREAD sets nothing: did you mean EMBEDCODE_THREADS?" in done.stderr
    assert b".py:" in done.stdout and b"retry.js:" in done.stdout and b"README.md" not in done.stdout


def test_globs_may_start_where_the_person_is_as_hits_are_printed_there(call: Run, shop: Path) -> None:
    for cwd, glob, place in (
        (shop.parent, "shop/shop/*.py", "shop"),
        (shop.parent, "./shop/shop", "shop"),
        (shop / "web", "../shop/*.py", ".."),
    ):
        done = call("search", "forget a session", place, "--path", glob, cwd=cwd)
        assert done.returncode == 0, done.stderr
        shown = f"{'../' if place == '..' else 'shop/'}shop/session.py:"
        assert done.stdout.decode().split()[1].startswith(shown)
    near = call("related", "retry.js:3", "--json", "--path", "../shop", cwd=shop / "web")
    assert set(paths(near)) == {"shop/prices.py", "shop/session.py"}


def test_globs_that_are_absolute_paths_or_of_other_programs(call: Run, shop: Path) -> None:
    given = ("search", "price", "--json", "--path")
    assert paths(call(*given, str(shop / "shop" / "prices.py"), cwd=shop)) == ["shop/prices.py"]
    assert paths(call(*given, f"{shop}/**/pr*.py", cwd=shop / "shop")) == ["shop/prices.py"]
    near = call("related", "retry.js:3", "--json", "--path", f"{shop}/shop", cwd=shop / "web")
    assert set(paths(near)) == {"shop/prices.py", "shop/session.py"}
    for glob, why in (("!prices.py", "excludes nothing"), ("shop/{prices,session}.py", "has braces")):
        refused = call(*given, glob, cwd=shop)
        assert refused.returncode == 2
        assert f"the path {glob!r} {why}" in json.loads(refused.stdout)["error"]


def test_a_repository_that_there_is_not_is_named_with_those_that_there_are(call: Run, shop: Path) -> None:
    (shop / "web" / ".git").mkdir()
    assert set(paths(call("search", "retry", "--repo", "web", "--json", cwd=shop))) == {"web/retry.js"}
    for arguments in (["search", "retry"], ["related", "shop/session.py:4"]):
        done = call(*arguments, "--repo", "wbe", cwd=shop)
        assert (done.returncode, done.stdout) == (2, b"")
        assert f"there is no repository wbe in the index of {shop}: give one of shop, web." in done.stderr.decode()


def test_since_a_revision(call: Run, shop: Path, large: Path) -> None:
    nothing = call("search", "price", "--since", "HEAD", "--json", cwd=shop)
    assert (nothing.returncode, answer(nothing)["hits"]) == (1, [])
    (shop / "new.py").write_text("def cheapest_price(prices):\n    return min(prices)\n")
    assert paths(call("search", "price", "--since", "HEAD", "--json", cwd=shop)) == ["new.py"]
    unknown = call("search", "price", "--since", "no-such-branch", cwd=shop)
    assert unknown.returncode == 2
    assert b"--since 'no-such-branch' is not a commit" in unknown.stderr
    assert call("search", "price", "--since", "HEAD", "--mode", "lexical", cwd=large).returncode == 2


def test_code_alone_and_with_text(run: Run, call: Run, shop: Path, tmp_path: Path) -> None:
    example = tmp_path / "example.py"
    example.write_bytes(b"# caf\xe9\nasync def retry_with_backoff(call, attempts): await sleep(2 ** attempts)\n")
    assert paths(call("search", "--code", str(example), str(shop), "--json"))[0] == "web/retry.js"
    assert paths(call("search", "--code", str(example), "--json", cwd=shop))[0] == "web/retry.js"
    piped = run("search", "--code", "-", "--json", cwd=shop, input=example.read_bytes())
    assert paths(piped)[0] == "web/retry.js"
    both = answer(call("search", "growing pauses", ".", "--code", str(example), "--json", cwd=shop))
    assert both["query"] == "growing pauses"
    assert both["hits"][0]["path"] == "web/retry.js"


@pytest.mark.parametrize(
    "query",
    ["--json session", "Traceback: " + "invalidate the session of a visitor, " * 2800, b"session \xff of a visitor"],
    ids=["dashes", "100 kB", "not UTF-8"],
)
def test_odd_queries(run: Run, shop: Path, query: str | bytes) -> None:
    done = run("search", "--json", "--", query, cwd=shop)
    assert done.returncode == 0
    found = answer(done)
    assert found["hits"][0]["path"] == "shop/session.py"
    assert ("the query's vector is of the first 512 of its " in " ".join(found["notes"])) == (len(query) > 1000)


@pytest.mark.parametrize(
    ("query", "mode"), [("zyzzyva", "hybrid"), ("zyzzyva", "dense"), ("step of the computation", "hybrid")]
)
def test_repeated_searches_make_all_vectors_whatever_is_asked(call: Run, large: Path, query: str, mode: str) -> None:
    first = answer(call("search", query, "--mode", mode, "--json", cwd=large))
    assert first["hits"]
    assert 0 < first["indexed"]["embedded"] < first["indexed"]["chunks"]
    second = answer(call("search", query, "--mode", mode, "--json", cwd=large))
    assert second["indexed"]["embedded"] > first["indexed"]["embedded"]


@pytest.mark.parametrize("mode", ["lexical", "dense"])
def test_modes(call: Run, shop: Path, mode: str) -> None:
    assert paths(call("search", "invalidate session", "--mode", mode, "--json", cwd=shop))[0] == "shop/session.py"


def test_without_an_update_the_index_answers_as_it_is(call: Run, shop: Path) -> None:
    never = call("search", "price", "--no-update", cwd=shop)
    assert never.returncode == 2
    assert b"--no-update" in never.stderr
    call("index", cwd=shop)
    (shop / "new.py").write_text("def cheapest_price(prices):\n    return min(prices)\n")
    assert "new.py" not in paths(call("search", "cheapest price", "--no-update", "--json", cwd=shop))
    assert paths(call("search", "cheapest price", "--json", cwd=shop))[0] == "new.py"


def test_a_damaged_index_is_made_again_and_set_aside(call: Run, tmp_path: Path) -> None:
    root = write(tmp_path / "my shop", FILES)
    call("index", str(root))
    (file,) = (tmp_path / "home").rglob("index.sqlite")
    file.write_bytes(b"no database" * 1000)
    done = call("search", "forget a session", str(root), "--no-update")
    assert done.returncode == 2 and f"run `embedcode clean '{root}'` and index again" in done.stderr.decode()
    done = call("search", "forget a session", str(root))
    assert done.returncode == 0 and b"shop/session.py" in done.stdout
    assert file.with_suffix(".damaged").read_bytes().startswith(b"no database")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 7")
    done = call("search", "forget a session", str(root))  # whole, but for another program
    assert done.returncode == 2 and b"newer embedcode" in done.stderr


def test_the_lines_shown_tell_of_the_code_and_not_of_the_name_of_its_file(call: Run, tmp_path: Path) -> None:
    asked = "def settle_invoice(invoice, payments):\n    for payment in payments:\n        invoice.open -= payment\n"
    more = "".join(f"    step_{number} = {number}\n" for number in range(12))
    shop = tmp_path / "shop"
    (shop / "src").mkdir(parents=True)
    (shop / "src" / "app.py").write_text(f'{asked}{more}    app.src = "code of an example py"\n')
    (tmp_path / "example.py").write_text(asked)
    (shop / "src" / "other.py").write_text(asked.replace("settle", "close"))
    for verb in (("search", "--code", str(tmp_path / "example.py"), str(shop)), ("related", "src/other.py:1")):
        shown = call(*verb, "--path", "app.py", cwd=shop).stdout.decode()
        assert "1  def settle_invoice" in shown
        assert "3          invoice.open -= payment" in shown
        assert "an example" not in shown


def test_related_code(call: Run, shop: Path) -> None:
    done = call("related", "prices.py:3", "--json", cwd=shop / "shop")
    found = answer(done)
    assert done.returncode == 0
    assert found["query"] == "prices.py:3"
    hits = [(hit["path"], hit["start_line"], hit["end_line"]) for hit in found["hits"]]
    assert hits
    assert not any(path == "shop/prices.py" and start <= 3 <= end for path, start, end in hits)
    place = call("search", "add tax to a net price", "-k", "1", cwd=shop).stdout.decode().split()[1]
    assert place == "shop/prices.py:1-8"
    as_printed = answer(call("related", place, "--json", cwd=shop))
    assert [(hit["path"], hit["start_line"], hit["end_line"]) for hit in as_printed["hits"]] == hits
    (shop / ".env").write_text("TOKEN=1\n")
    (shop / "large.py").write_text("x = 1\n" * 200_000)
    (shop / "none.py").write_text("")
    for place, why in (
        (".env:1", "looks like credentials"), ("large.py:1", "larger than 1 MB"), ("none.py:1", "holds no text"),
        ("shop:1", "is not in the index"),
    ):  # fmt: skip
        done = call("related", place, cwd=shop)
        assert (done.returncode, why in done.stderr.decode()) == (2, True)
    beyond = call("related", "prices.py:999", cwd=shop / "shop")
    assert beyond.returncode == 2
    assert b"999" in beyond.stderr


def test_while_another_process_reads_the_answer_is_from_before(run: Run, call: Run, shop: Path) -> None:
    call("index", cwd=shop)
    lock = Lock(Path(answer(call("status", "--json", cwd=shop))["home"]), "update")
    (shop / "new.py").write_text("def cheapest_price(prices):\n    return min(prices)\n")
    remark = f"process {os.getpid()} is still reading {shop}; this answer is from before"
    with lock.held(0, "testing"):
        found = answer(run("search", "cheapest price", "--json", cwd=shop))
        shown = run("search", "cheapest price", cwd=shop)
        related = answer(run("related", "shop/prices.py:3", "--json", cwd=shop))
    assert {hit["path"] for hit in found["hits"]} >= {"shop/prices.py"}
    assert "new.py" not in {hit["path"] for hit in found["hits"]}
    assert found["notes"] == related["notes"] == [remark]
    assert (shown.returncode, shown.stderr.decode()) == (0, f"{remark}\n")
    assert paths(call("search", "cheapest price", "--json", cwd=shop))[0] == "new.py"


@pytest.mark.parametrize("before", [False, True])
def test_without_an_index_or_with_wait_another_process_is_waited_for(
    call: Run, shop: Path, environment: dict[str, str], before: bool
) -> None:
    if before:
        call("index", cwd=shop)
    lock = Lock(Path(answer(call("status", "--json", cwd=shop))["home"]), "update")
    command = [sys.executable, "-m", "embedcode", "search", "price", "--json", *(["--wait"] if before else [])]
    with lock.held(0, "testing"):
        process = subprocess.Popen(command, cwd=shop, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stderr is not None
        note = process.stderr.readline().decode()
    out, errors = process.communicate(timeout=60)
    assert note == f"process {os.getpid()} is still reading {shop}: waiting for it\n"
    assert (process.returncode, errors) == (0, b"")
    assert json.loads(out)["hits"][0]["path"] == "shop/prices.py"


def test_a_disk_that_is_full_takes_no_finished_index_away(
    call: Run, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("index", cwd=shop)
    (shop / "new.py").write_text("def cheapest_price(prices):\n    return min(prices)\n")
    call("search", "price", "--mode", "lexical", cwd=shop)  # which makes no vector
    trouble = "no space left for the index: free some and run again"

    def full(*_: object, **__: object) -> None:
        raise StoreError(trouble)

    monkeypatch.setattr(Index, "embed", full)
    found = answer(call("search", "cheapest price", "--no-update", "--json", cwd=shop))
    assert found["hits"][0]["path"] == "new.py"
    assert found["notes"][0] == f"no vectors are made ({trouble})"
    assert len(found["notes"]) == 3  # the others say how much has vectors, of the candidates and of all
    monkeypatch.setattr(Index, "update", full)
    found = answer(call("search", "cheapest price", "--json", cwd=shop))
    assert found["hits"][0]["path"] == "new.py"
    assert found["notes"][0] == f"{trouble}; this answer is from before"
    failed = call("search", "cheapest price", "--wait", cwd=shop)
    assert (failed.returncode, failed.stderr.decode()) == (2, f"embedcode: {trouble}\n")


def test_code_without_end_is_not_read_to_it(call: Run, shop: Path) -> None:
    done = call("search", "--code", "/dev/zero", cwd=shop)
    sentence = "embedcode: --code /dev/zero has more than 4,000,000 bytes: give the telling part of it\n"
    assert (done.returncode, done.stderr.decode()) == (2, sentence)


def test_names_and_ignore_rules_cannot_drive_the_terminal(call: Run, shop: Path) -> None:
    """A stranger's rule with a title sequence, and a name that forges a line of ours."""
    rule = "\x1b]0;title\x07\u202e\x9b31m*.txt"
    write(shop, {".gitignore": f"*.txt\n{rule[:-5]}*\n", f"{rule[:-5]}.txt": "x", "a\nfailed: 3 files.bin": "x"})
    for arguments in (["index", "-v"], ["index"], ["status", "-v"], ["index", "--json"], ["status", "--json"]):
        done = call(*arguments, str(shop))
        assert done.returncode == 0
        shown = done.stdout.decode()
        assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(shown), arguments
        assert not any(line.startswith("failed") for line in shown.splitlines())
        if "-v" in arguments:
            assert "\\x1b]0;title\\x07\\u202e\\x9b31m" in shown
            assert "a\\nfailed: 3 files.bin" in shown
    skipped = json.loads(done.stdout)["skipped"]
    assert any(rule[:-5] in reason for reason in skipped.values())


def test_of_many_files_left_out_for_one_reason_some_are_named_and_all_counted(
    call: Run, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Notes that name each of two million pictures are 160 MB, which each status reads."""
    monkeypatch.setattr(walk, "NAMED", 2)
    write(shop, {f"art/{name}.png": "x" for name in "abcde"} | {"deploy.pem": "x"})
    kind = "data, media or binary format"
    for verb in ("index", "status"):
        lines = call(verb, "-v", str(shop)).stdout.decode().splitlines()
        assert {"  art/a.png: " + kind, "  art/b.png: " + kind, f"  and 3 more: {kind}"} <= set(lines)
        assert "  deploy.pem: looks like credentials" in lines and "art/c.png" not in str(lines)
        assert any("left out" in line and f"5 {kind}, " in line for line in lines)
        told = json.loads(call(verb, "--json", str(shop)).stdout)
        told = told["indexes"][0] if verb == "index" else told
        assert (list(told["skipped"].values()).count(kind), told["skipped_more"]) == (2, {kind: 3})
    of_folder = json.loads(call("status", "--json", str(shop / "web")).stdout)
    assert (of_folder["skipped"], of_folder["skipped_more"]) == ({}, {})


def test_index_in_a_pipe_does_everything_and_then_nothing(call: Run, shop: Path) -> None:
    (shop / "data.bin").write_bytes(bytes(range(256)) * 4)
    first = call("index", "-v", str(shop))
    assert first.returncode == 0
    assert f"{shop}: {len(FILES)} files ({len(FILES)} changed, 0 removed)" in first.stdout.decode()
    assert "\n  data.bin: " in first.stdout.decode()
    (again,) = json.loads(call("index", str(shop), "--json").stdout)["indexes"]
    assert (again["changed"], again["encoded"]) == (0, 0)
    assert again["embedded"] == again["chunks"] > 0
    assert again["failed"] == {}


def test_index_goes_on_after_one_that_fails(call: Run, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    other = write(tmp_path / "other", {"a.py": "a = 1\n"})
    given = [str(shop), str(tmp_path / "empty"), str(other)]
    done = call("index", *given, "--json")
    records = json.loads(done.stdout)["indexes"]
    assert (done.returncode, [record["root"] for record in records]) == (2, given)
    assert [record.get("files") for record in records] == [len(FILES), None, 1]
    assert records[1]["error"].startswith("No file to index")
    done = call("index", *given)
    assert (done.returncode, done.stdout.count(b" files (")) == (2, 2)
    assert done.stderr.decode().startswith(f"embedcode: {given[1]}: No file to index")


def test_index_refuses_what_would_read_the_whole_computer(
    call: Run, shop: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    environment["HOME"] = str(shop.parent)
    for path in ("/", str(shop.parent)):
        done = call("index", path)
        assert done.returncode == 2
        assert done.stderr.count(b"\n") == 1


def test_status_before_and_after(call: Run, shop: Path) -> None:
    before = call("status", str(shop))
    assert before.returncode == 0
    assert b"never" in before.stdout
    assert b"0 (none yet)" in before.stdout
    call("search", "session", str(shop), "--mode", "lexical")
    advice = b"nothing is running; `embedcode index` makes the vectors that lack"
    assert advice in call("status", str(shop)).stdout
    call("index", str(shop))
    assert advice not in call("status", str(shop)).stdout
    found = answer(call("status", "--json", "--settings", cwd=shop / "web"))
    assert found["root"] == str(shop)
    assert found["files"] == len(FILES)
    assert found["languages"]["python"] == 2
    assert found["running"] is None
    assert found["bytes"] > 0
    assert found["settings"]["home"]["source"] == "environment EMBEDCODE_HOME"
    shown = call("status", "--settings", str(shop)).stdout.decode()
    assert "(100 %)" in shown
    assert "environment EMBEDCODE_HOME" in shown


def test_work_in_the_foreground_is_named_with_how_to_end_it(call: Run, shop: Path) -> None:
    call("index", str(shop))
    with Index.open(shop) as index:
        home = index.home
    with Lock(home, "embed").held(1, "embedding"):
        said = f"process {os.getpid()} is at work, not in the background (Ctrl-C where it runs ends it)"
        assert said in call("status", cwd=shop).stdout.decode()
        assert answer(call("status", "--json", cwd=shop))["foreground"]["pid"] == os.getpid()
        assert said in call("index", "--stop", cwd=shop).stdout.decode()
    assert b"nothing is running" in call("status", cwd=shop).stdout


def test_status_says_what_failed(call: Run, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedcode.index import prepare

    assert b"failed:" not in call("status", cwd=shop).stdout
    monkeypatch.setattr(prepare, "chunk", lambda *_: 1 / 0)
    assert b"`embedcode status -v` lists them" in call("search", "price", cwd=shop).stderr
    monkeypatch.undo()
    (reason,) = set(json.loads(call("status", "--json", cwd=shop).stdout)["failed"].values())
    assert "ZeroDivisionError" in reason
    assert (
        f"failed:          {len(FILES)} files, the rest is whole (-v lists them)"
        in call("status", cwd=shop).stdout.decode()
    )
    assert f"\n  shop/prices.py: {reason}\n" in call("status", "-v", cwd=shop).stdout.decode()


def test_a_text_that_cannot_be_embedded_is_no_work_left_to_do(
    call: Run, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedcode.engine.graph import GraphEncoder
    from embedcode.errors import EncodeError

    def broken(self: GraphEncoder, tokens: object) -> object:
        raise EncodeError("Input 0 has no finite vector: leave it out.", 0)

    call("index", cwd=shop)
    (shop / "new.py").write_text("def fresh():\n    return 1\n")
    assert b"vectors" not in call("search", "price", "--mode", "lexical", cwd=shop).stderr
    with monkeypatch.context() as patched:
        patched.setattr(GraphEncoder, "forward", broken)
        assert b"failed: 1 files" in call("index", "--wait", cwd=shop).stdout
    assert answer(call("search", "price", "--json", cwd=shop))["notes"] == []
    found = answer(call("status", "--json", cwd=shop))
    assert "no finite vector" in found["failed"]["new.py"]
    assert found["embedded"] == found["chunks"] - 1


def test_clean_says_what_it_frees(call: Run, shop: Path, tmp_path: Path) -> None:
    call("index", str(shop))
    planned = answer(call("clean", str(shop), "--dry-run", "--json"))
    assert planned["dry_run"] is True
    assert [item["root"] for item in planned["items"]] == [str(shop)]
    assert f"of {shop}\n" in call("clean", "--all", "--dry-run").stdout.decode()
    assert planned["bytes"] > 0
    assert answer(call("status", str(shop), "--json"))["files"] == len(FILES)
    done = call("clean", str(shop))
    assert done.returncode == 0
    assert b" MB" in done.stdout
    assert b"freed" in done.stdout
    assert answer(call("status", str(shop), "--json"))["files"] == 0
    assert (shop / "shop" / "prices.py").exists()
    call("index", str(shop))
    (note,) = tmp_path.rglob("indexes/*/root")
    for noted in (note.read_bytes(), b"", b"\0\0\0"):  # the last as after a power cut
        note.write_bytes(noted)
        assert answer(call("clean", "--gone", "--json"))["items"] == []
    assert (
        call("clean", "--gone", "--all").stderr == b"embedcode: --all and --gone exclude each other; give one of them\n"
    )
    everything = answer(call("clean", "--all", "--vectors", "--json"))
    assert everything["bytes"] > 0
    assert sum(path.stat().st_size for path in (tmp_path / "home").rglob("*") if path.is_file()) < 100_000


def test_clean_of_all_takes_what_can_be_made_again_and_nothing_of_the_user_s(call: Run, tmp_path: Path) -> None:
    home, name = tmp_path / "home", "0123456789abcdef"
    ours = {f"compiled/{name}/engine": b"xx", f"outputs/{name * 2}.lock": b"", "precision.json": b"{}"}
    ours |= {"clones/django__django.git/HEAD": b"x", f"golden/{name * 2}.npy": b"x", f"servers/{name * 2}.json": b"{}"}
    ours |= {"indexes/shop-0123456789ab/update.lock": b"", "indexes/root-0123456789ab/lexical/x": b"x"}
    vectors = {f"evaluate/{name * 2}/keys": b"xxx", f"vectors/{name * 2}.sqlite": b"xx"}
    theirs = {"clones/mine/HEAD": b"x", "evaluate/notes.md": b"x", "golden/mine.npy": b"x", "keys.json": b"{}"}
    theirs |= {"indexes/2024/names.txt": b"x", "indexes/run-0123456789ab/log": b"x", "indexes/a.lock": b""}
    theirs |= {"vectors/mine.npy": b"x", f"vectors/{name * 2}.npy": b"x"}
    for path, content in (ours | vectors | theirs).items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(content)

    def left() -> set[str]:
        return {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}

    size = sum(map(len, ours.values()))
    assert answer(call("clean", "--all", "--dry-run", "--json"))["bytes"] == size
    assert left() == (ours | vectors | theirs).keys()
    assert answer(call("clean", "--all", "--json"))["bytes"] == size
    assert left() == (vectors | theirs).keys()
    assert answer(call("clean", "--all", "--vectors", "--json"))["bytes"] == 5
    assert left() == theirs.keys()


@pytest.mark.parametrize("everything", [True, False])
def test_what_clean_could_not_delete_is_said_after_the_rest_is_gone(
    call: Run, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, everything: bool
) -> None:
    """Modes would keep root from nothing, so the system's answer is made: for a file in the first of the folders."""
    for root in (shop, write(tmp_path / "zoo", FILES)):
        call("index", str(root))
    first, second = sorted((tmp_path / "home" / "indexes").iterdir())
    folder, unlink = first.stat(), os.unlink

    def refused(path: Any, *, dir_fd: int | None = None) -> None:
        if path == "index.sqlite" and dir_fd is not None and os.path.samestat(os.fstat(dir_fd), folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refused)
    arguments = ["--all"] if everything else [str(shop)]
    cure = "make it writable and run this again, or delete it yourself"
    sentence = f"{first} could not be deleted (permission denied): {cure}"
    done = call("clean", *arguments)
    assert (done.returncode, done.stderr.decode()) == (2, f"embedcode: {sentence}\n")
    assert f"{first}  of {shop}  (permission denied)\n" in done.stdout.decode()
    assert [path.name for path in first.iterdir()] == ["index.sqlite"]
    assert second.exists() is not everything
    again = call("clean", *arguments, "--json")
    found = json.loads(again.stdout)
    assert (again.returncode, again.stderr, found["error"]) == (2, b"", sentence)
    assert [item["kept"] for item in found["items"] if item["what"] == str(first)] == ["permission denied"]


def test_doctor(call: Run) -> None:
    done = call("doctor", "--json")
    found = json.loads(done.stdout)
    assert [check for check in found["checks"] if not check["ok"]] == []
    assert (done.returncode, found["ok"]) == (0, True)
    names = {check["name"] for check in found["checks"]}
    assert {"processor", "SQLite", "home", "free disk", "golden vector"} <= names


def test_doctor_fails_where_home_cannot_be_written(call: Run, tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "file").write_text("")
    environment["EMBEDCODE_HOME"] = str(tmp_path / "file" / "home")
    done = call("doctor")
    assert done.returncode == 1
    assert b"FAIL  home" in done.stdout


def test_two_phases_on_a_terminal_then_the_rest_in_the_background(
    on_terminal: OnTerminal, call: Run, large: Path
) -> None:
    try:
        code, shown = on_terminal("search", "step 7 of the computation", cwd=large)
        assert code == 0
        first = shown.index("By words alone")
        second = shown.index("Ranked again with vectors")
        assert first < second < shown.index(" % of the index has vectors; embedding the rest in the background")
        assert shown.count("part7.py:") == 2
        assert "\x1b[" in shown[second:]  # highlighted
        deadline = time.monotonic() + 30
        while (found := answer(call("status", "--json", cwd=large)))["embedded"] < found["chunks"]:
            assert found["running"], "the background work ended before it was done"
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        call("index", "--stop", cwd=large)
    code, shown = on_terminal("search", "step 7 of the computation", cwd=large, env={"NO_COLOR": "1"})
    assert code == 0
    assert "By words alone" not in shown
    assert shown.count("part7.py:") == 1


def test_what_a_terminal_cannot_show_is_spelled_out(call: Run, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one that is not UTF-8 a search ended as our mistake, in the middle of its hits."""

    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    (shop / "arrows.py").write_text("def follow_arrows(path):\n    return path  # first → last, é\n")
    call("index", cwd=shop)
    monkeypatch.setattr(sys, "stdout", terminal := Terminal(raw := io.BytesIO(), encoding="latin-1"))
    done = call("search", "follow arrows", "-k", "1", cwd=shop)
    terminal.flush()
    assert (done.returncode, done.stderr) == (0, b"")
    assert "# first \\u2192 last, é" in raw.getvalue().decode("latin-1")


def test_a_pipe_gets_one_list_and_leaves_nothing_running(call: Run, large: Path) -> None:
    done = call("search", "step 7 of the computation", cwd=large)
    assert done.returncode == 0
    assert done.stdout.count(b"part7.py:") == 1
    assert b"By words alone" not in done.stdout
    assert b"% of the index has vectors; `embedcode index --wait" in done.stderr
    found = answer(call("search", "step 8", "--json", "--mode", "lexical", cwd=large))
    assert found["indexed"]["embedded"] < found["indexed"]["chunks"]
    assert answer(call("status", "--json", cwd=large))["running"] is None


def test_ci_leaves_nothing_running_even_on_a_terminal(on_terminal: OnTerminal, call: Run, large: Path) -> None:
    code, shown = on_terminal("search", "step 7", cwd=large, env={"CI": "true"})
    assert code == 0
    assert "By words alone" not in shown
    assert "background" not in shown
    assert answer(call("status", "--json", cwd=large))["running"] is None


def test_a_user_who_forbids_it_has_nothing_left_running(on_terminal: OnTerminal, call: Run, large: Path) -> None:
    code, shown = on_terminal("search", "step 7", cwd=large, env={"EMBEDCODE_BACKGROUND": "false"})
    assert code == 0
    assert "background" not in shown
    assert "`embedcode index --wait" in shown
    assert answer(call("status", "--json", cwd=large))["running"] is None
    code, shown = on_terminal("index", cwd=large, env={"EMBEDCODE_BACKGROUND": "false"})
    found = answer(call("status", "--json", cwd=large))
    assert (found["running"], found["embedded"]) == (None, found["chunks"])


def test_background_work_can_be_stopped(on_terminal: OnTerminal, call: Run, large: Path) -> None:
    code, shown = on_terminal("index", cwd=large)
    assert code == 0
    assert "embedding the rest in the background" in shown
    assert b"stopped" in call("index", "--stop", cwd=large).stdout
    assert answer(call("status", "--json", cwd=large))["running"] is None
    assert b"nothing was running" in call("index", "--stop", cwd=large).stdout


def test_wait_comes_back_with_every_vector(call: Run, shop: Path) -> None:
    found = answer(call("search", "price", "--wait", "--mode", "lexical", "--json", cwd=shop))
    assert found["indexed"]["embedded"] == found["indexed"]["chunks"] > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--wait", "--no-update", "price"], "--wait and --no-update exclude each other"),
        (["./shop"], "./shop is a folder; give the query first"),
        (["where", "are", "sessions"], "put a query of several words in quotes"),
        (["price", "--path", ""], "--path is empty, as from a variable that is not set"),
    ],
)
def test_what_a_person_mistypes_is_said_with_the_cure(
    call: Run, shop: Path, arguments: list[str], sentence: str
) -> None:
    done = call("search", *arguments, cwd=shop)
    assert done.returncode == 2
    assert sentence in done.stderr.decode()


def test_nothing_like_the_only_code_there_is_is_no_matter_of_words(call: Run, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.py").write_text("def alone(x):\n    return x + 1\n")
    done = call("related", "a.py:1", cwd=tmp_path / "one")
    assert (done.returncode, b"no hits; nothing else here is like it" in done.stderr) == (1, True)


def test_from_a_folder_that_is_gone(shop: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    gone = f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; exec {sys.executable} -m embedcode "
    for arguments, code in ((f"related {shop}/shop/prices.py:3", 0), ("install", 0), ("install claude", 2)):
        done = subprocess.run(
            ["sh", "-c", gone + arguments], env=environment, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == code, done.stderr

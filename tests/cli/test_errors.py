"""What a person sees when something is wrong: one sentence, an exit code, never a traceback."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from embedcode import cli

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    (root / "a.py").write_text("def parse(text):\n    return text\n")
    return root


def assert_user_error(done: subprocess.CompletedProcess[bytes], *parts: str) -> None:
    message = done.stderr.decode()
    assert done.returncode == 2, message
    assert done.stdout == b""
    assert message.startswith("embedcode: ")
    assert message.count("\n") == 1
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["search"], ["the query is empty", 'embedcode search "']),
        (["search", " \n"], ["the query is empty"]),
        (["search", "--", ""], ["the query is empty"]),
        (["search", "--code", "-"], ["the code in - is empty"]),
        (["search", "--code", "no.py"], ["no.py", "No such file"]),
        (["search", "text", "no/such"], ["no/such", "no such file", "in quotes"]),
        (["search", "parse text", "--code", __file__], ["parse text", "give the path too", ". --code"]),
        (["search", "text", "x" * 5000], ["too long"]),
        (["search", "-k", "0", "text"], ["-k", "embedcode search --help"]),
        (["search", "text", "--mode", "sparse"], ["--mode", "hybrid", "lexical", "dense"]),
        (["search", "text", "--lang", "pyhton"], ["pyhton", "did you mean 'python'"]),
        (["search", "text", "--content", "test"], ["--content", "'test'", "code, docs, config"]),
        (["search", "text", "--threads", "many"], ["--threads", "many", "whole number"]),
        (["search", "-v flag", "."], ["no such option: -v", "put -- before a query that begins with a hyphen"]),
        (["search", "--color", "."], ["no such option: --color", "put -- before a query"]),
        (["search", "-k limits", "."], ["-k", "put -- before a query"]),
        (["serch", "text"], ["serch", "Did you mean 'search'"]),
        (["related", "a.py"], ["a.py", "FILE:LINE"]),
        (["related", "a.py:0"], ["a.py:0", "FILE:LINE"]),
        (["related", "a.py:9-7"], ["a.py:9-7", "FILE:LINE"]),
        (["related", "a.py:9-"], ["a.py:9-", "FILE:LINE"]),
        (["related", "nowhere.py:3"], ["nowhere.py", "no such file"]),
        (["index", "--stop", "--wait"], ["--stop", "--wait"]),
        (["index", "nowhere"], ["nowhere", "no such file"]),
        (["clean", "here", "--all"], ["here", "--all"]),
        (["search", "text", ""], ["the path is empty"]),
        (["search", "--code", __file__, ""], ["the path is empty"]),
        (["index", ""], ["the path is empty"]),
        (["index", "--stop", ""], ["the path is empty"]),
        (["status", ""], ["the path is empty"]),
        (["clean", ""], ["the path is empty"]),
        (["clean", "", "--vectors"], ["the path is empty"]),
        (["clean", "x" * 5000], ["too long"]),
        (["embed", "--text", "x"], ["--role", "passage"]),
        (["embed", "--role", "query", "--text", "x", "--model", ""], ["the model is empty"]),
        (["embed", "--role", "query", "--text", "x", "--model", "x" * 300], ["is no folder and no name on the hub"]),
        (
            ["embed", "--role", "query", "--text", "x", "--model", "~nobody-of-this-name/x"],
            ["is no folder and no name"],
        ),
        (["index", "--model", ""], ["the model is empty"]),
        (["index", "--model", "x" * 300], ["is no folder and no name on the hub"]),
        (["serve", "--model", ""], ["the model is empty"]),
    ],
)
def test_a_mistake_in_the_request(call: Run, arguments: list[str], parts: list[str]) -> None:
    assert_user_error(call(*arguments), *parts)


def test_a_mistyped_option_is_not_taken_for_a_query(call: Run) -> None:
    for arguments in ("search text . --bod", "search -k 0 text", "index --colour", "--colour"):
        done = call(*arguments.split())
        assert done.returncode == 2
        assert b"put -- before" not in done.stderr


def test_with_json_the_error_is_an_object_on_stdout(call: Run) -> None:
    for arguments in (["search", "", "--json"], ["search", "--json", "x", "--bad"]):
        done = call(*arguments)
        assert done.returncode == 2
        assert done.stderr == b""
        assert list(json.loads(done.stdout)) == ["error"]


def test_json_after_two_dashes_is_a_query(call: Run) -> None:
    assert_user_error(call("search", "--", "--json", "nowhere"), "nowhere")


@pytest.mark.parametrize("arguments", [["search", "parse", "."], ["status", "."], ["index", "."]])
@pytest.mark.parametrize("checkout", [True, False])
def test_a_home_that_may_not_be_entered(
    call: Run,
    repository: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    checkout: bool,
) -> None:
    """As after a run by root. Its mode would keep root itself from nothing, so the system's answer is made."""
    if checkout:
        (repository / ".git").mkdir()
    inside = str(Path(environment["EMBEDCODE_HOME"]) / "indexes") + os.sep

    def refusing(real: Callable[..., object]) -> Callable[..., object]:
        def refused(path: object, *rest: object, **options: object) -> object:
            if isinstance(path, (str, Path)) and str(path).startswith(inside):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path, *rest, **options)

        return refused

    for name in ("stat", "open", "mkdir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    sentence = "cannot be opened for writing (Permission denied): make the folder writable"
    assert_user_error(call(*arguments, cwd=repository), inside, sentence)
    done = call(*arguments, "--json", cwd=repository)
    assert (done.returncode, done.stderr) == (2, b"")
    assert sentence in json.loads(done.stdout)["error"]


def test_a_wrong_setting_is_named(call: Run, repository: Path) -> None:
    (repository / ".embedcode.toml").write_text("thread = 2\n")
    assert_user_error(call("status", cwd=repository), ".embedcode.toml", "'thread'", "did you mean 'threads'")


def test_what_nobody_expected_leaves_a_log_and_no_traceback(run: Run, tmp_path: Path) -> None:
    """As with a broken installation: a module that is needed fails as it is imported."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "difflib.py").write_text("raise ZeroDivisionError('a broken installation')\n")
    arguments = ("search", "text", "--lang", "nonsense")
    broken = {"PYTHONPATH": str(tmp_path / "broken")}
    done = run(*arguments, env=broken)
    assert done.returncode == 70
    message = done.stderr.decode()
    assert message.count("\n") == 1
    assert "ZeroDivisionError: a broken installation" in message
    log = tmp_path / "home" / "crash.log"
    assert str(log) in message
    assert "Traceback" in log.read_text()
    shown = run(*arguments, env=broken | {"EMBEDCODE_DEBUG": "1"})
    assert shown.returncode == 70
    assert "Traceback" in shown.stderr.decode()


def test_a_home_that_cannot_be_written_still_gives_one_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "difflib.py").write_text("raise ZeroDivisionError('a broken installation')\n")
    env = {"PYTHONPATH": str(tmp_path / "broken"), "EMBEDCODE_HOME": str(tmp_path / "file" / "home")}
    done = run("search", "text", "--lang", "nonsense", env=env)
    assert done.returncode == 70
    assert done.stderr.count(b"\n") == 1
    assert b"EMBEDCODE_DEBUG=1" in done.stderr


def test_an_interrupt_says_that_nothing_is_lost(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "embedcode", "search", "--code", "-"]
    process = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(b"x" * 300_000)  # more than a pipe holds: when this returns, the verb is at work, reading
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.count(b"\n") == 1
    assert b"what was finished is kept" in errors


def test_a_reader_that_goes_away_is_no_error(environment: dict[str, str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "embedcode", "search", "--help"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == b""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["search", "--help"],
        ["search", "parse", "--mode", "lexical"],
        ["search", "parse", "--mode", "lexical", "--json"],
        ["embed", "--role", "query", "--text", "x"],
    ],
    ids=" ".join,
)
def test_a_full_disk_under_the_output_is_one_sentence(
    environment: dict[str, str], repository: Path, arguments: list[str], unbuffered: str
) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "embedcode", *arguments]
        env = environment | {"PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(command, cwd=repository, env=env, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"the output cannot be written (No space left on device)" in done.stderr


def test_of_several_paths_a_wrong_one_is_named_before_any_work(call: Run, repository: Path, tmp_path: Path) -> None:
    for wrong in ("nowhere", ""):
        assert call("index", str(repository), wrong).returncode == 2
    assert not (tmp_path / "home").exists()
    assert b"never" in call("status", str(repository)).stdout


def test_an_empty_path_is_not_the_current_folder(call: Run, repository: Path) -> None:
    call("index", cwd=repository)
    assert_user_error(call("clean", "", cwd=repository), "the path is empty")
    assert json.loads(call("status", "--json", cwd=repository).stdout)["files"] == 1


@pytest.mark.parametrize("verb", ["clean", "related a.py:1", "install claude --dry-run", "mcp", "search x"])
def test_a_current_folder_that_is_gone(environment: dict[str, str], tmp_path: Path, verb: str) -> None:
    (tmp_path / "gone").mkdir()
    shell = f"rmdir ../gone && {sys.executable} -m embedcode {verb}"
    command = ["/bin/sh", "-c", shell]
    done = subprocess.run(command, cwd=tmp_path / "gone", env=environment, capture_output=True, check=False)
    assert_user_error(done, "no such file or directory")
    assert b"quotes" not in done.stderr


def test_closed_streams_do_no_harm(environment: dict[str, str]) -> None:
    shell = f"{sys.executable} -m embedcode search '' >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", shell], env=environment, check=False).returncode == 2


def test_an_interrupt_within_a_string_of_code_is_over_once_it_is_caught(tmp_path: Path) -> None:
    """As where a dataclass is imported just then; only `python -m` remembers it."""
    (tmp_path / "stopped.py").write_text(
        "import sys\nfrom embedcode import cli\n"
        "def stopped(_):\n    try:\n        exec('raise KeyboardInterrupt')\n"
        "    except KeyboardInterrupt:\n        return 0\n"
        "cli._run, sys.argv = stopped, ['embedcode', 'status']\ncli.main()\n"
    )
    command = [sys.executable, "-m", "stopped"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("index .", "what was finished is kept and the next run goes on from there"),
        ("data collect sources.toml out", "what was finished is kept and the next run goes on from there"),
        ("data history . -o pairs.jsonl", "nothing was written"),
        ("data filter p.jsonl -o q.jsonl", "what was finished is kept and the next run goes on from there"),
        ("models export M out", "nothing was written"),
    ],
)
def test_an_interrupt_says_what_is_kept(
    command: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    monkeypatch.setattr(sys, "argv", ["embedcode", *command.split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == f"embedcode: interrupted; {said}\n"

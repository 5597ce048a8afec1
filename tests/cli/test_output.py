"""How hits, figures and progress are shown."""

from __future__ import annotations

import errno
import io
import json
import sys
import time
from pathlib import Path

import pytest

from embedcode.cli import output
from embedcode.cli.progress import ProgressLine, described
from embedcode.errors import UsageError
from embedcode.index.records import answer_record
from embedcode.index.report import Status, Step
from embedcode.types import Chunk, Hit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def hit(text: str, symbol: str = "parse", path: str = "src/a.py", start: int = 5) -> Hit:
    chunk = Chunk("repository", path, start, start + text.count("\n"), "python", symbol, text)
    return Hit(chunk, 0.5, ("words 1", "vector 2"))


def status(updated: float = 0.0) -> Status:
    return Status(
        Path("/r"), Path("/h"), "", "", 1, 10, 3, updated, 0, languages={}, skipped={}, failed={}, running=None
    )


def test_in_a_pipe_a_hit_is_its_place_and_numbered_lines(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output.put_hits([hit("def parse(text):\n    return text")], tmp_path, why=True)
    assert capfd.readouterr().out.splitlines() == [
        " 1  src/a.py:5-6  parse",
        "    0.5000  words 1, vector 2",
        "       5  def parse(text):",
        "       6      return text",
        "",
    ]


def test_a_place_can_be_opened_from_where_the_person_is(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "repository" / "src").mkdir(parents=True)
    (tmp_path / "repository" / "web").mkdir()
    (tmp_path / "elsewhere").mkdir()
    seen = []
    repository = tmp_path / "repository"
    for here in (tmp_path, repository / "src", repository / "web", tmp_path / "elsewhere"):
        monkeypatch.chdir(here)
        output.put_places([hit("x")], repository)
        seen.append(capfd.readouterr().out.split()[1])
    assert seen == ["repository/src/a.py:5-5", "a.py:5-5", "../src/a.py:5-5", f"{repository}/src/a.py:5-5"]


def test_a_long_chunk_is_cut_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    output.put_hits([hit("\n".join(f"line {number}" for number in range(30)))], Path("/r"))
    shown = capfd.readouterr().out
    assert "line 9\n" in shown
    assert "line 10" not in shown
    assert "… 20 more lines below" in shown


def test_a_line_of_many_pages_is_cut(capfd: pytest.CaptureFixture[str]) -> None:
    output.put_hits([hit("x" * 50_000)], Path("/r"))
    assert len(capfd.readouterr().out) < 300


def test_carriage_returns_of_dos_files_are_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    output.put_hits([hit("def parse(text):\r\n    return text\r")], Path("/r"))
    assert capfd.readouterr().out.splitlines()[1:3] == ["       5  def parse(text):", "       6      return text"]


def test_whatever_is_put_is_one_line_that_drives_no_terminal(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output.put("a\tb é \udcff\x1b]0;title\x07\x7f\x9b31m\r\n\u202e\u2067\u200f")
    output.note("\x1b[2J\nforged")
    captured = capfdbinary.readouterr()
    shown = "a\tb é \\udcff\\x1b]0;title\\x07\\x7f\\x9b31m\\r\\n\\u202e\\u2067\\u200f\n"
    assert captured.out.decode() == shown
    assert captured.err == b"\\x1b[2J\\nforged\n"


@pytest.mark.parametrize("on_terminal", [False, True])
def test_code_cannot_drive_the_terminal(
    on_terminal: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    hostile = [hit("a = '\x1b]0;title\x07'\n# \u202e evil \x9b31m\r", symbol="\x1b[2J", path="a\x1bb\n.py")]
    if on_terminal:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        output.put_hits(hostile, Path("/r"), True)
        shown = terminal.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\x1b[2m", "")
    else:
        output.put_hits(hostile, Path("/r"), True)
        shown = capfd.readouterr().out
    assert "\\x1b]0;title\\x07" in shown
    assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e"} & set(shown)
    assert "a\\x1bb\\n.py:5-6" in shown


def test_no_line_of_code_is_cut_at_the_edge_of_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    output.put_hits(
        [hit("    if first_condition and second_condition or third_condition_that_is_long: return last\n")], Path("/r")
    )
    assert "last" in terminal.getvalue()


def test_a_full_disk_under_coloured_hits_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Terminal):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(UsageError, match="No space left on device"):
        output.put_hits([hit("x")], Path("/r"))


def test_json_has_the_documented_keys_and_survives_what_is_not_unicode(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    output.put_json(answer_record("q", [hit("é\udcff\x1b", path="b\udcfe.py")], status(), ["a note"]))
    raw = capfdbinary.readouterr().out
    assert raw.count(b"\n") == 1
    answer = json.loads(raw)
    assert list(answer) == ["query", "root", "hits", "indexed", "notes"]
    assert list(answer["hits"][0]) == [
        "path", "start_line", "end_line", "symbol", "language", "score", "why", "snippet",
    ]  # fmt: skip
    assert answer["hits"][0]["path"] == "b\udcfe.py"
    assert answer["hits"][0]["snippet"] == "é\udcff\x1b"
    assert set(answer["indexed"]) == {"files", "chunks", "embedded", "age_seconds"}


def test_an_answer_during_the_first_reading_has_no_age() -> None:
    assert answer_record("q", [], status(), [])["indexed"]["age_seconds"] is None
    age = answer_record("q", [], status(time.time() - 5), [])["indexed"]["age_seconds"]
    assert 5 <= age < 60


def test_json_drives_no_terminal_and_is_equal_when_parsed(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    controls = [*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
    value = {"".join(map(chr, controls)): ["é\\\x9b31m", "\\u202e", "\u202e", "\udcff", "\U000e0001 a\u00adb"]}
    output.put_json(value)
    raw = capfdbinary.readouterr().out
    assert json.loads(raw) == value
    assert not {*map(chr, controls)} & {*raw.decode().removesuffix("\n")}
    assert "é".encode() in raw


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (0, 0, "none yet"),
        (0, 9, "0 %"),
        (1, 1000, "less than 1 %"),
        (1, 100, "1 %"),
        (31, 100, "31 %"),
        (9999, 10000, "99 %"),
        (7, 7, "100 %"),
    ],
)
def test_a_share_is_whole_only_when_nothing_is_missing(part: int, whole: int, shown: str) -> None:
    assert output.share(part, whole) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.2, "0 s"), (90, "90 s"), (240, "4 min"), (7200, "2 h"), (432_000, "5 d")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert output.duration(seconds) == shown


def test_progress_tells_count_rate_and_time_left() -> None:
    assert described(Step("read", 500, 2000, 4321, 0, 2.0)) == "reading 500 of 2,000 files, 4,321 chunks, 6 s left"
    assert described(Step("embed", 100, 400, 400, 30_000, 10.0)) == (
        "embedding 100 of 400 chunks, 3,000 tokens/s, 30 s left"
    )
    assert "left" not in described(Step("read", 0, 2000, 0, 0, 0.0))
    assert described(Step("embed", 100, 400, 100, 0, 0.1, before=90, other=123)) == (
        "process 123 is embedding 100 of 400 chunks"
    )


def test_progress_is_one_line_on_a_terminal_and_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        with ProgressLine() as progress:
            for done in range(100):
                progress(Step("read", done, 100, done, 0, 1.0))
        shown = stream.getvalue()
        if stream.isatty():
            assert shown.startswith("\r\x1b[2Kreading 0 of 100 files")
            assert shown.endswith("\r\x1b[2K")
            assert "\n" not in shown
        else:
            assert shown == ""


def test_in_a_pipe_it_is_said_once_that_another_process_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        with ProgressLine() as progress:
            for done in range(3):
                progress(Step("embed", done, 100, done, 0, 0.1, other=123))
        if stream.isatty():
            assert stream.getvalue().startswith("\r\x1b[2Kprocess 123 is embedding 0 of 100 chunks")
            assert "\n" not in stream.getvalue()
        else:
            assert stream.getvalue() == "process 123 is embedding 0 of 100 chunks\n"


@pytest.mark.parametrize(("ci", "expected"), [(None, True), ("", True), ("false", True), ("true", False), ("1", False)])
def test_background_work_is_left_only_where_a_person_reads(
    ci: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    if ci is not None:
        monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert output.interactive(as_json=False) is expected
    assert output.interactive(as_json=True) is False
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert output.interactive(as_json=False) is False


def test_the_lines_that_hold_the_querys_words_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(f"line {number}" for number in range(30)) + "\ndef flush_all(session):\n    session.flush()"
    output.put_hits([hit(text)], Path("/r"), words="where is the session flushed with flush_all?")
    shown = capsys.readouterr().out
    assert "def flush_all(session):" in shown
    assert "… 22 more lines above\n" in shown
    output.put_hits([hit(text)], Path("/r"), words="something else")
    assert "line 0" in capsys.readouterr().out  # from the top, where nothing tells more
    output.put_hits([hit(f"{text}\n    return session\nend")], Path("/r"), words="flush_all")
    shown = capsys.readouterr().out
    assert "    session.flush()\n" in shown and "… 22 more lines above, 2 more lines below\n" in shown

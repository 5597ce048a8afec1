"""`install` and `uninstall` as a person meets them, in a home and a project of their own."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]

CLAUDE = b'{\n  "userID": "s3cr3t",\n  "mcpServers": {\n    "other": {"command": "x"}\n  }\n}'
SCRIPT = str(Path(sys.executable).with_name("embedcode"))


@pytest.fixture
def home(environment: dict[str, str], tmp_path: Path) -> Path:
    """Comes before the fixtures that run something, which start it with this environment."""
    home = tmp_path / "person"
    home.mkdir()
    for name in ("CLAUDE_CONFIG_DIR", "CLAUDE_PROJECT_DIR", "CODEX_HOME", "VIRTUAL_ENV", "CONDA_PREFIX"):
        environment.pop(name, None)
    environment["HOME"] = str(home)
    return home


@pytest.fixture
def project(home: Path) -> Path:
    project = home / "project"
    (project / ".git").mkdir(parents=True)
    (project / "src").mkdir()
    (project / "src" / "session.py").write_text("def log_out(visitor):\n    visitor.session.flush()\n")
    return project


def holds(folder: Path) -> list[Path]:
    """Every file and folder, but the caches that libraries keep."""
    return sorted(path for path in folder.rglob("*") if folder / ".cache" not in (path, *path.parents))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "options", "file"),
    [
        ("claude", [], "project/.mcp.json"),
        ("claude", ["--user"], ".claude.json"),
        ("cursor", [], "project/.cursor/mcp.json"),
        ("cursor", ["--user"], ".cursor/mcp.json"),
        ("codex", [], ".codex/config.toml"),
        ("vscode", [], "project/.vscode/mcp.json"),
    ],
)
def test_what_is_installed_answers_and_goes_without_a_trace(
    home: Path, project: Path, call: Run, environment: dict[str, str], name: str, options: list[str], file: str
) -> None:
    before = holds(home)
    done = call("install", name, "--yes", *options, cwd=project / "src")
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode()
    assert shown.startswith(f"--- {os.devnull}\n+++ {home / file}\n")
    assert f"written: {home / file}\nnext: " in shown
    text = (home / file).read_text()
    servers = tomllib.loads(text)["mcp_servers"] if file.endswith("toml") else next(iter(json.loads(text).values()))
    assert search(servers["embedcode"], project, environment).startswith("1. src/session.py:1-2  log_out")

    again = call("install", name, *options, cwd=project)
    assert again.returncode == 0
    assert b"is installed already" in again.stdout
    assert (home / file).read_text() == text

    assert call("uninstall", name, "--yes", *options, cwd=project).returncode == 0
    assert holds(home) == before
    again = call("uninstall", name, *options, cwd=project)
    assert again.returncode == 0
    assert b"is not installed" in again.stdout


def search(entry: dict[str, Any], project: Path, environment: dict[str, str]) -> str:
    """The answer of the server, started as the assistant does with the project open."""
    arguments = [argument.replace("${workspaceFolder}", str(project)) for argument in entry["args"]]
    parameters = StdioServerParameters(command=entry["command"], args=arguments, env=environment, cwd=project)

    async def talk() -> str:
        async with Client(parameters, read_timeout_seconds=60) as client:
            for _ in range(100):  # the first answer may say that the index is being made ready
                result = await client.call_tool("search", {"query": "where is a visitor logged out?"})
                text = "\n".join(getattr(part, "text", "") for part in result.content)
                assert not result.is_error, text
                if text.startswith("1. "):
                    break
                await asyncio.sleep(0.1)
            return text

    return asyncio.run(talk())


def test_claude_code_may_start_it_elsewhere(
    home: Path, project: Path, call: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert call("install", "claude", "--user", "--yes", cwd=project).returncode == 0
    entry = json.loads((home / ".claude.json").read_text())["mcpServers"]["embedcode"]
    answer = search(entry, tmp_path / "elsewhere", environment | {"CLAUDE_PROJECT_DIR": str(project)})
    assert answer.startswith("1. src/session.py:1-2  log_out")


def test_a_path_in_the_users_own_file_is_the_one_repository(home: Path, project: Path, call: Run) -> None:
    for name, options, file in (
        ("cursor", ["--user"], ".cursor/mcp.json"),
        ("codex", ["--user"], ".codex/config.toml"),
    ):
        assert call("install", name, "project", "--yes", *options, cwd=home).returncode == 0
        assert json.dumps(str(project)) in (home / file).read_text()
        refused = call("uninstall", name, "project", "--yes", *options, cwd=home)
        assert refused.returncode == 2
        assert b"leave project out" in refused.stderr


def test_a_path_names_the_folder_that_the_assistant_opens(home: Path, project: Path, call: Run) -> None:
    assert call("install", "vscode", "project/src", "--yes", cwd=home).returncode == 0
    assert (project / "src" / ".vscode" / "mcp.json").exists()
    assert call("uninstall", "vscode", "project/src", "--yes", cwd=home).returncode == 0
    assert not (project / "src" / ".vscode").exists()


def test_without_a_terminal_or_yes_nothing_is_written(home: Path, project: Path, call: Run) -> None:
    (home / ".claude.json").write_bytes(CLAUDE)
    before = contents(home)
    done = call("install", "claude", "--user", cwd=project)
    assert done.returncode == 2
    assert "add --yes" in done.stderr.decode()
    entry = {"type": "stdio", "command": SCRIPT, "args": ["mcp"]}
    assert done.stdout.decode().splitlines() == [
        f"--- {home / '.claude.json'}",
        f"+++ {home / '.claude.json'}",
        "@@ -3,0 +4,1 @@",
        f'+    "embedcode": {json.dumps(entry)},',
    ]
    dry = call("install", "claude", "--user", "--dry-run", "--yes", cwd=project)
    assert (dry.returncode, dry.stdout, dry.stderr) == (0, done.stdout, b"")
    refused = call("install", "claude", "--user", "--json", cwd=project)
    assert refused.returncode == 2
    assert "--dry-run" in json.loads(refused.stdout)["error"]
    assert contents(home) == before


def test_json_says_what_was_done(home: Path, project: Path, call: Run) -> None:
    record = json.loads(call("install", "claude", "--json", "--dry-run", cwd=project).stdout)
    assert record["written"] is False
    assert record["next"] == ""
    record = json.loads(call("install", "claude", "--json", "--yes", cwd=project).stdout)
    assert record["written"] is True
    assert record["file"] == str(project / ".mcp.json")
    assert "+{" in record["diff"]
    assert "claude" in record["next"]
    assert SCRIPT in record["notes"][0]  # a file that is shared names what is on this computer only
    record = json.loads(call("install", "claude", "--json", "--yes", cwd=project).stdout)
    notes = ["embedcode is installed already"]
    assert record == {"file": str(project / ".mcp.json"), "written": False, "diff": [], "next": "", "notes": notes}


def answered(environment: dict[str, str], cwd: Path, answer: str, *arguments: str) -> tuple[int, str]:
    """On a terminal, where the person types `answer` once the question is there: (exit code, what was shown)."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "embedcode", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environment)
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            block = os.read(ours, 65536)
        except OSError:  # Linux's way to say that nobody holds the other end
            break
        if answer and b"[y/N]" in shown + block:
            os.write(ours, answer.encode())
            answer = ""
        shown += block
    os.close(ours)
    return process.wait(timeout=10), shown.decode().replace("\r\n", "\n")


def test_on_a_terminal_it_asks_and_takes_no_for_an_answer(
    home: Path, project: Path, environment: dict[str, str]
) -> None:
    for answer in ("\n", "n\n", "what\n", "\x04"):
        code, shown = answered(environment, project, answer, "install", "claude")
        assert code == 1
        assert '+    "embedcode": {' in shown
        assert "nothing was written" in shown
        assert not (project / ".mcp.json").exists()
    code, shown = answered(environment, project, "y\n", "install", "claude")
    assert code == 0
    assert f"written: {project / '.mcp.json'}" in shown
    code, shown = answered(environment, project, "Yes\n", "uninstall", "claude")
    assert code == 0
    assert f"removed: {project / '.mcp.json'}" in shown
    assert not (project / ".mcp.json").exists()


def test_the_list_says_where_it_is_installed(home: Path, project: Path, call: Run) -> None:
    (project / ".cursor").mkdir()
    (project / ".cursor" / "mcp.json").write_text("{")
    (home / ".cursor").mkdir()
    (home / ".cursor" / "mcp.json").write_text('{"mcpServers": {"embedcode": {"args": true}}}')
    (home / ".claude.json").write_text(
        '{"mcpServers": {"embedcode": {"command": "/gone/bin/embedcode", "args": ["mcp"]}}}'
    )
    assert call("install", "vscode", "--yes", cwd=project).returncode == 0
    done = call("install", cwd=project)
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    assert lines[0] == f"claude  project  {project / '.mcp.json'}: not installed"
    assert "/gone/bin/embedcode is not found" in lines[1]
    assert "cannot be parsed (line 1" in lines[2]
    assert "? is not found" in lines[3]
    assert (
        lines[-1]
        == f"vscode  project  {project / '.vscode' / 'mcp.json'}: installed, {SCRIPT} mcp ${{workspaceFolder}}"
    )
    records = json.loads(call("install", "--json", cwd=project).stdout)["assistants"]
    assert [(record["name"], record["scope"]) for record in records] == [
        ("claude", "project"),
        ("claude", "user"),
        ("cursor", "project"),
        ("cursor", "user"),
        ("codex", "user"),
        ("vscode", "project"),
    ]
    assert records[-1]["command"] == [SCRIPT, "mcp", "${workspaceFolder}"]
    assert records[0]["command"] is None
    assert {record["scope"] for record in json.loads(call("install", "--json", cwd=home).stdout)["assistants"]} == {
        "user"
    }


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["install", "cluade"], ["'cluade'", "did you mean 'claude'"]),
        (["install", "emacs"], ["'emacs'", "claude, cursor, codex, vscode"]),
        (["install", "--yes"], ["which assistant"]),
        (["install", "vscode", "--user"], ["VS Code", "leave --user out"]),
        (["install", "claude", "nowhere"], ["nowhere", "no such file"]),
        (["install", "claude", ""], ["the path is empty"]),
        (["install", "claude", "src/session.py"], ["src/session.py", "no folder"]),
        (["install", "claude", ".."], ["everything you have", "--user"]),
        (["uninstall"], ["NAME", "embedcode uninstall --help"]),
        (["uninstall", "emacs"], ["'emacs'"]),
    ],
)
def test_a_mistake_in_the_request(project: Path, call: Run, arguments: list[str], parts: list[str]) -> None:
    done = call(*arguments, cwd=project)
    message = done.stderr.decode()
    assert (done.returncode, done.stdout, message.count("\n")) == (2, b"", 1)
    for part in parts:
        assert part in message


def test_a_file_that_cannot_be_parsed_is_named_and_left(home: Path, project: Path, call: Run) -> None:
    (home / ".codex").mkdir()
    (home / ".codex" / "config.toml").write_text("model = s3cr3t\n")
    for verb in ("install", "uninstall"):
        done = call(verb, "codex", "--yes", cwd=project)
        message = done.stderr.decode()
        assert (done.returncode, done.stdout, message.count("\n")) == (2, b"", 1)
        assert f"{home / '.codex' / 'config.toml'} cannot be parsed" in message
        assert "line 1" in message
        assert "s3cr3t" not in message
    assert (home / ".codex" / "config.toml").read_text() == "model = s3cr3t\n"


def test_an_entry_that_somebody_changed_is_only_taken_out_on_demand(home: Path, project: Path, call: Run) -> None:
    text = '{"mcpServers": {"embedcode": {"command": "embedcode", "args": ["mcp"], "env": {"A": "b"}}}}\n'
    (project / ".mcp.json").write_text(text)
    done = call("install", "claude", "--yes", cwd=project)
    assert done.returncode == 2
    assert b"embedcode uninstall claude" in done.stderr
    assert (project / ".mcp.json").read_text() == text
    done = call("uninstall", "claude", "--yes", cwd=project)
    assert done.returncode == 0
    assert '"env": {"A": "b"}' in done.stdout.decode()
    assert (project / ".mcp.json").read_text() == "{}\n"


def test_without_the_extra_it_says_what_to_install(
    home: Path, project: Path, call: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    done = call("install", "codex", "--dry-run", cwd=project)
    assert done.returncode == 0
    assert "pip install '.[mcp]'" in done.stderr.decode()
    for more in ([], ["--json"]):
        done = call("install", "claude", "--yes", *more, cwd=project)
        assert done.returncode == 2
        assert "nothing was written" in (done.stdout + done.stderr).decode()
        assert "pip install '.[mcp]'" in (done.stdout + done.stderr).decode()
    assert not (project / ".mcp.json").exists()

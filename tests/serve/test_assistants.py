"""Where each assistant's file lies, and what is started: the script of this installation."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from embedcode.errors import UsageError
from embedcode.serve.assistants import ASSISTANTS, command, is_ours, named, places, project_place, user_place


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in ("CLAUDE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path.resolve() / "home"


def test_the_files_are_those_that_the_assistants_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = home / "project"
    (project / ".git").mkdir(parents=True)
    (project / "src").mkdir()
    monkeypatch.chdir(project / "src")
    assert [str(place.file.relative_to(home)) for place in places()] == [
        "project/.mcp.json",
        ".claude.json",
        "project/.cursor/mcp.json",
        ".cursor/mcp.json",
        ".codex/config.toml",
        "project/.vscode/mcp.json",
    ]
    assert project_place(ASSISTANTS["vscode"], ".").file == project / "src" / ".vscode" / "mcp.json"
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", "/elsewhere")
    monkeypatch.setenv("CODEX_HOME", "/codex")
    assert user_place(ASSISTANTS["claude"]).file == Path("/elsewhere/.claude.json")
    assert user_place(ASSISTANTS["codex"]).file == Path("/codex/config.toml")


def test_a_folder_goes_only_if_it_is_the_assistants(home: Path) -> None:
    assert user_place(ASSISTANTS["claude"]).folder is None
    assert user_place(ASSISTANTS["codex"]).folder == home / ".codex"
    (home / "project").mkdir()
    assert project_place(ASSISTANTS["claude"], str(home / "project")).folder is None
    assert project_place(ASSISTANTS["cursor"], str(home / "project")).folder == home / "project" / ".cursor"


def test_the_home_folder_is_no_project(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (str(home), "/"):
        with pytest.raises(UsageError, match="--user"):
            project_place(ASSISTANTS["claude"], path)
    monkeypatch.chdir(home)
    assert {place.project for place in places()} == {None}


def test_an_unknown_name_is_met_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'cluade'.*did you mean 'claude'"):
        named("cluade")
    with pytest.raises(UsageError, match="claude, cursor, codex, vscode"):
        named("emacs")


def test_a_shared_file_names_the_script_only_where_any_shell_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment, lasting = tmp_path / "venv", tmp_path / "bin"
    (environment / "bin").mkdir(parents=True)
    lasting.mkdir()
    script = environment / "bin" / "embedcode"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("VIRTUAL_ENV", str(environment))
    monkeypatch.setenv("PATH", os.pathsep.join([str(environment / "bin"), str(lasting)]))
    assert command(shared=False) == str(script)
    assert command(shared=True) == str(script)
    (lasting / "embedcode").write_text("#!/bin/sh\n# another installation\n")
    (lasting / "embedcode").chmod(0o755)
    assert command(shared=True) == str(script)
    (lasting / "embedcode").unlink()
    (lasting / "embedcode").symlink_to(script)  # as pipx and uv do
    assert command(shared=True) == "embedcode"
    assert command(shared=False) == str(script)


@pytest.mark.parametrize(
    ("entry", "ours"),
    [
        (ASSISTANTS["codex"].entry("/old/venv/bin/embedcode", Path("/x")), True),
        ({"command": "embedcode", "args": ["mcp", "path/to/repo"]}, True),
        ({"command": "embedcode", "args": ["mcp"], "env": {}}, False),
        ({"command": "uvx", "args": ["embedcode", "mcp"]}, False),
        ({"command": "embedcode", "args": ["search"]}, False),
        ({"command": "embedcode"}, False),
        ("embedcode mcp", False),
        (["mcp"], False),
    ],
)
def test_what_a_person_changed_is_not_taken_for_ours(entry: object, ours: bool) -> None:
    assert is_ours(entry) is ours

"""Which coding assistants there are, which file each reads its MCP servers from, and what our entry in it says.

A table, and no file is read here. Taken from what each assistant's documentation and code say in 2026: the names
of files and keys, which folder a server is started in, and which variable stands for the open project.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from embedcode.errors import UsageError
from embedcode.files import checkout, everything
from embedcode.serve.jsonc import Json
from embedcode.serve.syntax import Syntax, Where
from embedcode.serve.toml import Toml

KEY = "embedcode"


@dataclass(frozen=True, slots=True)
class Assistant:
    name: str
    title: str
    syntax: Syntax
    servers: str
    """The key of the object or table that holds the servers."""
    project_file: str
    """Below a project's folder; "" where it reads none."""
    user_file: str
    """Below the home folder; "" where a server in it is not told which project is open."""
    open_project: str
    """The argument that stands for it; "" where the server is started in it, or told by a variable."""
    next_step: str
    home_variable: str = ""
    """Moves the folder of `user_file`."""
    typed: bool = True
    """An entry names its transport."""

    @property
    def where(self) -> Where:
        return self.servers, KEY

    def entry(self, command: str, root: Path | None) -> dict[str, object]:
        """What to start. `root`: the one repository to answer about, for whatever project is open."""
        asked = str(root or self.open_project)
        transport = {"type": "stdio"} if self.typed else {}
        return {**transport, "command": command, "args": ["mcp", asked] if asked else ["mcp"]}


ASSISTANTS = {
    assistant.name: assistant
    for assistant in (
        Assistant(
            name="claude",
            title="Claude Code",
            syntax=Json(),
            servers="mcpServers",
            project_file=".mcp.json",
            user_file=".claude.json",
            home_variable="CLAUDE_CONFIG_DIR",
            open_project="",
            next_step="start `claude` again and, where it asks, approve the server; /mcp shows it",
        ),
        Assistant(
            name="cursor",
            title="Cursor",
            syntax=Json(comments=True),
            servers="mcpServers",
            project_file=".cursor/mcp.json",
            user_file=".cursor/mcp.json",
            open_project="${workspaceFolder}",
            next_step="switch embedcode on in Cursor's settings, under MCP",
        ),
        Assistant(
            name="codex",
            title="Codex",
            syntax=Toml(),
            servers="mcp_servers",
            project_file="",
            user_file=".codex/config.toml",
            home_variable="CODEX_HOME",
            open_project="",
            next_step="start `codex` again; /mcp shows it",
            typed=False,
        ),
        Assistant(
            name="vscode",
            title="VS Code",
            syntax=Json(comments=True),
            servers="servers",
            project_file=".vscode/mcp.json",
            user_file="",
            open_project="${workspaceFolder}",
            next_step="run the command `MCP: List Servers` in VS Code, start embedcode and trust it",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Place:
    """One file that an assistant reads."""

    assistant: Assistant
    file: Path
    project: Path | None
    """The folder of the project it belongs to; None for the user's own."""
    folder: Path | None
    """The file's folder where it is the assistant's alone, to be made and removed with the file."""


def named(name: str) -> Assistant:
    if name not in ASSISTANTS:
        near = get_close_matches(name.lower(), ASSISTANTS, n=1)
        cure = f"did you mean {near[0]!r}?" if near else f"give one of {', '.join(ASSISTANTS)}"
        raise UsageError(f"{name!r} is no assistant that can be configured; {cure}")
    return ASSISTANTS[name]


def project_place(assistant: Assistant, path: str | None) -> Place:
    """The file of a project: of the folder `path`, or of the checkout that holds the current folder."""
    try:
        folder = Path(path or ".").resolve()
    except OSError as error:
        raise UsageError(f"the current folder cannot be used ({error.strerror}): give a folder") from None
    if path is None:
        folder = checkout(folder) or folder
    if folder in everything(folder):
        raise UsageError(f"{folder} is no project but everything you have: give a folder in it, or --user")
    file = folder / assistant.project_file
    return Place(assistant, file, folder, file.parent if file.parent != folder else None)


def user_place(assistant: Assistant) -> Place:
    """The user's own file."""
    moved = os.environ.get(assistant.home_variable, "") if assistant.home_variable else ""
    if moved:
        return Place(assistant, Path(moved).absolute() / Path(assistant.user_file).name, None, None)
    try:
        home = Path.home()
    except RuntimeError:
        raise UsageError("there is no home folder with your assistants' files in it; set HOME") from None
    file = home / assistant.user_file
    return Place(assistant, file, None, file.parent if file.parent != home else None)


def places() -> list[Place]:
    """Every file there may be: of the checkout that holds the current folder, and the user's."""
    found = []
    for assistant in ASSISTANTS.values():
        if assistant.project_file:
            with suppress(UsageError):  # the current folder is no project
                found.append(project_place(assistant, None))
        if assistant.user_file:
            found.append(user_place(assistant))
    return found


def command(shared: bool) -> str:
    """What starts this installation: its script's path; for a `shared` file the bare name, if that finds it.

    A virtual environment that happens to be active does not count: the assistant is started without it.
    """
    script = _script()
    if shared:
        active = {os.environ[name] for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if os.environ.get(name)}
        folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
        lasting = [folder for folder in folders if folder and not any(Path(folder).is_relative_to(a) for a in active)]
        found = shutil.which(KEY, path=os.pathsep.join(lasting))
        if found and Path(found).samefile(script):
            return KEY
    return str(script)


def _script() -> Path:
    """The script that is running; where a module is (`python -m embedcode`), the one beside it."""
    scripts = Path(sysconfig.get_path("scripts"))
    for script in (Path(sys.argv[0]), scripts / KEY, scripts / f"{KEY}.exe"):
        if script.stem == KEY and len(script.parts) > 1 and script.is_file():
            return Path(os.path.normpath(script.absolute()))
    raise UsageError(f"there is no script {KEY} in {scripts} that an assistant could start; run `pip install .`")


def is_ours(entry: object) -> bool:
    """Whether an entry holds nothing but what entry() writes, in this version or for another installation or root."""
    if not isinstance(entry, dict) or not entry.keys() <= {"type", "command", "args"}:
        return False
    command, args = entry.get("command"), entry.get("args")
    return isinstance(command, str) and Path(command).stem == KEY and isinstance(args, list) and args[:1] == ["mcp"]

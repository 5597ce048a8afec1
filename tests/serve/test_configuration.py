"""Our entry in an assistant's file: nothing else in the file changes, ever, and taking it out gives back its bytes."""

from __future__ import annotations

import json
import os
import stat
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from embedcode.errors import UsageError
from embedcode.serve.assistants import ASSISTANTS, Place
from embedcode.serve.configuration import Change, Configuration
from embedcode.serve.jsonc import Json

SECRET = 's3cr3t-{}-//-\\-"-é'
"""A value that no diff may show; what it holds must not be taken for structure either."""

COMMENTS = ("// c\n", '// {"embedcode": 1},\r\n', "/* c */", "/* a\n * } , b\n */", "/**/")
BLANKS = ("", "", "", " ", "\n", "\r\n", "\n  ", "\n    ", "\n\t", "\r\n  ", "  \n", "\r", "\n\n  ")
ENTRIES = st.builds(
    lambda name, command, root: ASSISTANTS[name].entry(command, Path(root) if root else None),
    st.sampled_from(["claude", "vscode"]),
    st.sampled_from(["embedcode", "/home/é b/bin/embedcode", "C:\\x\\embedcode.exe"]),
    st.sampled_from(["", "/a/b", '/ü "/x']),
)


def place(folder: Path, name: str) -> Place:
    assistant = ASSISTANTS[name]
    return Place(assistant, folder / Path(assistant.project_file or assistant.user_file).name, folder, None)


def both_ways(content: bytes | None, name: str, entry: dict[str, object]) -> tuple[Change, Change, bytes]:
    """Install into a file and uninstall from it: the two changes and what the file held in between."""
    with tempfile.TemporaryDirectory() as name_of_folder:
        where = place(Path(os.path.realpath(name_of_folder)), name)
        if content is not None:
            where.file.write_bytes(content)
        putting = Configuration(where).putting(entry)
        putting.write()
        between = where.file.read_bytes()
        assert Configuration(where).entry == entry
        taking = Configuration(where).taking()
        taking.write()
        assert (where.file.read_bytes() if where.file.exists() else None) == content
        return putting, taking, between


@st.composite
def json_texts(draw: st.DrawFn, servers: str, comments: bool) -> tuple[str, dict[str, Any]]:
    """A text laid out by chance, and what it says."""
    gaps = st.sampled_from([*BLANKS, *(COMMENTS if comments else ())])
    leaf = st.sampled_from([SECRET, "", "embedcode", 0, -1, 12345, True, None, [], {}])
    values = st.recursive(
        leaf, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab{"), inner, max_size=2)
    )

    def text(value: Any) -> str:
        gap = lambda: "".join(draw(st.lists(gaps, max_size=2)))  # noqa: E731
        if not isinstance(value, dict | list):
            return json.dumps(value, ensure_ascii=draw(st.booleans()))
        if isinstance(value, list):
            parts = [f"{gap()}{text(item)}{gap()}" for item in value]
        else:
            parts = [f"{gap()}{json.dumps(key)}{gap()}:{gap()}{text(item)}{gap()}" for key, item in value.items()]
        comma = "," + gap() if parts and comments and draw(st.booleans()) else ""
        opened, closed = "[]" if isinstance(value, list) else "{}"
        return opened + ",".join(parts) + (comma or ("" if parts else gap())) + closed

    top = draw(st.dictionaries(st.sampled_from(["a", "b", "projects"]), values, max_size=2))
    if draw(st.booleans()):
        names = st.sampled_from(["other", "embedcode2", "e"])
        top[servers] = draw(st.dictionaries(names, values, max_size=2))
        top = dict(draw(st.permutations(list(top.items()))))
    if draw(st.booleans()):
        laid_out = json.dumps(top, indent=draw(st.sampled_from([None, 0, 1, 2, 4, "\t"])))
        line_end = draw(st.sampled_from(["\n", "\r\n"]))
        return laid_out.replace("\n", line_end) + draw(st.sampled_from(["", line_end])), top
    around = "".join(draw(st.lists(gaps, max_size=1)))
    return around + text(top) + draw(st.sampled_from(["", "\n", "\r\n", " "])), top


def as_written(value: Any) -> Any:
    """Numbers as Json gives them."""
    if isinstance(value, dict):
        return {key: as_written(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_written(item) for item in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


@pytest.mark.parametrize("name", ["claude", "vscode"])
@given(data=st.data(), entry=ENTRIES, bom=st.booleans())
def test_json_comes_back_byte_for_byte(name: str, data: st.DataObject, entry: dict[str, object], bom: bool) -> None:
    assistant = ASSISTANTS[name]
    assert isinstance(assistant.syntax, Json)
    text, value = data.draw(json_texts(assistant.servers, assistant.syntax.comments))
    assert assistant.syntax.parse(text) == as_written(value)
    putting, taking, between = both_ways(("\ufeff" * bom + text).encode(), name, entry)
    found = between.decode().removeprefix("\ufeff")
    expected = as_written(value)
    expected[assistant.servers] = {**expected.get(assistant.servers, {}), "embedcode": entry}
    assert assistant.syntax.parse(found) == expected
    if name == "claude":
        json.loads(found)
    for change in (putting, taking):
        assert "s3cr3t" not in "\n".join(change.diff())


TOML_LINES = (
    "", "# c", "  # [mcp_servers.embedcode]", "[a]", "[[b]]", "[a.b] # c", "x = 1", 'y = "[mcp_servers.embedcode]"',
    "z = nan", "w = [\n  1,\n]", 'm = """\ntwo\nlines\n"""', "d = 2020-01-01", "[mcp_servers]", "[mcp_servers.other]",
    "[mcp_servers.other.env]", 'T = "s3cr3t"', "mcp_servers.dotted.command = 'x'", "[ mcp_servers . \"embedcode2\" ]",
)  # fmt: skip


@given(
    lines=st.lists(st.sampled_from(TOML_LINES), max_size=8),
    line_end=st.sampled_from(["\n", "\r\n"]),
    end=st.booleans(),
    bom=st.booleans(),
)
@example(lines=[], line_end="\n", end=False, bom=False)
@example(lines=[""], line_end="\n", end=True, bom=False)
def test_toml_comes_back_byte_for_byte(lines: list[str], line_end: str, end: bool, bom: bool) -> None:
    text = line_end.join(lines).replace("\r\n", "\n").replace("\n", line_end) + line_end * end
    try:
        before = tomllib.loads(text, parse_float=str)
    except tomllib.TOMLDecodeError:
        assume(False)
    entry = ASSISTANTS["codex"].entry('/home/é "b"/embedcode', Path("/a\\b"))
    putting, taking, between = both_ways(("\ufeff" * bom + text).encode(), "codex", entry)
    after = tomllib.loads(between.decode().removeprefix("\ufeff"), parse_float=str)
    assert after == {**before, "mcp_servers": {**before.get("mcp_servers", {}), "embedcode": entry}}
    for change in (putting, taking):
        assert "s3cr3t" not in "\n".join(change.diff())


ENTRY = ASSISTANTS["claude"].entry("embedcode", None)
GOOD = b'{"mcpServers": {"other": {"env": {"TOKEN": "s3cr3t"}}}}'


def configuration(folder: Path, content: bytes, name: str = "claude") -> Configuration:
    where = place(folder.resolve(), name)
    where.file.write_bytes(content)
    return Configuration(where)


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("claude", b"", ["line 1"]),
        ("claude", b'{\n"a": 1,\n}', ["line "]),
        ("claude", b'{\n// c\n"a": 1}', ["line 2"]),
        ("claude", b"[]", ["no object"]),
        ("claude", b'{"a": 1, "a": 2}', ["'a'", "twice"]),
        ("claude", b'{"mcpServers": {"x": 1}, "mcpServers": {}}', ["'mcpServers'", "twice"]),
        ("claude", b'{"a": NaN}', ["NaN"]),
        ("claude", b"[" * 100_000, ["nested too deep"]),
        ("claude", b'{"mcpServers": []}', ["mcpServers", "no servers by name"]),
        ("claude", b'{"mcpServers": null}', ["mcpServers", "no servers by name"]),
        ("claude", b'{"a": "\xff"}', ["not UTF-8"]),
        ("vscode", b'{\n/* two\nlines */\n"a": }', ["line 4"]),
        ("vscode", b'{"a": 1,, }', ["line 1"]),
        ("vscode", b"{,}", ["line 1"]),
        ("vscode", b'{"a": "// open}', ["line 1"]),
        ("codex", b"a = 1\nb = \nc = 2", ["line 2"]),
        ("codex", b"[a]\n[a]\n", ["line 2"]),
        ("codex", b"mcp_servers = 1\n", ["mcp_servers", "no servers by name"]),
        ("codex", b"[[mcp_servers]]\n", ["mcp_servers", "no servers by name"]),
        ("codex", b"a = " + b"[" * 100_000, ["nested too deep"]),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused_and_stays(
    tmp_path: Path, name: str, content: bytes, parts: list[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        configuration(tmp_path, content, name)
    for part in (str(place(tmp_path.resolve(), name).file), *parts):
        assert part in str(refused.value)
    assert place(tmp_path, name).file.read_bytes() == content


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    place(tmp_path, "claude").file.mkdir()
    with pytest.raises(UsageError, match="Is a directory"):
        Configuration(place(tmp_path.resolve(), "claude"))
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / ".mcp.json").symlink_to(".mcp.json")
    with pytest.raises(UsageError, match="cannot be read"):
        Configuration(place((tmp_path / "loop").resolve(), "claude"))


@pytest.mark.parametrize(
    "text",
    [
        'mcp_servers = { other = { command = "x" } }\n',
        'mcp_servers.embedcode.command = "embedcode"\nmcp_servers.embedcode.args = ["mcp", "/x"]\n',
    ],
)
def test_toml_that_no_table_can_be_added_to_is_left_to_a_person(tmp_path: Path, text: str) -> None:
    found = configuration(tmp_path, text.encode(), "codex")
    with pytest.raises(UsageError, match="by hand"):
        found.putting(ASSISTANTS["codex"].entry("embedcode", None))
    if found.entry:
        with pytest.raises(UsageError, match="by hand"):
            found.taking()


def test_what_a_person_or_the_assistant_added_to_the_entry_goes_with_it(tmp_path: Path) -> None:
    ours = '[mcp_servers.embedcode]\ncommand = "embedcode"\nargs = [\n  "mcp",\n]\n'
    tools = '\n[mcp_servers.embedcode.tools.search]\napproval_mode = "approve"\n'
    rest = '[mcp_servers.other]\ncommand = "x"\n\n# of what follows\n[history]\n'
    change = configuration(tmp_path, f"{ours}{tools}\n{rest}".encode(), "codex").taking()
    assert (change.after or b"").decode().lstrip("\n") == rest

    lines = [
        "{",
        "  // before",
        '  "servers": {',
        '    "a": 1, // a',
        "    // ours",
        '    "embedcode": {',
        "      // b",
    ]
    change = configuration(
        tmp_path, "\n".join([*lines, '      "x": 1', "    }", "  }", "}"]).encode(), "vscode"
    ).taking()
    left = ["{", "  // before", '  "servers": {', '    "a": 1 // a', "    // ours", "  }", "}"]
    assert change.after == "\n".join(left).encode()


def test_another_root_or_installation_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    claude = ASSISTANTS["claude"]
    text = '{"mcpServers": {"a": 1, "embedcode": {"command": "/old/embedcode", "args": ["mcp"]}, "b": 2}}'
    new = claude.entry("/new/embedcode", None)
    change = configuration(tmp_path, text.encode()).putting(new)
    assert change.after == text.replace('{"command": "/old/embedcode", "args": ["mcp"]}', json.dumps(new)).encode()

    where = place(tmp_path.resolve(), "claude")
    where.file.unlink()  # a file that is ours alone stays so
    for entry in (claude.entry("/old/embedcode", None), new):
        Configuration(where).putting(entry).write()
    Configuration(where).taking().write()
    assert not where.file.exists()


def test_only_what_is_ours_is_shown(tmp_path: Path) -> None:
    change = configuration(tmp_path, GOOD).putting(ENTRY)
    ours = '"embedcode": {"type": "stdio", "command": "embedcode", "args": ["mcp"]},'
    assert change.diff()[2:] == ["@@ -1,1 +1,1 @@", '-{"mcpServers": {…', f'+{{"mcpServers": {{{ours}…']
    change = configuration(tmp_path, b'{"token": "s3cr3t", ' + GOOD[1:]).putting(ENTRY)
    assert change.diff()[3:] == ["-…", f"+…{ours}…"]


def test_the_mode_of_a_file_and_a_link_to_it_are_kept(tmp_path: Path) -> None:
    dotfiles, home = tmp_path.resolve() / "dotfiles", tmp_path.resolve() / "home"
    dotfiles.mkdir()
    home.mkdir()
    (dotfiles / "claude.json").write_bytes(GOOD)
    (dotfiles / "claude.json").chmod(0o600)
    (home / ".claude.json").symlink_to("../dotfiles/claude.json")
    where = Place(ASSISTANTS["claude"], home / ".claude.json", None, None)
    Configuration(where).putting(ENTRY).write()
    assert (home / ".claude.json").is_symlink()
    assert stat.S_IMODE((dotfiles / "claude.json").stat().st_mode) == 0o600
    assert b"embedcode" in (dotfiles / "claude.json").read_bytes()
    Configuration(where).taking().write()
    assert (dotfiles / "claude.json").read_bytes() == GOOD
    assert [file.name for file in dotfiles.iterdir()] == ["claude.json"]

    (home / ".claude.json").unlink()
    Configuration(where).putting(ENTRY).write()
    assert stat.S_IMODE((home / ".claude.json").stat().st_mode) == 0o600  # it will hold the user's tokens


def test_a_link_out_of_a_project_is_not_followed(tmp_path: Path) -> None:
    project = tmp_path.resolve() / "project"
    project.mkdir()
    (tmp_path / "mine.json").write_bytes(GOOD)
    (project / ".mcp.json").symlink_to("../mine.json")
    with pytest.raises(UsageError, match="leaves the project"):
        Configuration(place(project, "claude"))
    (project / ".mcp.json").unlink()
    (project / ".mcp.json").symlink_to("../nothing-yet.json")
    with pytest.raises(UsageError, match="leaves the project"):
        Configuration(place(project, "claude"))


def test_a_file_that_changes_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    found = configuration(tmp_path, GOOD)
    change = found.putting(ENTRY)
    found.file.write_bytes(b"{}")
    with pytest.raises(UsageError, match="changed meanwhile"):
        change.write()
    assert found.file.read_bytes() == b"{}"


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    cursor = ASSISTANTS["cursor"]
    folder = tmp_path.resolve() / ("x" * 250)  # the name of a file beside it is too long
    where = Place(cursor, folder / ("y" * 250), tmp_path.resolve(), folder)
    change = Configuration(where).putting(cursor.entry("embedcode", None))
    with pytest.raises(UsageError, match="cannot be written"):
        change.write()
    assert list(tmp_path.iterdir()) == []

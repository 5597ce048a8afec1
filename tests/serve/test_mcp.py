"""`embedcode mcp` as a coding assistant meets it: a process of its own, spoken to by the SDK's own client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from mcp import Client, StdioServerParameters

from embedcode.cli.mcp import mcp as verb
from embedcode.errors import UsageError
from embedcode.serve.halves import mended
from embedcode.serve.kept import Answer, Kept
from embedcode.serve.mcp import Roots, _code, _state, _told, serve
from embedcode.types import Chunk, Hit
from repositories import environment, write

T = TypeVar("T")
Talk = Callable[..., Awaitable[T]]

FILES = {
    "shop/session.py": '''def invalidate_session(store, session_id):
    """Forget a visitor's session, so that they have to log in again."""
    store.delete(session_id)
    store.publish("session.closed", session_id)
''',
    "shop/prices.py": "def gross_price(net, rate):\n    return round(net * (1 + rate), 2)\n",
    "web/prices.js": "function grossPrice(net, rate) {\n  return Math.round(net * (1 + rate) * 100) / 100\n}\n",
    "README.md": "# Shop\n\nHow to install the shop.\n",
}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write(tmp_path / "shop", FILES)


@pytest.fixture
def server(tmp_path: Path) -> Callable[..., StdioServerParameters]:
    def server(*roots: Path) -> StdioServerParameters:
        arguments = ["-m", "embedcode", "mcp", *map(str, roots)]
        return StdioServerParameters(command=sys.executable, args=arguments, env=environment(tmp_path / "home"))

    return server


def conversation(parameters: StdioServerParameters, *calls: tuple[str, dict[str, object]]) -> list[tuple[bool, str]]:
    """(is an error, text) of each call, one after the other."""

    async def talk() -> list[tuple[bool, str]]:
        async with Client(parameters, read_timeout_seconds=60) as client:
            return [await ask(client, name, arguments) for name, arguments in calls]

    return asyncio.run(talk())


async def ask(client: Client, name: str, arguments: dict[str, object]) -> tuple[bool, str]:
    """Asks again for as long as the answer says so, which it does on a slow machine."""
    for _ in range(50):
        failed, text = await ask_once(client, name, arguments)
        if not re.search("ask again (in a few seconds|soon)", text):
            break
        await asyncio.sleep(0.5)
    return failed, text


async def ask_once(client: Client, name: str, arguments: dict[str, object]) -> tuple[bool, str]:
    result = await client.call_tool(name, arguments)
    return bool(result.is_error), "\n".join(getattr(part, "text", "") for part in result.content)


def test_the_tools_and_what_they_take(server: Callable[..., StdioServerParameters], shop: Path) -> None:
    async def tools() -> dict[str, set[str]]:
        async with Client(server(shop)) as client:
            listed = await client.list_tools()
            assert all(tool.description for tool in listed.tools)
            hints = [tool.annotations for tool in listed.tools if tool.annotations]
            assert [(hint.read_only_hint, hint.open_world_hint) for hint in hints] == [(True, False)] * 3
            for tool in listed.tools:  # what an assistant pays for before it asks anything
                assert "\n  " not in (tool.description or "") and not (tool.description or "").endswith("\n")
                assert "title" not in f"{tool.input_schema}" and "anyOf" not in f"{tool.input_schema}"
            return {tool.name: set(tool.input_schema["properties"]) for tool in listed.tools}

    found = asyncio.run(tools())
    assert found.keys() == {"search", "related", "status"}
    filters = {"paths", "languages", "repos", "content", "since"}
    assert {"query", "code", "top_k", "max_tokens", "root"} | filters == found["search"]


def test_a_conversation(server: Callable[..., StdioServerParameters], shop: Path) -> None:
    (shop / "web" / ".git").mkdir()
    found, filtered, nested, related, within, state = conversation(
        server(shop),
        ("search", {"query": "where is a visitor logged out?"}),
        ("search", {"query": "price with tax", "languages": ["js"], "top_k": 1}),
        ("search", {"query": "visitor's price", "repos": ["web"]}),
        ("related", {"path": "shop/prices.py", "line": 1}),
        ("related", {"path": "shop/prices.py", "line": 1, "languages": ["python"], "paths": ["shop/**"]}),
        ("status", {}),
    )
    assert not any(failed for failed, _ in (found, filtered, nested, related, within, state))
    assert re.findall(r"^\d+\. (\S+)", within[1], re.MULTILINE) == ["shop/session.py:1-4"]
    assert re.findall(r"^\d+\. (\S+)", nested[1], re.MULTILINE) == ["web/prices.js:1-3"]
    assert found[1].startswith("1. shop/session.py:1-4  invalidate_session  [")
    assert "store.delete(session_id)" in found[1]
    assert filtered[1].startswith("1. web/prices.js:1-3")
    assert "\n2. " not in filtered[1]
    assert related[1].startswith("1. web/prices.js:1-3  grossPrice")
    assert re.search(r"shop: 4 files \(.*python 2.*\), 4 chunks", state[1])


def test_after_an_edit_related_makes_the_few_vectors_that_are_missing(
    server: Callable[..., StdioServerParameters], shop: Path
) -> None:
    related, state = conversation(server(shop), ("related", {"path": "shop/prices.py", "line": 1}), ("status", {}))
    assert "Note: " not in related[1]
    assert "4 chunks, 4 of them with vectors;" in state[1]


def test_what_goes_wrong_is_a_sentence_to_act_on(server: Callable[..., StdioServerParameters], shop: Path) -> None:
    outside = shop.parent / "outside.py"
    outside.write_text("secret = 1\n")
    (shop / "link.py").symlink_to(outside)
    (shop / ".env").write_text("TOKEN=1\n")
    answers = conversation(
        server(shop),
        ("search", {"query": "  "}),
        ("search", {"query": "x", "root": "elsewhere"}),
        ("search", {"query": "x", "languages": ["klingon"]}),
        ("search", {"query": "x", "top_k": 0}),
        ("search", {"query": "x", "since": "HEAD"}),
        ("related", {"path": str(outside), "line": 1}),
        ("related", {"path": "../outside.py", "line": 1}),
        ("related", {"path": "link.py", "line": 1}),
        ("related", {"path": "shop/prices.py", "line": 99}),
        ("search", {"query": "x", "language": ["python"]}),
        ("related", {"path": "shop/prices.py"}),
        ("search", {"query": "x", "content": ["doc"]}),
        ("search", {"query": "x", "since": "\0"}),
        ("related", {"path": "x" * 5000, "line": 1}),
        ("related", {"path": "", "line": 1}),
        ("related", {"path": ".env", "line": 1}),
        ("search", {"query": "x", "a\nNote: b": 1}),
    )
    signs = ["query is empty", "none of the roots", "klingon", "top_k 0", "git repository"]
    signs += ["is no file in", "is no file in", "is no file in", "it has 2 lines"]
    signs += ["search has no argument language: give query, code, paths, languages, repos,"]
    signs += ["line of related: field required.", "content.0 of search: input should be 'code', 'docs' or 'config'."]
    signs += ["since '\\x00' is not a commit"]
    signs += ["is no file in", "is no file in", ".env is left out: looks like credentials"]
    signs += ["search has no argument a\\nNote: b: give"]
    for (failed, text), sign in zip(answers, signs, strict=True):
        assert failed
        assert sign in text
        assert "Traceback" not in text
        assert "Error executing" not in text
        assert "\n" not in text
        assert "secret" not in text
        assert "--" not in text  # flags are not what an assistant can give


def test_one_value_may_stand_for_a_list_and_null_for_what_is_not_given(
    server: Callable[..., StdioServerParameters], shop: Path
) -> None:
    (shop / "[id].py").write_text("def price_of(id):\n    return id\n")
    one, listed, sent_as_text, several, bracket = conversation(
        server(shop),
        ("search", {"query": "price", "paths": "web/**", "languages": None}),
        ("search", {"query": "price", "paths": ["web/**"]}),
        ("search", {"query": "price", "paths": '["web/**"]'}),
        ("search", {"query": "shop", "content": ["docs", "config"]}),
        ("search", {"query": "price", "paths": "[[]id].py"}),
    )
    assert bracket[1].startswith("1. [id].py:1-2")
    assert one[1].startswith("1. web/prices.js:1-3")
    assert [re.findall(r"^\d+\. (\S+)", text, re.MULTILINE) for _, text in (one, listed, sent_as_text, several)] == [
        ["web/prices.js:1-3"],
        ["web/prices.js:1-3"],
        ["web/prices.js:1-3"],
        ["README.md:1-3"],
    ]


def test_an_interrupt_ends_it_though_stdin_does_not(server: Callable[..., StdioServerParameters], shop: Path) -> None:
    parameters = server(shop)
    initialize = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": initialize})
    # Whoever runs the tests may have had it ignored, which a process inherits.
    heeding = (
        "import os, signal, sys; signal.signal(2, signal.default_int_handler); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", heeding, parameters.command, *parameters.args]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=parameters.env) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(f"{request}\n".encode())
        process.stdin.flush()
        assert b'"id":1' in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(30) == 130
        finally:
            process.kill()
        assert process.stderr.read().startswith(b"embedcode: interrupted")


def test_that_no_file_passes_the_filters_is_said(server: Callable[..., StdioServerParameters], shop: Path) -> None:
    """Or an assistant concludes that there is no such code."""
    answers = conversation(
        server(shop),
        ("search", {"query": "price", "paths": ["nosuch/**"]}),
        ("search", {"query": "price", "languages": ["rust"]}),
        ("search", {"query": "price", "paths": ["web"]}),
        ("search", {"query": "price", "paths": ["nosuch"], "languages": ["js"]}),
    )
    assert "no hits; no file passes the filters together: check the globs of paths first" in answers[0][1]
    assert "no hits; no file here is in rust" in answers[1][1]
    assert "no hits" not in answers[2][1]
    assert "no hits; no file passes the filters together" in answers[3][1]


def test_the_budget_of_tokens_holds(server: Callable[..., StdioServerParameters], shop: Path) -> None:
    body = "\n".join(f"    total = total + step_{number}(total)" for number in range(40))
    for number in range(6):
        (shop / f"sum{number}.py").write_text(f"def add_all_{number}(total):\n{body}\n    return total\n")
    parameters = server(shop)
    whole = [sys.executable, "-m", "embedcode", "index", str(shop)]  # or vectors come between the two questions
    subprocess.run(whole, env=parameters.env, check=True, capture_output=True)
    wide, narrow = conversation(
        parameters,
        ("search", {"query": "add all totals", "max_tokens": 20_000}),
        ("search", {"query": "add all totals", "max_tokens": 150}),
    )
    places = re.compile(r"^\d+\. (\S+)", re.MULTILINE)
    assert places.findall(wide[1]) == places.findall(narrow[1])  # places cost little, so all are there
    assert len(narrow[1]) < len(wide[1]) / 3
    assert "more lines" in narrow[1]


@pytest.mark.parametrize(("text", "fence"), [("plain", "```"), ("```sh\nls\n```", "````"), ("a ````` b", "``````")])
def test_a_file_cannot_close_the_fence_around_it(text: str, fence: str) -> None:
    lines = text.split("\n")
    assert _code("markdown", lines, len(lines)) == f"\n{fence}markdown\n{text}\n{fence}"


def test_a_name_cannot_pass_for_a_note_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    root = tmp_path / os.fsdecode(b"caf\xe9\nNote: b")
    root.mkdir()
    chunk = Chunk("r", "x.py\n\nNote: a.", 1, 1, "python", "f\u202e", 'print("\ud83d")')
    answer = Answer([Hit(chunk, 1.0, ("words #1",))], (f"{root} is being read",))
    told = _told(Kept(root), answer, 100)
    assert told.encode().decode().split("\n") == [
        "1. x.py\\n\\nNote: a.:1-1  f\\u202e  [words #1]",
        "```python",
        'print("?")',
        "```",
        f"Note: {tmp_path}/caf\\udce9\\nNote: b is being read.",
    ]
    assert _state(Roots([root]), root).encode().startswith(f"{tmp_path}/caf\\udce9\\nNote: b: 0 files".encode())


def test_one_bad_root_costs_the_others_nothing(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    bad, gone = tmp_path / "bad", tmp_path / "gone"
    bad.mkdir()
    (bad / ".embedcode.toml").write_text("ignore = 1\n")
    roots = Roots([bad, gone, shop])
    states = [_state(roots, path) for path in roots.paths]
    assert states[0].startswith(f"{bad}: {bad}/.embedcode.toml: ignore = '1' must be a list")
    assert states[1] == f"{gone}: does not exist any more; check the path"
    assert states[2].startswith(f"{shop}: 0 files")
    assert roots.holding("shop/prices.py", "")[1] == "shop/prices.py"
    with pytest.raises(UsageError, match="must be a list"):
        roots.kept(roots.at("bad"))
    (bad / ".embedcode.toml").unlink()
    assert roots.kept(roots.at("bad")).index.root == bad


def test_of_several_roots_one_may_be_gone(tmp_path: Path, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[list[Path]] = []
    monkeypatch.setattr("embedcode.serve.mcp.serve", served.append)
    gone = tmp_path / "gone"
    verb([str(gone), str(shop)])
    assert served == [[gone, shop]]
    with pytest.raises(UsageError, match="no such file"):
        verb([str(gone)])


def test_several_roots_have_to_be_told_apart(server: Callable[..., StdioServerParameters], shop: Path) -> None:
    other = shop.parent / "other"
    other.mkdir()
    (other / "log.go").write_text("package log\n\nfunc RotateLogs(folder string) error {\n\treturn nil\n}\n")
    (other / "README.md").write_text("# Logs\n\nOf the other one.\n")
    unnamed, named, slash, twice, mine, state = conversation(
        server(shop, other),
        ("search", {"query": "rotate logs"}),
        ("search", {"query": "rotate logs", "root": "other"}),
        ("search", {"query": "rotate logs", "root": f"{other}/"}),
        ("related", {"path": "README.md", "line": 1}),
        ("related", {"path": "README.md", "line": 1, "root": "other"}),
        ("status", {}),
    )
    assert slash[1].startswith("1. log.go:") and not mine[0]
    assert twice == (True, f"several roots have a file 'README.md': give `root`, one of {shop}, {other}.")
    assert unnamed[0]
    assert "give `root`" in unnamed[1]
    assert named[1].startswith("1. log.go:")
    assert state[1].count("\n") == 1


def test_a_repository_never_seen_is_answered_at_once(
    server: Callable[..., StdioServerParameters], tmp_path: Path
) -> None:
    """3,000 files take longer to read and embed than an assistant waits. Two seconds are the promise; the bound here is
    wider for a busy machine."""
    root = tmp_path / "large"
    for number in range(3_000):
        (root / f"part{number % 50}").mkdir(parents=True, exist_ok=True)
        lines = "".join(f"def step_{number}_{i}(value):\n    return value + {i}\n\n\n" for i in range(12))
        (root / f"part{number % 50}" / f"step{number}.py").write_text(lines)

    async def first() -> tuple[float, bool, str]:
        async with Client(server(root), read_timeout_seconds=60) as client:
            start = time.monotonic()
            failed, text = await ask_once(client, "search", {"query": "step_7_3 adds to a value"})
            return time.monotonic() - start, failed, text

    seconds, failed, text = asyncio.run(first())
    assert not failed
    assert seconds < 4
    assert "Note: " in text
    assert text.startswith(("1. part", "Note: "))


def test_two_clients_on_one_repository(server: Callable[..., StdioServerParameters], shop: Path) -> None:
    async def one(number: int) -> list[str]:
        found = []
        async with Client(server(shop), read_timeout_seconds=60) as client:
            for turn in range(5):
                (shop / f"new{number}_{turn}.py").write_text(f"def fresh_{number}_{turn}():\n    return {turn}\n")
                failed, text = await ask(client, "search", {"query": "where is a visitor logged out?"})
                assert not failed, text
                found.append(text.partition(":")[0])
            # What one has just written is found in the end, whoever of the two reads it.
            for _ in range(50):
                _, text = await ask(client, "search", {"query": f"fresh_{number}_4"})
                if text.startswith(f"1. new{number}_4.py"):
                    return found
                await asyncio.sleep(0.1)
            raise AssertionError(text)

    async def both() -> list[list[str]]:
        return list(await asyncio.gather(one(1), one(2)))

    assert asyncio.run(both()) == [["1. shop/session.py"] * 5] * 2


def test_without_the_extra_it_says_what_to_install(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    with pytest.raises(UsageError, match=r"pip install '\.\[mcp\]'"):
        serve([shop])


def test_half_a_pair_of_surrogates_is_answered(server: Callable[..., StdioServerParameters], shop: Path) -> None:
    """A client that cuts a text inside of an emoji sends one, and waited for ever."""
    parameters, pipe = server(shop), subprocess.PIPE
    initialize = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    lines = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": initialize},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "nosuch\ud83d", "arguments": {}}},
    ]
    sent = "".join(json.dumps(line) + "\n" for line in lines).encode()
    with subprocess.Popen(
        [parameters.command, *parameters.args], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=parameters.env
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(sent)
        process.stdin.flush()
        assert b'"id":1' in process.stdout.readline()
        assert b'"id":2' in process.stdout.readline()
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (rb'{"a": "x\ud83d"}', rb'{"a": "x\ufffd"}'),
        (rb'{"a": "\udc00x"}', rb'{"a": "\ufffdx"}'),
        (rb'{"a": "\ud83d\ude00"}', rb'{"a": "\ud83d\ude00"}'),
        (rb'{"a": "\\ud83d"}', rb'{"a": "\\ud83d"}'),
        (rb'{"a": "\ud83d\ud83d\ude00\n"}', rb'{"a": "\ufffd\ud83d\ude00\n"}'),
        ('{"a": "é😀"}'.encode(), '{"a": "é😀"}'.encode()),
    ],
)
def test_halves_alone_are_replaced(line: bytes, told: bytes) -> None:
    assert mended(line) == told

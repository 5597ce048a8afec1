"""What the pages say is so: quoted help, commands, the Python example, links, and the constants they name."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from embedcode.cli.app import VERBS
from embedcode.cli.data import data
from embedcode.cli.evaluate import eval as measuring
from embedcode.cli.models import models

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
README = ROOT / "README.md"
GROUPS = {
    name: [command.name or command.callback.__name__ for command in group.registered_commands]
    for name, group in (("models", models), ("eval", measuring), ("data", data))
}
Python = Callable[..., "subprocess.CompletedProcess[str]"]


def blocks(page: Path, kind: str) -> list[str]:
    """The fenced blocks of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """A page without its fenced blocks, each run of white space one blank."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return " ".join(text.split())


def commands() -> list[tuple[str, list[str]]]:
    """(page, arguments of embedcode) of every command that a page shows, in a block or in running text."""
    found = []
    for page in PAGES:
        shown = [line for block in blocks(page, "sh") for line in block.split("\n")]
        shown += re.findall(r"`(embedcode [a-z][^`]*)`", prose(page))
        for line in shown:
            *_, command = line.split("&& ")
            if command.startswith("embedcode "):
                found.append((page.name, shlex.split(command)[1:]))
    return found


def help_of(verb: str) -> str:
    """The help as docs/cli.md quotes it, which is fresh by a test of its own."""
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    return page.partition(f"<!-- help: {verb} -->")[2].partition("<!-- end -->")[0]


def test_quoted_help_is_what_the_program_says() -> None:
    # A terminal of another width must make no difference.
    environment = os.environ | {"COLUMNS": "57", "LINES": "9", "FORCE_COLOR": "1"}
    command = [sys.executable, str(ROOT / "scripts" / "docs"), "--check"]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_verb_has_its_help_on_the_page_and_its_row_in_the_readme() -> None:
    readme = README.read_text("utf-8")
    for verb in VERBS:
        assert f"| `embedcode {verb}" in readme
    for verb in (*VERBS, *(f"{group} {name}" for group, names in GROUPS.items() for name in names)):
        assert f"Usage: embedcode {verb} " in help_of(verb)


def test_commands_that_pages_show_have_verbs_and_options_that_exist() -> None:
    found = commands()
    assert len(found) > 20
    for page, (verb, *arguments) in found:
        if verb.upper() == verb or verb.startswith("-"):
            continue  # `embedcode VERB --help`
        assert verb in VERBS, f"{page}: embedcode {verb}"
        shown = help_of(f"{verb} {arguments[0]}") if arguments and verb in GROUPS else help_of(verb)
        assert shown, f"{page}: embedcode {verb}"
        for option in arguments:
            if option.startswith("-") and option not in ("-", "--help"):
                assert re.search(rf"[ /,]{re.escape(option)}[ ,\n]", shown), f"{page}: {verb} {option}"


def test_options_that_pages_name_alone_exist() -> None:
    known = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for page in PAGES:
        if page.name == "LOG.md":  # speaks of what was, and of other programs
            continue
        for option in re.findall(r"`(--?[a-z][a-z-]*)\b", prose(page)):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", known), f"{page.name}: {option}"


@pytest.mark.parametrize(
    "script", ["main_job/run.py", "main_job/paired.py", "growth/run.py", "kills/run.py", "fusion/run.py", "web/run.py"]
)
def test_benchmarks_that_need_only_this_package_start(script: str) -> None:
    command = [sys.executable, str(ROOT / "bench" / script), "--help"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def python(tmp_path: Path) -> Python:
    """Runs Python with these arguments where path/to/repo is a small repository, in a home of its own."""
    repository = tmp_path / "path" / "to" / "repo"
    repository.mkdir(parents=True)
    (repository / "auth.py").write_text("def logout(request):\n    request.session.flush()\n", "utf-8")
    (repository / "math.js").write_text("function add(a, b) {\n  return a + b\n}\n", "utf-8")
    environment = os.environ | {"EMBEDCODE_HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "config")}

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", timeout=60, check=False
        )

    return python


def test_the_python_example_runs(python: Python) -> None:
    (example,) = blocks(README, "python")
    done = python("-c", example)
    assert (done.returncode, done.stderr) == (0, "")
    hit, *_, product = done.stdout.splitlines()
    assert hit.startswith("auth.py 1 ")
    assert "math.js" not in done.stdout  # the example filters by language
    assert 0 < float(product.strip("[]")) < 1


def test_the_readmes_two_commands(python: Python) -> None:
    (line,) = [line for block in blocks(README, "sh") for line in block.split("\n") if line.startswith("pip install")]
    done = python("-m", *shlex.split(line.partition("&& ")[2]))
    assert done.returncode == 0, done.stderr
    assert "path/to/repo/auth.py:1-2  logout" in done.stdout
    assert "scripts/test\n" in blocks(README, "sh")
    assert os.access(ROOT / "scripts" / "test", os.X_OK)


def test_the_picture_fetches_nothing_and_shows_nobodys_folders() -> None:
    picture = (ROOT / "docs" / "search.svg").read_text("utf-8")
    assert "embedcode&#160;search" in picture
    assert not re.findall(r"(?:href|src)=|url\((?!#)|/home/|/Users/|/root/|/tmp/", picture)


def test_the_json_of_the_readme_has_the_fields_that_are_printed() -> None:
    import json

    from embedcode.index.records import answer_record
    from embedcode.index.report import Status
    from embedcode.types import Chunk, Hit

    (shown,) = (json.loads(block) for block in blocks(README, "json"))
    hit = Hit(Chunk("r", "a.py", 1, 2, "python", "f", "text"), 1.0, ("words #1 (1.00)",))
    status = Status(ROOT, ROOT, "", "", 1, 1, 1, 0.0, 1, {}, {}, None)
    printed = answer_record("q", [hit], status, [])
    assert shown.keys() == printed.keys()
    assert shown["hits"][0].keys() == printed["hits"][0].keys()
    assert shown["indexed"].keys() == printed["indexed"].keys()


def test_every_rule_has_its_row() -> None:
    from embedcode.search.rank import ALL

    page = (ROOT / "docs" / "search.md").read_text("utf-8")
    for rule in ALL:
        assert f"`{rule}`" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert linked.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(linked), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_files_that_pages_name_exist() -> None:
    pattern = re.compile(r"`((?:bench|docs|scripts|src|tests|index|store|engine|evaluate|data|search|cli)/[\w./-]+)`")
    for page in PAGES:
        for name in pattern.findall(prose(page)):
            assert (ROOT / name).exists() or (ROOT / "src" / "embedcode" / name).exists(), f"{page.name}: {name}"


def test_every_setting_is_on_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedcode import settings

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    for name, _, _ in settings.load().explain():
        assert f"| `{name}` |" in page
        assert f"`EMBEDCODE_{name.upper()}`" in page


def test_constants_are_as_stated() -> None:
    from embedcode import load
    from embedcode.engine import endpoint, export, onnx, packs, quantise, remote
    from embedcode.index import chunk, embed, golden, index, locks, pieces, prepare, watch, workers
    from embedcode.index.build import MANY_FILES
    from embedcode.search import asked, forms, places, rank
    from embedcode.search.fuse import DENSE_WEIGHT, NAME_DENSE_WEIGHT
    from embedcode.search.search import HELD, POOL, RANKED
    from embedcode.serve import highlight, kept, mcp, search_api
    from embedcode.settings import MAX_FILE_BYTES
    from embedcode.store.derived import DEAD_SHARE
    from embedcode.store.fields import BOOSTS, K1, B

    encoder = load()
    stated = {
        "README.md": [
            f"Up to {index.CANDIDATES} of the best candidates",
            f"at most {index.EMBED_SECONDS:.0f} seconds",
            f"files above {MAX_FILE_BYTES / 1e6:g} MB",
            f"first {encoder.max_tokens} tokens",
        ],
        "SECURITY.md": [f"Files above {MAX_FILE_BYTES / 1e6:g} MB", f"more than {workers.FEW} files"],
        "docs/index.md": [
            f"up to {index.CANDIDATES} of its best candidates by words, for at most {index.EMBED_SECONDS:.0f} seconds",
            f"Up to {index.FEW} missing vectors",
            f"More than {MANY_FILES:,} files",
            f"batches of {embed.BATCH}",
            f"Up to {workers.FEW} changed files",
            f"niceness {locks.NICENESS}",
            f"within {prepare.RACY_NS / 1e6:.0f} ms",
            f"up to {index.UPDATE_WAIT / 60:.0f} minutes",
            f"for {watch.QUIET_SECONDS:g} seconds, or after {watch.BURST_SECONDS:g} seconds",
            f"looked at {'once a minute' if watch.LOOK_SECONDS == 60 else watch.LOOK_SECONDS}",
            f"every {watch.POLL_SECONDS:g} seconds",
        ],
        "docs/search.md": [
            f"score = {1 - DENSE_WEIGHT:.1f} x words + {DENSE_WEIGHT:.1f} x vector",
            f"best {POOL} candidates",
            f"best {RANKED} candidates",
            f"up to {forms.MOST_TERMS} terms",
            f"at {forms.FORM_WEIGHT:g} of their weight",
            f"fewer than {asked.LEAST_WORDS} words",
            f"weigh {NAME_DENSE_WEIGHT:g}",
            f"+ {rank.DEFINITION:g} for a name, + {rank.MENTIONED:g} for a sentence",
            f"called so: + {rank.STEM:g}",
            f"snake_case: + {rank.NAMED:g}",
            f"+ {rank.FRAME:g} for the only frame, its share for each of several, + {rank.NAMED:g} at least",
            f"at most {places.MOST} candidates",
            f"the {places.FILES} whose paths",
            f"does not speak of tests: x {rank.TESTS:g}",
            f"does not ask for prose: x {rank.DOCS:g}",
            f"is an example: x {rank.SHIMS:g}",
            f"at least as good: + {rank.NEIGHBOUR:g}",
            f"up to + {rank.FILE:g}",
            f"x {rank.AGAIN:g}, again",
            f"cut in pieces: x {rank.PIECE:g}",
            f"in any style: + {rank.VERBATIM:g}, and again",
            f"the {HELD} best chunks that hold",
            f"by more than {100 * rank.TELLING:g} %",
            f"above {index.MAX_QUERY:,} characters",
            f"(k1 = {K1}, b = {B})",
            f"its path (boost {BOOSTS['path']:g}), its symbols (boost {BOOSTS['symbol']:g}) and its text "
            f"(boost {BOOSTS['body']:g})",
        ],
        "docs/mcp.md": [
            f"{mcp.TOKENS:,} unless",
            f"waits {kept.READ_SECONDS:g} seconds",
            f"at most {kept.EMBED_SECONDS:g} seconds",
            f"After {kept.ANSWER_SECONDS:g} seconds",
        ],
        "docs/web.md": [
            f"above {highlight.LIMIT:,} bytes",
            f"cut at {highlight.COLUMNS:,} characters",
            f"413 above {search_api.MOST_BYTES:,} bytes",
        ],
        "docs/chunks.md": [
            f"up to {pieces.CAP:,} characters stays whole",
            f"joined up to {pieces.TARGET} characters",
            f"above {pieces.SMALL} characters",
            f"above {chunk._PARSE_LIMIT:,} characters",
        ],
        "docs/walk.md": [f"larger than {MAX_FILE_BYTES / 1e6:g} MB"],
        "docs/encoder.md": [
            f"{encoder.dim} dimensions, {encoder.max_tokens} tokens, {encoder.spec.pooling} pooling",
            f"below {golden.GOLDEN_COSINE:.2f}".replace("0.", "."),
            f"below a cosine of {export.LEAST_COSINE}".replace("0.", "."),
            f"keep a cosine of {quantise.LEAST_COSINE}".replace("0.", "."),
            f"on {quantise.CALIBRATION} texts",
            f"on {quantise.COMPARED} others",
            f"at most {packs.BULK:.0%}".replace("%", " %"),
            f"in calls of fewer than {onnx.BUDGET:,} tokens {packs.CALL:.0%}".replace("%", " %"),
            f"at most {remote.BATCH} texts and {remote.BATCH_BYTES / 1000:.0f} KB, and {remote.IN_FLIGHT} are under",
            "The statuses {}, {}, {}, {}, {} and {} are waited for".format(*sorted(endpoint.RETRIED)),
            f"at most {endpoint.PATIENCE:.0f} seconds; an answer is waited for {endpoint.ANSWER_SECONDS:.0f} seconds",
        ],
        "docs/settings.md": [f"| {MAX_FILE_BYTES} |"],
        "docs/store.md": [f"more than {'a tenth' if DEAD_SHARE == 0.1 else DEAD_SHARE} deleted rows"],
        "CHANGELOG.md": [f"chunker version {chunk.CHUNKER_VERSION}"],
    }
    for page, sentences in stated.items():
        text = prose(ROOT / page)
        for sentence in sentences:
            assert sentence in text, f"{page} does not say: {sentence}"

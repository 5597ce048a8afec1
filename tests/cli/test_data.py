"""`data`: pairs from sources, what is in them, and which may not be trained on."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedcode.cli.alone import alone
from embedcode.data import holdout, pairs
from embedcode.evaluate import beir
from embedcode.train import mix
from embedcode.train.recipe import Recipe
from embedcode.types import Pair, digest
from repositories import git

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
LICENCE = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")
CODE = """def area(shape, scale):
    width = shape.width * scale
    return width * shape.height * scale + shape.border
"""
GOOD = Pair("Opens a file.", ("def open_file(path):\n    return path.open()\n",), licence="MIT", source="x 1")
COPY = Pair("Something of some shape.", (CODE,), licence="MIT", source="x 1")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "pkg"
    folder.mkdir()
    for number, word in enumerate(("width", "height", "depth")):
        (folder / f"m{number}.py").write_text(
            f'def f{number}(shape):\n    """Computes the {word} of a shape."""\n'
            f"    total = 0\n    for part in shape:\n        total += part.{word}\n    return total\n"
        )
    return folder


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "compute the area"}\n')
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d", "text": CODE}) + "\n")
    (folder / "qrels.tsv").write_text("q\td\t1\n")
    return folder


def test_docstrings_of_a_folder(source: Path, tmp_path: Path, call: Run) -> None:
    out = tmp_path / "pairs.jsonl.gz"
    done = call("data", "docstrings", str(source), "-o", str(out))
    assert done.returncode == 1 and b"no licence file" in done.stdout
    (source / "LICENSE").write_text(LICENCE)
    done = call("data", "docstrings", str(source), "-o", str(out), "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["languages"] == {"python": 3}
    words = ("width", "height", "depth")
    assert {pair.query for pair in pairs.read(out)} == {f"Computes the {word} of a shape." for word in words}
    assert {pair.licence for pair in pairs.read(out)} == {"Apache-2.0"}


def test_code_of_ones_own_needs_no_licence(source: Path, tmp_path: Path, call: Run) -> None:
    assert call("data", "docstrings", str(source), "-o", str(tmp_path / "p.jsonl"), "--own").returncode == 0
    assert len(list(pairs.read(tmp_path / "p.jsonl"))) == 3


def test_two_folders_of_one_name_are_two_sources(source: Path, tmp_path: Path, call: Run) -> None:
    shutil.copytree(source, tmp_path / "other" / source.name)
    folders = (str(source), f"other/{source.name}")
    assert call("data", "docstrings", *folders, "--own", "-o", str(tmp_path / "p.jsonl")).returncode == 0
    expected = {f"{folder}/{source.name}" for folder in (tmp_path.name, "other")}
    assert {pair.source for pair in pairs.read(tmp_path / "p.jsonl")} == expected


def test_a_damaged_archive_costs_no_other_source(source: Path, tmp_path: Path, call: Run) -> None:
    (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(b"a" * 9999)[:20])
    for sources in ((str(source), "cut.tar.gz"), ("cut.tar.gz", str(source))):
        done = call("data", "docstrings", *sources, "--own", "-o", "p.jsonl", "--json")
        record = json.loads(done.stdout)
        assert (done.returncode, record["pairs"], list(record["sources_refused"])) == (1, 3, ["cut.tar.gz"])
        assert len(list(pairs.read(tmp_path / "p.jsonl"))) == 3
    alone = call("data", "docstrings", "cut.tar.gz", "--own", "-o", "q.jsonl")
    assert (alone.returncode, b"cut.tar.gz cannot be read" in alone.stderr) == (2, True)
    assert not (tmp_path / "q.jsonl").exists()


@pytest.mark.parametrize("name", ["missing", "a.txt"])
def test_what_is_no_source_is_refused_and_nothing_written(name: str, tmp_path: Path, call: Run) -> None:
    (tmp_path / "a.txt").write_text("a")
    done = call("data", "docstrings", name, "-o", "p.jsonl")
    assert done.returncode == 2 and b"is no folder and no source archive" in done.stderr
    assert not (tmp_path / "p.jsonl").exists()


def test_check_drops_what_overlaps_and_says_so(evaluation: Path, tmp_path: Path, call: Run) -> None:
    file, out = tmp_path / "pairs.jsonl", tmp_path / "clean.jsonl.gz"
    pairs.write(file, [GOOD, COPY])
    with file.open("a") as more:
        more.write("{broken\n")
    done = call("data", "check", str(file), "--eval", str(evaluation), "--json")
    record = json.loads(done.stdout)
    assert done.returncode == 1
    assert (record["pairs"], record["overlapping"], record["bad_lines"]) == (2, 1, 1)
    assert (record["negatives"], record["texts_too_short"]) == (0, 1)
    assert b"line 3: not JSON" in done.stderr
    done = call("data", "check", str(file), "--eval", str(evaluation), "--out", str(out))
    assert done.returncode == 0 and b"1 of 2 pairs may not be trained on" in done.stdout
    assert list(pairs.read(out)) == [GOOD]
    assert call("data", "check", str(out), "--eval", str(evaluation)).returncode == 0


def test_check_names_what_has_no_licence(tmp_path: Path, call: Run) -> None:
    pairs.write(tmp_path / "p.jsonl", [GOOD, Pair("a b c", ("x",), licence="GPL-3.0")])
    done = call("data", "check", "p.jsonl")
    assert done.returncode == 1 and b"1 pairs without a licence of the allow-list" in done.stdout


def test_stats_and_merge(tmp_path: Path, call: Run) -> None:
    pairs.write(tmp_path / "p.jsonl", [GOOD, COPY, COPY])
    assert b"pairs: 3" in call("data", "stats", "p.jsonl").stdout
    assert json.loads(call("data", "merge", "p.jsonl", "-o", "q.jsonl", "--json").stdout)["pairs"] == 2
    assert json.loads(call("data", "stats", "q.jsonl", "--json").stdout)["pairs"] == 2
    assert call("data", "stats", "missing.jsonl").returncode == 2
    (tmp_path / "broken.jsonl").write_text((tmp_path / "p.jsonl").read_text() + "{\n")
    assert (
        json.loads(call("data", "merge", "p.jsonl", "broken.jsonl", "-o", "r.jsonl", "--json").stdout)["bad_lines"] == 1
    )


def test_answers_that_are_only_a_comment_are_no_copies(tmp_path: Path, call: Run) -> None:
    texts = ("# Install with pip", "# Delete the database", "// see docs/manual.md", "-- ls")
    pairs.write(tmp_path / "p.jsonl", [Pair(f"how to {n}", (text,)) for n, text in enumerate(texts)])
    assert json.loads(call("data", "merge", "p.jsonl", "-o", "q.jsonl", "--json").stdout)["pairs"] == 4


@pytest.mark.parametrize(
    "command",
    [
        ("filter", "p.jsonl", "--model", "none/", "-o"),
        ("negatives", "p.jsonl", "--model", "none/", "-o"),
        ("merge", "none.jsonl", "-o"),
        ("hold-out", "none.jsonl", "--languages", "go", "-o"),
    ],
)
def test_a_place_that_cannot_be_written_is_said_before_the_work(
    command: tuple[str, ...], tmp_path: Path, call: Run
) -> None:
    pairs.write(tmp_path / "p.jsonl", [GOOD, COPY])
    done = call("data", *command, "missing/file")
    assert done.returncode == 2 and b"missing/file cannot be written (no such file or directory)" in done.stderr


def test_a_list_of_what_was_found_that_cannot_be_written_is_said(tmp_path: Path, call: Run) -> None:
    (tmp_path / "list.toml").write_text("")
    assert call("data", "collect", "list.toml", "out", "--found", "out/found.toml").returncode == 0
    done = call("data", "collect", "list.toml", "out", "--found", "missing/file")
    assert done.returncode == 2 and b"missing/file cannot be written (no such file or directory)" in done.stderr


def test_synthesize_goes_on_where_a_bound_ended_it(serve: Any, tmp_path: Path, call: Run) -> None:
    def answer(asked: Any) -> Any:
        said = f"How do I handle case {len(served.asked)} of an area or a file?"
        return 200, {}, json.dumps({"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}).encode()

    served = serve("openai", answer=answer)
    pairs.write(tmp_path / "p.jsonl", [GOOD, COPY])
    command = ("data", "synthesize", "p.jsonl", "--url", f"{served.url}#tiny", "-o", "q.jsonl", "--json")
    done = call(*command, "--answers", "1")
    assert done.returncode == 1 and json.loads(done.stdout)["complete"] is False
    done = call(*command)
    assert done.returncode == 0 and json.loads(done.stdout)["answers"] == 2
    assert len(list(pairs.read(tmp_path / "q.jsonl"))) == 2


@pytest.mark.parametrize(
    "command",
    [
        ("data", "synthesize", "p.jsonl", "--url", "http://127.0.0.1:9#m", "-o"),
        pytest.param(("train", "r.yaml", "--out"), marks=pytest.mark.slow),  # 13 s
        ("data", "collect", "none.toml"),
        ("data", "filter", "p.jsonl", "-o"),
        ("data", "negatives", "p.jsonl", "-o"),
    ],
)
def test_two_processes_do_not_write_one_output(
    command: tuple[str, ...], tmp_path: Path, call: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would ask, or train, what the other one does, into one journal or one log, or take away what the other one
    has fetched or computed."""
    (tmp_path / "none.toml").write_text("")
    pairs.write(tmp_path / "p.jsonl", [GOOD])
    (tmp_path / "r.yaml").write_text("{name: x, base: packaged, data: [{name: p, files: [p.jsonl]}], licence: MIT}")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    with alone(tmp_path / "out"):
        done = call(*command, "link")
        assert done.returncode == 2 and not (tmp_path / "out").exists()
        assert b" is still writing link: wait until it is done, or end that process" in done.stderr
    assert b"still writing" not in call(*command, "link").stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--kind", "poem"), b"is none of question, code, summary"),
        (("--dollars", "1"), b"add --price IN,OUT"),
        (("--price", "cheap"), b"is not IN,OUT"),
        (("--answers=-1",), b"--answers"),
        (("--tokens=-1",), b"--tokens"),
        (("--dollars=-1", "--price", "1,1"), b"--dollars"),
        (("--rate", "0"), b"--rate 0"),
        (("--rate=-1",), b"--rate -1"),
        (("--url", "http://127.0.0.1:9"), b"needs the name of a model"),
    ],
)
def test_what_synthesize_refuses(options: tuple[str, ...], said: bytes, tmp_path: Path, call: Run) -> None:
    pairs.write(tmp_path / "p.jsonl", [GOOD])
    done = call("data", "synthesize", "p.jsonl", "-o", "q.jsonl", *options)
    assert done.returncode == 2 and said in done.stderr
    assert not (tmp_path / "q.jsonl").exists()


def test_filter_and_negatives_with_the_packaged_model(tmp_path: Path, call: Run) -> None:
    said = {
        "Opens a file for reading.": "def open_file(path):\n    return path.open('r')\n",
        "Sorts numbers in place.": "def sort(numbers):\n    numbers.sort()\n",
        "Sends an e-mail to somebody.": "def send(mail, to):\n    smtp.sendmail(to, mail)\n",
        "Computes the area of a circle.": "def send_nothing():\n    return None\n",
    }
    pairs.write(tmp_path / "p.jsonl", [Pair(query, (code,), language="python") for query, code in said.items()])
    done = call("data", "filter", "p.jsonl", "--top", "1", "-o", "kept.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept"] == 3
    done = call("data", "negatives", "kept.jsonl", "--count", "1", "-o", "hard.jsonl", "--json")
    assert json.loads(done.stdout)["negatives"] == 3
    for pair in pairs.read(tmp_path / "hard.jsonl"):
        assert len(pair.negatives) == 1 and pair.negatives[0] not in pair.positives
    assert not list(tmp_path.glob(".*"))  # vectors are kept for a run that was killed, and no longer
    assert call("data", "negatives", "kept.jsonl", "--share", "1.5", "-o", "x.jsonl").returncode == 2
    done = call("data", "negatives", "kept.jsonl", "--instruction", "bug", "-o", "x.jsonl")
    assert done.returncode == 2 and b"knows no instruction for a query: leave the instruction out" in done.stderr


def test_a_share_beside_a_margin_is_refused(tmp_path: Path, call: Run) -> None:
    pairs.write(tmp_path / "p.jsonl", [GOOD])
    done = call("data", "negatives", "p.jsonl", "--margin", "0.05", "--share", "0.9", "-o", "n.jsonl")
    assert done.returncode == 2 and b"--share 0.9 does nothing beside --margin 0.05" in done.stderr
    assert not (tmp_path / "n.jsonl").exists()


@pytest.mark.parametrize("option", ["--share", "--margin", "--ceiling"])
@pytest.mark.parametrize("value", ["nan", "-5", "inf"])
def test_bounds_of_negatives_that_bound_nothing_are_refused(option: str, value: str, tmp_path: Path, call: Run) -> None:
    pairs.write(tmp_path / "p.jsonl", [GOOD])
    done = call("data", "negatives", "p.jsonl", option, value, "-o", "n.jsonl")
    assert done.returncode == 2 and f"{option} {float(value)} must be".encode() in done.stderr
    assert not (tmp_path / "n.jsonl").exists()


@pytest.mark.parametrize("commits", ["-1", "0"])
def test_a_history_of_no_commit_is_refused(commits: str, tmp_path: Path, call: Run) -> None:
    subprocess.run(["git", "init", "-q", "r"], cwd=tmp_path, check=True)
    done = call("data", "history", "r", "-o", "h.jsonl", f"--commits={commits}")
    assert done.returncode == 2 and b"--commits" in done.stderr
    assert not (tmp_path / "h.jsonl").exists()


def test_numbers_of_issues_that_may_be_of_any_repository_are_refused(tmp_path: Path, call: Run) -> None:
    for name in ("r", "s"):
        subprocess.run(["git", "init", "-q", name], cwd=tmp_path, check=True)
    (tmp_path / "i.jsonl").write_text('{"text": "It fails", "number": 12}\n')
    done = call("data", "history", "r", "s", "-o", "h.jsonl", "--issues", "i.jsonl")
    assert done.returncode == 2
    assert b'issue 12 may be of any of 2 repositories: give each line a "repository", such as "r"' in done.stderr


def test_a_time_below_zero_is_refused(tmp_path: Path, call: Run) -> None:
    (tmp_path / "l.toml").write_text("")
    done = call("data", "collect", "l.toml", "out", "--minutes=-1")
    assert done.returncode == 2 and b"--minutes" in done.stderr


def test_a_shallow_clone_is_one_sentence(tmp_path: Path, call: Run) -> None:
    git(tmp_path, "init", "-q", "whole")
    for message in ("First version of it all", "Second version of it all"):
        git(tmp_path / "whole", "commit", "-q", "--allow-empty", "-m", message)
    url = f"file://{tmp_path / 'whole'}"
    git(tmp_path, "clone", "-q", "--depth", "1", url, "shallow")
    done = call("data", "history", "shallow", "-o", "p.jsonl")
    assert done.returncode == 2 and b"git fetch --unshallow" in done.stderr
    assert not (tmp_path / "p.jsonl").exists()
    assert call("data", "history", "whole", "-o", "p.jsonl").returncode == 0
    done = call("data", "history", "whole", "shallow", "-o", "q.jsonl")
    assert done.returncode == 2 and not (tmp_path / "q.jsonl").exists(), "said before the first is read"


def test_a_damaged_clone_costs_no_other_history(tmp_path: Path, call: Run) -> None:
    for name in ("bad", "good"):
        git(tmp_path, "init", "-q", name)
        for body in ("return x + 1", "return x + 2"):
            (tmp_path / name / "m.py").write_text(f"def step(x):\n    {body}\n")
            git(tmp_path / name, "add", ".")
            git(tmp_path / name, "commit", "-qm", f"Make each step so: {body}")
    tree = git(tmp_path / "bad", "rev-parse", "HEAD^{tree}")
    (tmp_path / "bad" / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    done = call("data", "history", "bad", "good", "-o", "p.jsonl", "--json")
    record = json.loads(done.stdout)
    assert done.returncode == 1 and "git fsck" in record["repositories_refused"]["bad"]
    assert {pair.source.partition("@")[0] for pair in pairs.read(tmp_path / "p.jsonl")} == {"git:good"}
    assert call("data", "history", "bad", "-o", "q.jsonl").returncode == 2


def test_overlap_says_which_pairs_copy_an_evaluation_set(evaluation: Path, tmp_path: Path) -> None:
    import typer
    from typer.testing import CliRunner

    from embedcode.cli.overlap import overlap

    app = typer.Typer()
    app.command()(overlap)
    pairs.write(tmp_path / "p.jsonl", [GOOD, COPY])
    done = CliRunner().invoke(app, [str(tmp_path / "p.jsonl"), str(evaluation), "--json"])
    record = json.loads(done.stdout)
    assert done.exit_code == 1
    assert record["by_set"] == [{"set": "set", "kind": "equal", "text": "positive", "pairs": 1}]
    pairs.write(tmp_path / "p.jsonl", [GOOD])
    with (tmp_path / "p.jsonl").open("a") as file:
        file.write('{"question": "of another field"}\n')
    done = CliRunner().invoke(app, [str(tmp_path / "p.jsonl"), str(evaluation)])
    assert done.exit_code == 0 and "skipped" in done.stderr and "line 2" in done.stderr


def test_pairs_are_divided_from_the_command_line(call: Run, tmp_path: Path) -> None:
    file, held = tmp_path / "pairs.jsonl.gz", tmp_path / "held.toml"
    rows = [(number, f"debian:golang-{number} 1.0", i) for number in range(25) for i in range(15)]
    pairs.write(
        file, [Pair(f"does {n} {i}", (f"func f{n} {i}",), (), "docstring", "go", of, "MIT") for n, of, i in rows]
    )
    asked = ("data", "hold-out", str(file), "--languages", "go", "--sources", "4", "--functions", "120")
    assert call(*asked, "-o", str(held)).returncode == 0
    again = call(*asked, "-o", str(held))
    assert again.returncode == 2 and "go is in the list" in again.stderr.decode()
    done = call(
        "data", "split", str(file), "--held-out", str(held), "--tasks", str(tmp_path / "tasks"), "--queries", "10",
        "-o", str(tmp_path / "train.jsonl"), "--json",
    )  # fmt: skip
    record = json.loads(done.stdout)
    assert record["trained"] + record["held out"] == 375 and record["bad_lines"] == 0
    task = beir.load(tmp_path / "tasks" / "reported-go")
    assert len(task.corpus) == record["tasks"]["reported-go"] >= 120 and len(task.queries) == 10
    assert len(beir.load(tmp_path / "tasks" / "validation-go").queries) == 5
    trained = {pair.source for pair in pairs.read(tmp_path / "train.jsonl")}
    assert not trained & {f"{name} 1.0" for part in holdout.load(held).parts.values() for name in part["go"]}
    check = call("data", "check", str(file), "--held-out", str(held), "--json")
    assert check.returncode == 1 and json.loads(check.stdout)["overlapping"] == record["held out"]


def test_what_docstrings_give_is_held_out_as_the_manual_has_it(call: Run, tmp_path: Path) -> None:
    names = [f"project{n}-1.{n}" for n in range(24)]
    for name in names:
        for ending, code in (
            ("py", 'def {0}(part):\n    """Says how {0} does it."""\n    {0} = part.{0}\n    return part.{1}({0})\n'),
            ("rb", "# Tells what the {0} is for.\ndef {0}(part)\n  {0} = part.{0}\n  return part.{1}({0})\nend\n"),
        ):
            words = [f"{ending}{digest(f'{name} {n}').hex()[:9]}" for n in range(8)]
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"m.{ending}").write_text("\n".join(map(code.format, words[:4], words[4:])))
    assert call("data", "docstrings", *names, "--own", "-o", "mined.jsonl.gz").returncode == 0
    assert call("data", "merge", "mined.jsonl.gz", "-o", "merged.jsonl.gz").returncode == 0
    for language in ("python", "ruby"):  # the second reads the list of the first
        asked = ("--languages", language, "--sources", "3", "--functions", "30")
        done = call("data", "hold-out", "merged.jsonl.gz", *asked, "-o", "held_out.toml")
        assert done.returncode == 0, done.stderr
    made = ("--held-out", "held_out.toml", "--tasks", "tasks/", "-o", "pairs.jsonl.gz", "--json")
    record = json.loads(call("data", "split", "merged.jsonl.gz", *made).stdout)
    assert set(record["tasks"]) == {f"{part}-{of}" for part in ("reported", "validation") for of in ("python", "ruby")}
    recipe = Recipe(tmp_path, "r", "base", held_out="held_out.toml")
    forbidden = mix.forbidden(recipe, [])
    trained = [pair for pair in pairs.read(tmp_path / "merged.jsonl.gz") if forbidden.find(pair) is None]
    assert trained == list(pairs.read(tmp_path / "pairs.jsonl.gz")) and trained


def test_questions_of_other_keys_become_pairs(call: Run, tmp_path: Path) -> None:
    lines = ('{"q": "How many?", "a": " SELECT 1 "}', "[]", '{"q": "lost"}', '{"q": "", "a": "x"}')
    (tmp_path / "asked.jsonl").write_text("\n".join(lines))
    asked = ("data", "convert", "asked.jsonl", "--task", "sql", "--source", "me", "--licence", "MIT", "-o", "p.jsonl")
    done = call(*asked, "--query", "q", "--positive", "a", "--language", "sql", "--json")
    assert json.loads(done.stdout) == {"pairs": 1, "bad_lines": 3}
    assert b"line 2: no texts" in done.stderr
    assert list(pairs.read(tmp_path / "p.jsonl")) == [Pair("How many?", ("SELECT 1",), (), "sql", "sql", "me", "MIT")]
    wrong = call(*asked)
    assert wrong.returncode == 2 and "name its keys" in wrong.stderr.decode()


def test_examples_are_paired_where_the_licence_allows(call: Run, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "guide.md").write_text(
        f"# Compute the area of a shape\n\n```python\n{CODE}```\n\n```py\nx\n```\n"
    )
    (tmp_path / "a" / "code.py").write_text(CODE.replace(":\n", ':\n    """Computes the area of a shape."""\n', 1))
    out = tmp_path / "pairs.jsonl"
    refused = call("data", "examples", "a", "-o", "pairs.jsonl")
    assert refused.returncode == 1 and b"no licence file" in refused.stdout
    shutil.copy(Path(__file__).parents[2] / "LICENSE", tmp_path / "a")
    told = json.loads(call("data", "examples", "a", "-o", "pairs.jsonl", "--json").stdout)
    assert told["pairs"] == 1 and told["blocks_dropped"] == {"block too short": 1}
    (pair,) = pairs.read(out)
    assert (pair.query, pair.positives, pair.task) == ("Compute the area of a shape", (CODE.rstrip(),), "example")
    assert (pair.licence, pair.source) == ("Apache-2.0", "a")

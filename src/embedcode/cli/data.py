"""`data`: pairs to train on, from public code, and what is in a file of them. Thin over data/."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedcode.cli import output
from embedcode.cli.alone import alone
from embedcode.cli.data_split import hold_out, split
from embedcode.cli.options import Instruction, Json, Model, Threads, threads_of
from embedcode.cli.overlap import check
from embedcode.cli.pairs import Out, Pairs, put_record, tell
from embedcode.cli.progress import ProgressLine
from embedcode.errors import UnwritableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedcode.data.collect import Step
    from embedcode.data.pairs import Bad
    from embedcode.data.scoring import Told
    from embedcode.types import Encoder, Pair


data = typer.Typer(rich_markup_mode=None, add_completion=False)


@data.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """Make pairs to train on from public code, and check them."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


Sources = Annotated[
    list[Path],
    typer.Argument(metavar="SOURCES...", help="Folders, git repositories and source archives (zip, whl, tar.*)."),
]
Own = Annotated[bool, typer.Option("--own", help="The code is yours: take it whatever its licence.")]


@data.command()
def docstrings(sources: Sources, out: Out, own: Own = False, threads: Threads = None, as_json: Json = False) -> None:
    """Pair what a docstring says with the function below it.

    embedcode data docstrings networkx-3.6.whl guava-31.1.tar.xz -o pairs.jsonl.gz

    A source is taken when its own licence file is MIT, BSD, Apache-2.0, ISC, 0BSD, Zlib or Unlicense.
    """
    from embedcode.data import docstrings as extraction

    _mine(sources, extraction.TASK, "functions_dropped", out, own, threads, as_json)


@data.command()
def examples(sources: Sources, out: Out, own: Own = False, threads: Threads = None, as_json: Json = False) -> None:
    """Pair what documentation says with the code it shows.

    embedcode data examples guava-31.1.tar.xz ./our-docs -o pairs.jsonl.gz

    A heading, or the sentence before a block of code, in Markdown, reStructuredText, AsciiDoc and notebooks. A source
    is taken when its own licence file is MIT, BSD, Apache-2.0, ISC, 0BSD, Zlib or Unlicense.
    """
    from embedcode.data import examples as extraction

    _mine(sources, extraction.TASK, "blocks_dropped", out, own, threads, as_json)


def _mine(
    sources: list[Path], task: str, dropped_as: str, out: Path, own: bool, threads: str | None, as_json: bool
) -> None:
    from collections import Counter

    from embedcode.data.archives import is_source
    from embedcode.data.docstrings import REPEATED, Repeats
    from embedcode.data.mine import called, mine, workers
    from embedcode.data.pairs import writing

    for source in sources:
        if not source.exists() or not is_source(source):
            raise UsageError(f"{source} is no folder and no source archive: check the path")
    names = called(sources)
    repeats, dropped, left = Repeats(), Counter[str](), Counter[str]()
    refused: dict[str, str] = {}
    damaged = False
    languages = Counter[str]()
    with ProgressLine() as line, workers(threads_of(threads)) as extracting, writing(out) as put:
        for number, (source, name) in enumerate(zip(sources, names, strict=True), 1):
            extracting.start()
            line.draw(f"{number} of {len(sources)} sources, {languages.total():,} pairs")
            try:
                mined = mine(source, name, extracting, own, tasks=(task,))
            except UsageError as error:  # a damaged archive: the others are none the worse
                if len(sources) == 1:
                    raise
                refused[str(source)], damaged = str(error), True
                continue
            if mined.refused:
                refused[str(source)] = mined.refused
            dropped += mined.dropped
            left += mined.left.counts
            for pair in mined.pairs:
                if repeats.admit(pair):
                    put(pair)
                    languages[pair.language] += 1
                else:
                    dropped[REPEATED] += 1
    record = {
        "pairs": languages.total(),
        "languages": dict(languages.most_common()),
        dropped_as: dict(dropped.most_common()),
        "files_left_out": dict(left.most_common()),
        "sources_refused": refused,
    }
    put_record(record, as_json)
    if damaged or (refused and not languages):
        raise typer.Exit(1)


@data.command()
def collect(
    sources: Annotated[Path, typer.Argument(metavar="LIST", help="A list such as recipes/sources.toml.")],
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where pairs and records go, one file a source.")],
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", metavar="N", min=0, help="Stop after about so long; run again to go on."),
    ] = None,
    found: Annotated[
        Path | None,
        typer.Option("--found", metavar="FILE", help="Write the list again, with the versions and licences found."),
    ] = None,
    commits: Annotated[
        int, typer.Option("--commits", metavar="N", min=0, help="Pair the newest N commits of a repository, too.")
    ] = 0,
    documentation: Annotated[bool, typer.Option("--examples", help="Pair the examples of documentation, too.")] = False,
    patience: Annotated[
        float,
        typer.Option("--seconds", metavar="N", min=1, help="Fetching one archive may take so long; a clone, 2 h."),
    ] = 120,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Fetch the packages of a list and pair their docstrings.

    Fetched by pip, npm, apt-get and git, which run no code of the packages. What is done is not done again. Pairs of
    commits go to FOLDER/commits, of documentation to FOLDER/examples. Exit code 1 when some could not be fetched.
    """
    from embedcode.data import collect as collecting
    from embedcode.data import pairs
    from embedcode.data import sources as listing

    wanted = listing.load(sources)
    failed: list[str] = []
    with alone(out), ProgressLine() as line:

        def progress(step: Step) -> None:
            if step.failed:
                failed.append(step.failed)
            last = f", {step.record.source}" if step.record else ""
            line.draw(f"{step.done:,} of {step.total:,} sources, {step.pairs:,} pairs{last}")

        seconds = None if minutes is None else minutes * 60
        complete = collecting.collect(
            wanted, out, threads_of(threads), seconds, progress, commits, documentation, patience
        )
    done = collecting.records(out)
    if found is not None:
        head = f"Written by `embedcode data collect --found {found.name}`."
        with pairs.saving(found) as save:
            save(listing.text(collecting.found(wanted, done), head).encode())
    record = collecting.summary(done) | {"complete": complete, "not_fetched": failed}
    put_record(record, as_json)
    if failed:
        raise typer.Exit(1)


@data.command()
def history(
    repositories: Annotated[
        list[Path], typer.Argument(metavar="REPO...", help="Clones with their whole history, bare ones too.")
    ],
    out: Out,
    issues: Annotated[
        Path | None,
        typer.Option("--issues", metavar="FILE", help='JSON lines {"text", "commit" or "number"}: issues to ask by.'),
    ] = None,
    licence: Annotated[
        str, typer.Option("--licence", metavar="SPDX", help="The repositories' licence, written to each pair.")
    ] = "",
    most: Annotated[int | None, typer.Option("--commits", metavar="N", min=1, help="Read the newest N only.")] = None,
    as_json: Json = False,
) -> None:
    """Pair what commits or their issues say with the code they edit.

    With the edited functions, and with 512-token chunks of the edited files, path first, as they were before.
    """
    from collections import Counter

    from embedcode.data import history as mining
    from embedcode.data.mine import called
    from embedcode.data.pairs import writing

    names = called(repositories)
    for root in repositories:  # before the first is read, which may take an hour
        mining.opened(root)
    tokenizer = mining.tokenizer()
    known, wrong = mining.read_issues(issues) if issues else (None, [])
    for message in wrong[:5]:
        output.note(f"skipped {message}")
    if known and len(repositories) > 1 and (number := next((one for of, one in known.by_number if not of), None)):
        raise UsageError(
            f"{issues}: issue {number} may be of any of {len(repositories)} repositories: give each line a "
            f'"repository", such as "{names[0].removeprefix("git:")}", or mine them one by one'
        )
    tasks, skipped, left = Counter[str](), Counter[str](), Counter[str]()
    refused, damaged, commits, used = dict[str, str](), False, 0, 0
    with ProgressLine() as line, writing(out) as put:
        for root, name in zip(repositories, names, strict=True):
            mined = mining.Mined(name.removeprefix("git:"))
            try:
                for pair in mining.mine(root, tokenizer, mined, known, licence, most):
                    put(pair)
                    tasks[pair.task] += 1
                    line.draw(f"{mined.source}: {mined.commits:,} commits, {tasks.total():,} pairs")
            except UnwritableError:
                raise
            except UsageError as error:  # a damaged clone: the others are none the worse, nor what it gave till then
                if len(repositories) == 1:
                    raise
                mined.refused, damaged = str(error), True
            if mined.refused:
                refused[str(root)] = mined.refused
            skipped += mined.skipped
            left += mined.left
            commits, used = commits + mined.commits, used + mined.used
    record = {
        "pairs": tasks.total(),
        "tasks": dict(tasks.most_common()),
        "commits": commits,
        "commits_used": used,
        "commits_skipped": dict(skipped.most_common()),
        "files_left_out": dict(left.most_common()),
        "repositories_refused": refused,
        "bad_lines": len(wrong),
    }
    put_record(record, as_json)
    if damaged or (refused and not tasks):
        raise typer.Exit(1)


@data.command()
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines of any keys; .gz is gzipped.")],
    out: Out,
    task: Annotated[str, typer.Option("--task", metavar="NAME", help="The kind of pair, such as text2sql.")],
    source: Annotated[str, typer.Option("--source", metavar="NAME", help="Where it is from: splits are made by it.")],
    licence: Annotated[str, typer.Option("--licence", metavar="SPDX", help="Of the source.")],
    language: Annotated[str, typer.Option("--language", metavar="LANG", help="Of the answers.")] = "",
    query: Annotated[str, typer.Option("--query", metavar="KEY", help="Has the question.")] = "query",
    positive: Annotated[str, typer.Option("--positive", metavar="KEY", help="Has its answer.")] = "doc",
    as_json: Json = False,
) -> None:
    """Make pairs of a file of questions and answers.

    embedcode data convert wikisql.jsonl.gz --task text2sql --language sql --source WikiSQL
    --licence BSD-3-Clause -o pairs/wikisql.jsonl.gz
    """
    from embedcode.data import pairs
    from embedcode.data.convert import convert as converted
    from embedcode.types import Pair

    bad = pairs.Bad()
    like = Pair("", (), (), task, language, source, licence)
    count = pairs.write(out, converted(file, query, positive, like, bad))
    tell(bad)
    put_record({"pairs": count, "bad_lines": bad.lines}, as_json)


@data.command()
def synthesize(
    files: Pairs,
    out: Out,
    kind: Annotated[
        str, typer.Option("--kind", metavar="<question|code|summary>", help="What the model is to write.")
    ] = "question",
    url: Annotated[
        str, typer.Option("--url", metavar="URL#MODEL", help="An OpenAI-compatible server, or the preset deepseek.")
    ] = "deepseek",
    answers: Annotated[int | None, typer.Option("--answers", metavar="N", min=0, help="Ask at most so often.")] = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", metavar="N", min=0, help="Use at most so many, prompts and answers together."),
    ] = None,
    dollars: Annotated[
        float | None, typer.Option("--dollars", metavar="D", min=0, help="Spend at most this; needs --price.")
    ] = None,
    price: Annotated[
        str | None, typer.Option("--price", metavar="IN,OUT", help="Dollars a million tokens, such as 0.3,1.2.")
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", metavar="N", help="Ask at most N times a minute.")] = None,
    parallel: Annotated[int, typer.Option("--parallel", metavar="N", min=1, help="Requests at a time.")] = 4,
    as_json: Json = False,
) -> None:
    """Let a language model write questions, code or summaries.

    embedcode data synthesize pairs.jsonl --url http://127.0.0.1:8080#qwen --answers 600 -o asked.jsonl

    The code and questions are sent to the server. EMBEDCODE_API_KEY is its key. Answers are kept in OUT.journal:
    the same command goes on where it was ended. Exit code 1 where a bound ended it.
    """
    from embedcode.data import synthesize as writing

    chosen = next((one for one in writing.KINDS if one == kind), None)
    if chosen is None:
        raise UsageError(f"--kind {kind} is none of {', '.join(writing.KINDS)}")
    if rate is not None and not rate > 0:
        raise UsageError(f"--rate {rate:g} asks nothing: give how often a minute, such as 20")
    if dollars is not None and price is None:
        raise UsageError(f"--dollars {dollars} needs the server's prices: add --price IN,OUT")
    try:
        price_in, price_out = map(float, (price or "0,0").split(","))
    except ValueError:
        raise UsageError(f"--price {price} is not IN,OUT, such as 0.3,1.2") from None
    writer = writing.Writer(url)
    given, bad = _all(files)
    bounds = writing.Bounds(answers, tokens, dollars, price_in, price_out, rate)
    with alone(out), ProgressLine() as line:
        spent, complete = writing.synthesize(
            chosen,
            given,
            writer,
            out,
            bounds,
            parallel,
            lambda spent: line.draw(f"{spent.answers:,} answers, {spent.tokens_in + spent.tokens_out:,} tokens"),
        )
    record = {
        "answers": spent.answers,
        "outcomes": dict(spent.outcomes.most_common()),
        "tokens_in": spent.tokens_in,
        "tokens_out": spent.tokens_out,
        "dollars": round(spent.dollars(bounds), 4),
        "complete": complete,
        "bad_lines": bad.lines,
    }
    put_record(record, as_json)
    if not complete:
        raise typer.Exit(1)


@data.command("filter")
def consistency(
    files: Pairs,
    out: Out,
    model: Model = None,
    instruction: Instruction = None,
    top: Annotated[int, typer.Option("--top", metavar="K", min=1, help="Keep a pair that ranks within K.")] = 20,
    pool: Annotated[
        int, typer.Option("--pool", metavar="N", min=1, help="Passages of the language that it ranks among.")
    ] = 10_000,
    most: Annotated[
        int, typer.Option("--most", metavar="N", min=0, help="Look at N pairs of a language, drawn; 0 is all.")
    ] = 0,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Keep the pairs whose positive a model finds among the best.

    embedcode data filter pairs.jsonl.gz --top 20 -o kept.jsonl.gz
    """
    from embedcode.data import pairs
    from embedcode.data.filter import consistent, drawn

    given, bad = _all(files)
    given = drawn(given, most) if most else given
    with ProgressLine() as line, _kept(out) as kept, pairs.writing(out) as put:
        filtered = consistent(given, _encoder(model, threads), top, pool, instruction, _told(line), kept)
        for pair in filtered.kept:
            put(pair)
    ranks = filtered.ranks
    record = {
        "pairs": len(given),
        "kept": len(filtered.kept),
        "rank_1": int((ranks == 1).sum()),
        "median_rank": float(sorted(ranks)[len(ranks) // 2]) if len(ranks) else 0.0,
        "bad_lines": bad.lines,
    }
    put_record(record, as_json)


@data.command()
def negatives(
    files: Pairs,
    out: Out,
    model: Model = None,
    instruction: Instruction = None,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, help="Negatives a pair.")] = 7,
    share: Annotated[
        float | None, typer.Option("--share", metavar="S", help="A negative scores below S times the positive; 0.95.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option("--margin", metavar="M", help="Below the positive by M instead.")
    ] = None,
    ceiling: Annotated[float, typer.Option("--ceiling", metavar="C", help="And below C in any case.")] = 1.0,
    sample: Annotated[
        bool, typer.Option("--sample", help="Draw among the allowed ones of the best 100, not the hardest.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Add to the negatives there are.")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Find passages that a model takes for answers, and that are none.

    embedcode data negatives kept.jsonl.gz --model refined/ -o second-round.jsonl.gz

    What scores close to the positive is left out, since it may well answer too.
    """
    from embedcode.data import pairs
    from embedcode.data.negatives import Rule, mine

    if share is not None and margin is not None:
        raise UsageError(f"--share {share} does nothing beside --margin {margin}: leave one of them out")
    if share is not None and not 0 < share <= 1:
        raise UsageError(f"--share {share} must be above 0 and at most 1, such as 0.95")
    if margin is not None and not 0 <= margin <= 2:
        raise UsageError(f"--margin {margin} must be from 0 to 2, as scores lie apart, such as 0.1")
    if not 0 <= ceiling <= 1:
        raise UsageError(f"--ceiling {ceiling} must be from 0 to 1, such as 0.8")
    given, bad = _all(files)
    rule = Rule("share", 0.95 if share is None else share, ceiling)
    if margin is not None:
        rule = Rule("margin", margin, ceiling)
    with ProgressLine() as line, _kept(out) as kept, pairs.writing(out) as put:
        encoder = _encoder(model, threads)
        mined, passed = mine(given, encoder, count, rule, sample, keep, instruction, _told(line), kept=kept)
        for pair in mined:
            put(pair)
    found = sum(len(pair.negatives) for pair in mined)
    record = {"pairs": len(mined), "negatives": found, **dict(passed.most_common()), "bad_lines": bad.lines}
    put_record(record, as_json)


@data.command()
def merge(
    files: Pairs,
    out: Out,
    as_json: Json = False,
) -> None:
    """Join files of pairs, without exact and near duplicates.

    embedcode data merge mined/*.jsonl.gz -o pairs.jsonl.gz

    Of the pairs of one task those go whose answer is nearly that of an earlier one, or is it for the same query.
    """
    from embedcode.data import pairs
    from embedcode.data.merge import merge as join

    with ProgressLine() as line, pairs.writing(out) as put:
        record, bad = join(files, put, lambda done: line.draw(f"{done:,} pairs read"))
    tell(bad)
    put_record(record | {"bad_lines": bad.lines}, as_json)


def stats(files: Pairs, as_json: Json = False) -> None:
    """Say what is in files of pairs: sizes, lengths, languages, licences."""
    from embedcode.data import pairs
    from embedcode.data.stats import stats as count

    bad = pairs.Bad()
    record = count(pairs.read_all(files, bad)) | {"bad_lines": bad.lines}
    tell(bad)
    put_record(record, as_json)


def _all(files: list[Path]) -> tuple[list[Pair], Bad]:
    from embedcode.data import pairs

    bad = pairs.Bad()
    given = list(pairs.read_all(files, bad))
    tell(bad)
    if not given:
        raise UsageError(f"{', '.join(map(str, files))} holds no pair")
    return given, bad


def _encoder(model: str | None, threads: str | None) -> Encoder:
    from embedcode import engine, settings

    return engine.configured(settings.load({"model": model, "threads": threads}))


@contextmanager
def _kept(out: Path) -> Iterator[Path]:
    """A folder beside an output for the vectors it takes: one that a run left when it was killed, for the next one."""
    from shutil import rmtree

    folder = out.absolute().parent / f".{out.name}.vectors"
    with alone(out):  # a second run would take the vectors away
        yield folder
        rmtree(folder, ignore_errors=True)


def _told(line: ProgressLine) -> Told:
    return lambda what, done, total: line.draw(f"embedding {done:,} of {total:,} {what}")


data.command("hold-out")(hold_out)
data.command()(split)
data.command()(stats)
data.command()(check)

"""Own: a model fine-tuned on the user's own repository, kept only where it is better on files it has not seen.

Two kinds of pairs: what a docstring says with its function, and what a commit says with the functions it edits in one
file. Files are divided by the hash of their path, for both kinds alike: what is trained on, what steers, and what the
verdict is on. Nothing leaves the machine.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from embedcode.data import docstrings, history, minhash, pairs
from embedcode.data.archives import Left, stream
from embedcode.data.docstrings import File
from embedcode.data.mine import workers as extracting
from embedcode.errors import UsageError
from embedcode.evaluate import beir
from embedcode.evaluate.metrics import Interval, mean, paired_bootstrap
from embedcode.files import is_folder, noted, save_json
from embedcode.index import git
from embedcode.model.checkpoint import Checkpoint
from embedcode.model.family import Pooling
from embedcode.train import base, network, packaged, publish, score
from embedcode.train.plan import refuse_taken
from embedcode.train.recipe import Data, Recipe
from embedcode.train.run import Run, Step, Tell, Values, device, texts
from embedcode.types import Pair, Role, digest

PARTS = 10
"""Of a repository's functions, by files: one steers, one is for the verdict, the others are trained on."""
FEWEST = 200
"""Pairs of a kind to train on, below which nothing can be learnt that the verdict could tell from chance."""
FEWEST_HELD_OUT, MOST_HELD_OUT = 20, 500
"""Pairs of a kind, and of all kinds together, that steer, and for the verdict. Scoring 500 functions takes 14 s on two
cores, where 50 steps take 111 s: the tenth of a large repository would take longer than the steps between two scores.
"""
COMMIT = "commit"
ENDS = {docstrings.TASK: "", COMMIT: "-commits"}
"""Of the names of what is held out, by the task of its pairs."""
MOST_COMMITS, COMMIT_SECONDS = 2_000, 90
"""That are read, the newest first. One takes 20 to 80 ms on two cores, and half an hour is for all."""
PASSAGE = 192
"""Tokens of a passage, in the steps and for the verdict, of a model that reads as many."""
CANDIDATE, OF = "candidate", "of.json"
"""In the folder of a run, a model until its verdict, and what repository it is of."""
FEWEST_FILES = 6
"""For the verdict, which draws files: five that are all better by chance have 3 %, and the interval leaves 2.5 %."""


@dataclass(frozen=True, slots=True)
class Figures:
    """nDCG@10 on held-out files; `gain` is paired, with its 95 % interval over files."""

    queries: int
    before: float
    after: float
    gain: Interval

    @property
    def text(self) -> str:
        gain = self.gain
        return (
            f"nDCG@10 {self.before:.4f} -> {self.after:.4f}, gain {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The figures over all queries."""

    folder: Path | None
    """The new model; None where the old one stays."""
    pairs: int
    queries: int
    before: float
    after: float
    gain: Interval
    tokens: int = PASSAGE
    """At which passages were cut."""
    kinds: Mapping[str, Figures] = field(default_factory=dict)
    """Those of `docstring` and `commit`, each where there are such queries."""

    @property
    def worse(self) -> list[str]:
        """Kinds at which the new model is worse beyond chance."""
        return [kind for kind, one in self.kinds.items() if one.gain.high < 0]

    @property
    def text(self) -> str:
        whole = Figures(self.queries, self.before, self.after, self.gain)
        asked = " and ".join(f"{one.queries} {kind}s" for kind, one in self.kinds.items())
        parts = [f"of {kind}s {one.text}" for kind, one in self.kinds.items()] if len(self.kinds) > 1 else []
        return "; ".join([f"{asked} of files held out, cut at {self.tokens} tokens: {whole.text}", *parts])


def own(
    path: Path, out: Path, model: str, minutes: float, resume: bool, cores: int, tell: Tell,
    progress: Callable[[Step], None] = lambda step: None,
) -> Verdict:  # fmt: skip
    """Fine-tune `model` on the repository at `path`, in `out`.

    UsageError where there is too little to learn from.
    """
    if not resume:
        refuse_taken(out)
    if resume and (out / "own.jsonl.gz").is_file():
        _same(path, out)
    else:
        _divide(path, out, cores, tell, progress)
    ends = {kind: end for kind, end in ENDS.items() if (out / f"held-out{end}").is_dir()}
    recipe = own_recipe(out, model, minutes, tuple(ends.values()))
    recipe = like(base.published(recipe, out), recipe)
    # Under another name until it is proven: a run that is ended during the verdict leaves none that looks so.
    done = Run(recipe, out, resume, tell, progress, CANDIDATE).go()
    tasks = {kind: beir.load(out / f"held-out{end}") for kind, end in ends.items()}
    checkpoint = base.open_base(recipe, out)
    judge = score.Judge(list(tasks.values()), texts(recipe, checkpoint), checkpoint.first_position)
    before, after = (
        judge.values(network.untrained(one, device()))
        for one in (checkpoint, base.as_trained(recipe, Checkpoint.read(done.folder)))
    )
    kinds = {kind: _figures({task.name: before[task.name]}, after) for kind, task in tasks.items()}
    whole = _figures(before, after)
    count = sum(1 for _ in pairs.read(out / "own.jsonl.gz"))
    verdict = Verdict(None, count, whole.queries, whole.before, whole.after, whole.gain, recipe.passage_tokens, kinds)
    if whole.gain.low > 0 and not verdict.worse:
        verdict = replace(verdict, folder=out / "model")
    save_json(out / "verdict.json", asdict(verdict) | {"folder": verdict.folder and str(verdict.folder)})
    shutil.rmtree(out / "model", ignore_errors=True)
    if verdict.folder is None:
        shutil.rmtree(done.folder)
    else:
        with publish.writing(done.folder):
            with (done.folder / "README.md").open("a", encoding="utf-8") as card:
                card.write(f"\n## Held-out files\n\n{verdict.text}\n")
            done.folder.rename(verdict.folder)
    return verdict


def _figures(before: Values, after: Values) -> Figures:
    """Over all queries of the tasks of `before`."""
    was, now = (
        {f"{query} {task}": one[task][query] for task in before for query in before[task]} for one in (before, after)
    )
    # Functions of one file are not independent: drawn one by one the interval is too narrow.
    gain = paired_bootstrap(now, was, clusters={query: query.partition("-")[0] for query in was})
    return Figures(len(was), mean(was), mean(now), gain)


def like(model: Checkpoint, recipe: Recipe) -> Recipe:
    """The recipe with the prompts, pooling, attention and sizes of a model, which it is to keep and be judged by."""
    pooling: Any = model.pooling.value if model.pooling is not Pooling.LATENT else recipe.pooling  # which is refused
    return replace(
        recipe,
        causal=model.causal,
        dimensions=model.dimensions,
        pooling=pooling,
        query_prompt=model.prompts[Role.QUERY],
        passage_prompt=model.prompts[Role.PASSAGE],
        instruction=model.instruction if "{instruction}" in model.prompts[Role.QUERY] else "",
        max_tokens=model.max_tokens,
        query_tokens=min(recipe.query_tokens, model.max_tokens),
        passage_tokens=min(recipe.passage_tokens, model.max_tokens),
    )


def own_recipe(out: Path, model: str, minutes: float, ends: Sequence[str] = ("",)) -> Recipe:
    """In-batch negatives and little of it: what is learnt is the repository's words, and the rest is to stay."""
    return Recipe(
        folder=out.absolute(),
        name=out.name,
        base=str(Path(model).absolute()) if model != packaged.NAME and is_folder(model) else model,
        query_tokens=64,
        passage_tokens=PASSAGE,
        data=(Data("own", ("own.jsonl.gz",)),),
        evaluate=tuple(f"steering{end}" for end in ends),
        never=tuple(f"held-out{end}" for end in ends),
        batch=32,
        symmetric=True,
        learning_rate=5e-5,
        warmup=20,
        epochs=3,
        minutes=minutes,
        evaluate_every=50,
        save_every=50,
        choose="best",
        blend=0.75,
        base_training="see its own card",
        private=True,
        notes="Fine-tuned on one repository; it may be worse elsewhere.",
    )


def _divide(
    path: Path, out: Path, cores: int, tell: Tell, progress: Callable[[Step], None] = lambda step: None
) -> None:
    """The tasks `steering` and `held-out` of each kind of pairs that there are enough of, and own.jsonl.gz."""
    commits, homes = _commits(path, tell, progress)
    said = [replace(pair, source=homes.get(pair.source, pair.source)) for pair in _docstrings(path, cores)]
    found = {docstrings.TASK: said, COMMIT: commits}
    for kinds in (tuple(ENDS), *((kind,) for kind in ENDS)):
        held, steering, trained = _parts(_by_file(pair for kind in kinds for pair in found[kind]))
        counts = Counter(pair.task for pair in trained)
        if min(counts[kind] for kind in kinds) >= FEWEST:
            break
    else:
        raise UsageError(
            f"{path} has {len(commits):,} edits of a file by commits that say what for, and {len(said):,} functions "
            f"with a docstring, in {len(_by_file(said)):,} files: {FEWEST} to train on are needed beside "
            f"{FEWEST_HELD_OUT} in {FEWEST_FILES} files for the verdict and as many to steer, to tell a gain from "
            "chance; use a model as it is."
        )
    for kind, end in ENDS.items():
        drawn = []
        for name, part in (("steering", steering), ("held-out", held)):
            rows = [pair for pair in part if pair.task == kind]
            shutil.rmtree(out / f"{name}{end}", ignore_errors=True)  # of a run that was killed here
            if kind in kinds:
                drawn.append(random.Random(0).sample(rows, min(len(rows), MOST_HELD_OUT // len(kinds))))
                _task(out / f"{name}{end}", drawn[-1])
        if drawn:
            steer, last = map(len, drawn)
            tell(f"{kind}s: {counts[kind]:,} pairs to train on, {steer:,} to steer, {last:,} held out")
    save_json(out / OF, {"path": str(path.resolve())})
    pairs.write(out / "own.jsonl.gz", trained)  # last: where it is, a run that goes on does not divide again


def _same(path: Path, out: Path) -> None:
    """UsageError where what was divided is of another repository: two of one name have one folder by default."""
    was = noted(out / OF).get("path")  # of a run that an older version began, nothing is said
    if was not in (None, str(path.resolve())):
        raise UsageError(f"{out} is of {was}, not of {path}: give another folder by --out.")


def _docstrings(path: Path, cores: int) -> list[Pair]:
    repeats, left = docstrings.Repeats(1), Left()
    files = [File(one.path, one.text, one.path) for one in stream(path, left) if _is_code(one.path, one.text)]
    with extracting(cores) as workers:
        workers.start()
        return [pair for extracted in workers.done(files) for pair in extracted.pairs if repeats.admit(pair)]


def _commits(path: Path, tell: Tell, progress: Callable[[Step], None]) -> tuple[list[Pair], Mapping[str, str]]:
    """Of each commit and file a pair, and one name for all that a file was called, in both: else what is held out
    could be trained on under its old name. None where there is no history."""
    try:
        inside = git.ask(path, "rev-parse", "--show-prefix") if path.is_dir() else None
    except UsageError:
        inside = None
    if inside is None:
        return [], {}
    inside, mined, found = inside.removesuffix("\n"), history.Mined(path.resolve().name), list[Pair]()
    try:
        for pair in history.by_file(path, mined, MOST_COMMITS, COMMIT_SECONDS):
            progress(Step(mined.commits, 0, what="reading commit"))
            if pair.source.startswith(inside):
                found.append(pair)
        homes = history.renamed(path, MOST_COMMITS)
    except UsageError as error:  # as of a shallow clone
        mined.refused = str(error)
    if mined.refused:
        tell(f"commits are not used: {mined.refused}")
        return [], {}
    homes = {
        before.removeprefix(inside): after.removeprefix(inside)
        for before, after in homes.items()
        if before.startswith(inside)
    }
    names = (pair.source.removeprefix(inside) for pair in found)
    return [replace(pair, source=homes.get(name, name)) for pair, name in zip(found, names, strict=True)], homes


def _by_file(rows: Iterable[Pair]) -> dict[str, list[Pair]]:
    found: dict[str, list[Pair]] = {}
    for pair in rows:
        found.setdefault(pair.source, []).append(pair)
    return found


def _is_code(path: str, text: str) -> bool:
    return docstrings.language(path, text) is not None


def _parts(found: Mapping[str, list[Pair]]) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """What is held out, what steers, and the rest: of each kind of pairs a tenth or a little more. By the digests of
    the files' names, so that it is the same again."""
    order = iter(sorted(found, key=digest))
    counts = Counter(kind for kind, _ in {(pair.task, pair.query) for rows in found.values() for pair in rows})
    parts: list[list[Pair]] = []
    for _ in range(2):
        part, seen, taken, files = list[Pair](), set[tuple[str, str]](), Counter[str](), Counter[str]()
        for file in order:
            part += found[file]
            fresh = {(pair.task, pair.query) for pair in found[file]} - seen  # a commit asks once for all its files
            seen |= fresh
            taken.update(kind for kind, _ in fresh)
            files.update({kind for kind, _ in fresh})
            if all(
                taken[kind] >= max(FEWEST_HELD_OUT, count // PARTS) and files[kind] >= FEWEST_FILES
                for kind, count in counts.items()
            ):
                break
        parts.append(part)
    held, steering = parts
    return held, steering, [pair for file in order for pair in found[file]]


def _task(folder: Path, rows: Sequence[Pair]) -> None:
    """A query's id is that of its file and a number. Versions of a function that commits edit one after the other are
    one document: who asks for one has found it by the other."""
    corpus, queries, asked = dict[str, str](), dict[str, str](), dict[str, str]()
    qrels, versions = dict[str, dict[str, int]](), dict[str, minhash.Index]()
    for number, pair in enumerate(rows):
        file = digest(pair.source).hex()[:12]
        of_file = versions.setdefault(file, minhash.Index())
        query = asked.setdefault(pair.query, f"{file}-{number}")
        queries[query] = pair.query
        for text in pair.positives:
            found = minhash.elements(text)
            known = next((one for one, _ in of_file.near(found)), None) if pair.task == COMMIT else None
            place = f"{file}-{of_file.add(found) if known is None else known}"
            corpus.setdefault(place, text)
            qrels.setdefault(query, {})[place] = 1
    beir.write(beir.Task(folder.name, corpus, queries, qrels), folder)

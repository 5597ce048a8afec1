"""Own: a model fine-tuned on the user's own repository, kept only where it is better on files it has not seen.

Files are divided by the hash of their path: what is trained on, what steers, and what the verdict is on. Nothing leaves
the machine.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embedcode.data import docstrings, pairs
from embedcode.data.archives import Left, stream
from embedcode.data.docstrings import File
from embedcode.data.mine import workers as extracting
from embedcode.errors import UsageError
from embedcode.evaluate import beir
from embedcode.evaluate.metrics import Interval, paired_bootstrap
from embedcode.files import is_folder, noted, save_json
from embedcode.model.checkpoint import Checkpoint
from embedcode.model.family import Pooling
from embedcode.train import base, network, packaged, publish, score
from embedcode.train.plan import refuse_taken
from embedcode.train.recipe import Data, Recipe
from embedcode.train.run import Run, Step, Tell, device, texts
from embedcode.types import Pair, Role, digest

PARTS = 10
"""Of a repository's functions, by files: one steers, one is for the verdict, the others are trained on."""
FEWEST = 200
"""Pairs to train on, below which nothing can be learnt that the verdict could tell from chance."""
FEWEST_HELD_OUT, MOST_HELD_OUT = 20, 500
"""Functions that steer, and for the verdict. Scoring 500 takes 14 s on two cores, where 50 steps take 111 s: the tenth
of a large repository would take longer than the steps between two scores."""
PASSAGE = 192
"""Tokens of a passage, in the steps and for the verdict, of a model that reads as many."""
CANDIDATE, OF = "candidate", "of.json"
"""In the folder of a run, a model until its verdict, and what repository it is of."""
FEWEST_FILES = 6
"""For the verdict, which draws files: five that are all better by chance have 3 %, and the interval leaves 2.5 %."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """nDCG@10 on held-out files; `gain` is paired, with its 95 % interval over files."""

    folder: Path | None
    """The new model; None where the old one stays."""
    pairs: int
    queries: int
    before: float
    after: float
    gain: Interval
    tokens: int = PASSAGE
    """At which passages were cut."""

    @property
    def text(self) -> str:
        gain = self.gain
        return (
            f"{self.queries} functions of files held out, cut at {self.tokens} tokens: nDCG@10 {self.before:.4f} -> "
            f"{self.after:.4f}, gain {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
        )


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
        _divide(path, out, cores, tell)
    recipe = own_recipe(out, model, minutes)
    recipe = like(base.published(recipe, out), recipe)
    # Under another name until it is proven: a run that is ended during the verdict leaves none that looks so.
    done = Run(recipe, out, resume, tell, progress, CANDIDATE).go()
    task = beir.load(out / "held-out")
    checkpoint = base.open_base(recipe, out)
    judge = score.Judge([task], texts(recipe, checkpoint), checkpoint.first_position)
    values = [
        judge.values(network.untrained(one, device()))[task.name]
        for one in (checkpoint, base.as_trained(recipe, Checkpoint.read(done.folder)))
    ]
    before, after = (sum(one.values()) / len(one) for one in values)
    # Functions of one file are not independent: drawn one by one the interval is too narrow.
    gain = paired_bootstrap(values[1], values[0], clusters={query: query.partition("-")[0] for query in values[0]})
    count = sum(1 for _ in pairs.read(out / "own.jsonl.gz"))
    folder = out / "model" if gain.low > 0 else None
    verdict = Verdict(folder, count, len(values[0]), before, after, gain, recipe.passage_tokens)
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


def own_recipe(out: Path, model: str, minutes: float) -> Recipe:
    """In-batch negatives and little of it: what is learnt is the repository's words, and the rest is to stay."""
    return Recipe(
        folder=out.absolute(),
        name=out.name,
        base=str(Path(model).absolute()) if model != packaged.NAME and is_folder(model) else model,
        query_tokens=64,
        passage_tokens=PASSAGE,
        data=(Data("own", ("own.jsonl.gz",)),),
        evaluate=("steering",),
        never=("held-out",),
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


def _divide(path: Path, out: Path, cores: int, tell: Tell) -> None:
    """The tasks `steering` and `held-out`, and own.jsonl.gz, of the repository's functions with docstrings."""
    found: dict[str, list[Pair]] = {}
    repeats, left = docstrings.Repeats(1), Left()
    files = [File(one.path, one.text, one.path) for one in stream(path, left) if _is_code(one.path, one.text)]
    with extracting(cores) as workers:
        workers.start()
        for extracted in workers.done(files):
            for pair in extracted.pairs:
                if repeats.admit(pair):
                    found.setdefault(pair.source, []).append(pair)
    count = sum(map(len, found.values()))
    held, steering, trained = _parts(found)
    if len(trained) < FEWEST:
        raise UsageError(
            f"{path} has {count:,} functions with a docstring, in {len(found):,} files: {FEWEST} to train on are "
            f"needed beside {FEWEST_HELD_OUT} in {FEWEST_FILES} files for the verdict and as many to steer, to tell a "
            "gain from chance; use a model as it is."
        )
    steering, held = (random.Random(0).sample(part, min(len(part), MOST_HELD_OUT)) for part in (steering, held))
    tell(
        f"{len(files):,} files: {len(trained):,} pairs to train on, {len(steering):,} to steer, {len(held):,} held out"
    )
    _task(out / "steering", steering)
    _task(out / "held-out", held)
    save_json(out / OF, {"path": str(path.resolve())})
    pairs.write(out / "own.jsonl.gz", trained)  # last: where it is, a run that goes on does not divide again


def _same(path: Path, out: Path) -> None:
    """UsageError where what was divided is of another repository: two of one name have one folder by default."""
    was = noted(out / OF).get("path")  # of a run that an older version began, nothing is said
    if was not in (None, str(path.resolve())):
        raise UsageError(f"{out} is of {was}, not of {path}: give another folder by --out.")


def _is_code(path: str, text: str) -> bool:
    return docstrings.language(path, text) is not None


def _parts(found: Mapping[str, list[Pair]]) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """What is held out, what steers, and the rest. By the digests of the files' names, so that it is the same again."""
    order = iter(sorted(found, key=digest))
    least = max(FEWEST_HELD_OUT, sum(map(len, found.values())) // PARTS)
    parts: list[list[Pair]] = []
    for _ in range(2):
        part: list[Pair] = []
        for number, file in enumerate(order, 1):
            part += found[file]
            if len(part) >= least and number >= FEWEST_FILES:
                break
        parts.append(part)
    held, steering = parts
    return held, steering, [pair for file in order for pair in found[file]]


def _task(folder: Path, rows: Sequence[Pair]) -> None:
    """Each pair is a query of its own, equal docstrings of two functions too; its id is that of its file and a
    number."""
    ids = [f"{digest(pair.source).hex()[:12]}-{number}" for number, pair in enumerate(rows)]
    corpus = {f"c{number}": pair.positives[0] for number, pair in enumerate(rows)}
    queries = {id: pair.query for id, pair in zip(ids, rows, strict=True)}
    qrels = {id: {f"c{number}": 1} for number, id in enumerate(ids)}
    beir.write(beir.Task(folder.name, corpus, queries, qrels), folder)

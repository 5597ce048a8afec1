"""Dry run: what a recipe will do, printed, and three steps of it on a tiny random network of its kind.

Data sets that are not here are stood in for by pairs of random words, so that a recipe whose data is the user's own
can be checked before it is there. Writes nothing that stays.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from embedcode.evaluate import beir
from embedcode.train import base, losses, mix, network, run
from embedcode.train.batches import MixedBatches, steps_of
from embedcode.train.mix import Mix, Set, key
from embedcode.train.recipe import Recipe, check, check_idle, undecayed
from embedcode.types import Pair

STEPS = 3
STAND_IN = 64
"""Pairs in the place of a data set that is not here."""
SHOWN = 4
"""Batches whose composition is shown."""
MOST_TOKENS = 48
"""Of a text in the three steps."""


@dataclass(frozen=True, slots=True)
class Report:
    """`sets`: (name, pairs, whether they are here, share of a batch); `batches`: rows of each set."""

    sets: tuple[tuple[str, int, bool, float], ...]
    batches: tuple[dict[str, int], ...]
    queries: int
    documents: int
    compared: int
    """Pairs of a query and a document that the first batch's loss compares."""
    steps: int
    losses: tuple[float, ...]


def dry(recipe: Recipe, tell: Callable[[str], None]) -> Report:
    """Check a recipe; UsageError for what is wrong with it."""
    check(recipe)
    check_idle(recipe)
    mixed, here = _mix(recipe)
    sizes = _sizes(mixed, here)
    total = sum(sizes)
    shares = [one.data.weight or size for one, size in zip(mixed.sets, sizes, strict=True)]
    sets = tuple(
        (one.data.name, size, found, share / sum(shares))
        for one, size, found, share in zip(mixed.sets, sizes, here, shares, strict=True)
    )
    steps = recipe.steps or steps_of(total, recipe.batch, recipe.epochs)
    tell("data sets:")
    for name, size, found, share in sets:
        where = "" if found else "  (not here: stand-ins for this check)"
        tell(f"  {name:<24} {size:>9,} pairs  {share:>6.1%} of a batch{where}")
    batches = MixedBatches(
        [one.size for one in mixed.sets], [share for *_, share in sets], recipe.batch, steps, recipe.seed
    )
    shown = _compositions(batches, mixed)
    times = steps * recipe.batch / total
    tell(f"batches: {steps:,} of {recipe.batch} queries, {times:.2f} times the data")
    for number, counts in enumerate(shown, 1):
        tell(f"  batch {number}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    for data in recipe.data:
        if any(recipe.places(data)) and (missing := recipe.missing(data)):
            tell(f"data set {data.name}: {', '.join(missing)} is not in {recipe.folder}; a run refuses that")
    if not recipe.mining.rounds and (said := run.compared(recipe, mixed)):
        tell(said)
    _tell_rest(recipe, steps, tell)
    mixed, lent = _lent(recipe, mixed, {row for rows in islice(batches, STEPS) for row in rows})
    with TemporaryDirectory() as folder:
        report = _steps(recipe, mixed, batches, Path(folder))
    queries, documents, compared, lost = report
    said = f" ({lent:,} negatives of these steps are lent by other pairs: mining has yet to find them)" if lent else ""
    tell(f"first batch: {queries} queries, {documents} documents, {compared:,} comparisons{said}")
    tell(f"{STEPS} steps on a tiny random {recipe.network}: loss " + ", ".join(f"{one:.4f}" for one in lost))
    return Report(sets, tuple(shown), queries, documents, compared, steps, tuple(lost))


def _tell_rest(recipe: Recipe, steps: int, tell: Callable[[str], None]) -> None:
    scope = "and the other documents of the batch" if recipe.in_batch else "and nothing else of the batch"
    tell(f"each query: 1 positive against {recipe.negatives} hard negatives {scope}")
    if recipe.mining.rounds:
        tell(
            f"mining: {recipe.mining.rounds} rounds, candidates below {recipe.mining.share:.0%} of the positive's score"
        )
    kind = "causal" if recipe.causal else "bidirectional"
    lora = f"LoRA rank {recipe.lora.rank}, alpha {recipe.lora.alpha:g}" if recipe.lora else "all weights"
    tell(f"network: {recipe.base}, {kind}, {recipe.pooling} pooling, {lora}")
    used = run.precision(recipe)
    emulated = "" if used == recipe.precision else f" (the recipe's {recipe.precision} would be emulated here)"
    tell(
        f"{recipe.optimiser(steps)}, {used}{emulated}, "
        f"{recipe.query_tokens} tokens of a query, {recipe.passage_tokens} of a passage"
    )
    if said := undecayed(recipe, steps):
        tell(said)
    for name, written in (("never", recipe.never), ("evaluate", recipe.evaluate)):
        if missing := [one for one in written if not any(place.is_dir() for place in recipe.tasks((one,)))]:
            tell(f"{name}: {', '.join(missing)} matches no folder in {recipe.folder}; a run refuses that")


def _mix(recipe: Recipe) -> tuple[Mix, list[bool]]:
    """The mix with stand-ins for what is not here, and what is here."""
    here = [bool(recipe.places(data)) for data in recipe.data]
    present = tuple(
        replace(data, files=tuple(one for one in data.files if one not in recipe.missing(data)))
        for data, found in zip(recipe.data, here, strict=True)
        if found
    )
    tasks = run.steering([place for place in recipe.tasks(recipe.evaluate) if place.is_dir()])
    tasks += [beir.load(place) for place in recipe.tasks(recipe.never) if place.is_dir()]
    real = mix.load(replace(recipe, data=present), lambda: mix.forbidden(recipe, tasks)) if present else Mix((), [])
    rows: list[Pair] = []
    sets: list[Set] = []
    found = iter(real.sets)
    for data, is_here in zip(recipe.data, here, strict=True):
        one = next(found) if is_here else None
        own = list(real.pairs[one.start : one.stop]) if one else _stand_ins(data.name, recipe.negatives)
        start = len(rows)
        rows += own
        sets.append(replace(one, start=start, stop=len(rows)) if one else Set(data, start, len(rows), 0.0))
    return Mix(tuple(sets), rows, mix.answers(rows)), here


def _sizes(mixed: Mix, here: list[bool]) -> list[int]:
    """At most `limit` of each, which a set with `top` is cut to only when the base has looked at it."""
    whole = [one.size if found else one.data.pairs or STAND_IN for one, found in zip(mixed.sets, here, strict=True)]
    return [min(size, one.data.limit or size) for one, size in zip(mixed.sets, whole, strict=True)]


def _stand_ins(name: str, negatives: int) -> list[Pair]:
    rng = random.Random(name)

    def words() -> str:
        return " ".join("".join(rng.choices("abcdefghij", k=5)) for _ in range(12))

    return [Pair(words(), (words(),), tuple(words() for _ in range(negatives)), source=name) for _ in range(STAND_IN)]


def _lent(recipe: Recipe, mixed: Mix, rows: set[int]) -> tuple[Mix, int]:
    """The mix with positives of other pairs of the set where `rows` lack negatives, and how many, if they are to be
    mined: with none of them, and without in_batch, three steps would compare nothing."""
    if not recipe.mining.rounds:
        return mixed, 0
    rng, pairs, lent = random.Random(recipe.seed), list(mixed.pairs), 0
    for one in mixed.sets:
        others = {key(text): text for pair in mixed.pairs[one.start : one.stop] for text in pair.positives}
        names = list(others)
        for row in sorted(rows & set(range(one.start, one.stop))):
            pair = pairs[row]
            own = {*map(key, (*pair.positives, *pair.negatives)), *mixed.answers.get(key(pair.query), ())}
            missing = max(0, recipe.negatives - len(pair.negatives))
            drawn = rng.sample(names, min(len(names), missing + len(own)))
            more = [others[name] for name in drawn if name not in own][:missing]
            pairs[row] = replace(pair, negatives=(*pair.negatives, *more))
            lent += len(more)
    return replace(mixed, pairs=pairs), lent


def _compositions(batches: MixedBatches, mixed: Mix) -> list[dict[str, int]]:
    out = []
    for number, rows in enumerate(batches):
        if number == SHOWN:
            break
        counts = Counter(mixed.set_of(row).data.name for row in rows)
        out.append({one.data.name: counts[one.data.name] for one in mixed.sets})
    return out


def _steps(recipe: Recipe, mixed: Mix, batches: MixedBatches, folder: Path) -> tuple[int, int, int, list[float]]:
    short = replace(
        recipe,
        query_tokens=min(recipe.query_tokens, MOST_TOKENS),
        passage_tokens=min(recipe.passage_tokens, MOST_TOKENS),
        max_tokens=0,
    )
    checkpoint = base.tiny(short, folder)
    network.check_places(checkpoint, short.lora, short.dropout)
    model = network.trainable(checkpoint, short.lora, short.dropout, checkpointing=short.gradient_checkpointing)
    collator = run.collates(short, checkpoint, mixed)
    criterion = losses.Contrastive(model, recipe.temperature, recipe.symmetric, recipe.dimensions, recipe.packings)
    # The rate of a real run would change nothing that a print shows.
    optimiser = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=1e-3)
    queries = documents = compared = 0
    lost = []
    for number, rows in zip(range(STEPS), batches, strict=False):
        batch = collator([{"row": row} for row in rows])
        if not number:
            queries, documents = batch["label"].shape
            compared = int((batch["label"] != losses.UNKNOWN).sum())
        value = criterion(run.features(batch), batch["label"])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        lost.append(float(value.detach()))
    return queries, documents, compared, lost

"""Run: a recipe from its data to a finished checkpoint, in a folder that a killed run goes on in.

    OUT/plan.json       what was decided at the start (plan.py)
    OUT/pairs-*         the pairs that may be trained on, and those of them that the base finds
    OUT/near-*          vectors of the queries of sets that are grouped by them
    OUT/round-N/        a round of mining and training: negatives, checkpoint-STEP/, best weights
    OUT/before.json     scores of the base by query, which are not made again
    OUT/log.jsonl       losses and scores, as they come
    OUT/model/          the finished checkpoint, written last

Knows no command line; progress goes to a function.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from embedcode.data import never
from embedcode.data.overlap import Evaluations
from embedcode.engine import processor
from embedcode.engine.tokens import of_checkpoint
from embedcode.errors import EmbedcodeError, UsageError
from embedcode.evaluate import beir
from embedcode.evaluate.metrics import answerable
from embedcode.files import noted, replacing, save_json
from embedcode.model.checkpoint import Checkpoint
from embedcode.model.spec import sha256
from embedcode.settings import cores
from embedcode.train import averaging, base, loop, losses, mix, near, network, publish, score
from embedcode.train.batches import Collator, MixedBatches, Pieces, Texts, groups_of, steps_of
from embedcode.train.mix import Mix
from embedcode.train.plan import Plan
from embedcode.train.recipe import Recipe, check, check_idle, undecayed
from embedcode.types import Floats, Role, digest

TRIAL = 2
"""Batches that are timed, after one that is not, where a recipe has a limit of minutes."""
SPARE = 0.85
"""Share of the minutes that the steps may take; the rest is for loading, scores and writing."""
BEST = "best.safetensors"
BEFORE = "before.json"
LOG_EVERY = 10
"""Steps between two losses in the log."""

Tell = Callable[[str], None]
Values = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Step:
    """How far a round is, or the checking and mining before it."""

    done: int
    total: int
    """0 where nobody knows."""
    loss: float | None = None
    seconds: float = 0.0
    before: int = 0
    """Steps that an earlier process did."""
    what: str = "step"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run made: the folder, and nDCG@10 by query of each steering task before and after."""

    folder: Path
    before: Values
    after: Values
    steps: int
    computed: str = "fp32"
    """In which precision the figures were."""
    trained: str = "fp32"
    """And the steps."""
    reread: str = ""
    """How the base is read otherwise than its authors have it, for the figures of before too."""
    few: str = ""
    """How many pairs lacked negatives in the last round."""


class Run:
    """One recipe in one folder."""

    def __init__(
        self, recipe: Recipe, out: Path, resume: bool = False, tell: Tell = print,
        progress: Callable[[Step], None] = lambda step: None, name: str = "model",
    ) -> None:  # fmt: skip
        """`name` is that of the finished checkpoint's folder."""
        self.recipe, self.out, self.tell, self.progress = recipe, out, tell, progress
        self._name = name
        check(recipe)
        self._steering = steering(self._places(recipe.evaluate))
        self._contents = {task.name: task.content for task in self._steering}
        before = {*out.glob("pairs-*"), *out.glob("base")}
        self._plan = Plan(recipe, out, precision(recipe), resume, tell)
        try:
            if self._plan.begins:  # one that goes on could not be corrected
                check_idle(recipe)
            self._checkpoint = base.open_base(recipe, out)
            self._plan.begin_from(self._checkpoint.space)
            network.check(self._checkpoint, recipe.lora, precision(recipe))
            if self._plan.begins:
                network.check_places(self._checkpoint, recipe.lora, recipe.dropout)
            self.mix = mix.load(recipe, self._forbidden, out, self._against(), self._checking)
        except EmbedcodeError:
            if self._plan.begins:  # a path was mistyped, say: the folder is the corrected recipe's, with other pairs
                for file in {*out.glob("pairs-*"), self._plan.file} - before:
                    file.unlink(missing_ok=True)
                if out / "base" not in before:
                    shutil.rmtree(out / "base", ignore_errors=True)
            raise
        self._reread = base.reread(base.published(recipe, out), self._checkpoint)
        if self._reread and recipe.evaluate:
            tell(f"the base is scored as this recipe reads it, {self._reread}: as published it may do better")
        used = precision(recipe)
        if used != recipe.precision:
            tell(f"computed in {used}, since this processor would emulate {recipe.precision}")
        if self._plan.precision not in ("", used):
            tell(f"begun in {self._plan.precision}, and going on in {used}")
        for one in self.mix.sets:
            if one.bad or one.forbidden:
                tell(f"data set {one.data.name}: {one.forbidden:,} pairs of benchmarks left out, {one.bad:,} bad lines")
            if one.negatives:
                tell(f"data set {one.data.name}: {one.negatives:,} negatives that are texts of benchmarks left out")
            if one.unlicensed:
                tell(f"data set {one.data.name}: {one.unlicensed:,} pairs under other licences left out")

    def _places(self, written: tuple[str, ...]) -> list[Path]:
        """Folders of tasks; UsageError for a pattern that matches none, since nothing would be checked against it."""
        for pattern in written:
            if not self.recipe.tasks((pattern,)):
                raise UsageError(f"{pattern} matches no folder in {self.recipe.folder}: put the tasks there.")
        return self.recipe.tasks(written)

    def _against(self) -> str:
        """Names by content what pairs are checked against."""
        places = self._places((*self.recipe.evaluate, *self.recipe.never))
        files = [place / name for place in places for name in ("corpus.jsonl", "queries.jsonl")]
        files += [self.recipe.path(self.recipe.held_out)] if self.recipe.held_out else []
        said = (f"{file.parent.name}/{file.name} {sha256([file])}" for file in files if file.is_file())
        return digest(never.text(), *sorted(said)).hex()

    def _forbidden(self) -> Evaluations:
        known = self._places(self.recipe.evaluate)  # read already
        others = [beir.load(place) for place in self._places(self.recipe.never) if place not in known]
        found = mix.forbidden(self.recipe, [*self._steering, *others])
        if found.least:
            self.tell(f"{found.least:,} texts of the tasks are too short for more than equality with those of a pair")
        return found

    def go(self) -> Outcome:
        checkpoint = self._checkpoint
        self.mix = self._near(self._consistent(checkpoint), checkpoint)
        judge = score.Judge(self._steering, texts(self.recipe, checkpoint), checkpoint.first_position)
        rounds = max(1, self.recipe.mining.rounds)
        before: Values = {}
        model: Any = None
        few = ""
        for number in range(1, rounds + 1):
            folder = self.out / f"round-{number}"
            with publish.writing(folder):
                folder.mkdir(exist_ok=True)
            mixed = self._mined(model, checkpoint, folder) if self.recipe.mining.rounds else self.mix
            if few := compared(self.recipe, mixed):
                self.tell(few)
            model = None  # or the next round's network is beside the one of this
            torch.manual_seed(self.recipe.seed + number)  # adapters begin at random
            model = network.trainable(
                checkpoint, self.recipe.lora, self.recipe.dropout, device(), precision(self.recipe),
                self.recipe.gradient_checkpointing,
            )  # fmt: skip
            before = before or self._base_scores(judge, model)
            start = network.trained_weights(model)
            start = {name: one.clone() for name, one in start.items()} if self.recipe.blend < 1 else {}
            with _fitting(self.recipe):
                self._train(model, checkpoint, mixed, judge, folder)
            self._choose(model, folder, start)
        after = self._scored(judge, model, "after", {"round": rounds})
        held = network.frozen(checkpoint, precision(self.recipe))
        outcome = Outcome(
            self.out / self._name, before, after, self._plan.steps,
            "bf16" if device() == "cuda" or (self.recipe.lora and held == "bf16") else "fp32",
            precision(self.recipe), self._reread, few,
        )  # fmt: skip
        self._publish(model, checkpoint, outcome)
        return outcome

    def _train(self, model: Any, checkpoint: Checkpoint, mixed: Mix, judge: score.Judge, folder: Path) -> None:
        from datasets import Dataset  # type: ignore[import-untyped]
        from sentence_transformers import SentenceTransformerTrainingArguments

        recipe = self.recipe
        pieces = recipe.micro_batch or recipe.batch
        # A run that was begun before draws as it did.
        places = pieces == 1 and self._plan.places
        collator = collates(recipe, checkpoint, mixed, places)
        criterion = losses.Contrastive(model, recipe.temperature, recipe.symmetric, recipe.dimensions, recipe.packings)
        if not self._plan.steps:
            self._plan.note(steps=self._planned(collator, criterion, mixed))
        steps = self._plan.steps
        whole = mixed_batches(recipe, mixed, steps, recipe.seed)
        loop.tidy(folder, recipe.keep)  # a kill may have come before the oldest one went
        last = next(reversed(loop.checkpoints(folder)), None)
        done = int(last.name.rpartition("-")[2]) if last else 0
        if last:
            self.tell(f"going on from step {done:,} of {steps:,}")
        watch = _Watching(self, judge, model, folder, done, steps)
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=pieces,
            gradient_accumulation_steps=recipe.batch // pieces,
            learning_rate=recipe.learning_rate,
            warmup_steps=min(recipe.warmup, steps),
            lr_scheduler_type="linear",
            weight_decay=recipe.weight_decay,
            max_grad_norm=recipe.clip,
            optim="adamw_torch_fused",
            bf16=precision(recipe) == "bf16",
            use_cpu=not torch.cuda.is_available(),
            logging_steps=LOG_EVERY,
            logging_nan_inf_filter=False,  # loop.py ends a run that has diverged
            save_strategy="steps",
            save_steps=recipe.save_every,
            seed=recipe.seed,
            data_seed=recipe.seed,
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
            dataloader_num_workers=workers(),
            dataloader_drop_last=True,
        )
        # A pack is one row, which the trainer would give to the first of several cards, without autocast.
        assert arguments.device
        arguments._n_gpu = min(1, arguments.n_gpu)
        trainer = loop.Loop(
            batches=Pieces(whole, pieces, places) if places or pieces != recipe.batch else whole,
            keep=recipe.keep,
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(
                {"row": list(range(max(len(mixed.pairs), steps * recipe.batch * places)))}  # rows, or places too
            ),
            loss=criterion,
            data_collator=collator,
            callbacks=[loop.Watch(watch.logged, watch.stepped)],
        )
        from transformers import PrinterCallback

        trainer.remove_callback(PrinterCallback)
        if done < steps:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        elif last:
            network.put_weights(model, _weights(last))

    def _choose(self, model: Any, folder: Path, start: Mapping[str, torch.Tensor]) -> None:
        """Put into the model the weights that the recipe asks for."""
        kept = loop.checkpoints(folder)
        if self.recipe.choose == "average" and kept:
            if len(kept) == 1:
                self.tell("the mean is of one checkpoint: save_every leaves no more in so many steps")
            network.put_weights(model, averaging.average([_weights(one) for one in kept]))
        elif self.recipe.choose == "best" and (folder / BEST).is_file():
            from safetensors.torch import load_file

            network.put_weights(model, load_file(folder / BEST))
        if self.recipe.blend < 1:
            network.put_weights(model, averaging.blend(start, network.trained_weights(model), self.recipe.blend))

    def _consistent(self, checkpoint: Checkpoint) -> Mix:
        from embedcode.train import mining

        if not any(one.top for one in self.recipe.data):
            return self.mix
        model = network.untrained(checkpoint, device(), precision(self.recipe))
        found = mining.consistent(
            self.mix, self.recipe, model, texts(self.recipe, checkpoint), checkpoint.first_position, self.out,
            self._embedding,
        )  # fmt: skip
        for before, after in zip(self.mix.sets, found.sets, strict=True):
            if before.data.top:
                self.tell(f"data set {before.data.name}: {after.size:,} of {before.size:,} pairs are trained on")
        return found

    def _near(self, found: Mix, checkpoint: Checkpoint) -> Mix:
        if not any(one.group == "near" for one in self.recipe.data):
            return found
        model, read = network.untrained(checkpoint, device(), precision(self.recipe)), texts(self.recipe, checkpoint)

        def encode(one: mix.Set, queries: Sequence[str]) -> Floats:
            self.tell(f"data set {one.data.name}: {len(queries):,} queries are brought together by what they ask")
            return network.encode(
                model, read.query(queries, [one.data.instruction] * len(queries)), checkpoint.first_position
            )

        with publish.writing(self.out):
            return near.near(found, encode, self.out)

    def _mined(self, model: Any, checkpoint: Checkpoint, folder: Path) -> Mix:
        from embedcode.train import mining

        if model is None:
            model = network.untrained(checkpoint, device(), precision(self.recipe))
        self.tell(f"mining negatives for {folder.name}")
        return mining.mined(
            self.mix, self.recipe, model, texts(self.recipe, checkpoint), checkpoint.first_position, folder,
            self._embedding,
        )  # fmt: skip

    def _checking(self, name: str, done: int) -> None:
        self.progress(Step(done, 0, what=f"checking {name}, pair"))

    def _embedding(self, what: str, done: int, total: int) -> None:
        self.progress(Step(done, total, what=f"embedding {what},"))

    def _planned(self, collator: Collator, criterion: Any, mixed: Mix) -> int:
        recipe = self.recipe
        steps = recipe.steps or steps_of(len(mixed.pairs), recipe.batch, recipe.epochs)
        if recipe.minutes:
            each = seconds_a_step(recipe, collator, criterion, mixed)
            rounds = max(1, recipe.mining.rounds)
            most = int(recipe.minutes * 60 * SPARE / rounds / each)
            if most < 1:
                raise UsageError(f"a step takes {each:.0f} s, and {recipe.minutes:g} minutes have none: give it more.")
            steps = min(steps, most)
            self.tell(f"{each:.1f} s a step: {steps:,} steps in {recipe.minutes / rounds:g} minutes")
        if said := undecayed(recipe, steps):
            self.tell(said)
        return steps

    def _base_scores(self, judge: score.Judge, model: Any) -> Values:
        """Of the base; a run that goes on has them, unless the tasks are others now."""
        place, space = self.out / BEFORE, self._checkpoint.space
        kept = noted(place)
        if kept and kept.get("tasks") == self._contents and kept.get("base", space) == space:
            values: Values = kept["ndcg@10"]
            return values
        found = self._scored(judge, model, "before", {"round": 1, "step": 0})
        save_json(place, {"tasks": self._contents, "base": space, "ndcg@10": found}, publish.CURE)
        return found

    def _scored(self, judge: score.Judge, model: Any, what: str, about: dict[str, Any]) -> Values:
        if not len(judge):
            return {}
        found = judge.values(model)
        by_task = score.means(found)
        self.log({**about, what: by_task, "mean": score.overall(found)})
        self.tell(f"{what}: " + ", ".join(f"{task} {value:.4f}" for task, value in by_task.items()))
        return found

    def log(self, entry: Mapping[str, Any]) -> None:
        place = self.out / "log.jsonl"
        with publish.writing(place), place.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def _publish(self, model: Any, checkpoint: Checkpoint, outcome: Outcome) -> None:
        part = self.out / ".model.part"
        shutil.rmtree(part, ignore_errors=True)
        try:
            with publish.writing(outcome.folder):
                publish.write(part, self.recipe, checkpoint, network.merged(model), self.mix, outcome)
                shutil.rmtree(outcome.folder, ignore_errors=True)
                part.rename(outcome.folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


class _Watching:
    """What happens beside the steps of a round: progress, the log, scores, the best weights."""

    def __init__(self, run: Run, judge: score.Judge, model: Any, folder: Path, done: int, steps: int) -> None:
        self._run, self._judge, self._model, self._folder = run, judge, model, folder
        self._before, self._steps = done, steps
        self._loss: float | None = None
        self._start = time.monotonic()

    def logged(self, step: int, values: dict[str, float]) -> None:
        self._loss = values["loss"]
        self._run.log({"round": self._folder.name, "step": step, **values})

    def stepped(self, step: int) -> None:
        self._run.progress(Step(step, self._steps, self._loss, time.monotonic() - self._start, self._before))
        every = self._run.recipe.evaluate_every
        if every and len(self._judge) and (step % every == 0 or step == self._steps):
            values = self._run._scored(self._judge, self._model, f"step {step}", {"round": self._folder.name})
            self._keep_best(step, score.overall(values))

    def _keep_best(self, step: int, value: float) -> None:
        from safetensors.torch import save

        place, contents = self._folder / "best.json", self._run._contents
        best = noted(place)
        if best and best.get("tasks", contents) == contents and best["mean"] >= value:
            return
        with publish.writing(self._folder / BEST), replacing(self._folder / BEST) as file:
            file.write(save(network.trained_weights(self._model)))
        save_json(place, {"step": step, "mean": value, "tasks": contents}, publish.CURE)


@contextmanager
def _fitting(recipe: Recipe) -> Iterator[None]:
    """A card that is full, in one sentence."""
    try:
        yield
    except torch.OutOfMemoryError:
        many = f"{recipe.micro_batch or recipe.batch} queries with {1 + recipe.negatives} passages each"
        part = "" if recipe.in_batch else "a micro_batch, "
        raise UsageError(
            f"the card has no room for a step of {many}, of {recipe.passage_tokens} tokens: set {part}"
            "gradient_checkpointing, a smaller batch or fewer passage_tokens, and give another folder by --out."
        ) from None


def compared(recipe: Recipe, mixed: Mix) -> str:
    """A remark on pairs with fewer negatives than are asked for, or nothing. UsageError where nothing at all would be
    compared."""
    few = sum(len(pair.negatives) < recipe.negatives for pair in mixed.pairs)
    none = sum(not pair.negatives for pair in mixed.pairs)
    if none == len(mixed.pairs) and not recipe.in_batch:
        raise UsageError(
            "no pair has a negative, and without in_batch nothing is compared: set mining.rounds, or give files that "
            "`embedcode data negatives` made."
        )
    said = f"{few:,} of {len(mixed.pairs):,} pairs have fewer than {recipe.negatives} negatives" if few else ""
    return said + (f", {none:,} of them none: they teach nothing" if none and not recipe.in_batch else "")


def steering(places: Sequence[Path]) -> list[beir.Task]:
    """The tasks of `evaluate`; UsageError for one that can give no figure."""
    tasks = [beir.load(place) for place in places]
    for place, task in zip(places, tasks, strict=True):
        if not answerable(task.qrels):
            raise UsageError(
                f"{place} judges no document as relevant and cannot steer: check its qrels or leave it out."
            )
    return tasks


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def workers() -> int:
    """Processes that make batches: a card would wait for the tokenizer, a processor has nothing to spare."""
    return max(1, min(8, cores() - 2)) if device() == "cuda" else 0


def precision(recipe: Recipe) -> str:
    """bf16 where the recipe asks for it and the processor computes it: emulated, it has a fraction of fp32's speed."""
    if recipe.precision == "bf16" and not torch.cuda.is_available():
        return "bf16" if processor.features() & processor.BF16 else "fp32"  # one that is not known has none
    return recipe.precision


def texts(recipe: Recipe, checkpoint: Checkpoint) -> Texts:
    return Texts(
        of_checkpoint(checkpoint),
        checkpoint.prompts[Role.QUERY],
        checkpoint.prompts[Role.PASSAGE],
        checkpoint.instruction,
        recipe.query_tokens,
        recipe.passage_tokens,
    )


def collates(recipe: Recipe, checkpoint: Checkpoint, mixed: Mix, places: bool = False) -> Collator:
    return Collator(
        mixed,
        texts(recipe, checkpoint),
        recipe.negatives,
        recipe.negatives_temperature,
        recipe.in_batch,
        recipe.seed,
        checkpoint.first_position,
        places,
    )


def mixed_batches(recipe: Recipe, mixed: Mix, steps: int, seed: int) -> MixedBatches:
    sizes, shares = [one.size for one in mixed.sets], [one.share for one in mixed.sets]
    return MixedBatches(sizes, shares, recipe.batch, steps, seed, groups_of(mixed))


def seconds_a_step(recipe: Recipe, collator: Collator, criterion: Any, mixed: Mix) -> float:
    """Of a step like those to come, timed without changing the model or what is drawn later."""
    pieces = recipe.micro_batch or recipe.batch
    place = next(criterion.parameters()).device
    trial = mixed_batches(recipe, mixed, TRIAL + 1, recipe.seed + 1)
    spent: list[float] = []
    with torch.random.fork_rng():
        for rows in trial:
            start = time.perf_counter()
            for first in range(0, len(rows), pieces):
                batch = collator([{"row": row} for row in rows[first : first + pieces]])
                batch = {name: one.to(place) if torch.is_tensor(one) else one for name, one in batch.items()}
                with torch.autocast(place.type, torch.bfloat16, enabled=precision(recipe) == "bf16"):
                    loss = criterion(features(batch), batch["label"])
                loss.backward()
            criterion.zero_grad()
            spent.append(time.perf_counter() - start)
    return sum(spent[1:]) / TRIAL


def features(batch: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """The two packs of a collated batch, as the trainer takes them apart."""
    return [
        {name.removeprefix(side): value for name, value in batch.items() if name.startswith(side)}
        for side in ("query_", "document_")
    ]


def _weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(checkpoint / loop.WEIGHTS)

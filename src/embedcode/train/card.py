"""Card: the README.md of a model, and its four subcards: explainability, bias, safety and security, privacy.

What a machine knows is filled in from the recipe, the data and the figures; what nobody measured says so. Knows no
network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedcode.model.checkpoint import Checkpoint
from embedcode.train.mix import Mix
from embedcode.train.recipe import Recipe
from embedcode.types import Role


def text(recipe: Recipe, checkpoint: Checkpoint, mix: Mix, meta: Mapping[str, Any]) -> str:
    """Markdown with the hub's head."""
    parts = [
        _head(recipe),
        _use(recipe, checkpoint),
        _model(recipe, checkpoint, meta),
        _data(recipe, mix, meta),
        _training(recipe, meta),
        _figures(meta),
        _limits(recipe, checkpoint),
        _subcards(recipe),
    ]
    return "\n\n".join(parts) + "\n"


def _head(recipe: Recipe) -> str:
    licence = f"license: {recipe.licence.lower()}\n" if recipe.licence else ""
    head = f"---\n{licence}library_name: sentence-transformers\npipeline_tag: sentence-similarity\n---"
    lead = f"{head}\n\n# {recipe.name}\n\nAn embedding model for code retrieval, made by embedcode from {recipe.base}."
    if recipe.regime == "in-domain":
        lead += (
            "\n\n**In-domain**: train splits of benchmarks are in its data, so its figures on those benchmarks do not "
            "compare with models that have not seen them. The weights are not for release."
        )
    return lead


def _use(recipe: Recipe, checkpoint: Checkpoint) -> str:
    query, passage = (checkpoint.prompts[role] for role in (Role.QUERY, Role.PASSAGE))
    lines = [
        "## Intended use",
        "Finding code by a question, a description or an issue, and code by code, in repositories that their user may "
        "read. Not for judging people, and not as the only check of whether code is safe, licensed or correct.",
        f"```python\nimport embedcode\n\nencoder = embedcode.load({recipe.name!r})  # this checkpoint's folder\n```",
        f"Queries get the prompt `{query!r}`, passages `{passage!r}`; vectors are of unit length and compared by their "
        "scalar product.",
    ]
    return "\n\n".join(lines)


def _model(recipe: Recipe, checkpoint: Checkpoint, meta: Mapping[str, Any]) -> str:
    seen = "only the tokens before it" if checkpoint.causal else "the whole text"
    rows = [
        ("network", f"{checkpoint.family.model_type}, each token sees {seen}"),
        ("parameters", f"{meta['parameters']:,}"),
        ("pooling", checkpoint.pooling.value),
        ("dimensions", ", ".join(map(str, sorted({checkpoint.dim, *recipe.dimensions}, reverse=True)))),
        ("tokens read", f"{checkpoint.max_tokens:,}"),
        ("base", recipe.base),
        ("what the base was trained on", recipe.base_training or "not stated by the recipe"),
        ("licence", recipe.licence or "not stated by the recipe: do not distribute"),
    ]
    return "## Model\n\n" + _table(("what", "value"), rows)


def _data(recipe: Recipe, mix: Mix, meta: Mapping[str, Any]) -> str:
    rows = [
        (
            one.data.name,
            f"{one.size:,}",
            f"{one.share:.1%}",
            _listed(one.licences),
            _listed(one.languages, len(one.languages)),
            f"{one.forbidden:,}",
            f"{one.unlicensed:,}",
        )
        for one in mix.sets
    ]
    table = _table(("data set", "pairs", "of a batch", "licences", "languages", "left out", "other licences"), rows)
    others = f" Other licences are those beside {', '.join(recipe.licences)}." if recipe.licences else ""
    coir = " (but for CoIR's train splits, which this regime allows)" if recipe.regime == "in-domain" else ""
    held = f" or is held out (`{recipe.held_out}`)" if recipe.held_out else ""
    tasks = ", ".join(f"`{one}`" for one in meta["compared with"])
    clear = f", and those with a text, or nearly, of the tasks {tasks}" if tasks else "; no task was compared with"
    return (
        f"## Training data\n\n{table}\n\nRegime: {recipe.regime}. Left out are pairs whose source is in "
        f"`data/never.toml`{coir}{held}{clear}." + others
    )


def _training(recipe: Recipe, meta: Mapping[str, Any]) -> str:
    lora = recipe.lora
    against = f"{recipe.negatives} hard negatives" if recipe.negatives else "no hard negatives"
    if meta["pairs that lack negatives"]:
        against += f" ({meta['pairs that lack negatives']})"
    loss = f"InfoNCE, temperature {recipe.temperature:g}" + (", both directions" if recipe.symmetric else "")
    if recipe.packings:
        loss += f", the mean of vectors as they are and in {', '.join(recipe.packings)}"
    if recipe.dimensions:
        sizes = ", ".join(map(str, sorted(recipe.dimensions, reverse=True)))
        loss += f", summed over all dimensions and the first {sizes} (Matryoshka)"
    rows = [
        ("steps", f"{meta['steps']:,} of {recipe.batch} queries"),
        ("compared with", against + (", and the rest of the batch" if recipe.in_batch else ", nothing of the batch")),
        ("loss", loss),
        ("optimiser", recipe.optimiser(meta["steps"])
                      + (f", gradients of a norm up to {recipe.clip:g}" if recipe.clip else "")),
        ("precision", meta["trained in"]),
        ("tokens", f"{recipe.query_tokens} of a query, {recipe.passage_tokens} of a passage"),
        ("LoRA", f"rank {lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g}" if lora else "none, all weights"),
        ("mining", f"{recipe.mining.rounds} rounds, below {recipe.mining.share:.0%} of the positive's score"
            if recipe.mining.rounds else "negatives as in the files"),
        ("weights", recipe.choose + (f", {recipe.blend:.0%} tuned, the rest the base's" if recipe.blend < 1 else "")),
    ]  # fmt: skip
    made = ", ".join(f"{name} {version}" for name, version in meta["made"].items())
    return f"## Training\n\n{_table(('what', 'value'), rows)}\n\nSeed {recipe.seed}; {made}. `meta.json` has the rest."


def _figures(meta: Mapping[str, Any]) -> str:
    before, after = meta["ndcg@10"]["before"], meta["ndcg@10"]["after"]
    if not after:
        return "## Figures\n\nNone were measured: the recipe names no task to evaluate."
    rows = [(task, f"{before.get(task, float('nan')):.4f}", f"{value:.4f}") for task, value in after.items()]
    read = f"The base is scored as this model reads it: {meta['base read']}. " if meta["base read"] else ""
    return (
        f"## Figures\n\n{_table(('task', 'base', 'this model'), rows)}\n\nnDCG@10, {meta['ndcg@10 computed in']}, "
        f"documents cut at the tokens above. {read}The run was steered by these tasks, so they are no test: figures to "
        "compare models by are of others, by `embedcode eval`."
    )


def _limits(recipe: Recipe, checkpoint: Checkpoint) -> str:
    return (
        "## Limits\n\n"
        f"- Text after {checkpoint.max_tokens:,} tokens is not read.\n"
        "- Languages that the table of the training data does not name were not trained on here; the base may know "
        "them or not.\n"
        "- The nearest code is not always an answer: a search has hits for any question.\n"
        "- Queries in other natural languages than English were not measured."
        + (f"\n- {recipe.notes}" if recipe.notes else "")
    )


def _subcards(recipe: Recipe) -> str:
    code = "code, comments and commits of its owner's own repository" if recipe.private else "public code and comments"
    restrictions = "weights not for release (in-domain data)" if recipe.regime == "in-domain" else "the licence's"
    return f"""## Explainability

| question | answer |
|---|---|
| task | text embedding for retrieval |
| who it is for | developers of code search |
| input and output | a text; a vector of unit length |
| how it works | a transformer's states of the tokens are pooled; near vectors are near in meaning, if it learnt so |
| what can be explained | the order of hits by their scores; not why a single pair of texts has the score it has |
| measured by | nDCG@10 on the tasks above |
| known risk | a hit that looks right and is not; see Limits |
| terms of use | {recipe.licence or "not stated"} |

## Bias

| question | answer |
|---|---|
| groups that are at a disadvantage | who asks in other languages than English, or names code in them; not measured |
| what was done | nothing against it; data is {code}, whose authors are no sample of people |

## Safety and security

| question | answer |
|---|---|
| use in which a mistake does harm | none intended: it ranks, and a person or program reads what is ranked |
| attacks | text may be written to rank high for a question; programs must take hits as untrusted |
| code of this checkpoint | none: weights are safetensors, configuration is JSON |
| restrictions | {restrictions} |

## Privacy

| question | answer |
|---|---|
| personal data in training | {code}, which may name authors; `sources.json` lists where from |
| collected for this model from people | no |
| can a vector be turned back into its text | in part, by published attacks: keep vectors as private as their texts |
| removal | a source that is entered in `data/never.toml` is not in the next training |"""


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _listed(counts: tuple[tuple[str, int], ...], most: int = 6) -> str:
    shown = [f"{name} {count:,}" for name, count in counts[:most]]
    rest = len(counts) - most
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")

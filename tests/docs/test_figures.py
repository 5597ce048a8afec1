"""Tables of the pages have the figures of the results that they name: to the digits shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BM25 = "bm25:stem,stop"
LANGUAGES = ["python", "javascript", "java", "go", "c", "cpp"]


def result(name: str) -> Any:
    (file,) = ROOT.glob(f"bench/*/results/{name}.json")
    return json.loads(file.read_text("utf-8"))


def rows(page: str, head: str, after: str = "") -> list[list[str]]:
    """The rows of the first table behind the words `after` whose head begins so: names, then the cells."""
    text = (ROOT / page).read_text("utf-8").partition(after)[2] if after else (ROOT / page).read_text("utf-8")
    body = text.partition(f"\n{head}")[2].partition("\n\n")[0]
    found = [[cell.strip(" *`") for cell in line.strip("|").split("|")] for line in body.splitlines()[2:]]
    assert found, f"{page} has no table {head}"
    return found


def numbers(cell: str) -> list[str]:
    return re.findall(r"[+-]?[\d,]*\.?\d+", cell)


def agrees(cell: str, values: list[float]) -> None:
    """Each number of a cell is its value, as far as it is shown; a cell without numbers says nothing."""
    shown = numbers(cell)
    if not shown:
        return
    assert len(shown) == len(values), f"{cell}: {values}"
    for text, value in zip(shown, values, strict=True):
        digits = len(text.partition(".")[2])
        rounding = 0.5 * 10**-digits
        if not digits:  # whole numbers are shown to three digits
            rounding = max(rounding, 5 * 10 ** (len(text.strip("+-").replace(",", "")) - 4))
        assert abs(float(text.replace(",", "")) - value) <= rounding + 6e-5, f"{cell} of the page, {values} measured"


def test_the_card_of_the_model() -> None:
    reported = result("9741442-reported")
    measured = {one["task"]: one for one in reported["rows"]}
    words = {one["set"]: one["ndcg@10"] for one in result("413dfee-dev")["rows"] if one["system"] == BM25}
    *page, docstrings, others = rows("docs/model.md", "| task | queries")
    assert [name for name, *_ in page] == [*LANGUAGES, *(name for name in sorted(measured) if name not in LANGUAGES)]
    for name, sizes, plain, best, base, ours, above in page:
        one = measured[name]
        agrees(sizes.replace(", ", " "), [one["queries"], one["documents"]])
        for cell, values in ((plain, [one["bm25"]]), (base, [one["base"]]), (ours, [one["model"]])):
            agrees(cell, values)
        agrees(above, one["above_base"])
        agrees(best, [words.get(name, 0)])
    for shown, kind in ((docstrings, "docstring to function"), (others, "others")):
        means = reported["means"][kind]
        for cell, key in zip([shown[2], *shown[4:6]], ("bm25", "base", "model"), strict=True):
            agrees(cell, [means[key]])
        agrees(shown[6], [means["model"] - means["base"]])


def test_the_best_bm25_of_the_card_is_that_of_the_steering_sets() -> None:
    steered = result("d2ad69f-bm25-steering")["means"]["to steer by"]
    assert max(steered, key=lambda name: steered[name]) == BM25
    words = {one["task"]: one for one in result("d2ad69f-bm25-reported")["rows"]}
    packaged = result("03c8378-static-reported")["tasks"]
    *page, _ = rows("docs/model.md", "| task, made later")
    assert [name for name, *_ in page] == LANGUAGES
    for name, _, plain, best, ours, above in page:
        one = words[name]
        for cell, value in ((plain, one["bm25"]), (best, one[BM25]), (ours, packaged[f"reported-{name}"]["packaged"])):
            agrees(cell, [value])
        agrees(above, [packaged[f"reported-{name}"]["packaged"] - one[BM25]])


def test_the_sets_that_steered_the_card() -> None:
    parts = result("c76cec6-forgetting")["ndcg@10"]
    for name, base, ours in rows("docs/model.md", "| task | base", "The share of the tuned"):
        task = name.partition(",")[0]
        agrees(base, [parts["base"][task]])
        agrees(ours, [parts["packaged run, step 640, blend .5"][task]])


def test_the_development_sets() -> None:
    measured = {(one["set"], one["system"]): one["ndcg@10"] for one in result("413dfee-dev")["rows"]}
    sets = ("cosqa-dev", "conala", "mbpp", "humaneval", "so-title2code-csharp", "concode-java-dev", "nl2bash")
    *page, _, _ = rows("docs/evaluate.md", "| nDCG@10 | cosqa")  # without seconds and memory
    assert len(page) == len({system for _, system in measured})
    for name, *cells in page:
        system = name.replace("all-", "sentence-transformers/all-").split(" ")[0].rstrip("`,")
        for cell, of in zip(cells, (*sets, "codetrans-java-cs"), strict=True):
            agrees(cell, [measured[of, system]])


SYSTEMS = (
    "ripgrep", "BM25, chunks", "BM25, files", "semble (no model)", "words", "words ranked", "vectors",
    "words and vectors", "words and vectors ranked",
)  # fmt: skip


def test_search_in_repositories() -> None:
    tables = result("cbfd13d-reported")["tables"]
    for system, (_, place, file, less, ms) in zip(SYSTEMS, rows("docs/evaluate.md", "| system | place"), strict=True):
        agrees(file, [tables["file"][system]["ndcg@10"]])
        if system in tables["place"]:
            one = tables["place"][system]
            agrees(place, [one["ndcg@10"]])
            agrees(less, below(one))
            agrees(ms, [one["ms"]])


@pytest.mark.parametrize(("name", "after"), [("cbfd13d-commits", "### Commit"), ("6996517-issues", "### Issues to")])
def test_commits_and_issues_to_files(name: str, after: str) -> None:
    table = result(name)["tables"]["file"]
    page = rows("docs/evaluate.md", "| system | nDCG@10", after)
    for system, (_, ndcg, first, ten, less, _) in zip(SYSTEMS, page, strict=True):
        one = table[system]
        agrees(ndcg, [one["ndcg@10"], *one.get("interval_clustered", one["interval"])])
        agrees(first, [one["recall@1"]])
        agrees(ten, [one["recall@10"]])
        agrees(less, below(one))


def below(one: dict[str, Any]) -> list[float]:
    best = one.get("best_minus_this", {})
    return [best["mean"], *best["interval_clustered"]] if best else []


ENCODERS = [
    ("56b92a6-small", "**MiniLM-L6**", ("peer fp32 8", "peer bf16 1", "peer openvino-int8 8")),
    ("45b4687-smollm2", "**SmolLM2-135M**", ("peer fp32 1", "peer bf16 1", "peer openvino-int8 1")),
    ("d6e0d50-qwen3", "**Qwen3-0.6B", ("peer fp32 1", "peer bf16 1", "peer openvino-int8 1")),
]


@pytest.mark.parametrize(("name", "after", "best"), ENCODERS)
def test_encoders_beside_sentence_transformers(name: str, after: str, best: tuple[str, ...]) -> None:
    (found,) = result(name)["found"].values()
    rates = found["tokens/s"]
    ours, theirs = rows("docs/encoder.md", "| tokens/s |", after)
    kinds = ("fp32", "bf16", "int8", "openvino int8", "onnx int8")
    for cell, kind in zip(ours[1:], kinds, strict=True):
        agrees(cell, [rates[f"ours {kind}"]])
    for cell, peer in zip([theirs[1], theirs[2], theirs[4]], best, strict=True):
        agrees(cell.partition(" (")[0], [rates[peer]])
    for peer in best:  # the best of its batches, not one of them
        assert rates[peer] == max(rate for key, rate in rates.items() if key.startswith(peer.rpartition(" ")[0]))

"""SWE-bench's file retrieval: issues, protocols and systems put together, and a result that names all conditions.

Knows no command line. The protocols:

- published: every text file of the commit, cut into runs of exactly 450 tokens of the model's tokenizer without
  overlap, each behind its full path; a file ranks by its best chunk (Nemotron-CORTEXA, ICML 2025).
- search: what embedcode itself does with a checkout: its choice of files, its chunks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcode.errors import EmbedcodeError, ModelError, UsageError, line
from embedcode.evaluate import history, localise
from embedcode.evaluate.bm25 import K1, B
from embedcode.evaluate.choices import Files, Protocol
from embedcode.evaluate.cut import Cutting, Words
from embedcode.evaluate.instances import Instance
from embedcode.evaluate.measure import Measured, summed
from embedcode.evaluate.systems import PACKAGED, asked_now, check, conditions_of, parsed
from embedcode.evaluate.vectors import Moment, Progress
from embedcode.files import is_file, is_folder
from embedcode.index.git import Repository
from embedcode.model.spec import DEFAULT

if TYPE_CHECKING:
    from embedcode.types import Encoder

TOKENS = 450
"""Of a published chunk."""
SWITCHES = {"bm25": ("chunks", "paths", "stem", "stop"), "lexical": ()}
HUB = "princeton-nlp/SWE-bench_Lite"


@dataclass(frozen=True, slots=True)
class Setup:
    """What is done, but for the issues and where clones are."""

    name: str
    """Of the system, as results name it."""
    system: localise.System
    cutting: Cutting
    files: Files
    tests: bool
    conditions: Mapping[str, Any]

    @property
    def task(self) -> str:
        return f"swebench-lite/{self.conditions['protocol']}"


def system(
    name: str,
    protocol: Protocol,
    encoder: Callable[[str], Encoder],
    home: Path,
    *,
    configured: str = "",
    files: Files | None = None,
    tests: bool = True,
    tokenizer: Path | None = None,
    instruction: str | None = None,
    summarised: bool = False,
    progress: Progress = lambda moment: None,
) -> Setup:
    """Of bm25 (bm25:chunks,paths,stem,stop), lexical, hybrid (hybrid:MODEL) or a model by name, as systems.py has them.

    `encoder` loads a model, `configured` is that of the settings. UsageError as of `systems.parsed`, or where tokens
    cannot be counted.
    """
    from embedcode.model.presets import INSTRUCTIONS

    asked = parsed(name, configured, SWITCHES, instruction)
    words, paths, whole = Words(), True, False
    model: localise.Model | None = None
    found: localise.System
    extra: dict[str, Any]
    if asked.kind == "bm25":
        words, paths = Words("stem" in asked.switches, "stop" in asked.switches), "paths" in asked.switches
        whole = "chunks" not in asked.switches
        found = localise.Bm25(words, paths)
        ranking = "BM25 of the whole file" if whole else "the best chunk's BM25"
        extra = {"k1": K1, "b": B, "stem": words.stem, "stop words": not words.stop_words}
    elif asked.kind == "lexical":
        found, extra = localise.Searched(), {}
        ranking = f"embedcode's search by words, the best of {localise.HITS} hits"
    else:
        loaded = asked_now(encoder(asked.place))
        told = getattr(loaded, "conditions", None)
        takes = told is not None and any("{instruction}" in prompt for prompt in told.prompts.values())
        if instruction is None and takes:
            instruction = INSTRUCTIONS["bug-summary" if summarised else "bug"]
        check(loaded, instruction)
        model = localise.Model(loaded, home, instruction, progress)
        extra = conditions_of(asked.model, loaded, instruction)
        if asked.kind == "hybrid":
            found = localise.Searched(model)
            ranking = f"embedcode's search by words and vectors, the best of {localise.HITS} hits"
        else:
            found, ranking = localise.Dense(model), "the best chunk's cosine"
    prefix = "full path, for words as a field of its own" if isinstance(found, localise.Searched) else "full path"
    if files is None:
        files = Files.ALL if protocol is Protocol.PUBLISHED else Files.INDEXED
    judged = files is Files.INDEXED
    if whole:
        base, chunking = Cutting("file", judged=judged), "none, whole files"
    elif protocol is Protocol.SEARCH:
        base, chunking = Cutting("chunk", judged=judged), "embedcode's own, by syntax"
    else:
        file = _tokenizer(tokenizer, model)
        base = Cutting("tokens", tokens=TOKENS, tokenizer=str(file), judged=judged)
        chunking = f"{TOKENS} tokens, no overlap"
        extra["tokenizer"] = by_content(file)
    conditions = {
        "protocol": str(protocol),
        "chunking": chunking,
        "path prefix": prefix if paths else "none",
        "files": str(files),
        "test files": "in" if tests else "out",
        "ranking": ranking,
        **extra,
    }
    return Setup(asked.label, found, localise.cutting(found, base), files, tests, conditions)


def measure(
    instances: Sequence[Instance],
    setup: Setup,
    clone: Callable[[str, Sequence[Instance]], Repository],
    cores: int,
    command: str,
    conditions: Mapping[str, Any],
    progress: Progress = lambda moment: None,
) -> Measured:
    """Rank every instance. `clone` gives the repository of a name with the commits of instances.

    All clones are asked for first, so what is missing is said at once. An instance that has no answer is left out,
    named, and the result is partial; after a model's failure the rest is not tried.
    """
    groups: dict[str, list[Instance]] = {}
    for one in instances:
        groups.setdefault(one.repo, []).append(one)
    clones = {repo: clone(repo, some) for repo, some in groups.items()}
    run: dict[str, localise.Ranking] = {}
    failed: dict[str, str] = {}
    counts = {"files": 0, "file versions": 0, "distinct units": 0}
    left_out: dict[str, int] = {}
    outside: list[str] = []
    seconds = {"files": 0.0, "ranking": 0.0}
    dead = ""
    for repo, some in groups.items():
        if dead:
            failed |= {one.id: dead for one in some}
            continue
        begun = time.perf_counter()
        try:
            read = history.read(
                clones[repo], repo, some, setup.cutting, setup.files, setup.tests, cores, _told(progress, repo)
            )
            between = time.perf_counter()
            seconds["files"] += between - begun
            for at, (one, ranking) in enumerate(setup.system.rankings(read, some), 1):
                if isinstance(ranking, str):
                    failed[one.id] = ranking
                else:
                    run[one.id] = dict(ranking)
                progress(Moment(f"ranking files of {repo}", at, len(some), None))
            seconds["ranking"] += time.perf_counter() - between
        except EmbedcodeError as error:
            failed |= {one.id: str(error) for one in some if one.id not in run}
            if isinstance(error, ModelError):
                dead = str(error)
            continue
        counts["files"] += sum(read.commits[one.commit].files for one in some)
        counts["file versions"] += read.versions
        counts["distinct units"] += read.units
        for commit in read.commits.values():
            for reason, count in commit.left_out.items():
                left_out[reason] = left_out.get(reason, 0) + count
        for one in some:
            ranked = {read.paths[read.path[unit]] for unit in read.commits[one.commit].units}
            outside += [one.id] if not ranked.issuperset(one.gold) else []
    answered = [one for one in instances if one.id in run]
    if not answered:
        raise UsageError(f"{setup.name} answers no instance: {next(iter(failed.values()))}")
    qrels = {one.id: dict.fromkeys(one.gold, 1) for one in answered}
    result = summed(
        run,
        qrels,
        task=setup.task,
        system=setup.name,
        conditions={
            "instances": len(instances),
            **conditions,
            **setup.conditions,
            "file versions": counts["file versions"],
            "distinct units": counts["distinct units"],
            "files left out": left_out,
            "answers outside the files": outside,
            **({"cut texts": dict(cut)} if (cut := setup.system.cut) else {}),
            "intervals": "repositories drawn whole",
        },
        documents=counts["files"],
        command=command,
        seconds=seconds,
        more={"kept": dict(kept)} if (kept := setup.system.kept) else {},
        clusters={one.id: one.repo for one in answered},
        partial=bool(failed),
    )
    return Measured(result, run, failed)


def fetched(split: str) -> tuple[Path, str]:
    """The instances of a split, from the hub or its cache on this machine, and their revision. UsageError where it
    cannot be had."""
    try:
        from huggingface_hub import hf_hub_download

        found = Path(hf_hub_download(HUB, f"data/{split}-00000-of-00001.parquet", repo_type="dataset"))
        return found, f"{HUB}@{found.parents[1].name}, {split}"  # snapshots/REVISION/data/FILE
    except ImportError as error:
        raise UsageError(f"the hub needs {error.name}: install it, or give the rows with --instances.") from None
    except Exception as error:  # of the hub's client, of HTTP, of the disk
        reason = line(error)
        raise UsageError(f"{HUB} cannot be had ({reason}): give its rows with --instances.") from None


def _tokenizer(given: Path | None, model: localise.Model | None) -> Path:
    """The tokenizer.json that counts the tokens of a chunk: as given, else the model's; the packaged one for words."""
    if given is None and model is not None:
        given = getattr(model.encoder, "tokenizer", None)
        if given is None:
            raise UsageError(
                "a server does not show its tokenizer, by which chunks are cut: give one with --tokenizer, "
                "or take --protocol search."
            )
    found = given or DEFAULT
    found = found / "tokenizer.json" if is_folder(found) else found
    if not is_file(found):
        raise UsageError(f"{found} is no file: give a tokenizer.json, or the folder that holds one.")
    return found


def by_content(file: Path) -> str:
    """The packaged tokenizer by that name, any other file by its path; with a part of its hash, since paths say
    little."""
    name = PACKAGED if file.parent == DEFAULT else str(file)
    return f"{name} (sha256 {sha256(file.read_bytes()).hexdigest()[:12]})"


def _told(progress: Progress, repo: str) -> Callable[[int, int], None]:
    begun = time.monotonic()

    def told(done: int, total: int) -> None:
        spent = time.monotonic() - begun
        left = spent / done * (total - done) if done and spent > 0.5 else None
        progress(Moment(f"reading file versions of {repo}", done, total, left))

    return told

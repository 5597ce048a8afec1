"""Settings and where each came from: flags > EMBEDCODE_* environment > files > default.

Two files are read: `$XDG_CONFIG_HOME/embedcode/config.toml` (the user's), then `.embedcode.toml` at the repository
root, which wins over it. A repository may come from anybody, so its file can only say what to index: opening a
stranger's clone must not send code away, write elsewhere, load a file of its choice or take the machine.
Knows nothing of what a setting is used for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedcode.errors import UsageError
from embedcode.files import is_folder, read_small

MAX_FILE_BYTES = 1_000_000
"""Larger files are nearly always data or generated."""
MOST_THREADS = 1024
PRECISIONS = ("fp32", "bf16", "int8")
LOG_LEVELS = ("debug", "info", "warning", "error")
_OURS = "EMBEDCODE_"
REPOSITORY_FILE = ".embedcode.toml"
REPOSITORY_SETTINGS = ("ignore", "max_file_bytes")
"""What that file may say."""
_NAMED = "[0-9a-f]" * 16 + "*"
DERIVED = (
    "clones/*__*.git*",
    f"compiled/{_NAMED}",
    f"outputs/{_NAMED}",
    f"golden/{_NAMED}.npy",
    f"servers/{_NAMED}.json",
    "precision.json",
)
"""What is kept in `home` beside indexes and vectors and can be made again, as patterns: there may be other things."""
DERIVED_VECTORS = (f"evaluate/{_NAMED}",)
"""The same of what takes long to make."""
MOST_DOTS = 2_000
"""Of a settings file. Python reads a key of so many parts in half a second, one of 20,000 in 49 s."""
MOST_FILE_BYTES = 20_000_000
"""A file is read whole, and chunking it takes some ten times its size."""


@dataclass(frozen=True, slots=True)
class Settings:
    home: Path
    """Where indexes, cached vectors and logs live."""
    model: str
    """Folder or name of a model; "" is the packaged one."""
    precision: str
    """What a checkpoint is computed in: one of PRECISIONS, or "" for what a calibration chooses."""
    device: str
    """Where a model is computed: cpu, cuda or tensorrt, a card by its number such as cuda:1, or auto for the best."""
    stream: bool
    """Keep no layer of a checkpoint in memory: each is read from the disk for each pass."""
    threads: int
    """Processor threads for embedding, at least 1; a configured 0 has become the cores this process may use."""
    max_file_bytes: int
    """Larger files are not indexed."""
    ignore: tuple[str, ...]
    """Extra patterns in gitignore's syntax."""
    background: bool
    """Whether a process may be started that makes in the background what lacks vectors."""
    log_level: str
    sources: Mapping[str, str] = field(repr=False, compare=False)

    @property
    def indexes(self) -> Path:
        """One folder a checkout."""
        return self.home / "indexes"

    @property
    def vectors(self) -> Path:
        """Cached vectors, shared by all checkouts."""
        return self.home / "vectors"

    def explain(self) -> list[tuple[str, str, str]]:
        """(name, value as text, where it came from), one per setting."""
        return [(name, _shown(getattr(self, name)), self.sources[name]) for name in _READERS]


def load(flags: Mapping[str, Any] | None = None, root: Path | None = None) -> Settings:
    """Settings for work on the repository at `root`; a flag that is None was not given.

    Raises UsageError naming the place, the name and the value of anything unknown or of the wrong type.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for where, name, raw in _given(flags or {}, root):
        values[name] = _READERS[name](raw, f"{where}: {name} = {_shown(raw)!r}")
        sources[name] = where
    for name in _READERS.keys() - values.keys():
        values[name] = _DEFAULTS[name]()
        sources[name] = "default"
    values["threads"] = values["threads"] or cores()
    return Settings(**values, sources=sources)


def misspelt() -> Iterator[str]:
    """A remark on each variable that is nearly called like one of a setting, and sets nothing."""
    for variable in os.environ:
        name = variable.removeprefix(_OURS).lower()
        if variable.startswith(_OURS) and not name.startswith(("serve_", "in_")) and name not in _READERS:
            from difflib import get_close_matches

            if near := get_close_matches(name, _READERS, n=1, cutoff=0.8):  # others' and the server's are none
                yield f"{variable} sets nothing: did you mean {_OURS}{near[0].upper()}?"


def cores() -> int:
    """Cores this process may run on, which in a container or under taskset is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _given(flags: Mapping[str, Any], root: Path | None) -> Iterator[tuple[str, str, Any]]:
    """(where, name, raw value) of everything that was set, weakest first."""
    user = _xdg("XDG_CONFIG_HOME", ".config")
    if user is not None:
        yield from _file(user / "config.toml")
    if root is not None:
        path = root / REPOSITORY_FILE
        for where, name, raw in _file(path):
            if name not in REPOSITORY_SETTINGS:
                raise UsageError(
                    f"{path}: {name} = {_shown(raw)!r} may not be set by a repository; "
                    f"set it in your own config.toml or as EMBEDCODE_{name.upper()}"
                )
            yield where, name, raw
    for name in _READERS:
        variable = f"EMBEDCODE_{name.upper()}"
        if raw := os.environ.get(variable):
            yield f"environment {variable}", name, raw
    for name, raw in flags.items():
        _known(name, "flags")
        if raw is not None:
            yield f"flag --{name.replace('_', '-')}", name, raw


def _file(path: Path) -> Iterator[tuple[str, str, Any]]:
    try:
        text = read_small(path).decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    if (dots := text.count(".")) > MOST_DOTS:
        raise UsageError(
            f"{path} holds {dots:,} dots, and may hold {MOST_DOTS:,}, since keys of many parts take minutes to read: "
            "write a long list of patterns into .embedcodeignore"
        )
    import tomllib  # 5 ms that a user without a file does not pay

    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # of numbers and nesting beyond Python's limits, too
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    for name, raw in table.items():
        _known(name, str(path), raw)
        yield str(path), name, raw


def _known(name: str, where: str, raw: object = None) -> None:
    if name not in _READERS:
        from difflib import get_close_matches

        near = get_close_matches(name.replace("-", "_").lower(), _READERS, n=1)
        cure = f"did you mean {near[0]!r}?" if near else f"the settings are {', '.join(_READERS)}"
        raise UsageError(f"{where}: unknown setting {name!r}{'' if raw is None else f' = {_shown(raw)!r}'}; {cure}")


def _xdg(variable: str, fallback: str) -> Path | None:
    """A base folder; a relative one is ignored, as the XDG specification says. None where the user has no home."""
    base = Path(os.environ.get(variable, ""))
    if base.is_absolute():
        return base / "embedcode"
    try:
        return Path.home() / fallback / "embedcode"
    except RuntimeError:
        return None


def _default_home() -> Path:
    home = _xdg("XDG_CACHE_HOME", ".cache")
    if home is None:
        raise UsageError("there is no home folder to keep indexes in; set EMBEDCODE_HOME to a folder")
    return home


def _shown(value: object) -> str:
    try:
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    except (ValueError, RecursionError):  # 0xf... of more digits than Python writes out, or a.a.a... without end
        return f"{type(value).__name__} too large to show"


def _text(raw: Any, place: str) -> str:
    if not isinstance(raw, str):
        raise UsageError(f"{place} must be text in quotes")
    return raw


def _model(raw: Any, place: str) -> str:
    """As it stands, or the whole path of a folder, since an index remembers it."""
    text = _text(raw, place)
    return str(Path(text).absolute()) if text and is_folder(text) else text


def _folder(raw: Any, place: str) -> Path:
    given = isinstance(raw, str | Path) and str(raw) and "\0" not in str(raw)
    try:
        path = Path(raw).expanduser().absolute() if given else None
    except (RuntimeError, OSError):  # ~ of no user, or a current folder that is gone
        path = None
    if path is None:
        raise UsageError(f"{place} must be the path of a folder")
    return path


def _count(raw: Any, place: str, least: int, most: int) -> int:
    try:
        value = int(raw) if isinstance(raw, str | int) and not isinstance(raw, bool) else None
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        raise UsageError(f"{place} must be a whole number from {least} to {most}")
    return value


def _patterns(raw: Any, place: str) -> tuple[str, ...]:
    """A list, or comma-separated text as the environment gives it."""
    parts = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise UsageError(f'{place} must be a list of gitignore patterns, such as ["*.min.js", "vendor/"]')
    return tuple(part.strip() for part in parts if part.strip())


def _one_of(raw: Any, place: str, choices: tuple[str, ...]) -> str:
    if not isinstance(raw, str) or raw.lower() not in choices:
        raise UsageError(f"{place} must be one of {', '.join(filter(None, choices))}")
    return raw.lower()


def _switch(raw: Any, place: str) -> bool:
    value = {"1": True, "true": True, "0": False, "false": False}.get(_shown(raw).lower())
    if value is None:
        raise UsageError(f"{place} must be true or false")
    return value


def precision_of(raw: Any, place: str) -> str:
    return _one_of(raw, place, ("", *PRECISIONS))


def device_of(raw: Any, place: str) -> str:
    if not isinstance(raw, str) or not re.fullmatch(r"cpu|auto|(?:cuda|tensorrt)(?::\d+)?", raw):
        raise UsageError(f"{place} must be cpu, cuda, tensorrt or auto, or a card by its number such as cuda:1")
    return raw


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "home": _folder,
    "model": _model,
    "precision": precision_of,
    "device": device_of,
    "stream": _switch,
    "threads": lambda raw, place: _count(raw, place, least=0, most=MOST_THREADS),
    "max_file_bytes": lambda raw, place: _count(raw, place, least=1, most=MOST_FILE_BYTES),
    "ignore": _patterns,
    "background": _switch,
    "log_level": lambda raw, place: _one_of(raw, place, LOG_LEVELS),
}
_DEFAULTS: dict[str, Callable[[], Any]] = {
    "home": _default_home,
    "model": str,
    "precision": str,
    "device": lambda: "cpu",
    "stream": bool,
    "threads": int,
    "max_file_bytes": lambda: MAX_FILE_BYTES,
    "ignore": tuple,
    "background": lambda: True,
    "log_level": lambda: "warning",
}

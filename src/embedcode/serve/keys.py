"""Keys: who may ask for what, from a file of hashes, with a quota of tokens a minute each. Knows no route.

A key is made here, of 256 random bits, and shown once; so its sha256 can stand in a file that others might read, and
needs no slow hash. The file is read again when it changes: a line that is taken out is a key that no longer opens.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
import secrets
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedcode.errors import UsageError
from embedcode.files import read_small, replacing, stamp
from embedcode.serve.queue import FullError

SCOPES = ("embed", "search")
PREFIX = "ec-"
LOOK_SECONDS = 1.0
"""Between two looks at whether the file has changed."""
FIELDS: dict[str, type] = {"name": str, "sha256": str, "scopes": list, "indexes": list, "tokens_per_minute": int}

INDEX_NAME = re.compile(r"[^\x00-\x1f\x7f,=/\\]{1,100}")
_NAME = re.compile(r"[\w.@-]{1,64}", re.ASCII)


@dataclass(slots=True)
class Key:
    name: str
    sha256: str
    scopes: tuple[str, ...] = SCOPES
    indexes: tuple[str, ...] = ()
    """Names of indexes it may search; none are all."""
    tokens_per_minute: int = 0
    """0 is no limit."""
    left: float = field(default=0.0, compare=False)
    at: float = field(default=0.0, compare=False)

    def searches(self, index: str) -> bool:
        return "search" in self.scopes and (not self.indexes or index in self.indexes)

    def spend(self, tokens: int, now: float) -> None:
        """FullError where this minute's tokens are used up. A request above a whole minute's waits for a full one.

        Fewer than 0 are given back, which is never refused.
        """
        if not self.tokens_per_minute:
            return
        most = float(self.tokens_per_minute)
        self.left, self.at = self._left(now), now
        wanted = min(float(tokens), most)
        if tokens > 0 and self.left < wanted:
            raise FullError((wanted - self.left) * 60 / most, "quota")
        self.left -= tokens

    def allowance(self, now: float) -> tuple[int, int]:
        """Of a key with a quota: the tokens that are left, and the seconds after which all of a minute's are."""
        left, most = self._left(now), self.tokens_per_minute
        return max(0, int(left)), math.ceil((most - left) * 60 / most)

    def _left(self, now: float) -> float:
        most = float(self.tokens_per_minute)
        return min(most, self.left + (now - self.at) * most / 60) if self.at else most


def asker(request: Any) -> Key | None:
    """The key by which a request was let in; None where none is needed."""
    key: Key | None = request.scope["state"].get("key")
    return key


class Keys:
    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._keys = read(path)
        if not self._keys:
            raise UsageError(f"{path} has no key, so nobody could ask: add one with --new-key NAME")
        self._stamp = stamp(path)
        self._looked = clock()
        self.trouble = ""
        """Why a changed file was not taken, or lets nobody in."""
        self._emptied = False

    def find(self, secret: str) -> Key | None:
        """Compares with every key, in a time that tells nothing of them."""
        self._look()
        given = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(given, key.sha256):
                found = key
        return found

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        now_there = stamp(self._path)
        if now_there == self._stamp:
            return
        try:
            fresh = read(self._path)
        except (UsageError, OSError) as error:
            self._stamp = now_there
            self.trouble = str(error)
            return
        if not fresh and not self._emptied:  # an editor may have emptied it, to write it anew: it is looked at again
            self._emptied = True
            return
        self._stamp, self._emptied = now_there, False
        self.trouble = "" if fresh else f"{self._path} has no key, so nobody can ask: add one with --new-key NAME"
        self._keys = [self._kept(key) for key in fresh]

    def _kept(self, fresh: Key) -> Key:
        """What is left of a quota stays; of a key that is as it was, with requests that are under way too."""
        old = next((one for one in self._keys if one.sha256 == fresh.sha256), fresh)
        if old == fresh:
            return old
        fresh.left, fresh.at = old.left, old.at
        return fresh


def read(path: Path) -> list[Key]:
    """UsageError for a file that is not there or is none of ours."""
    try:
        table = tomllib.loads(read_small(path).decode("utf-8"))
    except OSError as error:
        cure = "let this user read it" if isinstance(error, PermissionError) else "make it with --new-key NAME"
        raise UsageError(f"{path} cannot be read ({(error.strerror or str(error)).lower()}): {cure}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML ({error}): mend it, or make it anew with --new-key NAME") from None
    entries = table.pop("key", [])
    if table or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"{path} holds more than [[key]] tables: take out {', '.join(table) or 'key'}")
    keys = [_key(path, number, entry) for number, entry in enumerate(entries, 1)]
    for number, key in enumerate(keys):
        if any(key.name == other.name for other in keys[:number]):
            raise UsageError(f"{path} has two keys of the name {key.name}: give each its own")
    return keys


def add(
    path: Path,
    name: str,
    scopes: tuple[str, ...] = SCOPES,
    tokens_per_minute: int = 0,
    indexes: tuple[str, ...] = (),
) -> str:
    """Make a key, append its hash to the file, and return it: it can be read nowhere else."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name[:80]!r} is no name of a key: use up to 64 letters, digits, and . _ @ -")
    for index in indexes:
        if not INDEX_NAME.fullmatch(index):
            raise UsageError(f"{index[:80]!r} is no name of an index: give one as in --index NAME=PATH")
    keys = read(path) if path.exists() else []
    if any(key.name == name for key in keys):
        raise UsageError(f"{path} has a key of the name {name}: choose another, or take that one out")
    secret = PREFIX + secrets.token_urlsafe(32)
    lines = [
        "[[key]]",
        f'name = "{name}"',
        f'sha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"',
        f"scopes = {json.dumps(scopes)}",
        *([f"indexes = {json.dumps(indexes, ensure_ascii=False)}"] if indexes else []),
        *([f"tokens_per_minute = {tokens_per_minute}"] if tokens_per_minute else []),
    ]
    before = read_small(path) if path.exists() else b""
    try:
        with replacing(path, 0o600) as file:
            file.write(before + (b"\n" if before else b"") + "\n".join(lines).encode() + b"\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): give another place") from None
    return secret


def _key(path: Path, number: int, entry: dict[str, Any]) -> Key:
    place = f"{path}, key {number}"
    for name, value in entry.items():
        if name not in FIELDS:
            raise UsageError(f"{place}: unknown field {name[:80]!r}: the fields are {', '.join(FIELDS)}")
        wanted = FIELDS[name]
        if type(value) is not wanted or (isinstance(value, list) and not all(isinstance(one, str) for one in value)):
            raise UsageError(f"{place}: {name} has to be a {'list of texts' if wanted is list else wanted.__name__}")
    if not _NAME.fullmatch(entry.get("name", "")):
        raise UsageError(f"{place} has no name of letters, digits, and . _ @ -")
    if not re.fullmatch(r"[0-9a-f]{64}", entry.get("sha256", "")):
        raise UsageError(f"{place} ({entry['name']}) has no sha256 of a key: make one with --new-key NAME")
    for scope in entry.get("scopes", []):
        if scope not in SCOPES:
            raise UsageError(f"{place} ({entry['name']}): scope {scope[:80]!r} is none of {', '.join(SCOPES)}")
    if entry.get("tokens_per_minute", 0) < 0:
        raise UsageError(f"{place} ({entry['name']}): tokens_per_minute is below 0; leave it out for no limit")
    scopes = tuple(entry.get("scopes", SCOPES))
    return Key(
        entry["name"], entry["sha256"], scopes, tuple(entry.get("indexes", ())), entry.get("tokens_per_minute", 0)
    )

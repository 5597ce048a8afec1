"""Plan: what a run was begun with, in plan.json of its folder: the recipe as read, the base by its weights, in what
precision it is computed, and how many steps it takes. A run goes on only as that says. Knows no network.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embedcode.errors import UsageError
from embedcode.files import save_json
from embedcode.train import publish
from embedcode.train.base import PINNED
from embedcode.train.recipe import Data, Lora, Mining, Recipe

NAME = "plan.json"


class Plan:
    """That of one recipe in one folder."""

    def __init__(self, recipe: Recipe, out: Path, precision: str, resume: bool, tell: Callable[[str], None]) -> None:
        """Take the folder, or go on in it if it is of the same recipe; UsageError where it is not."""
        self.file = out / NAME
        self._recipe, self._out = recipe, out
        self._values: dict[str, Any] = {}
        own = _plain(recipe)
        if not resume:
            refuse_taken(out)
        with suppress(FileNotFoundError, ValueError):
            self._values = json.loads(self.file.read_text("utf-8"))
        self.begins = not self._values
        """Whether a run begins with it."""
        if not self.begins:
            self._compare(own, self._completed(self._values["recipe"]))
            return
        if resume:
            tell(f"{out} has no run yet: starting one")
        with publish.writing(out):
            out.mkdir(parents=True, exist_ok=True)
        self.note(recipe=own, places=True, precision=precision)

    @property
    def steps(self) -> int:
        """0 where they are not planned yet."""
        return int(self._values.get("steps", 0))

    @property
    def places(self) -> bool:
        """Whether pairs that come alone draw by their place in the run."""
        return bool(self._values.get("places"))

    @property
    def precision(self) -> str:
        """ "" in a run that an older version began."""
        return str(self._values.get("precision", ""))

    def note(self, **values: Any) -> None:
        """Write more of it."""
        whole = self._values | values
        save_json(self.file, whole, publish.CURE)
        self._values = whole

    def begin_from(self, space: str) -> None:
        """Note the base; UsageError where it is another now: adapters of the one would fit it, if it has its shape."""
        if self._values.get("base", space) != space:
            raise UsageError(
                f"{self._out} was begun from other weights than {self._recipe.base} has now: put those "
                "back, or give another folder by --out."
            )
        if "base" not in self._values:
            self.note(base=space)

    def _compare(self, own: dict[str, Any], begun: dict[str, Any]) -> None:
        if odd := next((name for name in own if not _same(name, begun[name], own[name])), None):
            odd, was, now = _odd(odd, begun[odd], own[odd])
            raise UsageError(
                f"{self._out} has a run with another {odd}: {was!r}, not {now!r}. "
                "Go on with the recipe as it was, or give another folder by --out."
            )

    def _completed(self, written: dict[str, Any]) -> dict[str, Any]:
        """The recipe of a run that an older version began: keys that came since are as by default, as that run did."""

        def whole(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
            known = _plain(kind)
            if gone := sorted(values.keys() - known.keys()):
                raise UsageError(
                    f"{self._out} has a run that another version of embedcode began, with the key {gone[0]!r}: go on "
                    "with that version, or give another folder by --out."
                )
            return known | values

        found = whole(Recipe(Path(), "", ""), written)
        found["data"] = [whole(Data("", ()), one) for one in found["data"]]
        found["mining"] = whole(Mining(), found["mining"])
        found["lora"] = found["lora"] and whole(Lora(), found["lora"])
        return found


def refuse_taken(out: Path) -> None:
    """UsageError where a folder has a run in it."""
    if (out / NAME).is_file():
        raise UsageError(f"{out} has a run in it: go on with --resume, or give another folder by --out.")


def _same(name: str, was: Any, now: Any) -> bool:
    match name:
        case "never":  # what it names counts by its content (Run), however it is written
            return True
        case "base":  # recipes that ship have a pin since; which weights it has, begin_from() compares
            return bool(was.partition(PINNED)[0] == now.partition(PINNED)[0])
        case "masks_prompt":  # and say what the base had
            return bool(was == now) or (was is None and now is False)
    return bool(was == now)


def _odd(name: str, was: Any, now: Any) -> tuple[str, Any, Any]:
    """The first place in which two values of a plan differ, by its name, and what each has there."""
    if isinstance(was, dict) and isinstance(now, dict):
        key = next(key for key in now if now[key] != was[key])
        return _odd(f"{key} of {name}", was[key], now[key])
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        one, other = next((one, other) for one, other in zip(was, now, strict=True) if one != other)
        return _odd(f"{name} {other['name']}", one, other) if isinstance(other, dict) else (name, one, other)
    if name == "data":
        return name, [one["name"] for one in was], [one["name"] for one in now]
    return name, was, now


def _plain(part: Recipe | Data | Lora | Mining) -> dict[str, Any]:
    """As a plan has it, wherever the recipe lies."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(part), default=lambda folder: ""))
    return found

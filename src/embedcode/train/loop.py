"""Loop: the trainer of sentence-transformers with batches, weights and checkpoints of ours.

A checkpoint is written beside its place and renamed into it, so that whatever ends the process leaves whole ones only;
it holds what the run changes, and what the next step depends on. Knows no recipe.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformerTrainer
from transformers import TrainerCallback

from embedcode.errors import UsageError, line
from embedcode.train.network import put_weights, trained_weights

WEIGHTS = "weights.safetensors"
_NUMBERED = re.compile(r"checkpoint-(\d+)")


class Loop(SentenceTransformerTrainer):
    """`batches` are what it trains on, in their order; `keep` checkpoints are kept."""

    def __init__(self, *, batches: Any, keep: int, **options: Any) -> None:
        super().__init__(**options)
        self._batches, self._keep = batches, keep
        self._saving: Path | None = None

    def get_batch_sampler(self, dataset: Any, *args: Any, **options: Any) -> Any:
        return self._batches

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """card.py writes the card."""

    def training_step(self, model: Any, *args: Any, **options: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(model, *args, **options)
        if not torch.isfinite(loss):
            raise _diverged(self.state.global_step + 1, "the loss is no number")
        return loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        assert output_dir is not None
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        save_file(trained_weights(self.model), Path(output_dir) / WEIGHTS)

    def _load_from_checkpoint(self, checkpoint_path: str, model: Any = None) -> None:
        put_weights(self.model, load_file(Path(checkpoint_path) / WEIGHTS))

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._saving or self.args.output_dir)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        run = Path(str(self.args.output_dir))
        # The last step's gradient may have spoilt them, which no loss tells any more.
        if not all(bool(torch.isfinite(one).all()) for one in trained_weights(self.model).values()):
            raise _diverged(self.state.global_step, "weights are no numbers")
        self._saving = run / ".part"
        shutil.rmtree(self._saving, ignore_errors=True)
        try:
            super()._save_checkpoint(model, trial)
            name = f"checkpoint-{self.state.global_step}"
            for file in (self._saving / name).iterdir():
                _to_disk(file)
            shutil.rmtree(run / name, ignore_errors=True)
            (self._saving / name).rename(run / name)
        except Exception as error:  # safetensors and torch have errors of their own for a full disk
            last = next(reversed(checkpoints(run)), None)
            kept = f"{last.name} is whole" if last else "there is none before it"
            raise UsageError(
                f"the checkpoint of step {self.state.global_step} cannot be written to {run} "
                f"({line(error)}); {kept}: free some space and go on with --resume."
            ) from error
        finally:
            shutil.rmtree(self._saving, ignore_errors=True)
            self._saving = None
        tidy(run, self._keep)


def checkpoints(run: Path) -> list[Path]:
    """Those of a run, by their step."""
    found = [(int(match[1]), path) for path in run.glob("checkpoint-*") if (match := _NUMBERED.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def tidy(run: Path, keep: int) -> None:
    """Remove all checkpoints but the last ones, and what a kill left of others that were removed."""
    for old in checkpoints(run)[:-keep]:
        _remove(old)
    for gone in run.glob(".checkpoint-*.gone"):
        shutil.rmtree(gone, ignore_errors=True)


def _diverged(step: int, what: str) -> UsageError:
    return UsageError(
        f"{what} any more at step {step:,}, so the run has diverged: lower learning_rate, or raise warmup, and begin "
        "another run, by --out."
    )


def _remove(folder: Path) -> None:
    """Under another name first: a folder that is half gone must not look like a checkpoint."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _to_disk(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Watch(TrainerCallback):  # type: ignore[misc]
    """Calls `logged(step, values)` when the trainer logs, `stepped(step)` after each step."""

    def __init__(self, logged: Callable[[int, dict[str, float]], None], stepped: Callable[[int], None]) -> None:
        self._logged, self._stepped = logged, stepped

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._logged(int(state.global_step), {name: float(logs[name]) for name in ("loss", "learning_rate")})

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._stepped(int(state.global_step))
        if state.global_step == state.max_steps:  # else the last losses of a run whose steps are no tens are not logged
            control.should_log = True

"""Where a model is: a folder as it stands, or the local copy of a name on the hub, downloaded at first use.

The hub is asked only where not all of a model is on this machine.
"""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

from embedcode.errors import ModelError, line
from embedcode.files import is_folder

FILES = ("*.json", "*.safetensors", "*/config.json", "*/*.safetensors")
"""What a model is read from. Code and pickles of a checkpoint are never fetched."""
TERMS = ("README.md", "LICENSE*", "NOTICE*")
"""Fetched beside it, since its licence is told from them; a copy without them is whole."""

KEPT = "models--"
"""What the hub's cache puts before a name, whose / is -- there."""
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def local(name: str) -> Path | None:
    """The copy on this machine of a name on the hub; nothing is downloaded."""
    if not _NAME.fullmatch(name):
        return None
    from huggingface_hub import try_to_load_from_cache

    try:
        found = [try_to_load_from_cache(name, file) for file in ("config.json", "adapter_config.json")]
    except (OSError, ValueError):  # a cache that may not be read, a name that the hub cannot have
        return None
    return next((Path(path).parent for path in found if isinstance(path, str)), None)


def named(folder: Path) -> str:
    """What a folder is called: its own name, or the name on the hub whose copy in the hub's cache it is."""
    for place in (folder.absolute(), folder.resolve()):
        kept = place.parent.parent.name
        if place.parent.name == "snapshots" and kept.startswith(KEPT):
            return kept.removeprefix(KEPT).replace("--", "/")
    return folder.name if folder.name not in ("", "..") else folder.resolve().name


def expanded(model: str) -> Path:
    """What a model is as a path. Path.expanduser() raises for the ~ of a user that there is not."""
    return Path(os.path.expanduser(model))  # noqa: PTH111


def own_name(model: str) -> str:
    """What a model is called on the hub; empty for a folder."""
    return "" if is_folder(expanded(model)) else model


def find(model: str, revision: str | None = None) -> Path:
    """The folder of a model; ModelError for what is neither a folder nor a name, and for a failed download.

    `revision` is a branch, tag or commit of a name on the hub, its default branch if None.
    """
    folder = expanded(model)
    if is_folder(folder):
        return folder
    if not _NAME.fullmatch(model) or folder.is_absolute():
        raise ModelError(f"{model} is no folder and no name on the hub: give one, such as Qwen/Qwen3-Embedding-0.6B.")
    return _whole(model, revision) or _downloaded(model, revision)


def _whole(name: str, revision: str | None) -> Path | None:
    """The copy on this machine, where it has all that the hub listed of it: what an interrupted download left has not.

    The hub is not asked, nor whether it has a newer revision, whose vectors would be others.
    """
    try:
        # An older huggingface_hub keeps no list, and without one a part is taken for the whole.
        from huggingface_hub import get_cached_repo_tree, snapshot_download

        get_cached_repo_tree(name, revision=revision)
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES), local_files_only=True))
    except Exception:  # whatever is missing, a download is the cure
        return None


def _downloaded(name: str, revision: str | None) -> Path:
    for package in ("torch", "transformers"):  # before gigabytes come that nothing could read
        if find_spec(package) is None:
            raise ModelError(
                f"{name} is no folder here, and as a name on the hub it needs {package}: check the path, or run "
                "`pip install '.[torch]'` in your clone of embedcode."
            )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*FILES, *TERMS]))
    except GatedRepoError:
        raise ModelError(f"{name} needs its licence accepted: do so on its page, then run `hf auth login`.") from None
    except RepositoryNotFoundError:
        raise ModelError(f"{name} is not on the hub: check the name, or give a folder.") from None
    except RevisionNotFoundError:
        raise ModelError(f"{name} has no revision {revision!r}: check it, or give a local copy.") from None
    except Exception as error:  # requests, timeouts, disk: whatever it was, the cure is the same
        what = line(error)
        raise ModelError(f"{name} cannot be downloaded ({what}): give the folder of a local copy.") from None

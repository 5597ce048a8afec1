"""Where a model is: a folder as it stands, or the local copy of a name on the hub, downloaded at first use."""

from __future__ import annotations

import re
from pathlib import Path

from embedcode.errors import ModelError

FILES = ("*.json", "*.safetensors", "*/config.json", "*/*.safetensors")
"""Code and pickles of a checkpoint are never fetched."""

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def local(name: str) -> Path | None:
    """The copy on this machine of a name on the hub; nothing is downloaded."""
    if not _NAME.fullmatch(name):
        return None
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def find(model: str) -> Path:
    """The folder of a model; ModelError for what is neither a folder nor a name, and for a failed download."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if not _NAME.fullmatch(model) or folder.is_absolute():
        raise ModelError(f"{model} is no folder and no name on the hub: give one, such as Qwen/Qwen3-Embedding-0.6B.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=list(FILES)))
    except GatedRepoError:
        raise ModelError(f"{model} needs its licence accepted: do so on its page, then run `hf auth login`.") from None
    except RepositoryNotFoundError:
        raise ModelError(f"{model} is not on the hub: check the name, or give a folder.") from None
    except Exception as error:  # requests, timeouts, disk: whatever it was, the cure is the same
        what = " ".join(str(error).split())[:200]
        raise ModelError(f"{model} cannot be downloaded ({what}): give the folder of a local copy.") from None

"""The clones that an evaluation reads: those a user has, as they are, or else ones made in the cache.

A user's clone is only read; what it lacks is an error with the cure. Ours are bare and without blobs, and what the
commits need is fetched into them at once. No work tree is touched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from embedcode.errors import UsageError
from embedcode.evaluate.instances import Instance
from embedcode.files import is_file, is_folder
from embedcode.index import git
from embedcode.index.git import Repository

ORIGIN = "https://github.com/{repo}.git"
FETCHED = 10_000
"""Blobs of one request to a server."""


def find(repo: str, folder: Path) -> Path | None:
    """The clone of owner/name below a folder, as owner/name, owner__name, owner+name or name, bare (.git) or not; or
    the folder itself, where it is a clone of that name."""
    owner, _, name = repo.partition("/")
    for stem in (f"{owner}/{name}", f"{owner}__{name}", f"{owner}+{name}", name):
        for place in (folder / stem, folder / f"{stem}.git", folder / stem / "repo"):
            if _is_clone(place):
                return place
    return folder if folder.name in (name, f"{name}.git") and _is_clone(folder) else None


def local(repo: str, folder: Path, instances: Sequence[Instance]) -> Repository:
    """The user's clone with every base commit; UsageError names an instance whose commit is not there."""
    if not is_folder(folder):
        raise UsageError(f"{folder} is no folder: give the one that holds the clones.")
    place = find(repo, folder)
    if place is None:
        name = repo.replace("/", "__")
        raise UsageError(
            f"{folder} has no clone of {repo}, which {instances[0].id} needs: "
            f"`git clone --bare {ORIGIN.format(repo=repo)} {folder / name}`, or leave --repos out."
        )
    found = Repository(place)
    lost = _without(found, instances)
    if lost:
        cure = f"`git -C {place} fetch origin {lost[0].commit}`"
        if found.shallow:
            cure = f"it is a shallow clone: `git -C {place} fetch --unshallow`"
        raise UsageError(f"{place} lacks {lost[0].commit}, the base commit of {lost[0].id}{_more(lost)}: {cure}.")
    if found.partial and (missing := found.missing(sorted({one.commit for one in instances}))):
        raise UsageError(
            f"{place} is a partial clone and lacks {len(missing):,} files: clone it without --filter, or leave --repos "
            "out."
        )
    return found


def cached(
    repo: str, cache: Path, instances: Sequence[Instance], note: Callable[[str], None], origin: str = ORIGIN
) -> Repository:
    """A clone in the cache with every base commit and all that their trees hold; made or completed if need be."""
    place = cache / f"{repo.replace('/', '__')}.git"
    url = origin.format(repo=repo)
    if not place.is_dir():
        note(f"cloning {url}")
        part = cache / f".{place.name}.{os.getpid()}.part"
        try:
            if problem := git.clone(url, part):
                raise UsageError(
                    f"{url} cannot be cloned ({problem}): check the network, or give your own clones with --repos."
                )
            if not place.is_dir():  # else another process was first
                part.rename(place)
        except FileNotFoundError:
            raise UsageError("the evaluation needs git, which was not found: install it.") from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
    found = Repository(place)
    lost = _without(found, instances)
    if lost:
        problem = found.fetch(sorted({one.commit for one in lost}))
        if lost := _without(found, instances):
            raise UsageError(
                f"{url} does not give {lost[0].commit}, the base commit of {lost[0].id}{_more(lost)} "
                f"({problem or 'it has none of that name'}): correct the instance, or give a clone with --repos."
            )
    if found.partial:
        _complete(found, sorted({one.commit for one in instances}), url, note)
    return found


def _complete(found: Repository, commits: Sequence[str], url: str, note: Callable[[str], None]) -> None:
    missing = found.missing(commits)
    for start in range(0, len(missing), FETCHED):
        note(f"fetching {start:,} of {len(missing):,} files of {url}")
        if problem := found.fetch(missing[start : start + FETCHED]):
            raise UsageError(f"{url} does not give the files of a commit ({problem}): try again later.")


def _without(found: Repository, instances: Sequence[Instance]) -> list[Instance]:
    lacked = set(found.lacks(sorted({one.commit for one in instances})))
    return [one for one in instances if one.commit in lacked]


def _more(lost: Sequence[Instance]) -> str:
    return f" and of {len(lost) - 1} more" if len(lost) > 1 else ""


def _is_clone(place: Path) -> bool:
    if is_folder(place / ".git") or is_file(place / ".git"):
        return True
    return is_file(place / "HEAD") and is_folder(place / "objects")

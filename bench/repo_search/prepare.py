"""Fetch and unpack the benchmark's repositories: the same bytes for everybody, checked by sha256.

    python bench/repo_search/prepare.py --archives ARCHIVES --repos REPOS

What ARCHIVES lacks is fetched with the registry's own client: pip, npm, and apt-get on Debian 12 with its `deb-src`
lines. REPOS gets one folder a repository; one that is there already is left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import shutil
import subprocess
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("repositories.toml")


@dataclass(frozen=True, slots=True)
class Repository:
    name: str
    language: str
    half: str
    get: str
    """The command that fetches the archive into the current folder."""
    file: str
    sha256: str
    keep: tuple[str, ...] = ()


def repositories() -> list[Repository]:
    table = tomllib.loads(LIST.read_text("utf-8"))
    return [Repository(name, **row | {"keep": tuple(row.get("keep", ()))}) for name, row in table.items()]


def archive(repository: Repository, folder: Path) -> Path:
    path = folder / repository.file
    if not path.exists():
        done = subprocess.run(shlex.split(repository.get), cwd=folder, capture_output=True, text=True, check=False)
        if not path.exists():
            raise SystemExit(f"`{repository.get}` brought no {path.name}: {done.stderr.strip()[-300:]}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != repository.sha256:
        raise SystemExit(f"{path} is not the archive the labels were written on: delete it and fetch it again")
    return path


def unpack(repository: Repository, path: Path, into: Path) -> None:
    beside = into.with_name(f".{into.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    with tarfile.open(path) as tar:
        tar.extractall(beside, filter="data")
    (top,) = beside.iterdir()
    for child in top.iterdir():
        if repository.keep and child.name not in repository.keep:
            shutil.rmtree(child) if child.is_dir() else child.unlink()
    for compiled in top.rglob("__pycache__"):
        shutil.rmtree(compiled)
    top.rename(into)
    beside.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--archives", type=Path, required=True)
    parser.add_argument("--repos", type=Path, required=True)
    args = parser.parse_args()
    for folder in (args.archives, args.repos):
        folder.mkdir(parents=True, exist_ok=True)
    for repository in repositories():
        if not (args.repos / repository.name).exists():
            unpack(repository, archive(repository, args.archives.resolve()), args.repos.resolve() / repository.name)
        print(f"{repository.name}: {repository.language}, {repository.half}")


if __name__ == "__main__":
    main()

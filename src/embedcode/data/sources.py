"""The list of sources to mine: which packages of which registries, by licence. recipes/sources.toml is one.

    [debian]
    "Apache-2.0" = ["guava-libraries 31.1-1", "jackson-core"]
    [github]
    "MIT" = ["rails/rails 0123456789ab"]

A version is optional; that of a repository is a commit. The licence is what was found when the list was made; a miner
finds it again. Knows how the registries' own clients are asked for an archive, and nothing of what is in it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from embedcode.data import archives
from embedcode.errors import UsageError
from embedcode.files import unwritable, writing
from embedcode.index import git

REGISTRIES = ("pypi", "npm", "debian", "github")
SECONDS = 120
"""That a client may take for one archive; a clone has git.CLONE_SECONDS at least."""


@dataclass(frozen=True, slots=True)
class Source:
    registry: str
    name: str
    version: str = ""
    licence: str = ""

    @property
    def id(self) -> str:
        return f"{self.registry}:{self.name}" + (f" {self.version}" if self.version else "")

    @property
    def file_name(self) -> str:
        """Safe on every system, and the same whatever the version."""
        return f"{self.registry}-{self.name.replace('/', '+').replace('@', '')}"

    @property
    def known_as(self) -> tuple[str, ...]:
        """Names by which never.toml may know it: Debian puts a language before them, a fork has another owner."""
        if self.registry == "github":
            return (self.name, self.name.rpartition("/")[2])
        plain = re.sub(r"(^rust-.+)-\d[\d.]*$", r"\1", self.name)  # Debian's name of an older version
        for prefix in ("python-", "node-", "ruby-", "php-", "rust-", "haskell-", "lib"):
            plain = plain.removeprefix(prefix)
        parts = plain.removeprefix("golang-github-").split("-", 1)
        owned = "/".join(parts) if plain.startswith("golang-github-") and len(parts) == 2 else plain
        return tuple(dict.fromkeys((self.name, plain, owned, plain.removesuffix("-java"))))


_VERSION = re.compile(r"[-_][vr]?\d+(?:(?:a|b|rc)\d+)?(?=[._+~-]|$)")
_BRANCH = re.compile(r"(?:[-_](?:main|master|develop|dev|trunk|stable|head|(?=[a-f]*\d)[0-9a-f]{7,40}))+$")


@cache
def file_names(file: str) -> tuple[str, ...]:
    """What a project may be called whose archive or folder has this name: `networkx-3.6-py3-none-any.whl`,
    `django-main.zip`, `psf-requests-4f6e1d2`, `python-django_4.2.orig.tar.xz`.

    Without endings, versions, branches and commits; and as GitHub and npm put an owner or a scope before the name.
    """
    name = file.lower()
    for ending in archives.NAMES:
        name = name.removesuffix(ending)
    name = _BRANCH.sub("", _VERSION.split(name)[0].removesuffix(".orig"))
    owned = [(name[: dash.start()], name[dash.end() :]) for dash in re.finditer("-", name)]
    twice = [one for one, other in owned if one == other]  # tokio's tag `tokio-1.35.0` comes as `tokio-tokio-1.35.0`
    owners = [f"{owner}/{one}" for owner, one in owned] + [f"@{owner}/{one}" for owner, one in owned]
    return tuple(dict.fromkeys(filter(None, (*Source("debian", name).known_as, *twice, *owners))))


def load(file: Path) -> list[Source]:
    """The sources of a list; UsageError names what is wrong with it."""
    return list(_sources(file, table(file)))


def table(file: Path) -> dict[str, Any]:
    """What a list holds, not yet checked; UsageError for a file that is no TOML."""
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({(error.strerror or '').lower()}): give a list of sources.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not valid TOML: {error}") from None


_NAMES = {
    "pypi": r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?",
    "npm": r"(?:@[\w~-][\w.~-]*/)?\w[\w.~-]*",
    "debian": r"[a-z0-9][a-z0-9.+-]*",
    "github": r"\w[\w.-]*/[\w.-]+",
}
"""Of all that clients take for a package: of a folder or an address pip and npm run the code."""
_EXACT = r"\w[\w.!+~-]*"
"""A version; npm's may be an address too, and Debian's may have a colon."""
_REVISION = r"\w[\w./@^{}+~-]*"
"""As git takes it."""
_LIKE = {"pypi": "numpy", "npm": "express or @babel/core", "debian": "guava-libraries", "github": "rails/rails"}


def _sources(file: Path, listed: dict[str, Any]) -> Iterator[Source]:
    seen: set[tuple[str, str]] = set()
    for registry, licences in listed.items():
        if registry not in REGISTRIES:
            raise UsageError(f"{file}: {registry!r} is no registry known here: use {', '.join(REGISTRIES)}.")
        if not isinstance(licences, dict):
            raise UsageError(f'{file}: write [{registry}] as a table of licences, such as MIT = ["NAME VERSION"].')
        for licence, packages in licences.items():
            if not isinstance(packages, list) or not all(isinstance(one, str) and one.strip() for one in packages):
                raise UsageError(f"{file}: {registry}.{licence} must be a list of packages in quotes.")
            for package in packages:
                name, _, version = package.strip().partition(" ")
                version = version.strip()
                if not re.fullmatch(_NAMES[registry], name, re.ASCII):
                    raise UsageError(f"{file}: {name!r} is no name of {registry}: write one such as {_LIKE[registry]}.")
                plain = version.replace(":", "", registry == "debian")
                if version and not re.fullmatch(_REVISION if registry == "github" else _EXACT, plain, re.ASCII):
                    raise UsageError(f"{file}: {version!r} is no version of {name}: write one such as 1.0, or none.")
                if (registry, name) in seen:
                    raise UsageError(f"{file}: {registry} names {name!r} again: list each package once.")
                seen.add((registry, name))
                yield Source(registry, name, version, licence)


def text(sources: list[Source], head: str) -> str:
    """A list that load() reads, in alphabetical order, with `head` as its comment."""
    lines = [f"# {line}".rstrip() for line in head.strip().split("\n")]
    for registry in REGISTRIES:
        of = sorted((one for one in sources if one.registry == registry), key=lambda one: (one.licence, one.name))
        if of:
            lines += ["", f"[{registry}]"]
        for licence in dict.fromkeys(one.licence for one in of):
            lines.append(f'"{licence}" = [')
            lines += [f'  "{f"{one.name} {one.version}".strip()}",' for one in of if one.licence == licence]
            lines.append("]")
    return "\n".join(lines) + "\n"


def fetch(source: Source, folder: Path, seconds: float = SECONDS) -> tuple[Path, str]:
    """Download a source into `folder`, which is emptied first: its archive, and the version that came.

    A repository comes as a bare clone with its history, HEAD at the version.
    No client runs code of the package: wheels, not sources that have to be built. UsageError with the client's words;
    UnwritableError where the disk is full, which is no fault of the source.
    """
    folder = folder.absolute()  # clients run in it
    shutil.rmtree(folder, ignore_errors=True)
    with writing(folder):
        folder.mkdir(parents=True)
    if source.registry == "github":
        return _clone(source, folder, max(seconds, git.CLONE_SECONDS))
    if source.registry == "debian" and not source.version:  # the name of an archive has upstream's version only
        source = replace(source, version=_debian_version(source, folder, seconds))
    _run(_command(source, folder), folder, source, seconds)
    found = sorted(path for path in folder.iterdir() if path.name.endswith(archives.NAMES))
    found.sort(key=lambda path: source.registry == "debian" and ".orig.tar." not in path.name)  # its parts come after
    if not found:
        raise UsageError(f"{source.id} has no archive that can be mined.")
    return found[0], _version(source, found[0])


def _clone(source: Source, folder: Path, seconds: float) -> tuple[Path, str]:
    clone = folder / (source.name.rpartition("/")[2] + ".git")
    said = git.clone(f"https://github.com/{source.name}", clone, whole=True, seconds=seconds)
    if not said and source.version:
        said = git.set_head(clone, source.version)
    if said:
        _raise_if_full(said, folder)
        raise UsageError(f"{source.id} cannot be fetched: git says {said[:200]!r}.")
    head = git.ask(clone, "rev-parse", "--short=12", "HEAD", needed_by="mining a repository")
    if head is None:
        raise UsageError(f"{source.id} has no commit.")
    return clone, head.strip()


def _debian_version(source: Source, folder: Path, seconds: float) -> str:
    """The version that apt-get would fetch; "" where it does not say. File names lack what stands before a colon."""
    asked = _run(["apt-get", "source", "--print-uris", "--quiet=2", source.name], folder, source, seconds)
    described = re.search(r"\s(\S+\.dsc)\s", asked)
    shown = _run(["apt-cache", "showsrc", "--only-source", source.name], folder, source, seconds)
    for record in shown.split("\n\n"):
        version = re.search(r"^Version: (\S+)$", record, re.MULTILINE)
        if described and version and f" {described[1]}\n" in record + "\n":
            return version[1]
    return ""


def _command(source: Source, folder: Path) -> list[str]:
    name, version = source.name, source.version
    if source.registry == "pypi":
        exact = f"{name}=={version}" if version else name
        return ["pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), exact]
    if source.registry == "npm":
        exact = f"{name}@{version}" if version else name
        return ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder), exact]
    exact = f"{name}={version}" if version else name
    # Upstream's archive alone: what Debian adds to it is not mined.
    return ["apt-get", "source", "--download-only", "--tar-only", "--quiet=2", exact]


def _run(command: list[str], folder: Path, source: Source, seconds: float) -> str:
    client = command[0]
    environment = os.environ | {"LC_ALL": "C", "PIP_NO_INPUT": "1", "npm_config_update_notifier": "false"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        raise UsageError(f"{source.id} needs {client}, which was not found: install it.") from None
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"{source.id}: {client} took more than {seconds:g} s; run again, with a longer --seconds."
        ) from None
    if done.returncode:
        _raise_if_full(done.stderr.decode("utf-8", "replace"), folder)
        said = done.stderr.decode("utf-8", "replace").strip().split("\n")
        reason = next((line for line in reversed(said) if "rror" in line or line.startswith("E:")), said[-1])
        cure = " Add deb-src lines to apt's sources and run `apt-get update`." if "deb-src" in reason else ""
        raise UsageError(f"{source.id} cannot be fetched: {client} says {reason[:200]!r}.{cure}")
    return done.stdout.decode("utf-8", "replace")


def _raise_if_full(said: str, folder: Path) -> None:
    """Each client has its own words around those of the system."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if str(full.strerror).lower() in said.lower():
        raise unwritable(folder, full)


def _version(source: Source, archive: Path) -> str:
    if source.version or source.registry == "debian":
        return source.version
    name = archive.name
    if source.registry == "pypi":
        return name.split("-")[1]
    return name.removesuffix(".tgz").removeprefix(source.name.lstrip("@").replace("/", "-") + "-")

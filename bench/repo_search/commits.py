"""The second set, issue -> file: commit messages as queries, the files they edited as answers.

    python bench/repo_search/commits.py freeze --clones CLONES      # writes commits.json; done once
    python bench/repo_search/commits.py prepare --clones CLONES --trees TREES

CLONES holds a git clone of each repository, `owner+name` or `owner+name/repo`. Of every repository the newest usable
commits before a pinned one are taken; what is searched is its tree before the oldest of them, so no answer is in it
yet. The frozen file names commits and files, not messages: those are read from the clone, and a digest tells whether
they still read the same.

A usable commit edits one to three source files that are no tests and were there before, and still has enough words
when the names of edited files and of symbols in them are taken out of its message.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcode.index.languages import language_of
from embedcode.store.terms import query_terms

FROZEN = Path(__file__).with_name("commits.json")
A_REPOSITORY = 45
MOST_FILES = 3
LEAST_TERMS = 5
MOST_CHARACTERS = 4000
MOST_BYTES = 1_000_000
"""Of a file: an index leaves out larger ones."""
LANGUAGES = {
    "psf/black": "python", "encode/httpx": "python", "celery/celery": "python", "gin-gonic/gin": "go",
    "BurntSushi/ripgrep": "rust", "tokio-rs/tokio": "rust", "vuejs/core": "typescript", "square/okhttp": "kotlin",
    "redis/redis": "c", "fmtlib/fmt": "cpp", "rubocop/rubocop": "ruby", "webpack/webpack": "javascript",
    "google/gson": "java", "prometheus/prometheus": "go",
}  # fmt: skip

_TRAILER = re.compile(r"^(?:[A-Z][\w-]+-by|Change-Id|PiperOrigin-RevId|Closes|Fixes|Refs?|See|Cc):.*$", re.M | re.I)
_LINK = re.compile(r"https?://\S+|\(?#\d+\)?|\b(?:GH|gh)-\d+\b|\b[0-9a-f]{7,40}\b")
_SCOPE = re.compile(r"^(?:\w+(?:\([^)]*\))?!?:|\[[^\]]*\]|[\w./-]+:)\s*")
_QUOTED = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_TOKEN = re.compile(r"[A-Za-z_][\w]*(?:[.:/\\-]+[A-Za-z_]\w*)*")
_NAME = re.compile(r"_|[a-z0-9][A-Z]|[A-Z]{2,}[a-z]|\w[.:/\\]+\w")
_TEST = re.compile(
    r"(?:^|/)(?:tests?|specs?|__tests__|testing|testdata|fixtures|examples?|bench(?:es|marks?)?)/"
    r"|(?:^|/)test_[^/]*$|[._-](?:test|spec)s?\.[^/]*$|(?:Test|Tests|Spec)\.\w+$|_test\.\w+$"
)


@dataclass(frozen=True, slots=True)
class Issue:
    """A query with the paths that answer it."""

    id: str
    repo: str
    commit: str
    query: str
    paths: tuple[str, ...]


def clean(message: str, paths: list[str], sources: str) -> str:
    """A message without trailers, links, code, a leading scope, and names of edited files and of symbols in them."""
    subject, _, body = message.strip().partition("\n")
    text = _SCOPE.sub("", subject) + "\n" + body
    text = _LINK.sub(" ", _TRAILER.sub(" ", _QUOTED.sub(" ", text)))
    stems = {part.lower() for path in paths for part in (Path(path).stem, Path(path).name, path)}
    symbols = set(re.findall(r"\w+", sources))

    def keep(found: re.Match[str]) -> str:
        token = found[0]
        named = bool(_NAME.search(token)) and any(part in symbols for part in re.findall(r"\w+", token))
        return " " if named or token.lower() in stems else token

    return re.sub(r"[ \t]+", " ", _TOKEN.sub(keep, text)).strip()[:MOST_CHARACTERS]


def issues(clones: Path) -> list[Issue]:
    """The frozen set, its messages read from the clones; SystemExit where one reads differently."""
    frozen: dict[str, Any] = json.loads(FROZEN.read_text("utf-8"))
    found = []
    for repo, entry in frozen.items():
        git = Git(clones, repo)
        for row in entry["issues"]:
            query = git.query(row["commit"], row["paths"])
            if _digest(query) != row["query"]:
                raise SystemExit(f"{repo} {row['commit']}: its message does not read as when it was frozen")
            found.append(Issue(row["id"], repo, row["commit"], query, tuple(row["paths"])))
    return found


class Missing(SystemExit):
    """There is no clone, or not with the commit that is asked of it."""


class Git:
    """One clone, read by plumbing."""

    def __init__(self, clones: Path, repo: str) -> None:
        folder = clones / repo.replace("/", "+")
        self._folder = folder / "repo" if (folder / "repo").is_dir() else folder
        if not self._folder.is_dir():
            raise Missing(f"{folder} is missing: clone {repo} there, with its history")

    def __call__(self, *arguments: str) -> bytes:
        command = ["git", "-C", str(self._folder), *arguments]
        return subprocess.run(command, capture_output=True, check=True).stdout

    def text(self, *arguments: str) -> str:
        return self(*arguments).decode("utf-8", "replace")

    def holds(self, commit: str) -> bool:
        command = ["git", "-C", str(self._folder), "cat-file", "-e", f"{commit}^{{commit}}"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def query(self, commit: str, paths: list[str]) -> str:
        sources = "\n".join(self.text("show", f"{commit}^:{path}") for path in paths)
        return clean(self.text("log", "-1", "--format=%B", commit), paths, sources)

    def usable(self, head: str) -> Iterator[tuple[str, str, list[str]]]:
        """(commit, query, paths), newest first."""
        log = self.text(
            "log", "--no-merges", "--first-parent", "-m", "--format=%x00%H", "--name-status", "--no-renames", head
        )
        for entry in log.split("\0")[1:]:
            commit, _, listed = entry.partition("\n")
            changes = [line.split("\t") for line in listed.split("\n") if line]
            source = [change for change in changes if is_source(change[-1])]
            if not 1 <= len(source) <= MOST_FILES or any(kind != "M" for kind, *_ in source):
                continue
            paths = [path for _, path in source]
            query = self.query(commit, paths)
            if len(query_terms(query)) >= LEAST_TERMS:
                yield commit, query, paths

    def tree(self, commit: str, into: Path) -> None:
        """The regular files of a commit up to MOST_BYTES, in a folder that is made whole or not at all."""
        if into.exists():
            return
        if not self.holds(commit):
            raise Missing(f"{self._folder} lacks {commit}: fetch its history")
        beside = into.with_name(f".{into.name}.part")
        entries = [entry.split("\t", 1) for entry in self.text("ls-tree", "-r", "-z", commit).split("\0") if entry]
        blobs = [(meta.split()[2], path) for meta, path in entries if meta.startswith("100")]
        command = ["git", "-C", str(self._folder), "cat-file", "--batch"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None and process.stdout is not None
            for name, path in blobs:
                process.stdin.write(f"{name}\n".encode())
                process.stdin.flush()
                *_, size = process.stdout.readline().decode().split()
                if size == "missing":  # a clone may lack the largest
                    continue
                raw = process.stdout.read(int(size) + 1)[:-1]
                if len(raw) <= MOST_BYTES:
                    (beside / path).parent.mkdir(parents=True, exist_ok=True)
                    (beside / path).write_bytes(raw)
            process.stdin.close()
        beside.rename(into)


def is_source(path: str) -> bool:
    language = language_of(path)
    return language is not None and language.grammar is not None and not _TEST.search(path)


def freeze(clones: Path) -> None:
    frozen: dict[str, Any] = {}
    for repo in LANGUAGES:
        git = Git(clones, repo)
        head = git.text("rev-parse", "HEAD").strip()
        rows: list[dict[str, Any]] = []
        texts: set[str] = set()
        found = []
        for commit, query, paths in git.usable(head):
            if _digest(query) not in texts:
                texts.add(_digest(query))
                found.append((commit, query, paths))
            if len(found) == 2 * A_REPOSITORY:
                break
        base = ""
        while found:  # the newest A_REPOSITORY whose files are all in the tree before the oldest of them
            chosen = found[:A_REPOSITORY]
            base = git.text("rev-parse", f"{chosen[-1][0]}^").strip()
            there = set(git.text("ls-tree", "-r", "--name-only", base).split("\n"))
            late = [one for one in chosen if not there.issuperset(one[2])]
            if not late:
                rows = [
                    {
                        "id": f"{repo.partition('/')[2]}-{number:02}",
                        "commit": commit,
                        "paths": paths,
                        "query": _digest(query),
                    }
                    for number, (commit, query, paths) in enumerate(chosen, 1)
                ]
                break
            found = [one for one in found if one not in late]
        frozen[repo] = {"head": head, "base": base, "issues": rows}
        print(f"{repo}: {len(rows)}, tree of {base[:10]}")
    FROZEN.write_text(json.dumps(frozen, indent=1) + "\n")
    print(sum(len(entry["issues"]) for entry in frozen.values()), "issues")


def prepare(clones: Path, trees: Path) -> None:
    trees.mkdir(parents=True, exist_ok=True)
    for repo, entry in json.loads(FROZEN.read_text("utf-8")).items():
        Git(clones, repo).tree(entry["base"], trees / repo.replace("/", "+"))
    print(f"{len(issues(clones))} issues read as they were frozen")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("freeze", "prepare", "show"):
        added = verbs.add_parser(verb)
        added.add_argument("--clones", type=Path, required=True)
        if verb == "prepare":
            added.add_argument("--trees", type=Path, required=True)
    args = parser.parse_args()
    match args.verb:
        case "freeze":
            freeze(args.clones)
        case "prepare":
            prepare(args.clones, args.trees)
        case "show":
            for issue in issues(args.clones):
                print(json.dumps({"id": issue.id, "query": issue.query, "paths": issue.paths}))


if __name__ == "__main__":
    main()

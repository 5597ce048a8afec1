"""Lists of packages: fetched by the registries' clients, mined once, counted, and gone on with after an end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path

import pytest

import repositories
from embedcode.data import collect, licences, pairs, sources
from embedcode.data.sources import Source
from embedcode.errors import UsageError
from embedcode.index import git
from embedcode.types import Pair

LICENCE = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")


def package(path: Path, licence: str | None, word: str) -> None:
    code = "".join(
        f'def {word}{i}(shape):\n    """Computes the {word} of shape number {i}."""\n'
        f"    total = 0\n    for part in shape:\n        total += part.{word} * {i}\n    return total\n\n"
        for i in range(3)
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{word}/m.py", code)
        if licence is not None:
            archive.writestr(f"{word}-1.dist-info/licenses/LICENSE", licence)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `pip` that has three packages, says so when it is asked, and fails for others."""
    shelf, programs = tmp_path / "shelf", tmp_path / "programs"
    shelf.mkdir()
    programs.mkdir()
    package(shelf / "width-1.5-py3-none-any.whl", LICENCE, "width")
    package(shelf / "height-2.0-py3-none-any.whl", "GNU GENERAL PUBLIC LICENSE", "height")
    package(shelf / "depth-3.0-py3-none-any.whl", None, "depth")
    (shelf / "broken-1.0-py3-none-any.whl").write_bytes(b"no archive")
    client = programs / "pip"
    client.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {tmp_path}/asked\n'
        'while [ $# -gt 1 ]; do [ "$1" = --dest ] && to="$2"; shift; done\n'
        f'cp {shelf}/"${{1%%=*}}"-* "$to" 2>/dev/null || {{ echo "ERROR: no such package" >&2; exit 1; }}\n'
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return tmp_path


def listed(*names: str) -> list[Source]:
    return [Source("pypi", name) for name in names]


def test_packages_are_mined_once_and_counted(registry: Path) -> None:
    out = registry / "out"
    wanted = listed("width", "height", "depth", "broken", "flask")
    assert collect.collect(wanted, out, 1)
    assert [pair.source for pair in pairs.read(out / "pypi-width.jsonl.gz")] == ["pypi:width 1.5"] * 3
    summary = collect.summary(collect.records(out))
    assert summary["sources"] == {
        "taken": 1, "licence not of the allow-list": 1, "no licence file": 1, "never trained on": 1,
        "archive refused or unreadable": 1,
    }  # fmt: skip
    assert summary["languages"] == {"python": 3} and summary["licences"] == {"Apache-2.0": 3}
    asked = (registry / "asked").read_text()
    assert asked.count("--dest") == 4 and "flask" not in asked, "what is never trained on is never fetched"
    assert "--only-binary :all:" in asked, "no code of a package is run"
    assert collect.collect(wanted, out, 1)
    again = (registry / "asked").read_text().removeprefix(asked)
    assert again.count("\n") == 1 and again.endswith("broken\n"), "what could not be read may have been cut off"
    package(registry / "shelf" / "broken-1.0-py3-none-any.whl", LICENCE, "broken")
    assert collect.collect(wanted, out, 1) and collect.summary(collect.records(out))["pairs"] == 6
    assert not list((out / "downloads").iterdir())


def test_the_output_folder_may_be_relative(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(registry)
    assert collect.collect(listed("width"), Path("out"), 1)
    assert collect.records(Path("out"))[0].pairs == 3


def test_what_cannot_be_fetched_is_said_and_tried_again(registry: Path) -> None:
    out, steps = registry / "out", list[collect.Step]()
    assert not collect.collect(listed("missing", "width"), out, 1, progress=steps.append)
    assert [step.failed for step in steps if step.failed] == [
        "pypi:missing cannot be fetched: pip says 'ERROR: no such package'."
    ]
    package(registry / "shelf" / "missing-1.0-py3-none-any.whl", LICENCE, "area")
    assert collect.collect(listed("missing", "width"), out, 1)


def test_debian_sources_are_upstreams_archive_with_debians_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two versions apt-get takes one; its epoch stands in the record alone, not in the names of files."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, does in {
        "apt-get": (
            f'echo "$@" >> {tmp_path}/asked\n'
            'case "$*" in *--print-uris*) echo "\'http://x/y_2.0-1.dsc\' y_2.0-1.dsc 1 SHA256:0";;\n'
            "*) echo x > y_2.0.orig-part.tar.gz; echo x > y_2.0.orig.tar.xz;; esac\n"
        ),
        "apt-cache": (
            "printf 'Package: y\\nVersion: 1.0-1\\nFiles:\\n 0 1 y_1.0-1.dsc\\n\\n"
            "Package: y\\nVersion: 1:2.0-1\\nFiles:\\n 0 1 y_2.0-1.dsc\\n\\n'\n"
        ),
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{does}")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    archive, version = sources.fetch(Source("debian", "y"), tmp_path / "here")
    assert (archive.name, version) == ("y_2.0.orig.tar.xz", "1:2.0-1")
    sources.fetch(Source("debian", "y", version), tmp_path / "here")
    asked = (tmp_path / "asked").read_text().split("\n")
    assert [line.rpartition(" ")[2] for line in asked if "--tar-only" in line] == ["y=1:2.0-1"] * 2


@pytest.mark.parametrize(
    ("name", "archive"), [("foo", "foo-1.0.0-beta.1.tgz"), ("@a/foo-bar", "a-foo-bar-1.0.0-beta.1.tgz")]
)
def test_a_version_of_npm_may_have_hyphens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, archive: str
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "npm").write_text(f"#!/bin/sh\necho x > {archive}\n")
    (programs / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    assert sources.fetch(Source("npm", name), tmp_path / "here")[1] == "1.0.0-beta.1"


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match=r"out cannot be written \(file exists\)"):
        collect.collect([], tmp_path / "out", 1)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """github.com with one repository of two commits, `acme/shapes`."""
    root = tmp_path / "hub" / "acme" / "shapes"
    root.mkdir(parents=True)
    says = '    """Computes the area of a flat shape."""\n'
    code = f"def area(shape):\n{says}    total = shape.width\n    %s\n    return total\n"

    repositories.git(root, "init", "-q", "-b", "main")
    (root / "LICENSE").write_text(LICENCE)
    for step, message in (("total *= 2", "First version"), ("total *= shape.height", "Take the height into account")):
        (root / "area.py").write_text(code % step)
        repositories.git(root, "add", ".")
        repositories.git(root, "commit", "-qm", message)
    settings = tmp_path / "gitconfig"
    settings.write_text(f'[url "{tmp_path}/hub/"]\n\tinsteadOf = https://github.com/\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    return tmp_path


def test_a_repository_gives_docstrings_and_commits(hub: Path) -> None:
    out, wanted = hub / "out", [Source("github", "acme/shapes"), Source("github", "somebody/flask")]
    assert collect.collect(wanted, out, 1, commits=10)
    done = {record.name: record for record in collect.records(out)}
    assert done["somebody/flask"].refused.startswith("never trained on"), "a fork is known too"
    [docstring] = pairs.read(out / "github-acme+shapes.jsonl.gz")
    assert docstring.query == "Computes the area of a flat shape." and "height" in docstring.positives[0]
    commits = list(pairs.read(out / "commits" / "github-acme+shapes.jsonl.gz"))
    assert [pair.task for pair in commits] == ["commit", "commit-chunk"]
    assert commits[0].query == "Take the height into account" and "height" not in commits[0].positives[0]
    assert {pair.licence for pair in (docstring, *commits)} == {"Apache-2.0"}
    assert collect.summary(list(done.values()))["commits"]["pairs"] == 2

    again = collect.found(wanted[:1], collect.records(out))
    assert again[0].version and again[0].licence == "Apache-2.0"
    first = subprocess.run(
        ["git", "rev-parse", "HEAD~1"], cwd=hub / "hub/acme/shapes", capture_output=True, text=True, check=True
    ).stdout.strip()
    assert collect.collect([Source("github", "acme/shapes", first)], hub / "other", 1, commits=10)
    [docstring] = pairs.read(hub / "other" / "github-acme+shapes.jsonl.gz")
    assert "height" not in docstring.positives[0], "the commit of the list is mined, not the newest"
    assert not collect.collect([Source("github", "acme/none")], out, 1), "what is not there is tried again"


def test_commits_are_mined_where_only_the_files_were(hub: Path) -> None:
    out, wanted = hub / "out", [Source("github", "acme/shapes")]
    steps = list[collect.Step]()
    assert collect.collect(wanted, out, 1)
    assert collect.records(out)[0].commit_pairs == 0
    assert collect.collect(wanted, out, 1, commits=10, progress=steps.append)
    [record] = collect.records(out)
    assert (record.commits, record.commit_pairs, record.pairs) == (10, 2, 1)
    assert [(step.done, step.pairs) for step in steps] == [(1, 1)], "its pairs are counted once"
    assert collect.collect(wanted, out, 1, commits=10, progress=steps.append) and len(steps) == 1


def test_what_was_not_asked_for_again_stays(hub: Path) -> None:
    """Commits where documentation is mined too, and the other way round."""
    guide = "# Adds up the widths\n\n```python\nfor part in shape:\n    total += part.width * scale\n```\n"
    root = hub / "hub" / "acme" / "shapes"
    (root / "GUIDE.md").write_text(guide)
    repositories.git(root, "add", ".")
    repositories.git(root, "commit", "-qm", "Say how it is used")
    wanted, files = [Source("github", "acme/shapes")], ("examples", "commits")
    for out, runs in (
        (hub / "a", ({"commits": 10}, {"documentation": True})),
        (hub / "b", ({"documentation": True}, {"commits": 10})),
    ):
        for asked in runs:
            assert collect.collect(wanted, out, 1, **asked)  # type: ignore[arg-type]
        [record] = collect.records(out)
        assert (record.pairs, record.example_pairs, record.commit_pairs) == (1, 1, 2)
        assert all((out / name / "github-acme+shapes.jsonl.gz").exists() for name in files)


def test_a_folder_under_another_licence_gives_no_commits(hub: Path) -> None:
    root = hub / "hub" / "acme" / "shapes"
    paid = root / "enterprise"
    paid.mkdir()
    (paid / "LICENSE").write_text("Acme Enterprise License: buy it.")
    for step, message in (("1", "Add what is to be paid for"), ("2", "Take twice as much of everybody")):
        (paid / "pay.py").write_text(f"def pay(amount):\n    total = amount * {step}\n    return total\n")
        repositories.git(root, "add", ".")
        repositories.git(root, "commit", "-qm", message)
    assert collect.collect([Source("github", "acme/shapes")], hub / "out", 1, commits=10)
    [record] = collect.records(hub / "out")
    assert (record.licence, record.commit_pairs) == ("Apache-2.0", 2)
    assert record.commits_left == {"folder under another licence": 1}


def test_what_a_source_gave_goes_where_it_is_refused_the_next_time(hub: Path) -> None:
    out, wanted = hub / "out", [Source("github", "acme/shapes")]
    assert collect.collect(wanted, out, 1, commits=1)
    assert (out / "github-acme+shapes.jsonl.gz").exists()
    root = hub / "hub" / "acme" / "shapes"
    (root / "LICENSE").write_text("Acme Enterprise License: buy it.")
    repositories.git(root, "commit", "-qam", "Another licence")
    assert collect.collect(wanted, out, 1, commits=10)
    assert collect.records(out)[0].refused == "licence not of the allow-list"
    assert list(out.rglob("*.jsonl.gz")) == [], "or it would be merged with the others"


Little = Callable[[int], AbstractContextManager[None]]


def test_a_full_disk_ends_the_run_and_refuses_no_source(
    registry: Path, little_disk: Little, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = registry / "out"
    monkeypatch.setattr(pairs, "line", lambda pair: os.urandom(20_000))  # what no gzip makes small
    with little_disk(30_000), pytest.raises(UsageError, match=r"pypi-width.jsonl.gz cannot be written .* free some"):
        collect.collect(listed("width", "depth"), out, 1)
    assert collect.records(out) == []
    monkeypatch.undo()
    monkeypatch.setenv("PATH", f"{registry}/programs:/usr/bin:/bin")
    assert collect.collect(listed("width", "depth"), out, 1), "the same command goes on"
    assert [(record.name, record.pairs) for record in collect.records(out)] == [("depth", 0), ("width", 3)]


def test_a_disk_that_is_full_as_a_source_is_fetched_ends_the_run(registry: Path) -> None:
    (registry / "programs" / "pip").write_text(
        '#!/bin/sh\necho "ERROR: Could not install: [Errno 28] No space left on device" >&2\nexit 1\n'
    )
    with pytest.raises(UsageError, match=r"pypi-width cannot be written \(no space left on device\)"):
        collect.collect(listed("width", "depth"), registry / "out", 1)
    assert collect.records(registry / "out") == []


def test_a_history_that_cannot_be_read_leaves_what_the_files_gave(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Iterator[Pair]:
        yield Pair("Take the height into account", ("def area(): ...",))
        raise UsageError("git cannot compare 0123 with its parent: run `git fsck`.")

    monkeypatch.setattr(collect.history, "mine", fail)
    out = hub / "out"
    assert collect.collect([Source("github", "acme/shapes")], out, 1, commits=10)
    [record] = collect.records(out)
    assert (record.pairs, record.licence, record.refused, record.commit_pairs) == (1, "Apache-2.0", "", 0)
    assert record.commits_refused.startswith("history refused or unreadable: git cannot compare")
    assert not (out / "commits" / "github-acme+shapes.jsonl.gz").exists()
    assert collect.summary([record])["commits"] == {"history refused or unreadable": 1}


def test_a_full_disk_in_a_history_ends_the_run(hub: Path, little_disk: Little, monkeypatch: pytest.MonkeyPatch) -> None:
    def many(*_: object, **__: object) -> Iterator[Pair]:
        monkeypatch.setattr(pairs, "line", lambda pair: os.urandom(20_000))
        yield from [Pair("q", ("p",))] * 9

    monkeypatch.setattr(collect.history, "mine", many)
    out = hub / "out"
    with little_disk(100_000), pytest.raises(UsageError, match=r"commits/github-acme.*cannot be written"):
        collect.collect([Source("github", "acme/shapes")], out, 1, commits=10)
    assert collect.records(out) == []


def test_another_version_in_the_list_is_mined_and_stays_in_it(registry: Path) -> None:
    out, steps = registry / "out", list[collect.Step]()
    assert collect.collect(listed("width"), out, 1)
    newer = [Source("pypi", "width", "1.6")]
    assert collect.found(newer, collect.records(out)) == newer, "not yet done as it stands"
    package(registry / "shelf" / "width-1.6-py3-none-any.whl", LICENCE, "width")
    (registry / "shelf" / "width-1.5-py3-none-any.whl").unlink()
    assert collect.collect(newer, out, 1, progress=steps.append)
    assert [(step.done, step.pairs) for step in steps] == [(1, 3)]
    assert {pair.source for pair in pairs.read(out / "pypi-width.jsonl.gz")} == {"pypi:width 1.6"}
    assert "width==1.6" in (registry / "asked").read_text()
    for wanted in (newer, listed("width")):
        assert collect.collect(wanted, out, 1, progress=steps.append) and len(steps) == 1
    assert collect.found(newer, collect.records(out)) == [Source("pypi", "width", "1.6", "Apache-2.0")]


def test_a_commit_is_the_same_at_any_length(hub: Path) -> None:
    head = subprocess.run(
        ["git", "rev-parse", "HEAD", "HEAD~1"], cwd=hub / "hub/acme/shapes", capture_output=True, text=True, check=True
    ).stdout.split()
    out, steps = hub / "out", list[collect.Step]()
    assert collect.collect([Source("github", "acme/shapes")], out, 1)
    for version in (head[0], head[0][:8]):
        assert collect.collect([Source("github", "acme/shapes", version)], out, 1, progress=steps.append)
    assert not steps
    assert collect.collect([Source("github", "acme/shapes", head[1])], out, 1, progress=steps.append)
    assert [step.record and step.record.version for step in steps] == [head[1][:12]]


@pytest.mark.parametrize("code", [0, 1, 2, 70, 130, 137])
def test_the_recipe_goes_on_only_with_all_sources_or_when_told_to(tmp_path: Path, code: int) -> None:
    programs, work = tmp_path / "programs", tmp_path / "work"
    programs.mkdir()
    for name, does in {"embedcode": f'[ "$2" = collect ] && exit {code}\nexit 0\n', "python3": "exit 0\n"}.items():
        (programs / name).write_text(f"#!/bin/sh\necho {name} $2 >> {tmp_path}/asked\n{does}")
        (programs / name).chmod(0o755)

    def script() -> subprocess.CompletedProcess[str]:
        (tmp_path / "asked").write_text("")
        command = [Path(__file__).parents[2] / "recipes" / "default.sh", "work"]
        environment = os.environ | {"PATH": f"{programs}:/usr/bin:/bin"}
        return subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)

    done = script()
    assert done.returncode == code
    assert (work / "collected").exists() is (code == 0)
    assert ("`touch work/collected`" in done.stderr) is (code == 1)
    if code == 1:
        script()
        assert (tmp_path / "asked").read_text().endswith("\nembedcode collect\n"), "tried again"
        (work / "collected").touch()
        assert script().returncode == 0
        asked = (tmp_path / "asked").read_text().splitlines()
        assert "embedcode collect" not in asked and asked[-1].startswith("python3"), "exported"


def test_a_run_stops_in_time_and_goes_on(registry: Path) -> None:
    out = registry / "out"
    assert not collect.collect(listed("width", "depth"), out, 1, seconds=0.0)
    assert collect.records(out) == []
    assert collect.collect(listed("width", "depth"), out, 1)


def test_the_list_is_written_again_with_what_was_found(registry: Path) -> None:
    wanted = [*listed("width", "height"), Source("npm", "@a/b", "1.0", "MIT")]
    collect.collect(wanted[:2], registry / "out", 1)
    found = collect.found(wanted, collect.records(registry / "out"))
    (registry / "found.toml").write_text(sources.text(found, "Head.\nMore."))
    assert sources.load(registry / "found.toml") == [
        Source("pypi", "width", "1.5", "Apache-2.0"), Source("npm", "@a/b", "1.0", "MIT")
    ]  # fmt: skip
    assert (registry / "found.toml").read_text().startswith("# Head.\n# More.\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[cpan]\nMIT = ['x']", "'cpan' is no registry known here: use pypi, npm, debian"),
        ("pypi = 3", "write \\[pypi\\] as a table"),
        ("[pypi]\nMIT = 'x'", "pypi.MIT must be a list"),
        ("[pypi]\nMIT = ['x']\nISC = ['x 2']", "names 'x' again"),
        (
            "[pypi]\nMIT = ['--index-url=http://x']",
            "'--index-url=http://x' is no name of pypi: write one such as numpy",
        ),
        ("[pypi]\nMIT = ['https://example.org/x-1.0.tar.gz']", "no name of pypi"),
        ("[pypi]\nMIT = ['git+https://example.org/x']", "no name of pypi"),
        ("[pypi]\nMIT = ['./folder']", "no name of pypi"),
        ("[pypi]\nMIT = ['x@file:///folder']", "no name of pypi"),
        ("[pypi]\nMIT = ['x 1.0 @ ./folder']", "'1.0 @ ./folder' is no version of x: write one such as 1.0"),
        ("[npm]\nMIT = ['owner/name']", "no name of npm: write one such as express or @babel/core"),
        ("[npm]\nMIT = ['../folder']", "no name of npm"),
        ("[npm]\nMIT = ['x ./folder']", "no version of x"),
        ("[npm]\nMIT = ['x file:folder']", "no version of x"),
        ("[debian]\nMIT = ['x/unstable']", "no name of debian"),
        ("[github]\nMIT = ['https://example.org/a/b']", "no name of github: write one such as rails/rails"),
        ("[github]\nMIT = ['a/b --upload-pack=x']", "no version of a/b"),
        ("[pypi", "is not valid TOML"),
    ],
)
def test_a_list_that_is_wrong_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "list.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        sources.load(tmp_path / "list.toml")


def test_names_and_versions_of_all_registries_are_read(tmp_path: Path) -> None:
    names = {
        "pypi": ["ruamel.yaml 0.18", "A_b 1!2.0+local"], "npm": ["@a/b-c 1.0.0-beta.1", "JSONStream"],
        "debian": ["libstdc++-x 1:2.0~rc1-1+deb12u1"],
        "github": ["a-b/c.d_e 0123456789ab", "rails/rails refs/tags/v1.0^{}"],
    }  # fmt: skip
    (tmp_path / "l.toml").write_text("".join(f"[{name}]\nMIT = {json.dumps(some)}\n" for name, some in names.items()))
    assert [f"{one.name} {one.version}".strip() for one in sources.load(tmp_path / "l.toml")] == [
        *chain(*names.values())
    ]


def test_what_takes_too_long_is_given_up_and_said(
    registry: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server that answers nothing held a run for ever, and a large archive could be given no more time."""
    (registry / "programs" / "pip").write_text("#!/bin/sh\nexec sleep 5\n")
    with pytest.raises(UsageError, match=r"pip took more than 0\.1 s; run again, with a longer --seconds"):
        sources.fetch(Source("pypi", "width"), tmp_path / "here", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = tmp_path / "gitconfig"
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        settings.write_text(f'[url "{address}"]\n\tinsteadOf = https://github.com/\n')
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
        monkeypatch.setitem(git._STALLED, "GIT_HTTP_LOW_SPEED_TIME", "1")
        with pytest.raises(UsageError, match=r"cannot be fetched: git says .*Operation too slow"):
            sources.fetch(Source("github", "acme/shapes"), tmp_path / "here")
        monkeypatch.setattr(git, "CLONE_SECONDS", 0.1)
        with pytest.raises(UsageError, match=r"cannot be fetched: git says 'too slow: not done after 0\.1 s'"):
            sources.fetch(Source("github", "acme/shapes"), tmp_path / "here", 0.1)


def test_a_clone_that_is_given_up_leaves_no_helper_of_gits_behind(tmp_path: Path) -> None:
    """It went on fetching into a folder that the next run removes."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/acme/shapes"
        assert git.clone(address, tmp_path / "shapes.git", seconds=1) == "too slow: not done after 1 s"
        connection, _ = silent.accept()
    with connection:
        connection.settimeout(5)
        assert connection.recv(10_000).startswith(b"GET /acme/shapes/")
        assert connection.recv(10_000) == b""


def test_a_record_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(UsageError, match="is no record of `embedcode data collect`"):
        collect.records(tmp_path)


def test_the_list_of_the_recipe_has_a_licence_of_each_and_only_the_other_has_what_is_unchecked() -> None:
    recipes = Path(__file__).parents[2] / "recipes"
    listed, others = (sources.load(recipes / name) for name in ("sources.toml", "more_sources.toml"))
    assert len(listed) >= 150 and {source.registry for source in listed} == set(sources.REGISTRIES)
    assert all(licences.allowed(source.licence) for source in listed)
    assert all(source.licence == "unchecked" or licences.allowed(source.licence) for source in others)
    assert all(source.version for source in others if source.licence != "unchecked")
    assert not {source.file_name for source in listed} & {source.file_name for source in others}


def test_collected_examples_have_a_folder_of_their_own(registry: Path) -> None:
    readme = "# The lengths of all sides\n\n```py\nfor side in shape.sides:\n    print(side.length * scale)\n```\n"
    fields = "Metadata-Version: 2.1\nDescription-Content-Type: text/markdown; charset=UTF-8\n\n"
    with zipfile.ZipFile(registry / "shelf" / "width-1.5-py3-none-any.whl", "a") as archive:
        archive.writestr("width-1.dist-info/METADATA", fields + readme)
        archive.writestr(
            "width/docs/guide.md",
            "# Adds up the widths\n\n```python\nfor part in shape:\n    total += part.width * scale\n```\n",
        )
    out, wanted = registry / "out", [Source("pypi", "width")]
    assert collect.collect(wanted, out, 1)
    assert not (out / collect.EXAMPLES).exists() and collect.summary(collect.records(out))["examples"] == 0
    assert collect.collect(wanted, out, 1, documentation=True), "what was mined without them is mined again"
    assert [pair.task for pair in pairs.read(out / "pypi-width.jsonl.gz")] == ["docstring"] * 3
    said = list(pairs.read(out / collect.EXAMPLES / "pypi-width.jsonl.gz"))
    assert [pair.query for pair in said] == ["The lengths of all sides", "Adds up the widths"] and said[
        0
    ].source == "pypi:width 1.5"
    assert collect.summary(collect.records(out))["examples"] == 2
    asked = (registry / "asked").read_text()
    assert collect.collect(wanted, out, 1, documentation=True)
    assert (registry / "asked").read_text() == asked

"""The walk and the reading of files: what is found, what is left out and why, and what a hostile tree cannot do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from embedcode.errors import UsageError
from embedcode.index.walk import Found, Reach, Skipped, Source, _stamp, explain_nothing, read, walk
from embedcode.types import digest

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def fill(root: Path, *paths: str) -> None:
    for path in paths:
        write(root, path, "x\n")


def write(root: Path, name: str, content: str | bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def words(text: str) -> list[str]:
    return text.split()


def outcome(root: Path, **options: object) -> tuple[set[str], dict[str, str]]:
    """What a walk finds, and what it leaves out with the reason."""
    seen = list(walk(root, **options))  # type: ignore[arg-type]
    skipped = {one.path: one.reason for one in seen if isinstance(one, Skipped)}
    return {one.path for one in seen if isinstance(one, Found)}, skipped


def only(root: Path, name: str) -> Found:
    return next(one for one in walk(root) if isinstance(one, Found) and one.path == name)


def reading(root: Path, content: str | bytes, name: str = "file.py") -> Source | Skipped:
    write(root, name, content)
    return read(only(root, name))


def text_of(result: Source | Skipped) -> str:
    assert isinstance(result, Source), result
    return result.text


# The walk


def test_a_file_is_found_with_all_that_a_later_walk_compares(root: Path) -> None:
    path = write(root, "src/pkg/mod.py", "abc\n")
    os.utime(path, ns=(5, 1_234_567_890_123_456_789))
    assert list(walk(root)) == [
        Found("src/pkg/mod.py", root.resolve() / "src/pkg/mod.py", 4, _stamp(path.stat()), "project")
    ]


def test_the_order_is_the_same_on_every_machine(root: Path) -> None:
    fill(root, "b.py", "a/z.py", "a/b/x.py", "a.py", "B.py", "c/d.py")
    paths = [one.path for one in walk(root)]
    assert paths == ["B.py", "a/b/x.py", "a/z.py", "a.py", "b.py", "c/d.py"]


def test_the_walk_streams(root: Path) -> None:
    fill(root, "a/x.py", "b/y.py")
    walking = walk(root)
    assert next(walking).path == "a/x.py"
    fill(root, "b/late.py")  # b/ has not been listed yet
    assert [one.path for one in walking] == ["b/late.py", "b/y.py"]


def test_an_unchanged_tree_costs_no_reading(root: Path) -> None:
    """Only ignore files are opened, seen by the interpreter's own audit of every open()."""
    fill(root, ".gitignore", "a.py", "d/b.py", ".embedcodeignore", "logo.bin")
    opened: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and str(arguments[0]).startswith(str(root)):
            opened.append(Path(str(arguments[0])).name)

    sys.addaudithook(watch)
    found, _ = outcome(root)
    watching = False
    assert {"a.py", "d/b.py"} <= found
    assert set(opened) <= {".gitignore", ".embedcodeignore", "exclude"}


def test_five_thousand_files_walk_in_well_under_a_second(root: Path) -> None:
    write(root, ".gitignore", "\n".join(f"*.ext{i}\nfolder{i}/\n/top/{i}/*.x" for i in range(50)))
    for folder in range(100):
        (root / f"d{folder}").mkdir()
        for file in range(50):
            (root / f"d{folder}/file{file}.py").touch()
    seconds = []
    for _ in range(3):  # processor time, and the best of three: other work on the machine only adds
        started = time.process_time()
        assert len(outcome(root)[0]) == 5001
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.5


def test_a_tree_deeper_than_the_interpreters_stack(root: Path) -> None:
    here = os.open(root, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("deep.py", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    try:
        assert outcome(root)[0] == {"d/" * 1200 + "deep.py"}
    finally:  # shutil.rmtree, and so pytest's own cleaning, is recursive
        subprocess.run(["rm", "-rf", root / "d"], check=True)


def test_a_nested_repository_has_its_own_name_and_rules(root: Path) -> None:
    write(root, ".gitignore", "secret_plans/\n*.tmp\n")
    fill(root, "top.py", "sub/one.py", "libs/inner/secret_plans/x.py", "libs/inner/y.py", "libs/inner/deep/z.tmp")
    write(root, "libs/inner/.git", "gitdir: ../../.git/modules/inner\n")  # a submodule's .git is a file
    write(root, "libs/inner/.gitignore", "y.py\n")
    write(root, ".git/modules/inner/info/exclude", "from_exclude.py\n")
    fill(root, "libs/inner/from_exclude.py")
    repos = {one.path: one.repo for one in walk(root) if isinstance(one, Found)}
    assert repos == {
        ".gitignore": "project",
        "top.py": "project",
        "sub/one.py": "project",
        "libs/inner/.gitignore": "inner",
        "libs/inner/secret_plans/x.py": "inner",
        "libs/inner/deep/z.tmp": "inner",
    }


def test_an_ignored_nested_repository_is_not_entered(root: Path) -> None:
    write(root, ".gitignore", "clones/\n")
    fill(root, "clones/other/.git/HEAD", "clones/other/a.py")
    assert outcome(root)[1]["clones/"] == "ignored by .gitignore: clones/"


def test_the_users_git_ignore_file_holds(root: Path) -> None:
    write(root.parent / "home", ".config/git/ignore", "scratch/\n")
    fill(root, "scratch/x.py", "a.py")
    assert outcome(root)[0] == {"a.py"}


# What a user takes back or leaves out


def test_embedcodeignore_stands_above_git_and_the_built_in_rules(root: Path) -> None:
    write(root, ".gitignore", "generated/\n*.tmp\n")
    write(root, ".embedcodeignore", "!generated/\n!vendor/\n!table.csv\ndocs/\n!*.pem\n!.env\n!.git/\n!.ssh/\n")
    write(root, "generated/code.py", "# @generated\nx = 1\n")
    fill(
        root,
        "vendor/lib.go",
        "table.csv",
        "other.csv",
        "docs/a.md",
        "a.tmp",
        "k.pem",
        ".env",
        ".git/HEAD",
        ".ssh/config",
    )
    found, skipped = outcome(root)
    assert found == {".gitignore", ".embedcodeignore", "generated/code.py", "vendor/lib.go", "table.csv"}
    assert skipped == {
        "docs/": "ignored by .embedcodeignore: docs/",
        "a.tmp": "ignored by .gitignore: *.tmp",
        "other.csv": "data, media or binary format",
        "k.pem": "looks like credentials",
        ".env": "looks like credentials",
        ".ssh/": "looks like credentials",
        ".git/": "version control data",
    }


def test_what_is_asked_for_by_name_is_read_although_generated(root: Path) -> None:
    text = "# @generated by a tool\nx = 1\n"
    assert reading(root, text, "api.py") == Skipped("api.py", "generated code")
    write(root, ".embedcodeignore", "!api.py\n")
    assert text_of(read(only(root, "api.py"))) == text
    write(root, ".embedcodeignore", "!key.txt\n")
    assert reading(root, KEY, "key.txt") == Skipped("key.txt", "looks like credentials")


def test_extra_patterns_stand_above_all(root: Path) -> None:
    write(root, ".embedcodeignore", "!keep.py\ndrop.py\n")
    fill(root, "keep.py", "drop.py", "third_party/x.c")
    found, skipped = outcome(root, extra_ignore=["keep.py", "!drop.py", "!/third_party/"])
    assert found == {".embedcodeignore", "drop.py", "third_party/x.c"}
    assert skipped == {"keep.py": "ignored by an extra pattern: keep.py"}


# Built-in rules


def test_folders_that_are_not_the_users_own_source(root: Path) -> None:
    out = words("""
        node_modules vendor third_party bower_components .venv lib/site-packages __pycache__ .tox .mypy_cache .idea
        DerivedData Pods .git .hg .svn pkg.egg-info rust/target java/target __snapshots__ env1 cmake-out cache1
    """)
    kept = words("""
        build dist out bin obj target env lib src vendors
    """)
    fill(root, *(f"{name}/x.py" for name in [*out, *kept]))
    fill(root, "rust/Cargo.toml", "java/pom.xml", "env1/pyvenv.cfg", "cmake-out/CMakeCache.txt", "cache1/CACHEDIR.TAG")
    found, skipped = outcome(root)
    assert skipped.keys() == {f"{name}/" for name in out}
    assert found == {f"{name}/x.py" for name in kept} | {"rust/Cargo.toml", "java/pom.xml"}


@pytest.mark.parametrize(
    ("reason", "names"),
    [
        ("lock file", "package-lock.json yarn.lock Cargo.lock poetry.lock go.sum pnpm-lock.yaml Package.resolved"),
        ("minified code or source map", "app.min.js style.min.css app.js.map JQUERY.MIN.JS"),
        ("generated code", "api_pb2.py api.pb.go model.g.dart Form1.Designer.cs zz_generated.go"),
        ("translation catalogue", "de.po de.mo"),
        ("test snapshot", "Button.test.tsx.snap"),
        ("cache, build output or editor state", ".a.py.swp .a.py.swo a.py~"),
        ("data, media or binary format", "a.png b.SVG c.csv d.parquet e.pdf f.pyc g.so h.jar j.wasm k.tar.gz l.pt"),
    ],
)
def test_files_that_are_not_source(root: Path, reason: str, names: str) -> None:
    fill(root, *names.split())
    assert outcome(root) == (set(), dict.fromkeys(names.split(), reason))


def test_source_files_with_alarming_names_stay(root: Path) -> None:
    names = words("""
        admin.js map.ts minify.py lock.go po.py bin.rs snapshot.rb credentials.py secrets.ts secret.go keys.py
        env.py environment.ts private_key.rs pem.c kubeconfig.go service_account.go npmrc.js token.ts netrc.c
        vault.tf main.tf package.json go.mod Cargo.toml index.d.ts data.json config.yaml query.sql notebook.ipynb
        Makefile schema.proto settings.py.bak main.rs.orig NEWS.old passwd.5 secrets.ts.bak credentials.py.1
        credentials.7 secret.1 kubeconfig.5
    """)
    fill(root, *names)
    assert outcome(root) == (set(names), {})


def test_files_that_look_like_credentials_are_never_indexed(root: Path) -> None:
    names = words("""
        .env .env.local .env.production prod.env .envrc server.pem tls.KEY id_rsa id_rsa.bak id_ed25519 .netrc
        _netrc .pgpass .npmrc .pypirc credentials credentials.json gcp-credentials.json .aws/ .ssh/ store.p12
        cert.pfx app.keystore debug.jks .htpasswd secrets.yml secrets.yaml secrets.json secrets.toml db-secret.yaml
        kubeconfig kubeconfig.yml service-account.json my-service-account-key.json service_account.json
        client_secret_1.json .git-credentials terraform.tfstate prod.tfvars vault.kdbx .dockercfg putty.ppk
        terraform.tfstate.backup terraform.tfstate.1.backup prod.env.bak .npmrc.bak .netrc.old .env_prod .env.orig
        .envrc.local .envrc.bak server.key.bak tls.pem.1 secrets.yaml.save credentials.json.old.2 secrets.json~
    """)
    fill(root, *(f"{name}x" if name.endswith("/") else name for name in names))
    write(root, ".embedcodeignore", "!*\n!**/\n")  # even when asked for
    assert outcome(root) == ({".embedcodeignore"}, dict.fromkeys(names, "looks like credentials"))


def test_examples_of_credentials_are_documentation(root: Path) -> None:
    names = words("""
        .env_example .envrc.example .env.example.bak secrets.example.yml.orig
        .env.example .env.sample .env.template .env.local.example .env.dist secrets.example.yml
        credentials.sample.json
    """)
    fill(root, *names)
    assert outcome(root) == (set(names), {})
    fill(root, "example.pem")
    assert outcome(root) == (set(names), {"example.pem": "looks like credentials"})


def test_the_size_cap(root: Path) -> None:
    write(root, "fits.py", "x" * 1000)
    write(root, "large.py", "x" * 1001)
    assert outcome(root, max_bytes=1000) == ({"fits.py"}, {"large.py": "larger than 1,000 bytes"})


# What a tree can contain


def test_links_are_not_followed_and_cannot_loop(root: Path) -> None:
    fill(root, "real/a.py")
    (root / "real/up").symlink_to(root)
    (root / "self").symlink_to("self")
    (root / "twice").symlink_to("real")
    (root / "b.py").symlink_to("real/a.py")
    (root / "dangling.py").symlink_to("nowhere")
    (root / "passwd").symlink_to("/etc/passwd")
    links = ["real/up", "self", "twice", "b.py", "dangling.py", "passwd"]
    assert outcome(root) == ({"real/a.py"}, dict.fromkeys(links, "symbolic link"))


def test_a_root_may_be_a_link(root: Path) -> None:
    fill(root, "a.py")
    (root.parent / "link").symlink_to(root)
    assert list(walk(root.parent / "link")) == list(walk(root))


def test_pipes_and_sockets_are_never_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # a socket's path may have 107 bytes
    os.mkfifo("pipe.py")
    os.mkfifo(".gitignore")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.py")
        skipped = outcome(root)[1]
    assert skipped == dict.fromkeys(["pipe.py", ".gitignore", "socket.py"], "not a regular file")


def test_a_file_that_became_a_pipe_or_a_link_is_not_read(root: Path) -> None:
    found = only_after(root, "a.py")
    os.mkfifo(found.absolute)
    assert read(found) == Skipped("a.py", "not a regular file")
    found.absolute.unlink()
    found.absolute.symlink_to("/etc/passwd")
    assert read(found) == Skipped("a.py", "symbolic link")


def only_after(root: Path, name: str) -> Found:
    """A file as a walk found it, gone since."""
    found = only(root, write(root, name, "x\n").name)
    found.absolute.unlink()
    return found


def test_names_that_are_not_utf8(root: Path) -> None:
    fill(root, "café.py", "日本/語.py")
    raw = os.fsencode(root)
    Path(os.fsdecode(raw + b"/d\xff")).mkdir()
    for name in (b"/caf\xe9.py", b"/d\xff/x.py"):
        Path(os.fsdecode(raw + name)).touch()
    found, skipped = outcome(root)
    assert found == {"café.py", "日本/語.py"}
    assert skipped == {"caf\\xe9.py": "file name is not valid UTF-8", "d\\xff/": "file name is not valid UTF-8"}
    assert all(path.isprintable() for path in skipped)


def test_names_with_spaces_and_line_feeds(root: Path) -> None:
    names = {"a b.py", " lead.py", "new\nline.py", "quote'\".py", "back\\slash.py"}
    fill(root, *names)
    assert outcome(root)[0] == names


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Root may read anything, so give that up for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_what_may_not_be_read_is_said_and_the_rest_is_walked(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root = tmp_path / "project"
    fill(root, "locked/a.py", "b.py", "z.py")
    open_to_others(tmp_path)
    (root / "locked").chmod(0)
    (root / "b.py").chmod(0)
    request.getfixturevalue("unprivileged")
    seen = list(walk(root))
    assert Skipped("locked/", "permission denied") in seen
    results = {one.path: read(one) for one in seen if isinstance(one, Found)}
    assert results["b.py"] == Skipped("b.py", "permission denied")
    assert text_of(results["z.py"]) == "x\n"
    with pytest.raises(UsageError, match=r"locked cannot be read \(permission denied\); check who may read it"):
        walk(root / "locked")


def open_to_others(path: Path) -> None:
    """Let any user pass through the folders that pytest keeps private."""
    for folder in (path, *path.parents):
        if folder.stat().st_mode & 0o055 == 0o055:
            return
        folder.chmod(folder.stat().st_mode | 0o055)


def test_a_root_that_is_no_folder_is_refused_at_once(root: Path) -> None:
    with pytest.raises(UsageError, match="nowhere does not exist"):
        walk(root / "nowhere")
    with pytest.raises(UsageError, match="is not a folder"):
        walk(write(root, "a.py", ""))


def test_our_own_folders_are_left_out_wherever_they_lie(root: Path) -> None:
    fill(root, "a.py", "home/indexes/r/update.json", "home/vectors/x.json", "home/notes.md", "indexes/b.py")
    found, skipped = outcome(root, ours=(root / "home" / "indexes", root / "home" / "vectors"))
    assert found == {"a.py", "home/notes.md", "indexes/b.py"}
    assert skipped == dict.fromkeys(["home/indexes/", "home/vectors/"], "index or cache of embedcode")


# Where it goes


def test_reach_is_where_the_walk_goes(root: Path) -> None:
    write(root, ".gitignore", ".*\n*.tmp\nmade/\n/docs/*\n!/docs/kept/\n")
    write(root, ".embedcodeignore", "!/vendor/\nlate.py\n")
    write(root, "deep/er/.gitignore", "!*.tmp\n")
    fill(root, "a.py", "a.tmp", "made/b.py", "docs/x.md", "docs/kept/y.md", "deep/er/c.tmp", "deep/late.py")
    fill(root, "deep/.env", "node_modules/d/i.js", "vendor/v.go", "target/t.rs", "Cargo.toml", ".git/config", "q.png")
    fill(root, "venv/pyvenv.cfg")
    fill(root, "inner/.git/HEAD", "inner/x.tmp", "indexes/i.json")
    (root / "empty").mkdir()
    (root / "link").symlink_to(root / "deep")
    reach = Reach(root, ours=(root / "indexes",))
    found, skipped = outcome(root, ours=(root / "indexes",))
    assert {"docs/kept/y.md", "deep/er/c.tmp", "vendor/v.go", "inner/x.tmp"} <= found
    folders = [path for path in root.rglob("*") if path.is_dir() and not path.is_symlink()]
    entered = {path for path in folders if not under(path.relative_to(root).as_posix(), skipped)}
    assert {root / "empty", root / "docs" / "kept", root / "deep" / "er"} <= entered
    assert reach.folders == {str(path) for path in (root, *entered)}
    for path in root.rglob("*"):
        if not path.is_file() or path.name in (".gitignore", ".embedcodeignore"):
            continue  # these decide, so they are covered although the rules leave them out
        assert reach.covers(str(path)) == (path.relative_to(root).as_posix() in found), path


def under(path: str, skipped: Mapping[str, str]) -> bool:
    return any(f"{path}/".startswith(folder) for folder in skipped if folder.endswith("/"))


def test_reach_covers_what_may_come_go_or_decide(root: Path) -> None:
    write(root, ".gitignore", ".*\n*.tmp\nmade/\n")
    fill(root, "src/a.py", "made/b.py", "large.py")
    reach = Reach(root)

    def covered(*names: str) -> list[bool]:
        return [reach.covers(str(root / name)) for name in names]

    assert covered("src/new.py", "src/gone", "large.py", "src") == [True] * 4
    assert covered(".gitignore", "src/.gitignore", ".embedcodeignore", ".embedcode.toml", "src/.git") == [True] * 5
    assert covered("x.tmp", "made/b.py", ".git/index", "src/.env", "node_modules/a.js", "no/where.py") == [False] * 6
    assert reach.covers(str(root))
    assert not reach.covers(str(root.parent / "other.py"))
    with pytest.raises(UsageError, match="nowhere does not exist"):
        Reach(root / "nowhere")


# Reading


def test_a_source_carries_what_identifies_its_bytes(root: Path) -> None:
    source = reading(root, "\ufeffdef f(): ...\r\n".encode())
    assert isinstance(source, Source)
    assert source.text == "def f(): ...\r\n"
    assert source.digest == digest("\ufeffdef f(): ...\r\n".encode())
    status = (root / "file.py").stat()
    assert (source.size, source.stamp) == (status.st_size, _stamp(status))
    assert source.changed_ns == max(status.st_mtime_ns, status.st_ctime_ns)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_encodings_that_need_no_word(root: Path, encoding: str) -> None:
    text = "# naïve café – “quoted”\nx = 'ÿ'\n"
    assert text_of(reading(root, text.encode(encoding))) == text


@pytest.mark.parametrize(
    "mark", [("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff"), ("utf-32-be", b"\0\0\xfe\xff")]
)
def test_byte_order_marks(root: Path, mark: tuple[str, bytes]) -> None:
    assert text_of(reading(root, mark[1] + "a = 1\nb = '日本'\n".encode(mark[0]))) == "a = 1\nb = '日本'\n"


@pytest.mark.parametrize(
    ("encoding", "word"), [("koi8-r", "Привет"), ("shift_jis", "日本語表"), ("gb18030", "中文"), ("euc-kr", "한국")]
)
def test_an_encoding_a_file_declares(root: Path, encoding: str, word: str) -> None:
    text = f"#!/usr/bin/python\n# -*- coding: {encoding} -*-\nname = '{word}'\n"
    assert text_of(reading(root, text.encode(encoding))) == text


@pytest.mark.parametrize(
    "declared", ["", "# coding: euc-jp\n", "# coding: no-such\n", "# coding: idna\n", "# coding: cp037\n"]
)
def test_no_bytes_lose_a_line_or_raise(root: Path, declared: str) -> None:
    raw = declared.encode() + b"".join(bytes([byte]) * 3 + b" text of a line\n" for byte in range(0x80, 0x100))
    text = text_of(reading(root, raw))
    assert text.count("\n") == raw.count(b"\n")


@pytest.mark.parametrize(
    "raw",
    [
        b"\x7fELF\x02\x01\x01\0\0\0",
        b"text, and then\0",
        b"\xff\xfe\0\0\0\0binary",
        bytes(byte for byte in range(1, 256)) * 4,
    ],
)
def test_binary_content(root: Path, raw: bytes) -> None:
    assert reading(root, raw) == Skipped("file.py", "binary content")


def test_an_empty_file_is_an_empty_text(root: Path) -> None:
    assert text_of(reading(root, "")) == ""


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.go", "// Code generated by protoc-gen-go. DO NOT EDIT.\n\npackage a\n"),
        ("b.js", "/**\n * Copyright\n * @generated SignedSource<<1>>\n */\n"),
        ("c.cs", "// <auto-generated>\n//     by a tool\n"),
        ("d.py", "#" + " licence\n#" * 20 + "\n# This file is automatically generated, see tools/.\n"),
        ("e.c", "/* Automatically generated by flex */\n"),
        ("f.xml", "<!-- THIS IS MADE FROM a.in. DO NOT EDIT -->\n<a/>\n"),
        ("g.py", '"""Autogenerated by Thrift Compiler."""\n'),
    ],
)
def test_generated_code(root: Path, name: str, head: str) -> None:
    assert reading(root, head + "x\n", name) == Skipped(name, "generated code")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gen.go", 'package gen\n\nconst header = "// Code generated by gen. DO NOT EDIT."\n'),
        ("late.py", "x = 1\n" * 40 + "# @generated\n"),
        ("0001_initial.py", "# Generated by Django 4.2 on 2023-01-01\nfrom django.db import migrations\n"),
        ("README.md", "# How this code was generated\n\nDO NOT EDIT is what it says.\n"),
        ("hint.ts", "// see generated types; do not edit the pool while it is shared\n"),
        ("mail.py", "# an e-mail to me@generated.example\n"),
    ],
)
def test_code_about_generating_stays(root: Path, name: str, text: str) -> None:
    assert text_of(reading(root, text, name)) == text


def test_minified_code_is_left_out_and_long_prose_is_not(root: Path) -> None:
    long = "var a=function(b){return b+1};" * 200 + "\n"
    assert reading(root, long, "bundle.js") == Skipped("bundle.js", "minified code or source map")
    assert text_of(reading(root, long, "README.md")) == long
    ordinary = "x = 1\n" * 500 + long
    assert text_of(reading(root, ordinary, "table.py")) == ordinary


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        "\n\n" + KEY.replace("RSA", "OPENSSH"),
        "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n" + KEY,
        '{\n "type": "service_account",\n "private_key": "-----BEGIN PRIVATE KEY-----\\nMII"\n}\n',
        "PuTTY-User-Key-File-2: ssh-rsa\n",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ\n-----END PGP PRIVATE KEY BLOCK-----\n",
    ],
)
def test_private_keys_are_known_by_content(root: Path, text: str) -> None:
    assert reading(root, text, "deploy.txt") == Skipped("deploy.txt", "looks like credentials")


@pytest.mark.parametrize(
    "text", [f'KEY = """{KEY}"""\n', f"# How to make a key\n\n{KEY}", f"{{ // js\n  k: `{KEY}` }}"]
)
def test_source_that_mentions_a_private_key_stays(root: Path, text: str) -> None:
    assert text_of(reading(root, text)) == text


def test_a_file_that_disappears(root: Path) -> None:
    assert read(only_after(root, "a.py")) == Skipped("a.py", "disappeared while it was read")


def test_a_file_that_grew_past_the_cap_since_the_walk(root: Path) -> None:
    write(root, "a.py", "x\n")
    found = only(root, "a.py")
    write(root, "a.py", "x" * 2_000_000)
    assert read(found) == Skipped("a.py", "larger than 1 MB")


def test_a_file_that_changes_while_it_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file changes at the first status asked of it each time, as a busy log would; and then once only."""
    path = write(root, "a.py", "old\n")
    found = only(root, "a.py")
    changes = iter(range(1, 1000))
    limit = 1000
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        if (change := next(changes)) <= limit:
            path.write_text("new\n" * change)
        return status

    monkeypatch.setattr(os, "fstat", fstat)
    assert read(found) == Skipped("a.py", "kept changing while it was read")
    changes, limit = iter(range(1, 1000)), 1
    source = read(found)
    assert isinstance(source, Source)
    assert (source.text, source.size, source.stamp) == ("new\n", 4, _stamp(path.stat()))


# Nothing found


def test_nothing_found_says_what_was_ignored_and_the_cure(root: Path) -> None:
    write(root, ".gitignore", "*\n")
    fill(root, "a.txt", "src/a.py", ".env")
    found, skipped = outcome(root)
    assert not found
    assert explain_nothing(skipped) == (
        'No file to index: 3 left out as "ignored by .gitignore", such as src/; 1 left out as "looks like '
        'credentials", such as .env; to take one back, write a line such as !/src/ into .embedcodeignore at the top.'
    )


def test_the_cure_for_nothing_found_works(root: Path) -> None:
    write(root, ".gitignore", "s*/\n")
    fill(root, "s[r]c/a.py", "s[r]c/b.py", "src/c.py")
    line = explain_nothing({"s[r]c/": outcome(root)[1]["s[r]c/"]}).partition("such as !")[2].partition(" into")[0]
    write(root, ".embedcodeignore", f"!{line}\n")
    assert outcome(root)[0] == {".gitignore", ".embedcodeignore", "s[r]c/a.py", "s[r]c/b.py"}


@pytest.mark.parametrize(
    ("skipped", "cure"),
    [
        ({}, "the folder is empty; give the folder that holds the code."),
        ({"a/": "permission denied"}, "let this user read a/."),
        ({"src": "symbolic link"}, "give the folder that src leads to."),
        ({"a.py": "ignored by an extra pattern: *"}, "drop the extra pattern."),
        (
            {"s/a.py": "ignored by s/.embedcodeignore: *"},
            "change the line of s/.embedcodeignore that leaves s/a.py out",
        ),
        ({"a.py": "ignored by .embedcodeignore: *.py"}, "write a line such as !/a.py into .embedcodeignore at the top"),
        ({"a.py": "binary content"}, "give a folder that holds source text."),
        ({"a.py": "larger than 1 MB", "b.js": "generated code"}, "write a line such as !/b.js into .embedcodeignore"),
    ],
)
def test_the_cure_fits_the_reason(skipped: Mapping[str, str], cure: str) -> None:
    assert cure in explain_nothing(skipped)

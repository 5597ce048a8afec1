"""Settings: which source wins, and what a wrong value says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedcode import settings
from embedcode.errors import UsageError


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("EMBEDCODE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def user_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config" / "embedcode" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def repository_file(tmp_path: Path, text: str) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    (root / ".embedcode.toml").write_text(text)
    return root


def sources(found: settings.Settings) -> dict[str, str]:
    return {name: source for name, _, source in found.explain()}


def test_defaults(tmp_path: Path) -> None:
    found = settings.load({}, None)
    assert found.home == tmp_path / "cache" / "embedcode"
    assert found.model == ""
    assert found.ignore == ()
    assert found.max_file_bytes == 1_000_000
    assert set(sources(found).values()) == {"default"}


def test_each_source_wins_over_the_one_below_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = user_file(
        tmp_path, 'threads = 1\nmax_file_bytes = 1\nlog_level = "info"\nmodel = "user"\nhome = "/somewhere"\n'
    )
    root = repository_file(tmp_path, 'max_file_bytes = 2\nignore = ["a"]\n')
    monkeypatch.setenv("EMBEDCODE_THREADS", "3")
    monkeypatch.setenv("EMBEDCODE_MAX_FILE_BYTES", "3")
    found = settings.load({"threads": 4, "model": None}, root)
    assert (found.threads, found.max_file_bytes, found.log_level, found.model) == (4, 3, "info", "user")
    assert sources(found) == {
        "threads": "flag --threads",
        "max_file_bytes": "environment EMBEDCODE_MAX_FILE_BYTES",
        "log_level": str(user),
        "model": str(user),
        "home": str(user),
        "ignore": str(root / ".embedcode.toml"),
        **dict.fromkeys(("precision", "device", "stream", "background"), "default"),
    }


def test_threads_zero_is_the_cores_this_process_may_use() -> None:
    script = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
    script += "from embedcode import settings; print(settings.load({'threads': 0}).threads)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "1"


def test_patterns_from_the_environment_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_IGNORE", "*.min.js, third party/,")
    assert settings.load().ignore == ("*.min.js", "third party/")


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_THREADS", "")
    assert sources(settings.load())["threads"] == "default"


def test_a_relative_cache_folder_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/people/ada")
    assert settings.load().home == Path("/people/ada/.cache/embedcode")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("thread = 2", ["'thread' = '2'", "did you mean 'threads'"]),
        ("zzz = 2", ["'zzz'", "max_file_bytes"]),
        ('threads = "many"', ["threads", "'many'", "whole number"]),
        ("threads = true", ["threads", "'True'"]),
        ("threads = -1", ["threads", "'-1'"]),
        ("max_file_bytes = 0", ["max_file_bytes", "'0'", "from 1 to"]),
        ("ignore = [1]", ["ignore", "'1'", "list of gitignore patterns"]),
        ("model = 3", ["model", "'3'", "text"]),
        ("background = 2", ["background", "'2'", "true or false"]),
        ('log_level = "loud"', ["log_level", "'loud'", "debug, info, warning, error"]),
        ("home = 3", ["home", "'3'", "folder"]),
        ('home = "a\\u0000b"', ["home", "folder"]),
        ('home = "~nobody-of-this-name/x"', ["home", "folder"]),
        ("threads = ", ["not valid TOML"]),
        ("ignore = " + "[" * 5000, ["not valid TOML"]),
        ("max_file_bytes = " + "9" * 5000, ["not valid TOML"]),
        ("max_file_bytes = 0x" + "f" * 5000, ["max_file_bytes = 'int too large to show'"]),
        ("ignore = [0x" + "f" * 5000 + "]", ["ignore", "list of gitignore patterns"]),
        ("background = 0x" + "f" * 5000, ["background", "true or false"]),
        (".".join("a" * 1500) + " = 1", ["'a'"]),
        (".".join("a" * 30_000) + " = 1", ["29,999 dots", ".embedcodeignore"]),  # a minute and a half, if it is read
    ],
)
def test_a_wrong_setting_names_file_key_and_value(tmp_path: Path, text: str, named: list[str]) -> None:
    path = user_file(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        settings.load()
    for part in [str(path), *named]:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ['home = "/elsewhere"', "background = true", 'model = "https://example.org/v1"', "threads = 0x" + "f" * 5000],
)
def test_a_repository_cannot_redirect_code_or_files(tmp_path: Path, text: str) -> None:
    root = repository_file(tmp_path, text)
    with pytest.raises(UsageError, match="may not be set by a repository"):
        settings.load({}, root)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    user_file(tmp_path, "").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="UTF-8"):
        settings.load()


def test_no_home_folder_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("XDG_CONFIG_HOME")

    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UsageError, match="EMBEDCODE_HOME"):
        settings.load()
    monkeypatch.setenv("EMBEDCODE_HOME", "/srv/embedcode")
    assert settings.load().home == Path("/srv/embedcode")

"""A file's language, and the names a user may type for it."""

from __future__ import annotations

import pytest

from embedcode.index.grammars import GRAMMARS
from embedcode.index.languages import NAMES, canonical, language_of


@pytest.mark.parametrize(
    ("path", "name", "content"),
    [
        ("a/b/views.py", "python", "code"),
        ("types.pyi", "python", "code"),
        ("App.tsx", "typescript", "code"),
        ("App.jsx", "javascript", "code"),
        ("main.mts", "typescript", "code"),
        ("Main.java", "java", "code"),
        ("main.go", "go", "code"),
        ("lib.rs", "rust", "code"),
        ("list.c", "c", "code"),
        ("list.hpp", "cpp", "code"),
        ("Program.cs", "csharp", "code"),
        ("Rakefile", "ruby", "code"),
        ("index.php", "php", "code"),
        ("build.gradle.kts", "kotlin", "code"),
        ("Main.scala", "scala", "code"),
        ("View.swift", "swift", "code"),
        ("run.SH", "bash", "code"),
        ("schema.sql", "sql", "code"),
        ("Main.hs", "haskell", "code"),
        ("init.lua", "lua", "code"),
        ("core.clj", "clojure", "code"),
        ("main.zig", "zig", "code"),
        ("api.proto", "protobuf", "code"),
        ("App.vue", "vue", "code"),
        ("README.md", "markdown", "docs"),
        ("README", "text", "docs"),
        ("LICENSE", "text", "docs"),
        ("index.rst", "restructuredtext", "docs"),
        ("analysis.ipynb", "jupyter", "code"),
        ("ci.yml", "yaml", "config"),
        ("pyproject.toml", "toml", "config"),
        ("package.json", "json", "config"),
        ("Dockerfile", "dockerfile", "config"),
        ("Dockerfile.dev", "dockerfile", "config"),
        ("CMakeLists.txt", "cmake", "config"),
        ("Makefile", "makefile", "config"),
        ("main.tf", "terraform", "config"),
        (".gitignore", "ignore", "config"),
        ("go.mod", "gomod", "config"),
        ("requirements.txt", "requirements", "config"),
        ("prog.rare", "text", "code"),
        ("notes", "text", "docs"),
    ],
)
def test_names_and_extensions(path: str, name: str, content: str) -> None:
    language = language_of(path)
    assert language is not None
    assert (language.name, language.content) == (name, content)


@pytest.mark.parametrize(
    ("path", "head", "name"),
    [
        ("bin/tool", b"#!/usr/bin/env python3\n", "python"),
        ("bin/tool", b"#!/bin/sh -e\n", "bash"),
        ("bin/tool", b"#!/usr/bin/env -S node --flag\n", "javascript"),
        ("bin/tool", b"#!/usr/bin/python3.11\n", "python"),
        ("bin/tool", b"#!/opt/unheard-of\n", "text"),
        ("a.h", b"#include <stdio.h>\nint f(void);\n", "c"),
        ("a.h", b"#pragma once\nnamespace a {\nclass B;\n}\n", "cpp"),
        ("a.h", b"#import <UIKit/UIKit.h>\n@interface A\n", "objective-c"),
        ("a.m", b"% solves\nfunction x = f(a)\n", "matlab"),
        ("a.m", b"#import <UIKit/UIKit.h>\n", "objective-c"),
        ("de.ts", b'<?xml version="1.0"?>\n<!DOCTYPE TS>', "xml"),
        ("a.txt", b"Title\n=====\n\n.. note:: this\n", "restructuredtext"),
        ("a.txt", b"Title\n=====\n\nplain words\n", "text"),
    ],
)
def test_content_decides_what_a_name_leaves_open(path: str, head: bytes, name: str) -> None:
    language = language_of(path, head)
    assert language is not None
    assert language.name == name


def test_binary_content_has_no_language() -> None:
    assert language_of("a.py", b"\x7fELF\0\0") is None


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("js", "javascript"), ("JS", "javascript"), ("py", "python"), ("c++", "cpp"), ("C#", "csharp"),
        ("ts", "typescript"), ("tsx", "typescript"), ("sh", "bash"), ("golang", "go"), ("rs", "rust"),
        ("kt", "kotlin"), (" Ruby ", "ruby"), ("python", "python"), ("md", "markdown"), ("klingon", None), ("", None),
    ],
)  # fmt: skip
def test_typed_names(typed: str, name: str | None) -> None:
    assert canonical(typed) == name


def test_every_name_is_canonical_and_every_grammar_is_reached() -> None:
    assert all(canonical(name) == name for name in NAMES)
    assert canonical("tsx") == "typescript"
    paths = "a.py a.js a.ts a.tsx a.java a.go a.rs a.c a.cpp a.cs a.rb a.php a.kt a.scala a.swift a.sh a.sql"
    assert {language.grammar for path in paths.split() if (language := language_of(path))} == set(GRAMMARS)

"""What may not be trained on is listed, and cannot hide behind a name, a comment or a formatter."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from embedcode.data import sources
from embedcode.data.never import fingerprint, load, tokens

DEVELOPMENT = Path(__file__).parents[2].parent / "shared" / "data" / "dev"

SWEBENCH = """
    django/django sympy/sympy matplotlib/matplotlib scikit-learn/scikit-learn pytest-dev/pytest sphinx-doc/sphinx
    astropy/astropy psf/requests pylint-dev/pylint pydata/xarray mwaskom/seaborn pallets/flask
    sqlfluff/sqlfluff marshmallow-code/marshmallow pvlib/pvlib-python pydicom/pydicom pylint-dev/astroid pyvista/pyvista
"""
COIR = """
    apps cosqa text2sql synthetic-text2sql codesearchnet codesearchnet-ccr codetrans-dl codetrans-contest
    stackoverflow-qa codefeedback-mt codefeedback-st
"""
OTHERS = """
    HumanEval MBPP DS-1000 ds1000 exercism exercism/rust conala so-title2code-csharp concode-java-dev nl2bash
    codetrans-java-cs cosqa-dev swebench-lite-dev SWE-bench_Lite princeton-nlp/SWE-bench
"""
LANGUAGES = ("go", "java", "javascript", "php", "python", "ruby")


@pytest.mark.parametrize("name", SWEBENCH.split())
def test_swebench_repositories_are_listed(name):
    entry = load().find(name)
    assert entry is not None
    assert (entry.name, entry.kind) == (name, "repository")


@pytest.mark.parametrize(
    "name",
    [
        *COIR.split(),
        *(f"{task}-{language}" for task in ("CodeSearchNet", "CodeSearchNet-ccr") for language in LANGUAGES),
        *OTHERS.split(),
    ],
)
def test_evaluation_sets_are_listed(name):
    assert load().find(name) is not None


@pytest.mark.skipif(not DEVELOPMENT.is_dir(), reason="the shared development data are not beside this checkout")
def test_every_development_set_at_hand_is_listed():
    assert [folder.name for folder in DEVELOPMENT.iterdir() if load().find(folder.name) is None] == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("https://github.com/Django/Django.git", "django/django"),
        ("git@github.com:pallets/flask.git", "pallets/flask"),
        ("git+https://user@github.com/psf/requests/", "psf/requests"),
        ("sklearn", "scikit-learn/scikit-learn"),
        ("Scikit_Learn", "scikit-learn/scikit-learn"),
        ("PyCQA/astroid", "pylint-dev/astroid"),
        ("pvlib", "pvlib/pvlib-python"),
    ],
)
def test_a_source_is_known_by_its_url_package_and_former_owner(name, found):
    entry = load().find(name)
    assert entry is not None
    assert entry.name == found


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("rust-globset", "BurntSushi/ripgrep"),
        ("grep-searcher", "BurntSushi/ripgrep"),
        ("ignore", "BurntSushi/ripgrep"),
        ("rust-tokio-util", "tokio-rs/tokio"),
        ("tokio_macros", "tokio-rs/tokio"),
        ("libgoogle-gson-java", "google/gson"),
        ("@vue/reactivity", "vuejs/core"),
        ("junit-jupiter-engine", "junit-team/junit5"),
    ],
)
def test_the_packages_of_a_repository_are_listed(name, of):
    entry = load().find(name)
    assert entry is not None
    assert entry.name == of


@pytest.mark.parametrize("name", ["sources.toml", "more_sources.toml"])
def test_the_lists_of_the_recipes_have_none_of_them(name):
    known = load()
    listed = sources.load(Path(__file__).parents[2] / "recipes" / name)
    assert [source.id for source in listed if any(map(known.find, source.known_as))] == []
    assert any(map(known.find, sources.Source("debian", "rust-tokio-util-0.6").known_as)), "an older version of it"


@pytest.mark.parametrize(
    "name", ["numpy/numpy", "encode/django-rest-framework", "requests-oauthlib", "apps-script", "rust-tokio-rustls", ""]
)
def test_other_sources_are_allowed(name):
    assert load().find(name) is None


def test_every_entry_has_a_reason_and_no_name_is_listed_twice():
    entries = load().entries
    assert all(entry.why and entry.group and entry.name for entry in entries)
    assert len({entry.name for entry in entries}) == len(entries)


PAIRS = {
    "python": (
        '''
def parse(text, sep=','):
    """Split a line; 'quotes' and // are kept."""
    # first the empty one
    if not text: return []
    n = len(text) // 2  # half
    return [part.strip() for part in text.split(sep) if part != 'a b' and n]
''',
        """
    def parse(
        text,
        sep=",",
    ):
        if not text:
            return []  # nothing
        n = len(text) // 2
        return [
            part.strip()
            for part in text.split(sep)
            if part != "a b" and n
        ]
""",
    ),
    "python, a hanging signature": (
        'def half(a,\n         b):\n    "Half of it."\n    return (a + b) // 2',
        "def half(a, b):\n    return (a + b) // 2",
    ),
    "javascript": (
        "/** Adds.\n * @param a\n */\nfunction add(a, b) {\n  // sum\n  return { sum: a + b, url: 'http://x/' }\n}",
        'function add(a, b) { return {\n    sum: a + b,\n    url: "http://x/",\n  }; }',
    ),
    "c": (
        "int f(char *s) {\n#ifdef DEBUG\n    puts(s); /* say */\n#endif\n    return s[0] == '\\'';  // quote\n}",
        "int f(char *s)\n{\n\tputs(s);\n\treturn s[0] == '\\'';\n}",
    ),
    "rust": (
        "/// First.\n#[inline]\nfn first<'a>(x: &'a str) -> &'a str { x } // end",
        "#[inline]\nfn first<'a>(\n    x: &'a str,\n) -> &'a str {\n    x\n}",
    ),
    "sql": ("SELECT a, b -- both\nFROM t WHERE c = 'x';", "SELECT a,\n       b\nFROM t\nWHERE c = 'x'"),
    "ruby": ("# Doubles.\ndef double(x)\n  x * 2 # twice\nend", "def double(x)\n    x * 2\nend\r\n"),
}


@pytest.mark.parametrize("language", PAIRS)
def test_formatting_comments_and_docstrings_do_not_hide_a_function(language):
    original, reformatted = PAIRS[language]
    assert fingerprint(original) == fingerprint(reformatted)


def test_an_independent_formatter_does_not_hide_functions():
    functions = [
        textwrap.dedent(inspect.getsource(function))
        for module in (inspect, textwrap, subprocess)
        for _, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
    ]
    separator = "\n\n\nSEPARATOR = 0\n\n\n"
    formatted = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length=200", "--stdin-filename=x.py", "-"],
        input=separator.join(functions),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split(separator)
    assert len(formatted) == len(functions) > 100
    changed = [pair for pair in zip(functions, formatted, strict=True) if pair[0].strip() != pair[1].strip()]
    assert len(changed) > 50
    assert [new for old, new in changed if fingerprint(old) != fingerprint(new)] == []


def test_the_name_of_the_file_or_repository_plays_no_part(tmp_path):
    code = inspect.getsource(textwrap.dedent)
    renamed = tmp_path / "vendored_utils.txt"
    renamed.write_bytes(b"\xef\xbb\xbf" + code.replace("\n", "\r\n").encode())
    assert fingerprint(code) == fingerprint(renamed.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(x): return x + 1", "def f(x): return x + 2"),
        ("def f(x): return x + 1", "def g(x): return x + 1"),
        ("def f(n):\n    return n // 2", "def f(n):\n    return n // 3"),
        ("def f(x):\n    return ' '.join(x)", "def f(x):\n    return ''.join(x)"),
        ("def f():\n    return {'a': 'x'}", "def f():\n    return {'a': 'y'}"),
        ("def f(x):\n    return 'a#b'", "def f(x):\n    return 'a#c'"),
        ("f() { return a ? 'x' : 'y' }", "f() { return a ? 'x' : 'z' }"),
        ("x = a ? 'x' : 'y'", "x = a ? 'x' : 'z'"),
        ("this.#a = 1", "this.#b = 1"),
        ("get('http://a.org')", "get('http://b.org')"),
        ("ab", "a b"),
        ("def f(self):\n    return self.x", "def f(self):\n    return self.x()"),
    ],
)
def test_a_different_function_is_no_copy(one, other):
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize("text", ["", "# only a comment", "/* nor this */", '"""Nor this."""', "// a comment"])
def test_a_text_without_code_has_its_words_as_tokens(text):
    assert tokens(text) == text.split()


@pytest.mark.parametrize(
    "unit", ["/*", '"""', '\\"', "'", "`", "#", "//", "\\", " ", "a", "r'", "\n--", ":", "def ", "\n  )", "<'a"]
)
def test_hostile_text_takes_linear_time(unit):
    started = time.perf_counter()
    fingerprint("def f(x):\n" + unit * (500_000 // len(unit)))
    assert time.perf_counter() - started < 10


def test_texts_that_are_only_a_comment_are_as_different_as_they_are_written() -> None:
    texts = ("# Install with pip", "# Delete the database", "// see docs/manual.md", "-- ls", "/* a */", "")
    assert len(set(map(fingerprint, texts))) == len(texts)
    assert fingerprint("# Install  with pip\n") == fingerprint(texts[0]), "white space is a formatter's"

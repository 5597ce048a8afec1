"""Docstrings and comments: which functions of nine languages are paired with which words, and what is left out."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from embedcode.data import comments, docstrings, examples
from embedcode.data.archives import stream
from embedcode.data.docstrings import File
from embedcode.data.mine import called, mine, names
from embedcode.data.mine import workers as extracting
from embedcode.errors import UsageError
from embedcode.index.workers import Workers

BODY = "total = 0\n    for value in values:\n        total += value * value\n    return total"
SOURCES = {
    "a.py": '''
class A:
    @staticmethod
    def squares(values, power=2):
        """Sum the squares of some numbers.

        Args:
            values: which numbers
        """
        # kept
        total = 0
        return sum(value ** power for value in values)
''',
    "a.js": """
/**
 * Sum the squares of some numbers.
 * @param {number[]} values which numbers
 */
export const squares = (values) => {
  // kept
  return values.map((value) => value * value).reduce((a, b) => a + b, 0);
};
""",
    "a.ts": """
class A {
  /** Sum the squares of some numbers. */
  @log()
  squares(values: number[]): number {
    // kept
    return values.map((value) => value * value).reduce((a, b) => a + b, 0);
  }
}
""",
    "A.java": """
class A {
  /**
   * Sum the squares of some {@link Number numbers}.
   * @return their sum
   */
  @Deprecated
  public int squares(int[] values) {
    int total = 0; // kept
    for (int value : values) total += value * value;
    return total;
  }
}
""",
    "a.go": """package a

import "fmt"

// Sum the squares
// of some numbers.
func (a *A) Squares(values []int) int {
	total := 0 // kept
	for _, value := range values {
		total += value * value
	}
	return total
}
""",
    "a.php": """<?php
class A {
    /**
     * Sum the squares of some numbers.
     *
     * @param int[] $values
     */
    #[Pure]
    public static function squares(array $values): int {
        // kept
        return array_sum(array_map(fn($value) => $value * $value, $values));
    }
}
""",
    "a.rb": """
class A
  # Sum the squares of some numbers.
  #
  # @param values [Array]
  def self.squares(values)
    # kept
    values.map { |value| value * value }.reduce(0) { |a, b| a + b }
  end
end
""",
    "a.c": """
#ifdef X
/* Sum the squares of some numbers. */
static int squares(const int *values, int count)
{
    int total = 0; /* kept */
    while (count--) total += values[count] * values[count];
    return total;
}
#endif
""",
    "a.cpp": """
namespace n {
/// \\brief Sum the squares of some numbers.
/// \\param values which
template <class T>
T squares(const std::vector<T> &values) {
  T total = 0;  // kept
  for (auto value : values) total += value * value;
  return total;
}
}
""",
    "a.rs": """
impl A {
    /// Sum the squares of some numbers.
    ///
    /// # Examples
    #[inline]
    pub fn squares(values: &[i32]) -> i32 {
        // kept
        values.iter().map(|value| value * value).sum()
    }
}
""",
    "a.cs": """
namespace N {
  class A {
    /// <summary>
    /// Sum the squares of some <see cref="T:System.Int32"/> numbers.
    /// </summary>
    /// <param name="values">which</param>
    [Pure]
    public static int Squares(int[] values) {
      int total = 0; // kept
      foreach (var value in values) total += value * value;
      return total;
    }
  }
}
""",
}


@pytest.mark.parametrize("path", SOURCES)
def test_a_function_is_paired_with_what_is_said_of_it(path: str) -> None:
    found = docstrings.extract(File(path, SOURCES[path], "pkg 1.0"))
    (pair,) = found.pairs
    assert " ".join(pair.query.split()) in (
        "Sum the squares of some numbers.", "Sum the squares of some Number numbers.",
        "Sum the squares of some System.Int32 numbers.",
    )  # fmt: skip
    (code,) = pair.positives
    assert "kept" in code and "quares" in code and "Sum the" not in code
    assert not code.startswith((" ", "\n", "/", "*")) and code == code.rstrip()
    assert (pair.task, pair.source) == ("docstring", "pkg 1.0")
    assert pair.negatives == ()


NESTED = {
    "a.py": '''
class A:
    def outer(self, values):
        """Sort out the values of each row."""
        # kept
        total = 0

        def first(value):
            """Take the logarithm of one value."""  # also kept
            return math.log(value + total)

        class B:
            @property
            def second(self):
                \'\'\'Give the largest
                value of all.\'\'\'

                return max(value + total for value in self.values)

        return [first(value) for value in values] + [B().second]
''',
    "a.js": """
// Sort out the values of each row.
function outer(values) {
  // kept
  /**
   * Take the logarithm of one value.
   */
  const first = (value) => {
    return Math.log(value + 1); // also kept
  };
  /* Give the largest value of all. */ function second(values) {
    return Math.max(...values.map((value) => value + 1));
  }
  return [...values.map(first), second(values)];
}
""",
    "a.rs": """
/// Sort out the values of each row.
fn outer(values: &[f64]) -> f64 {
    let total = 0.0; // kept
    /// Take the logarithm of one value.
    #[inline]
    fn first(value: f64) -> f64 {
        // also kept
        let sum = value + 1.0;
        sum.ln()
    }
    /// Give the largest
    /// value of all.
    fn second(values: &[f64]) -> f64 {
        values.iter().map(|value| *value).fold(f64::MIN, f64::max)
    }
    total + first(values[0]) + second(values)
}
""",
}


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("path", NESTED)
def test_a_function_is_without_what_is_said_of_those_inside(path: str, ends: str) -> None:
    """The outer one held the queries of the others word for word."""
    found = docstrings.extract(File(path, NESTED[path].replace("\n", ends), "pkg 1.0"))
    queries = ["Sort out the values of each row.", "Take the logarithm of one value.", "Give the largest value of all."]
    assert [pair.query for pair in found.pairs] == queries
    outer, *others = (pair.positives[0] for pair in found.pairs)
    for said in ("Sort out", "logarithm of", "largest", "of all"):
        assert said not in outer
    assert "kept" in outer and "also kept" in outer and "kept" in others[0]
    assert not outer.startswith(" ") and all(line.startswith((" ", "}")) for line in outer.split("\n")[1:] if line)
    assert others[1].split("\n")[-2].strip() in outer, "their code stays"


def test_decorators_and_attributes_stay() -> None:
    for path, mark in {
        "a.py": "@staticmethod",
        "A.java": "@Deprecated",
        "a.rs": "#[inline]",
        "a.php": "#[Pure]",
    }.items():
        (pair,) = docstrings.extract(File(path, SOURCES[path], "")).pairs
        assert pair.positives[0].startswith(mark)


def test_the_name_of_a_function_is_no_part_of_what_is_said_of_it() -> None:
    text = SOURCES["a.go"].replace("// Sum the squares", "// Squares sums the squares")
    (pair,) = docstrings.extract(File("a.go", text, "")).pairs
    assert pair.query == "Sums the squares of some numbers."
    assert comments.unnamed("Squares: all of them", "Squares") == "All of them"
    assert comments.unnamed("Open a file", "open") == "Open a file"


def test_lines_that_end_as_on_windows_are_unindented_too() -> None:
    text = SOURCES["A.java"].replace("    int total", "\n    int total").replace("\n", "\r\n")
    (pair,) = docstrings.extract(File("A.java", text, "")).pairs
    assert pair.positives[0].startswith("@Deprecated\npublic int squares") and "\r" not in pair.positives[0]


def test_what_is_not_right_above_is_not_said_of_it() -> None:
    text = f"""// Some remark that stands alone.

int a; // about a only, not about what follows
int squares(int *values) {{
    {BODY.replace("for value in values:", "for (;;)")};
}}
"""
    assert docstrings.extract(File("a.c", text, "")).pairs == []


def test_a_function_that_is_only_its_docstring_is_none() -> None:
    text = (
        'def squares(values, power, other):\n    """Sum the squares of some numbers.\n\n    And more of it.\n    """\n'
    )
    assert docstrings.extract(File("a.py", text, "")).pairs == []


@pytest.mark.parametrize(
    ("said", "query"),
    [
        ("/** Reads a {@link File}, <p>see <code>x</code>. */", "Reads a File, see x."),
        ("/**\n * Reads it.\n *\n * More.\n */", "Reads it."),
        ("# Reads the file\n# at once.\n# :param x: y", "Reads the file at once."),
        ("'''Reads :class:`~a.b.File` objects.'''", "Reads a.b.File objects."),
        ('r"""Reads it.\n\n    Parameters\n    ----------\n    x"""', "Reads it."),
        ('"""\n    Returns\n    -------\n    x\n"""', ""),
        ("/// <summary>Reads <paramref name=\"x\"/> twice.</summary>", "Reads x twice."),
        ("// ------\n// Reads it.\n// ------", "Reads it."),
        ("/*! \\brief Reads it. \n * \\return x */", "Reads it."),
        ("/* @param x only */", ""),
    ],
)  # fmt: skip
def test_the_first_paragraph_without_markup(said: str, query: str) -> None:
    assert comments.query(said) == query


def test_a_long_paragraph_ends_at_a_sentence() -> None:
    query = comments.query("# " + "Reads a file and checks it. " * 40)
    assert query.endswith("checks it.") and 300 < len(query) <= comments.LONGEST


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ("Parses dates in several formats.", "parse", None),
        ("Returns the number of items in the queue", "size", None),
        ("Parse", "f", comments.SHORT),
        ("Get user name", "getUserName", comments.BOILERPLATE),
        ("Getter for the name.", "f", comments.BOILERPLATE),
        ("Constructor of the class.", "A", comments.BOILERPLATE),
        ("TODO: write this one day", "f", comments.BOILERPLATE),
        ("eslint-disable-next-line no-unused-vars", "f", comments.BOILERPLATE),
        ("Copyright 2020 Somebody and others", "f", comments.LICENCE),
        ("This file was automatically generated by a tool", "f", comments.GENERATED),
        ("Gibt die Anzahl der Einträge in der Liste zurück", "f", comments.FOREIGN),
        ("返回 列表 中 元素 的 数量 abc def ghi", "f", comments.FOREIGN),
        ("Devuelve el número de elementos de la lista", "f", comments.FOREIGN),
        ("if (x > 3) return frob(x, y);", "f", comments.CODE),
        ("self.total = compute_sum(values, power)", "f", comments.CODE),
    ],
)
def test_which_words_are_no_query(text: str, name: str, reason: str | None) -> None:
    assert comments.reason(text, name) == reason


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("f", "def f(x):\n    return x", docstrings.SHORT_CODE),
        ("getName", "String getName() {\n    return this.theName.orElse(DEFAULT_NAME_OF_ALL);\n}", docstrings.ACCESSOR),
        ("f", "def f(self, something, another):\n    raise NotImplementedError('in a subclass')", docstrings.STUB),
        ("f", "x = 1\n" * 3000, docstrings.LONG_CODE),
        ("squares", f"def squares(values):\n    {BODY}", None),
        ("Output", "struct API Output\n{\n    int state_of_it;\n    float the_time_it_took;\n};", docstrings.MISREAD),
        ("f", "struct node *f(struct node *n)\n{\n    n->next = n->previous;\n    return n->next;\n}", None),
    ],
)  # fmt: skip
def test_which_functions_are_no_answer(name: str, code: str, reason: str | None) -> None:
    assert docstrings.code_reason(name, code) == reason


def test_a_parser_that_crashes_costs_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules, code = tmp_path / "modules", tmp_path / "code"
    modules.mkdir()
    (modules / "crashing.py").write_text(
        "import os\nfrom embedcode.data import docstrings\n"
        "def extract(file):\n    return os._exit(11) if 'crash' in file.path else docstrings.extract(file)\n"
    )
    monkeypatch.syspath_prepend(modules)
    monkeypatch.setenv("PYTHONPATH", str(modules), prepend=os.pathsep)
    from crashing import extract

    code.mkdir()
    for number in range(40):
        (code / f"m{number}.py").write_text(SOURCES["a.py"].replace("squares", f"squares{number}"))
    (code / "crash.py").write_text(SOURCES["a.py"])
    with Workers(1, extract, docstrings.lost, least=1) as workers:
        workers.start()
        mined = mine(code, "mine", workers, own=True)
    assert len(mined.pairs) == 40
    assert mined.dropped[docstrings.CRASHED] == 1


def test_a_parser_that_fails_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docstrings, "functions", lambda *_: 1 / 0)
    found = docstrings.extract(File("a.py", SOURCES["a.py"], ""))
    assert dict(found.refused) == {"parser failed (ZeroDivisionError)": 1}


@pytest.mark.parametrize("text", ["def (((" * 5_000, "{" * 100_000, "\x00" * 50, "class " * 20_000])
@pytest.mark.parametrize("path", SOURCES)
def test_any_text_is_survived(path: str, text: str) -> None:
    assert docstrings.extract(File(path, text, "")).pairs == []


# ---- sources -----------------------------------------------------------------------------------------------------


def source(folder: Path, licence: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in SOURCES.items():
        (folder / name).write_text(text)
    if licence is not None:
        (folder / "LICENSE").write_text(licence)
    return folder


def test_a_source_enters_by_its_own_licence(tmp_path: Path) -> None:
    apache = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")
    with extracting(1) as workers:
        taken = mine(source(tmp_path / "a", apache), "a 1", workers)
        none = mine(source(tmp_path / "b"), "b 1", workers)
        other = mine(source(tmp_path / "c", "GNU GENERAL PUBLIC LICENSE\n"), "c 1", workers)
        own = mine(tmp_path / "c", "c 1", workers, own=True)
    assert taken.licence == "Apache-2.0" and {pair.licence for pair in taken.pairs} == {"Apache-2.0"}
    assert len({pair.language for pair in taken.pairs}) >= 9
    assert (none.refused, none.pairs) == ("no licence file", [])
    assert (other.refused, other.pairs) == ("licence not of the allow-list", [])
    assert len(own.pairs) == len(taken.pairs) and not own.refused


def test_a_folder_under_another_licence_is_left_out_and_counted(tmp_path: Path) -> None:
    apache = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")
    own, code = source(tmp_path / "a", apache), SOURCES["a.py"]
    deep = "src/a/b/c/d"
    files = {
        f"{deep}/LICENSE": "Acme Enterprise License\n", f"{deep}/e/one.py": code.replace("squares", "first"),
        "open/LICENSE": apache, "open/two.py": code.replace("squares", "second"),
        "enterprise/z.py": code, "enterprise/zLICENSE.py": code.replace("squares", "third"),
        "enterprise/COPYING": "GNU GENERAL PUBLIC LICENSE\n",
    }  # fmt: skip
    for name, text in files.items():
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_text(text)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:  # here a licence comes behind the files it is of
        for name in sorted((file.relative_to(own).as_posix() for file in own.rglob("*.*")), reverse=True):
            archive.write(own / name, f"a-1/{name}")
        for name in ("LICENSE", *(name for name in files if name.endswith(("LICENSE", "COPYING")))):
            archive.write(own / name, f"a-1/{name}")
    with extracting(1) as workers:
        for path in (own, tmp_path / "a.zip"):
            mined = mine(path, "a 1", workers)
            assert mined.left.counts["folder under another licence"] == 3, path
            assert mined.files == len(SOURCES) + 1
            assert {pair.licence for pair in mined.pairs} == {"Apache-2.0"}
            code_mined = "\n".join(pair.positives[0] for pair in mined.pairs)
            assert "second" in code_mined and not {"first", "third"} & set(code_mined.split("("))
        assert mine(own, "a 1", workers, own=True).left.counts["folder under another licence"] == 0


@pytest.mark.parametrize(
    ("members", "taken"),
    [
        (("a/LICENSE", "a/m.py"), {"a/m.py"}),
        (("setup.py", "a/m.py", "a/LICENSE"), {"setup.py", "a/m.py"}),
        (("package/LICENSE", "package/index.py"), {"package/index.py"}),
        (("a/m.py", "a/LICENSE", "a-1.dist-info/METADATA"), {"a/m.py"}),
        (("a/m.py", "a-1.dist-info/licenses/LICENSE"), {"a/m.py"}),
        (("META-INF/LICENSE", "org/m.py", "com/m.py"), {"org/m.py", "com/m.py"}),
        (("a/LICENSE", "b/m.py"), None),
        (("a/LICENSE", "prop/core.py", "a-1.dist-info/METADATA"), None),
        (("a/LICENSE", "a/m.py", "b/m.py", "a-1.dist-info/LICENSE"), {"a/m.py", "b/m.py"}),
        (("a/m.py", "b/m.py", "b/LICENSE", "a/COPYING", "a-1.dist-info/LICENSE"), {"b/m.py"}),
    ],
)
def test_a_licence_at_the_top_of_one_folder_of_several_is_of_that_folder(
    tmp_path: Path, members: tuple[str, ...], taken: set[str] | None
) -> None:
    """A wheel of two packages was taken whole under the licence that lay in the first of them."""
    texts = {
        "LICENSE": (Path(__file__).parents[2] / "LICENSE").read_text("utf-8"),
        "COPYING": "GNU GENERAL PUBLIC LICENSE\n", "METADATA": "License: Proprietary\n",
    }  # fmt: skip
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as file:
        for at, member in enumerate(members):
            code = f'def squares_{at}(values):\n    """Sum the squares of some numbers."""\n    {BODY}\n'
            file.writestr(member, texts.get(member.rpartition("/")[2], code))
    with extracting(1) as workers:
        mined = mine(tmp_path / "x.whl", "x", workers)
    found = {member for at, member in enumerate(members) for pair in mined.pairs if f"_{at}(" in pair.positives[0]}
    assert found == (taken or set()) and mined.refused == ("" if taken else "no licence file")


@pytest.mark.parametrize("name", ["LICENSE.md", "LICENSE.rst", "COPYING.adoc"])
def test_a_licence_in_markdown_is_no_documentation(name: str, tmp_path: Path) -> None:
    own = source(tmp_path / "a", (Path(__file__).parents[2] / "LICENSE").read_text("utf-8"))
    (own / "ee").mkdir()
    (own / "ee" / name).write_text("# Acme Enterprise License\n\nThe code may be used by who has paid.\n")
    code = "with open(path) as file:\n    for line in file:\n        use(line)"
    (own / "ee" / "guide.md").write_text(f"## Reading a file line by line\n\n```python\n{code}\n```\n")
    (own / "guide.md").write_text((own / "ee" / "guide.md").read_text().replace("use(", "handle("))
    with extracting(1) as workers:
        mined = mine(own, "a 1", workers, tasks=(examples.TASK,))
    assert mined.left.counts["folder under another licence"] == 1
    assert ["handle(" in pair.positives[0] for pair in mined.pairs] == [True]


def test_what_an_evaluation_uses_is_never_mined(tmp_path: Path) -> None:
    with extracting(1) as workers:
        for name in ("django", "flask-2.0.1", "libgson-java_2.8"):
            mined = mine(source(tmp_path / name, "MIT"), name, workers, own=True)
            assert mined.refused.startswith("never trained on"), name
            assert mined.pairs == []


@pytest.mark.parametrize(
    "name",
    [
        "django-main.zip",
        "django-master.zip",
        "django-4e2a3f1b.zip",
        "django-stable-4.2.x.zip",
        "Django-4.2rc1.ZIP",
        "psf-requests-4f6e1d2.zip",
        "tokio-tokio-1.35.0.zip",
        "vue-reactivity-3.4.0.zip",
    ],
)
def test_an_archive_of_an_evaluations_source_is_known_by_its_name(tmp_path: Path, name: str) -> None:
    packed(tmp_path / name, "x/m.py")
    with extracting(1) as workers:
        assert mine(tmp_path / name, name, workers, own=True).refused.startswith("never trained on")


def test_debians_archive_of_an_evaluations_source_is_known_by_its_name(tmp_path: Path) -> None:
    assert "django" in names(tmp_path / "python-django_4.2.orig.tar.xz")
    assert "django" in names(tmp_path / "python-django_4.2+dfsg.orig.tar.xz")
    assert names(tmp_path / "three-3d-1.0.zip")[0] == "three-3d"


@pytest.mark.parametrize(
    ("members", "refused"),
    [
        (("django-main/m.py", "django-main/setup.py"), True),
        (("django/m.py", "Django-4.2.dist-info/METADATA"), True),
        (("django/m.py", "more/m.py"), False),
        (("apps/m.py", "setup.py"), False),
    ],
)
def test_an_archive_that_was_renamed_is_known_by_the_folder_that_holds_it_all(
    tmp_path: Path, members: tuple[str, ...], refused: bool
) -> None:
    packed(tmp_path / "x.zip", *members)
    with extracting(1) as workers:
        mined = mine(tmp_path / "x.zip", "x", workers, own=True)
    assert mined.refused.startswith("never trained on") is refused and bool(mined.pairs) is not refused


def packed(archive: Path, *members: str) -> None:
    code = f'def squares(values):\n    """Sum the squares of some numbers."""\n    {BODY}\n'
    with zipfile.ZipFile(archive, "w") as file:
        for member in members:
            file.writestr(member, code)


def test_copies_within_a_source_are_dropped(tmp_path: Path) -> None:
    folder = source(tmp_path / "a")
    (folder / "copy.py").write_text(SOURCES["a.py"].replace("# kept", "# another remark"))
    with extracting(1) as workers:
        mined = mine(folder, "a", workers, own=True)
    assert mined.dropped["copy of another function"] == 1
    assert [pair.language for pair in mined.pairs].count("python") == 1


def test_a_source_that_fails_half_way_is_an_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.py", SOURCES["a.py"])
        archive.writestr("../b.py", SOURCES["a.py"])
    with extracting(1) as workers, pytest.raises(UsageError, match="path outside the archive"):
        mine(tmp_path / "a.zip", "a", workers, own=True)
    assert list(stream(source(tmp_path / "d"))), "the next source is read all the same"


def clone(folder: Path, origin: str) -> Path:
    subprocess.run(["git", "init", "-q", *["--bare"] * folder.name.endswith(".git"), str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "config", "remote.origin.url", origin], check=True)
    return folder


@pytest.mark.parametrize(
    ("folder", "origin", "name"),
    [
        ("repo", "https://me:secret@github.com/pallets/click.git", "git:pallets/click"),
        ("repo", "git@gitlab.com:group/part/click", "git:group/part/click"),
        ("a.git", "ssh://git@host:22/pallets/click.git/", "git:pallets/click"),
        ("click.git", "/srv/mirror/some.git", "click"),
        ("my click", "file:///srv/mirror/some.git", "my-click"),
    ],
)
def test_a_clone_is_called_by_where_it_is_from(folder: str, origin: str, name: str, tmp_path: Path) -> None:
    root = clone(tmp_path / folder, origin)
    assert called([root]) == [name]
    if not folder.endswith(".git"):
        (root / "src").mkdir()
        assert called([root / "src"]) == ["src"], "a part of it may be anything, as what was unpacked there"


def test_sources_of_one_name_are_told_apart_or_refused(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a/x/src", "b/x/src", "other")]
    for folder in folders:
        folder.mkdir(parents=True)
    assert called(folders) == ["a/x/src", "b/x/src", "other"]
    with pytest.raises(UsageError, match="are one source, other: give it once"):
        called([*folders, tmp_path / "a" / ".." / "other"])
    clones = [clone(tmp_path / name, "https://github.com/pallets/click") for name in ("c", "d")]
    with pytest.raises(UsageError, match="are one source, git:pallets/click: give it once"):
        called(clones)

"""What is read of a query besides its words, and that no query takes long to read."""

from __future__ import annotations

import time

import pytest

from embedcode.search.asked import read

INDEX = "node_modules/@scope/pkg/index.js"


@pytest.mark.parametrize(
    ("query", "paths", "frames"),
    [
        ("see a/cart.py:14, then ./b.ts:3", ("a/cart.py", "./b.ts"), (("a/cart.py", 14), ("./b.ts", 3))),
        ("at total (C:\\shop\\Cart.java:7)", ("Cart.java",), (("\\shop\\Cart.java", 7),)),
        ('File "/srv/a b.py", line 9, in f', ("b.py",), (("/srv/a b.py", 9),)),
        (f"({INDEX}:2)", (INDEX,), ((INDEX, 2),)),
        ("in /src/X.cs:line 1648", ("/src/X.cs",), (("/src/X.cs", 1648),)),
        ("at A.B() in C:\\dev\\X.cs:line 7", ("A.B", "X.cs"), (("\\dev\\X.cs", 7),)),
        ("#0 /app/Kernel.php(42): f()", ("/app/Kernel.php",), (("/app/Kernel.php", 42),)),
        ("error in Kernel.php on line 42", ("Kernel.php",), (("Kernel.php", 42),)),
        ("src/app.ts(12,5): error TS2322", ("src/app.ts",), (("src/app.ts", 12),)),
        ("X.cs(12,34): error CS0103", ("X.cs",), (("X.cs", 12),)),
        ("main.cpp(9) : error C2065", ("main.cpp",), (("main.cpp", 9),)),
        (
            "https://a.com/o/r/blob/main/src/a.py#L40-L50",
            ("//a.com/o/r/blob/main/src/a.py",),
            (("//a.com/o/r/blob/main/src/a.py", 40),),
        ),
        ("see https://a.com/o/r/issues/40", (), ()),
        ("a.get(12) and a.get(1,2) fail", ("a.get",), ()),
        ("from @scope/pkg, and src/lib", ("@scope/pkg", "src/lib"), ()),
        ("git@example.org:group/name.git", ("git@example.org", "group/name.git"), ()),
        (f"a.py:{'1' * 5000}", ("a.py",), (("a.py", 111_111_111),)),  # more digits than int() takes
    ],
)
def test_paths_and_frames(query: str, paths: tuple[str, ...], frames: tuple[tuple[str, int], ...]) -> None:
    asked = read(query)
    assert (asked.paths, asked.frames) == (paths, frames)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("where are templates such as index.html loaded", set()),
        ("read `config.json`, and App/main.module.scss:3", set()),
        ("at com.shop.Cart.total(Cart.java:7)", {"total"}),
        ("see https://example.com/anIssue_of/page.aspx?a_b=cD and (http://aB.org/x)", set()),
        ("response.json() of `request.html` (fetchAll)", {"json", "fetchall"}),
        ("self.socket, vnode.props of Newtonsoft.Json", {"socket", "props", "json"}),
        ("json.loads is slow", {"loads"}),
    ],
)
def test_the_name_of_a_file_is_no_name(query: str, names: set[str]) -> None:
    assert read(query).names == names


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "@",
        ".",
        "a.",
        "@a/",
        "../",
        "\\",
        "a_",
        "a.b1",
        "a::",
        "(a.",
        "aB",
        "? ",
        "é",
        'File "',
        "a://",
        "http://a ",
        "a.b(1",
        "a.b on line ",
    ],
)
def test_a_long_run_of_characters_is_read_at_once(unit: str) -> None:
    before = time.process_time()
    read(unit * (200_000 // len(unit)))
    assert time.process_time() - before < 5  # with each run read again from its every character, minutes

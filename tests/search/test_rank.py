"""The ranking rules: each moves what a person would move, says so, and does nothing else."""

from __future__ import annotations

import pytest

from embedcode.search.asked import read
from embedcode.search.rank import ALL, FRAMES, MASS, NEIGHBOURS, RULES, SPREAD, Ranked, rank
from embedcode.types import Chunk


def chunk(path: str, symbol: str = "", first: int = 1, last: int = 10, text: str = "text") -> Chunk:
    return Chunk("r", path, first, last, "python", symbol, text)


def order(query: str, chunks: list[Chunk], scores: list[float], rules: frozenset[str] = ALL) -> list[Chunk]:
    candidates = [Ranked(i, c, s) for i, (c, s) in enumerate(zip(chunks, scores, strict=True))]
    return [one.chunk for one in rank(read(query), candidates, rules)]


def first(query: str, better: Chunk, worse: Chunk, rule: str) -> None:
    """`better` starts a little behind, and comes first by this one rule and not without it."""
    scores = [0.60, 0.61]
    assert order(query, [better, worse], scores, frozenset()) == [worse, better]
    assert order(query, [better, worse], scores, frozenset({rule})) == [better, worse]
    assert order(query, [better, worse], scores)[0] == better


def test_a_definition_that_the_query_half_remembers() -> None:
    other = chunk("b.py", "Session.close")
    for query in ("flushSession", "session flush", "flush_sess", "Session.flush"):
        first(query, chunk("a.py", "Session.flush"), other, "definition")


@pytest.mark.parametrize("symbol", ["_", "$", "+", "<=>", "[]", "_, $"])
def test_a_symbol_without_a_word_is_a_candidate_like_others(symbol: str) -> None:
    for query in ("area of a shape", "`area` of a shape", "_"):
        assert order(query, [chunk("a.py", symbol), chunk("b.py", "other")], [0.61, 0.60])[0].path == "a.py"


@pytest.mark.parametrize(
    ("query", "symbol", "title"),
    [
        ("cache warmup", "CacheWarmer", "Cache settings for the browser tab"),
        ("cache warmup", "CacheWarmer", "Cache<HashMap<K, Vec>>.insert"),
        ("cache warmup", "Cache.insert", "Cache settings for the browser tab"),
        ("where is `retry` implemented", "Client.retry", "retry of failed uploads on a slow network"),
        ("缓存 预热", "缓存器", "缓存在浏览器标签页中的设置说明"),
    ],
)
def test_the_first_word_of_a_title_is_not_all_of_it(query: str, symbol: str, title: str) -> None:
    code, text = chunk("a.py", symbol), chunk("b.ts", title)
    assert order(query, [text, code], [0.61, 0.60], frozenset({"definition", "named"})) == [code, text]


@pytest.mark.parametrize("rule", ["definition", "named", "stem"])
def test_a_title_is_as_near_as_a_name_of_the_same_words(rule: str) -> None:
    said, joined = "Cache settings for the browser tab", "cacheSettingsForTheBrowserTab"
    chunks = [chunk(f"{said}.ts", said), chunk(f"{joined}.ts", joined)]
    for query in ("cache warmup", "where is `cache` filled"):
        assert order(query, chunks, [0.60, 0.60001], frozenset({rule}))[0] == chunks[1]


def test_a_definition_that_a_sentence_mentions() -> None:
    first("where is the password hashed?", chunk("a.py", "hash_password"), chunk("b.py", "check"), "definition")


def test_a_file_that_is_called_so() -> None:
    first("how does retry work here", chunk("lib/retry.py"), chunk("lib/pool.py"), "stem")


@pytest.mark.parametrize("query", ["`parse_header` fails on tabs", "it fails in parseHeader when there are tabs"])
def test_a_name_written_as_a_name(query: str) -> None:
    first(query, chunk("a.py", "Request.parse_header"), chunk("b.py", "Request.parse_body"), "named")


@pytest.mark.parametrize(
    "query",
    [
        'Traceback:\n  File "/srv/app/shop/cart.py", line 14, in total\nKeyError: 1',
        "panic: runtime error\n\tshop/cart.py:14 +0x1d",
        "    at total (shop/cart.py:14)",
    ],
)
def test_a_frame_of_a_traceback(query: str) -> None:
    first(query, chunk("shop/cart.py", "total", 10, 20), chunk("shop/cart.py", "add", 21, 40), "frames")


def test_a_place_named_alone_is_sure_and_one_of_many_is_not() -> None:
    framed, other = chunk("shop/cart.py", "total", 10, 20), chunk("shop/cart.py", "cart", 21, 40)
    assert order("shop/cart.py:14", [other, framed], [1.0, 0.0])[0] == framed
    many = [chunk(f"shop/m{n}.py", first=10, last=20) for n in range(8)]
    trace = "\n".join(f"  at f (shop/m{n}.py:14)" for n in range(8))
    assert order(trace, [chunk("b.py"), *many], [1.0, *[0.5] * 8], frozenset({"frames"}))[0].path == "b.py"


@pytest.mark.parametrize("typed", ["shop/cart.py", "cart.py", "./shop/cart.py", "/srv/app/shop/cart.py"])
def test_a_path_typed_in_the_query(typed: str) -> None:
    first(f"rounding is wrong in {typed} for two items", chunk("shop/cart.py"), chunk("shop/carts.py"), "paths")


@pytest.mark.parametrize(
    "path",
    [
        *("tests/test_cart.py", "src/test/java/CartTest.java", "cart_test.go", "web/cart.spec.ts", "spec/cart_spec.rb"),
        *("Src/Shop.Tests/Objects/Cart.cs", "Shop.UnitTests/Helpers.cs", "Shop.Test/Cart.cs", "ShopUITests/Cart.swift"),
        *("Tests/Helpers.swift", "Test/cart.php", "Specs/Cart.swift", "cart/tests.py", "src/tests.rs"),
        *("src/androidTest/kotlin/Cart.kt", "shop/src/commonTest/kotlin/Cart.kt", "src/__mocks__/cart.ts"),
        *("cart_unittest.cc", "CartTest.cpp", "CartTests.mm"),
    ],
)
def test_tests_come_after_code_unless_they_are_asked_for(path: str) -> None:
    code, test = chunk("cart.py"), chunk(path)
    first("rounding of prices with two items", code, test, "tests")
    assert (
        order("test of rounding of prices with two items", [code, test], [0.60, 0.61], frozenset({"tests"}))[0] == test
    )


@pytest.mark.parametrize(
    "path",
    [
        *("src/contest.py", "attestation/latest.go", "protest.ts", "src/testing_ground/a.py", "contest/a.rs"),
        *("latest.py", "Attest.java", "Contest.cpp", "latest.rs", "shop/ABTest/Cart.swift", "src/latest/a.kt", "Test"),
    ],
)
def test_what_only_sounds_like_a_test_is_code(path: str) -> None:
    code, other = chunk(path), chunk("cart.py")
    assert order("rounding of prices with two items", [code, other], [0.61, 0.60], frozenset({"tests"})) == [
        code,
        other,
    ]


def test_prose_comes_after_code_unless_it_is_asked_for() -> None:
    first("how are prices rounded", chunk("cart.py"), chunk("docs/prices.md"), "docs")
    page = chunk("docs/prices.md")
    assert (
        order("documentation of price rounding", [chunk("cart.py"), page], [0.60, 0.61], frozenset({"docs"}))[0] == page
    )


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("shop/__init__.py", '"""Prices, rounded."""\n\nfrom shop.price import (\n    Price,\n    rounded as r,\n)\n'),
        ("shop/__init__.py", "# Prices.\nimport shop.price\n\n__all__ = [\n    'Price', 'rounded',\n]\nVERSION = 1"),
        ("src/index.ts", "export { round, Price } from './price';\nexport * from './cart';\nexport {\n  total,\n};"),
        ("src/index.js", "const { round } = require('./price');\nmodule.exports = {\n  round,\n};"),
        ("src/mod.rs", "//! Prices.\n\npub use price::{round, Price};\nmod price;"),
        ("types/cart.d.ts", "declare function round(price: number): number;"),
        ("examples/cart.py", "print(round(price))"),
        ("Examples/Cart.swift", "print(price)"),
        ("Samples/cart.cs", "Round(price);"),
    ],
)
def test_what_only_passes_names_on_comes_later(path: str, text: str) -> None:
    first("how are prices rounded", chunk("shop/price.py"), chunk(path, text=text), "shims")


def test_modules_of_rust_have_symbols_and_no_body() -> None:
    hub = chunk("src/mod.rs", "price, cart", text="pub mod price;\npub(crate) mod cart;")
    first("how are prices rounded", chunk("src/price.rs"), hub, "shims")


@pytest.mark.parametrize(
    ("path", "symbol", "text"),
    [
        (
            "shop/__init__.py",
            "rounded",
            "import math\nimport os\nimport sys\n\ndef rounded(price):\n    return math.ceil(price)",
        ),
        (
            "shop/__init__.py",
            "",
            "STEP = 5\nPRICES = {}\nfor price in load():\n    PRICES[price.id] = round(price, STEP)",
        ),
        ("src/index.ts", "round", "export function round(price: number) {\n  return Math.ceil(price);\n}"),
        ("src/mod.rs", "round", "pub fn round(price: f64) -> f64 {\n    price.ceil()\n}"),
    ],
)
def test_code_in_a_file_that_is_called_like_one_that_passes_names_on_is_code(path: str, symbol: str, text: str) -> None:
    code, other = chunk(path, symbol, text=text), chunk("shop/price.py")
    assert order("how are prices rounded", [code, other], [0.61, 0.60], frozenset({"shims"})) == [code, other]


@pytest.mark.parametrize("query", ["RESET_TIMEOUT", "`RESET_TIMEOUT`", "resetTimeout"])
def test_a_name_that_is_all_of_the_query_is_found_where_it_stands_and_first_where_it_is_defined(query: str) -> None:
    like = chunk(
        "reset.py", "ResetView, reset_timeout_of", text="class ResetView: ...\ndef reset_timeout_of(view): ..."
    )
    used = chunk("tokens.py", "Tokens.check", text="if age > settings.RESET_TIMEOUT:")
    tested = chunk("tests/test_reset.py", "test_reset", text="with settings(\n    RESET_TIMEOUT=1\n):")
    defined = chunk("settings.py", text="# Seconds.\nRESET_TIMEOUT = 60 * 60\nOTHER = 1")
    chunks = [like, used, tested, defined]
    assert order(query, chunks, [1.0, 0.3, 0.5, 0.1]) == [defined, used, tested, like]
    assert order(f"{query} of the view is wrong", chunks, [1.0, 0.3, 0.5, 0.1])[0] == like


def test_a_constant_that_a_sentence_names_is_defined_like_a_function() -> None:
    defined, used = chunk("settings.py", text="RESET_TIMEOUT = 60"), chunk("tokens.py", text="age > RESET_TIMEOUT")
    first("where is RESET_TIMEOUT set and used?", defined, used, "named")


def test_other_files_come_between_two_hits_of_one() -> None:
    one, two, other = chunk("a.py", first=1, last=9), chunk("a.py", first=50, last=60), chunk("b.py")
    assert order("words", [one, two, other], [0.9, 0.80, 0.79], frozenset({SPREAD})) == [one, other, two]


def test_other_places_come_before_a_second_piece_of_one_definition() -> None:
    pieces = [chunk("a.py", "Query.build", first=n, last=n + 9) for n in (1, 11, 21)]
    others = [chunk("a.py", "Query.run", first=50, last=60), chunk("b.py", "build_all"), chunk("c.py")]
    found = order("words", [*pieces, *others], [0.9, 0.89, 0.88, 0.6, 0.58, 0.5], frozenset({SPREAD}))
    assert found == [pieces[0], *others, *pieces[1:]]
    plain = [chunk("a.py", first=n, last=n + 9) for n in (1, 11, 21)]
    assert order("words", [*plain, others[1]], [0.9, 0.89, 0.88, 0.58], frozenset({SPREAD})) == [*plain, others[1]]


def test_neighbours_speak_for_each_other() -> None:
    strong, beside, far = chunk("a.py", first=1, last=9), chunk("a.py", first=10, last=20), chunk("b.py")
    assert order("words", [strong, beside, far], [0.9, 0.60, 0.61], frozenset({NEIGHBOURS})) == [strong, beside, far]


def test_a_file_with_many_candidates_speaks_for_its_best() -> None:
    crowd = [chunk("a.py", first=n, last=n) for n in range(1, 9, 2)]
    lone = chunk("b.py")
    assert order("words", [*crowd, lone], [0.60, 0.5, 0.5, 0.5, 0.61], frozenset({MASS}))[0] == crowd[0]


def test_every_rule_says_that_it_fired_and_only_then() -> None:
    query = "`flush` of the session fails in shop/cart.py: see shop/cart.py:14"
    chunks = [chunk("shop/cart.py", "Cart.flush", 10, 20), chunk("tests/test_cart.py", "test_flush"), chunk("zzz.go")]
    fired = {
        one.chunk.path: set(one.fired)
        for one in rank(read(query), [Ranked(i, c, 0.5) for i, c in enumerate(chunks)], frozenset({*RULES, FRAMES}))
    }
    assert {"named", "frames", "paths"} <= fired["shop/cart.py"]
    assert "tests" in fired["tests/test_cart.py"]
    assert fired["zzz.go"] == set()


def test_a_rule_that_moved_little_is_not_named() -> None:
    query = "where is the session flushed after a visitor has logged out"
    far, near = chunk("a.py", "SessionsConfig"), chunk("b.py", "flush_session")
    ranked = rank(read(query), [Ranked(1, far, 0.9), Ranked(2, near, 0.3)], frozenset({"definition"}))
    assert [(one.score > base, one.fired) for one, base in zip(ranked, (0.9, 0.3), strict=True)] == [
        (True, []),
        (True, ["definition"]),
    ]


@pytest.mark.parametrize(
    "query", ["", "?", "`", "a" * 10_000, "x/" * 5000, 'File "", line 1', "\n".join(["a.py:1"] * 9999)]
)
def test_no_query_is_an_error_or_takes_long(query: str) -> None:
    chunks = [chunk(f"f{n}.py", f"f{n}") for n in range(100)]
    assert len(order(query, chunks, [0.5] * 100)) == 100


def test_without_rules_nothing_moves() -> None:
    chunks = [chunk("tests/test_a.py"), chunk("README.md"), chunk("a.py", "flush")]
    assert order("flush", chunks, [0.9, 0.8, 0.7], frozenset()) == chunks

"""Several repositories in one server: which one a request asks, and which a key may."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from embedcode.errors import UsageError
from embedcode.serve import keys

from .serving import PATIENCE, Server, serving

FILES = {
    "shop": "def forget_visitor(session):\n    session.flush()\n",
    "till": "def gross_price(net):\n    return net\n",
}


@dataclass
class Shops:
    server: Server
    secrets: dict[str, str]

    def ask(self, path: str, body: object = None, key: str = "all") -> tuple[int, Any]:
        status, _, content = self.server.send(path, body, Authorization=f"Bearer {self.secrets[key]}")
        return status, json.loads(content)

    def refused(self) -> float:
        """Requests with a key that was not for them."""
        content = self.server.send("/v1/metrics", Authorization=f"Bearer {self.secrets['all']}")[2].decode()
        name = 'embedcode_refused_requests_total{reason="scope"} '
        return sum(float(line.removeprefix(name)) for line in content.splitlines() if line.startswith(name))

    def found(self, index: str, key: str = "all") -> list[str]:
        status, answer = self.ask("/v1/search", {"query": "price or visitor", "mode": "lexical", "index": index}, key)
        assert status == 200, answer
        return [hit["symbol"] for hit in answer["hits"]]


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shops]:
    home = tmp_path_factory.mktemp("indexes")
    path = home / "keys.toml"
    indexes: dict[str, tuple[str, ...]] = {
        "all": (),
        "till": ("cash desk",),
        "both": ("shop", "cash desk"),
        "no": ("x",),
    }
    secrets = {name: keys.add(path, name, indexes=which) for name, which in indexes.items()}
    for name, text in FILES.items():
        (home / name / ".git").mkdir(parents=True)
        (home / name / "a.py").write_text(text)
    given = ("--api-keys", str(path), "--index", str(home / "shop"), "--index", f"cash desk={home / 'till'}")
    with serving(home, *given) as server:
        made = Shops(server, secrets)
        end = time.monotonic() + PATIENCE
        for index in ("shop", "cash desk"):
            while made.ask("/v1/search/status?index=" + index.replace(" ", "+"))[1].get("embedded") != 1:
                assert time.monotonic() < end
                time.sleep(0.1)
        yield made


def test_a_request_names_its_index(shops: Shops) -> None:
    assert shops.found("shop") == ["forget_visitor"]
    assert shops.found("cash desk") == ["gross_price"]
    assert shops.ask("/v1/search/file", {"path": "a.py", "index": "cash desk"})[1]["lines"][0][0] == ["def", "k"]
    assert shops.ask("/v1/search/related", {"path": "a.py", "index": "shop"})[0] == 200
    assert shops.ask("/v1/search/status?index=shop")[1]["root"].endswith("/shop")
    assert shops.ask("/v1/search/indexes") == (200, {"indexes": ["shop", "cash desk"]})
    for path, body in (
        ("/v1/search", {"query": "a"}),
        ("/v1/search/file", {"path": "a.py"}),
        ("/v1/search/status", None),
    ):
        status, answer = shops.ask(path, body)
        assert (status, answer["error"]["param"]) == (400, "index")
        assert "give index, one of shop, cash desk" in answer["message"]
    status, answer = shops.ask("/v1/search", {"query": "a", "index": "bank"})
    assert (status, answer["error"]["code"]) == (404, "index_not_found")
    assert shops.ask("/v1/search", {"query": "a", "index": 3})[0] == 422


def test_a_key_searches_its_indexes_and_no_other(shops: Shops) -> None:
    before = shops.refused()
    assert shops.ask("/v1/search/indexes", key="till")[1] == {"indexes": ["cash desk"]}
    assert shops.found("", key="till") == ["gross_price"]  # the only one it may
    assert shops.found("cash desk", key="till") == ["gross_price"]
    for path, body in (
        ("/v1/search", {"query": "a", "index": "shop"}),
        ("/v1/search/file", {"path": "a.py", "index": "shop"}),
        ("/v1/search/related", {"path": "a.py", "index": "shop"}),
        ("/v1/search/status?index=shop", None),
        ("/v1/search", {"query": "a", "index": "bank"}),  # whether there is one is not told
    ):
        status, answer = shops.ask(path, body, "till")
        assert (status, answer["error"]["code"]) == (403, "scope")
        assert "forget_visitor" not in json.dumps(answer)
    assert shops.ask("/v1/search", {"query": "a"}, "both")[0] == 400
    assert shops.ask("/v1/search", {"query": "a"}, "no")[0] == 403
    assert shops.ask("/v1/search/indexes", key="no")[1] == {"indexes": []}
    assert shops.refused() == before + 6


def test_the_page_lets_a_person_choose(shops: Shops, browser: Browser) -> None:
    troubles: list[str] = []
    password = {"username": "me", "password": shops.secrets["all"]}
    context = browser.new_context(http_credentials=password)  # type: ignore[arg-type]
    page = context.new_page()
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(f"{shops.server.address}/search")
    expect(page.locator("#index")).to_be_visible()
    expect(page.locator("#root")).to_have_text("shop")
    page.locator("#q").fill("visitor or price")
    page.keyboard.press("Enter")
    expect(page.locator(".hit .symbol").first).to_have_text("forget_visitor")
    page.locator("#index").select_option("cash desk")
    expect(page.locator(".hit .symbol").first).to_have_text("gross_price")
    expect(page.locator("#root")).to_have_text("till")
    assert "index=cash+desk" in page.url
    page.locator(".hit a").first.click()
    expect(page.locator("#text")).to_contain_text("gross_price")
    page.go_back()
    page.go_back()
    expect(page.locator(".hit .symbol").first).to_have_text("forget_visitor")
    context.close()
    assert troubles == []


def test_a_name_that_is_none_is_refused_before_a_key_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no name of an index"):
        keys.add(tmp_path / "keys.toml", "reader", indexes=("a/b",))
    assert not (tmp_path / "keys.toml").exists()
    keys.add(tmp_path / "keys.toml", "reader", indexes=("größe 🙂", 'a"b'))
    assert keys.read(tmp_path / "keys.toml")[0].indexes == ("größe 🙂", 'a"b')

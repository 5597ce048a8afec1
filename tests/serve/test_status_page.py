"""The pages of `embedcode serve` in a headless Chromium, and what they and the OpenAPI document stand on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from .serving import MODEL, Server, serving, shop

CODE = "def forget_visitor(session):\n    session.flush()\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("pages")
    with serving(home, "--index", str(shop(home, CODE))) as server:
        yield server


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    troubles: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda said: troubles.append(said.text) if "Failed to load" not in said.text else None)
    yield page
    context.close()
    assert troubles == []


def test_a_person_sees_the_model_the_load_and_the_last_errors_and_tries_a_text(server: Server, page: Page) -> None:
    server.embed([f"a text {i}" for i in range(20)], input_type="passage")
    server.embed("", input_type="query")
    page.goto(f"{server.address}/")
    expect(page.locator("#model")).to_contain_text(MODEL)
    expect(page.locator("#model")).to_contain_text("ready")
    expect(page.locator("#lanes tr").nth(1)).to_contain_text("passages")
    expect(page.locator("#lanes tr").nth(1)).to_contain_text("ms")
    expect(page.locator("#errors tr").first).to_contain_text("input 0 is empty")
    assert float(page.locator("#rate path").get_attribute("d").count("L")) == 59  # type: ignore[union-attr]
    page.locator("#text").fill("<b>log a visitor out</b>")
    page.keyboard.press("Enter")
    expect(page.locator("#tried p")).to_contain_text("384 dimensions")
    expect(page.locator("#tried rect")).to_have_count(384)
    if place := os.environ.get("EMBEDCODE_SCREENSHOTS"):
        page.screenshot(path=str(Path(place) / "serve.png"))


def test_the_search_page_is_that_of_embedcode_web(server: Server, page: Page) -> None:
    page.goto(f"{server.address}/")
    page.get_by_role("link", name="Search").click()
    page.locator("#q").fill("forget a visitor")
    page.keyboard.press("Enter")
    expect(page.locator(".hit a").first).to_have_text("session.py:1–2")


def test_the_api_page_lists_every_call_and_sends_one(server: Server, page: Page) -> None:
    page.goto(f"{server.address}/docs")
    status, document = server.ask("/openapi.json")
    assert status == 200
    expect(page.locator("details")).to_have_count(sum(map(len, document["paths"].values())))
    call = page.locator("details").first
    call.locator("summary").click()
    expect(call).to_contain_text("embedding_type")
    call.get_by_role("button", name="Send").click()
    expect(call.locator("pre")).to_contain_text("200 OK")
    expect(call.locator("pre")).to_contain_text('"object": "list"')


def test_every_path_of_the_document_answers(server: Server) -> None:
    _, document = server.ask("/openapi.json")
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            status, headers, _ = server.send(path, {} if method == "post" else None)
            assert str(status) in told["responses"], path
            assert status not in (405, 500), path
            assert headers["content-type"].split(";")[0] in ("application/json", "text/plain")


def test_pages_may_run_no_script_but_their_own(server: Server) -> None:
    for path in ("/", "/docs", "/search"):
        _, headers, content = server.send(path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert b"<style" not in content
        assert b" style=" not in content
        assert content.count(b"<script") == 1

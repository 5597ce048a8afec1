"""The page of `embedcode web` in a headless Chromium: what a person sees, types and is protected from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from embedcode.search.rank import ALL, FORMS, KIND
from embedcode.serve.pages import PAGE

from .conftest import Web, ended

Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, web: Web) -> Iterator[Open]:
    """open_page(fragment=..., ...): the page, which must raise no error, dialog or violation of its policy."""
    contexts, troubles = [], []

    def open_page(fragment: str = "", link: str = web.link, width: int = 1280, **options: object) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)  # type: ignore[arg-type]
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda said: troubles.append(said.text) if "Failed to load" not in said.text else None)
        page.goto(link + fragment)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


def ask(page: Page, text: str) -> None:
    page.locator("#q").fill(text)
    page.keyboard.press("Enter")


def taken(page: Page, held: list[Route]) -> Route:
    """The request that is held, as soon as it has come."""
    while not held:
        page.wait_for_timeout(10)
    return held.pop()


def first(page: Page) -> str:
    return page.locator(".hit a").first.inner_text()


# ---- searching ---------------------------------------------------------------------------------------------------


def test_what_is_typed_is_found_and_shown_with_its_reasons(open_page: Open) -> None:
    page = open_page()
    expect(page.locator("#q")).to_be_focused()
    expect(page.locator("#root")).to_have_text("shop")
    expect(page.locator("#intro")).to_contain_text("files in")
    page.keyboard.type("forget a visitor's session")  # and no Enter
    hit = page.locator(".hit").first
    expect(hit.locator("a")).to_have_text("shop/session.py:1–4")
    expect(hit.locator(".symbol")).to_have_text("invalidate_session")
    expect(hit.locator(".no").nth(1)).to_have_attribute("data-line", "2")
    expect(hit.locator(".k").first).to_have_text("def")
    expect(hit.locator(".m").first).to_have_text("session")
    expect(page.locator("#said")).to_have_text(re.compile(r"^\d+ hits\.$"))
    reason = hit.locator(".why span", has_text="vector")
    reason.hover()
    expect(page.locator("#tip")).to_contain_text("closer in meaning")
    hit.locator(".why span", has_text="words").focus()
    expect(page.locator("#tip")).to_contain_text("BM25")


def test_the_address_holds_what_is_asked_and_never_the_token(open_page: Open, web: Web) -> None:
    page = open_page()
    ask(page, "price with tax")
    expect(page.locator(".hit a").first).to_contain_text("prices")
    ask(page, "call again with pauses")
    expect(page.locator(".hit a").first).to_contain_text("retry.js")
    page.go_back()
    expect(page.locator("#q")).to_have_value("price with tax")
    expect(page.locator(".hit a").first).to_contain_text("prices")
    page.go_forward()
    expect(page.locator(".hit a").first).to_contain_text("retry.js")
    page.reload()
    expect(page.locator("#q")).to_have_value("call again with pauses")
    expect(page.locator(".hit a").first).to_contain_text("retry.js")
    assert web.token not in page.url
    other = page.context.new_page()  # a hit opened in another tab
    other.goto(page.url)
    expect(other.locator(".hit a").first).to_contain_text("retry.js")


def test_filters_limit_the_answer_and_can_be_cleared(open_page: Open) -> None:
    page = open_page("&q=price")
    expect(page.locator(".hit").nth(2)).to_be_visible()
    page.get_by_role("button", name="Language: all").click()
    page.locator("#lang label", has_text="javascript").click()
    expect(page.get_by_role("button", name="Language: javascript")).to_be_visible()
    expect(page.locator(".lang", has_text="python")).to_have_count(0)
    page.keyboard.press("Escape")
    page.get_by_role("textbox", name="Only these paths").fill("web/**, *.md")
    page.keyboard.press("Tab")
    expect(page).to_have_url(re.compile(r"lang=javascript&path=web"))
    page.get_by_label("Ranked by").select_option("lexical")
    expect(page.locator(".why", has_text="vector")).to_have_count(0)
    page.reload()
    expect(page.locator("#path")).to_have_value("web/**, *.md")
    expect(page.locator(".hit")).to_have_count(1)
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".lang", has_text="python").first).to_be_visible()


def test_enter_moves_to_the_hits_where_the_keys_work(open_page: Open) -> None:
    page = open_page()
    ask(page, "price with tax")
    expect(page.locator(".hit").first).to_be_focused()
    page.keyboard.press("j")
    expect(page.locator(".hit").nth(1)).to_be_focused()
    expect(page.locator("#q")).to_have_value("price with tax")


def test_code_is_asked_for_in_an_area_of_its_own(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("radio", name="Code").check()
    expect(page.locator("#code")).to_be_focused()
    expect(page.locator("#q")).to_be_hidden()
    page.keyboard.type("def price_with_tax(net, rate):\n    return net * (1 + rate)")
    expect(page.locator(".hit a").first).to_contain_text("prices")
    page.get_by_role("radio", name="Both").check()
    page.locator("#q").fill("forget a session")
    page.keyboard.press("Enter")
    expect(page.locator(".hit .symbol").first).not_to_have_text("")
    page.reload()
    expect(page.locator("#code")).to_have_value(re.compile("^def price_with_tax"))
    expect(page.locator("#q")).to_have_value("forget a session")


def test_a_pasted_text_of_several_lines_is_one_query(open_page: Open) -> None:
    page = open_page()
    page.locator("#q").fill('Traceback (most recent call last):\n  File "shop/prices.py", line 3, in gross_price')
    page.keyboard.press("Enter")
    expect(page.locator(".hit a").first).to_contain_text("shop/prices.py")
    expect(page.locator(".hit").first).to_contain_text("↑ frames")


def test_an_answer_that_comes_late_is_dropped(open_page: Open) -> None:
    page = open_page()
    held = []
    page.route(
        "**/v1/search", lambda route: held.append(route) if "retry" in route.request.post_data else route.continue_()
    )
    ask(page, "retry with pauses")
    page.wait_for_timeout(300)
    ask(page, "price with tax")
    expect(page.locator(".hit a").first).to_contain_text("prices")
    for route in held:
        route.continue_()
    page.wait_for_timeout(300)
    assert "prices" in first(page)
    assert held


def test_what_is_copied_cannot_run_in_a_shell(open_page: Open) -> None:
    page = open_page("&q=hostile_controls")
    page.locator(".hit", has_text="cod").first.click(position={"x": 5, "y": 5})
    page.keyboard.press("c")
    expect(page.locator("#toast")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == r"evil \u202ecod\x1b[31m.py:1"


def test_all_lines_of_a_hit(open_page: Open) -> None:
    page = open_page("&q=audit+trail&path=shop/steps.py")
    expect(page.locator(".hit .row")).to_have_count(10)
    expect(page.locator(".hit .row", has_text="audit_trail(30)")).to_be_visible()  # not merely the first ten
    page.get_by_role("button", name="30 more lines").click()
    expect(page.locator(".hit .row")).to_have_count(40)


# ---- the file ----------------------------------------------------------------------------------------------------


def test_everything_by_keyboard(open_page: Open) -> None:
    page = open_page()
    press, active = page.keyboard.press, "document.activeElement"
    page.keyboard.insert_text("price with tax")  # at once: with every letter the hits may change
    expect(page.locator(".hit").nth(2)).to_be_visible()
    press("ArrowDown")
    expect(page.locator(".hit").first).to_be_focused()
    press("j")
    expect(page.locator(".hit").nth(1)).to_be_focused()
    press("k")
    place = first(page)
    press("Enter")
    expect(page.locator("#name")).to_have_text(place.partition(":")[0])
    expect(page.locator("#text")).to_be_focused()
    line = int(page.locator("#text .at .no").get_attribute("data-line") or 0)
    press("j")
    expect(page.locator("#text .at .no")).to_have_attribute("data-line", str(line + 1))
    press("c")
    expect(page.locator("#toast")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == f"{place.partition(':')[0]}:{line + 1}"
    press("n")
    expect(page.locator("#name")).not_to_have_text(place.partition(":")[0])
    press("Escape")
    expect(page.locator("#file")).to_be_hidden()
    expect(page.locator(".hit").nth(1)).to_be_focused()
    press("Tab")
    assert page.evaluate(f"{active}.closest('.hit').dataset.i") == "1"  # inside the selected hit, not the next one
    press("r")
    expect(page.locator("#likeness")).to_contain_text("Like")
    expect(page).to_have_url(re.compile("related="))
    press("/")
    expect(page.locator("#q")).to_be_focused()
    expect(page.locator("#q")).to_have_value("price with tax")
    press("Escape")
    press("?")
    expect(page.locator("#help")).to_be_visible()
    press("Escape")
    expect(page.locator("#help")).to_be_hidden()


def test_a_file_opens_at_the_line_and_going_back_closes_it(open_page: Open) -> None:
    page = open_page("&q=audit+trail")
    page.locator(".hit", has_text="steps.py").locator(".no[data-line='31']").click()
    expect(page.locator("#name")).to_have_text("shop/steps.py")
    expect(page.locator("#text .row")).to_have_count(40)
    expect(page.locator("#text .in")).to_have_text("total = audit_trail(30)")
    expect(page.locator("#text .in")).to_be_in_viewport()
    expect(page.locator("#text .m")).to_have_text(["audit", "trail"])
    page.reload()
    expect(page.locator("#text .in")).to_have_text("total = audit_trail(30)")
    page.get_by_role("button", name="Related").last.click()
    expect(page.locator("#likeness")).to_contain_text("shop/steps.py:31")
    expect(page.locator("#file")).to_be_hidden()
    page.go_back()
    expect(page.locator("#name")).to_have_text("shop/steps.py")
    page.go_back()
    expect(page.locator("#file")).to_be_hidden()
    expect(page.locator(".hit").first).to_be_visible()


def test_a_file_that_comes_late_takes_neither_the_keyboard_nor_the_place(open_page: Open) -> None:
    page = open_page("&q=price")
    held: list[Route] = []
    page.route("**/v1/search/file", lambda route: held.append(route))

    def open_slowly() -> Route:
        page.keyboard.press("Escape")  # from the box, to the hits
        expect(page.locator(".hit").first).to_be_focused()
        page.keyboard.press("Enter")
        return taken(page, held)

    def come(file: Route) -> None:
        with page.expect_response("**/v1/search/file"):
            file.continue_()
        page.wait_for_timeout(100)

    expect(page.locator(".hit").first).to_be_visible()
    file = open_slowly()
    page.keyboard.press("Escape")
    expect(page).not_to_have_url(re.compile("file="))
    come(file)
    expect(page.locator("#file")).to_be_hidden()
    file = open_slowly()
    page.keyboard.press("/")
    page.keyboard.type("tax")
    expect(page).to_have_url(re.compile("q=tax"))
    come(file)
    expect(page.locator("#file")).to_be_hidden()
    expect(page.locator("#q")).to_be_focused()
    file = open_slowly()
    page.keyboard.press("/")
    come(file)
    expect(page.locator("#file")).to_be_visible()
    expect(page.locator("#q")).to_be_focused()  # who went there is about to type


# ---- what a repository may try -----------------------------------------------------------------------------------


def test_hostile_names_and_contents_are_text(open_page: Open) -> None:
    page = open_page("&q=hostile")
    names = page.locator(".hit a")
    expect(names.filter(has_text="<img src=x onerror=alert(1)>.py:1–2")).to_have_count(1)
    expect(names.filter(has_text=r"evil \u202ecod\x1b[31m.py")).to_have_count(1)
    code = page.locator("#hits")
    expect(code).to_contain_text("'<script>alert(2)</script></code><b>bold'")
    expect(code).to_contain_text(r"# \u202e } if admin \u2066 then\x07")
    expect(code).to_contain_text("{{7*7}} ${7*7}")
    found = names.all_text_contents()
    for i in range(2):
        names.nth(i).click()
        expect(page.locator("#name")).to_have_text(names.nth(i).inner_text().partition(":")[0])
        page.locator("#related").click()
        expect(page.locator("#likeness b")).to_contain_text(".py:1")
        page.get_by_role("button", name="Back to words").click()
        expect(page.locator("#q")).to_be_visible()
        expect(names).to_have_text(found)  # and not what is related to the last one, for a moment
    assert page.locator("img, iframe, object, #hits script, #hits b b").count() == 0
    assert page.locator("script").count() == 1
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", page.locator("body").inner_text())


def test_the_policy_stops_scripts_and_markup_even_if_the_page_had_a_hole(browser: Browser, web: Web) -> None:
    page = browser.new_page()
    page.goto(web.link)
    expect(page.locator("#intro")).to_contain_text("files in")
    tried = """() => {
        try { document.body.innerHTML = '<b>x</b>'; return 'markup' } catch {}
        const script = document.createElement('script');
        try { script.textContent = 'window.ran = true'; document.body.append(script) } catch {}
        return String(window.ran);
    }"""
    violations = page.evaluate(
        f"""async () => {{
            const seen = [];
            addEventListener('securitypolicyviolation', (event) => {{ seen.push(event.effectiveDirective) }});
            const result = ({tried})();
            await fetch('https://example.invalid/').catch(() => 0);
            await new Promise((done) => setTimeout(done, 50));
            return [result, ...seen];
        }}"""
    )
    assert violations[0] == "undefined"
    assert "connect-src" in violations
    assert "require-trusted-types-for" in violations
    page.close()


def test_a_line_of_a_megabyte_is_cut(open_page: Open) -> None:
    page = open_page("&q=a+line+about+parcels&mode=lexical")
    expect(page.locator(".hit", has_text="notes.txt").locator("code")).to_contain_text("more characters")
    page.locator(".hit a", has_text="notes.txt").click()
    expect(page.locator("#text code")).to_contain_text("more characters")
    assert len(page.locator("#text").inner_text()) < 2000


# ---- states and looks --------------------------------------------------------------------------------------------


def test_no_hits_mistakes_and_a_wrong_link_are_said(open_page: Open, web: Web) -> None:
    page = open_page("&q=price&path=nowhere/**")
    expect(page.locator("#summary")).to_contain_text("No hits; no file passes the filters together: check")
    expect(page.locator("#said")).to_contain_text("No hits; no file passes the filters together: check")
    page.get_by_role("textbox", name="Only what changed since").fill("no-such-branch")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("git")
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".hit").first).to_be_visible()
    expect(page.locator("#problem")).to_be_hidden()
    stranger = open_page(link=f"http://127.0.0.1:{web.port}/")
    expect(stranger.get_by_role("alert")).to_contain_text("use the link that `embedcode web` printed")


@pytest.mark.slow
def test_an_index_that_is_being_made_shows_how_far_it_is(open_page: Open, start: Callable[..., Web]) -> None:
    words = ["open", "close", "send", "read", "parse", "merge", "split", "sort"]
    files = {
        f"{one}_{two}.py": "".join(
            f"def {one}_{two}_{three}(value):\n    '''Will {one}, {two} and {three} a value in one go.'''\n"
            f"    return {three}({two}({one}(value)), '{one}')\n\n\n"
            for three in words
        )
        for one in words
        for two in words
    }
    web = start(files)
    page = open_page("&q=merge+and+sort+a+value", link=web.link)
    progress = page.get_by_role("progressbar")
    expect(progress).to_be_visible()
    expect(page.locator("#state")).to_contain_text(re.compile(r"Reading|Vectors \d+ %"))
    expect(page.locator(".hit").first).to_be_visible()
    page.get_by_role("button", name="search again").click(timeout=60_000)
    expect(progress).to_be_hidden()
    expect(page.locator(".hit .why").first).to_contain_text("vector")
    ended(web)
    ask(page, "something else")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer. Run `embedcode web` again")


def test_a_look_at_the_index_that_fails_is_followed_by_another(open_page: Open, web: Web) -> None:
    page = open_page()
    expect(page.locator("#root")).to_have_text("shop")
    page.route("**/v1/search/status?*", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"), times=2)
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("What answered (502) is not the server")
    expect(page.locator("#root")).to_have_text("shop")
    expect(page.locator("#problem")).to_be_hidden()
    expect(page.locator("#intro")).to_contain_text("files in")


def test_a_search_that_is_too_early_says_so_once(open_page: Open) -> None:
    page = open_page()
    expect(page.locator("#intro")).to_contain_text("files in")
    held: list[Route] = []
    page.route("**/v1/search", lambda route: held.append(route))
    problem = page.locator("#problem")

    def search() -> Route:
        page.keyboard.press("Enter")
        while not (mine := [one for one in held if one.request.post_data_json["update"]]):  # and not as one types
            page.wait_for_timeout(10)
        held.clear()
        return mine[-1]

    def refuse(route: Route) -> None:
        with page.expect_response("**/v1/search"):
            route.fulfill(status=503, json={"message": "the repository is first read."})

    page.locator("#q").fill("price")
    refuse(search())
    expect(problem).to_have_text("The repository is first read.")
    expect(problem).to_have_attribute("role", "status")  # and no alert, which interrupts
    page.evaluate(
        """() => {
            window.changes = 0;
            const watched = {attributeFilter: ["hidden"], childList: true, characterData: true, subtree: true};
            new MutationObserver((seen) => { window.changes += seen.length }).observe(
                document.getElementById("problem"), watched);
        }"""
    )
    refuse(search())
    again = search()
    expect(problem).to_be_visible()
    assert page.evaluate("window.changes") == 0
    again.continue_()
    expect(page.locator(".hit").first).to_be_visible()
    expect(problem).to_be_hidden()


def test_what_a_proxy_answers_is_said_and_asked_again_with_a_pause(open_page: Open) -> None:
    page = open_page()
    tried: list[Route] = []
    wrong: dict[str, Any] = {}

    def answer(route: Route) -> None:
        tried.append(route)
        route.fulfill(**wrong)

    page.route("**/v1/search", answer)
    for status, body in ((500, {}), (501, {"message": ""}), (502, {"message": {"code": 1}}), (504, None)):
        wrong |= {"status": status, "json": body}
        ask(page, "price")
        expect(page.get_by_role("alert")).to_contain_text(f"What answered ({status}) is not the server")
    tried.clear()
    wrong |= {"status": 503, "headers": {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}}
    page.keyboard.press("Enter")
    expect(page.locator("#problem")).to_contain_text("What answered (503) is not the server")
    page.wait_for_timeout(300)
    assert len(tried) == 1


def test_braces_in_the_filter_of_paths_are_refused_in_a_sentence(open_page: Open) -> None:
    page = open_page("&q=price")
    expect(page.locator(".hit").first).to_be_visible()
    page.locator("#path").fill("shop/**, web/*.{js,ts}, {{name}}, *.py")
    with page.expect_request("**/v1/search") as sent:
        page.keyboard.press("Tab")
    assert sent.value.post_data_json["paths"] == ["shop/**", "web/*.{js,ts}", "{{name}}", "*.py"]
    expect(page.get_by_role("alert")).to_contain_text("give a path for each of the alternatives")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_of_text_can_be_read(open_page: Open, scheme: str) -> None:
    """WCAG AA: a contrast of 4.5 to 1, on each ground that the text stands on."""
    page = open_page("&q=forget+a+session&file=shop/session.py:1-4", color_scheme=scheme)
    expect(page.locator("#text .in").first).to_be_visible()
    lowest = page.evaluate(
        """() => {
            const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3)
                .map((part) => part / 255).map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
                .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
            const ground = (node) => {
                const back = getComputedStyle(node).backgroundColor;
                return back === 'rgba(0, 0, 0, 0)' && node.parentElement ? ground(node.parentElement) : back;
            };
            const ratio = (node) => {
                const [low, high] = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => a - b);
                return (high + .05) / (low + .05);
            };
            const row = document.querySelector('#text .in code');
            for (const kind of 'k s n t c d x m'.split(' ').flatMap((k) => [k, `${k} m`])) {
                const span = document.createElement('span');
                span.className = kind;
                span.textContent = 'x';
                row.append(span);
            }
            document.getElementById('problem').hidden = false;
            const told = [...document.querySelectorAll('span, p, a, b, code, button, h1, h2, label, input, bdi')]
                .filter((node) => node.checkVisibility() && node.textContent);
            return told.map((node) => [ratio(node), node.className || node.id || node.tagName])
                .sort((a, b) => a[0] - b[0])[0];
        }"""
    )
    assert lowest[0] >= 4.5, lowest


def test_light_and_dark(open_page: Open) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light, dark = (open_page(color_scheme=scheme) for scheme in ("light", "dark"))
    grounds = [page.evaluate(ground) for page in (light, dark)]
    assert grounds[0] != grounds[1]
    light.get_by_role("button", name="light and dark").click()
    assert light.evaluate(ground) == grounds[1]
    light.reload()
    assert light.evaluate(ground) == grounds[1]


def test_a_narrow_screen(open_page: Open) -> None:
    page = open_page("&q=price", width=360)
    page.locator(".hit").first.wait_for()
    page.get_by_role("button", name="Filters").click()
    expect(page.locator("#path")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.locator(".hit a").first.click()
    expect(page.locator("#text .in").first).to_be_in_viewport()
    assert page.locator("#file").bounding_box() == {"x": 0, "y": 0, "width": 360, "height": 800}
    page.get_by_role("button", name="Close the file").click()
    expect(page.locator(".hit").first).to_be_visible()


def test_every_control_has_a_name(open_page: Open) -> None:
    page = open_page("&q=price&file=shop/prices.py:1-3")
    expect(page.locator("#text .in").first).to_be_visible()
    unnamed = """[...document.querySelectorAll('button, input, select, textarea, a')].filter((node) =>
        node.checkVisibility() && !(node.textContent.trim() || node.ariaLabel || node.labels?.[0]?.textContent.trim()))
        .map((node) => node.outerHTML)"""
    assert page.evaluate(unnamed) == []


def test_every_rule_that_moves_a_hit_is_explained() -> None:
    script = (PAGE / "signals.js").read_text("utf-8")
    for rule in ALL - {FORMS, KIND}:  # those work on the lists
        assert re.search(rf"^  {rule}: \[\"[↑↓]\", \"\w", script, re.MULTILINE), rule


def test_the_page_is_small_and_alone() -> None:
    texts = {path.name: path.read_text("utf-8") for path in Path(PAGE).iterdir()}
    loaded = ("index.html", "elements.js", "server.js", "signals.js", "app.js", "style.css")
    assert sum(len(texts[name].encode()) for name in loaded) < 50_000
    for text in texts.values():
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|https?://(?!www\.w3\.org)", text
        )

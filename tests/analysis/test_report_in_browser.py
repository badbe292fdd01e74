"""The report in a real headless Chromium, at desktop and phone width."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from analysis.verify import verify
from tests.extras import needs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = {"desktop": 1280, "phone": 390}
CLAIMS = ["theory", "dcpo/response-utilisation", "ce-gppo/zero-betas-are-ppo"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed; Debian's package is `chromium`")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return verify(CLAIMS, out=tmp_path_factory.mktemp("browser") / "run", jobs=1, seeds=6).report


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    needs("playwright")
    from playwright import sync_api as playwright

    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"],
        )
        yield started
        started.close()


@pytest.fixture(params=WIDTHS)
def page(request: pytest.FixtureRequest, browser: Browser, report: Path) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": WIDTHS[request.param], "height": 900})
    requests: list[str] = []
    problems: list[str] = []
    opened.on("request", lambda sent: requests.append(sent.url))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    opened.goto(report.as_uri())
    yield opened
    screenshots = os.environ.get("TESTBED_SCREENSHOTS")
    if screenshots:
        opened.screenshot(path=Path(screenshots) / f"report-{request.param}.png", full_page=True)
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == [], "the report asked the network"
    assert problems == []
    opened.close()


def visible_rows(page: Page) -> int:
    return page.locator("tr[data-claim]:not([hidden])").count()


def test_nothing_overflows_the_window(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    clipped = page.evaluate(
        """[...document.querySelectorAll('h1, h2, h3, h4, h5, p, td, dd, dt')]
           .filter(e => e.offsetParent && e.getBoundingClientRect().right > innerWidth + 1).length"""
    )
    assert clipped == 0


def test_every_claim_has_a_row_and_an_anchor_that_leads_to_it(page: Page) -> None:
    rows = page.locator("tr[data-claim]")
    assert rows.count() >= 7
    for index in range(rows.count()):
        target = rows.nth(index).locator("a").first.get_attribute("href")
        assert target is not None
        assert page.locator(target).count() == 1
    page.locator("tr[data-claim] a").first.click()
    # The page scrolls smoothly, so the target arrives a little later.
    page.wait_for_function("document.querySelector(location.hash).getBoundingClientRect().top < innerHeight")


def test_filters_hide_and_show(page: Page) -> None:
    everything = visible_rows(page)
    page.locator("select[name=paper]").select_option("DCPO")
    assert visible_rows(page) == 1
    assert "1 of" in page.locator("output").inner_text()
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function(f"document.querySelectorAll('tr[data-claim]:not([hidden])').length === {everything}")


def test_the_keyboard_reaches_the_filters_and_shows_where_it_is(page: Page) -> None:
    seen: list[str] = []
    for _ in range(12):
        page.keyboard.press("Tab")
        focused: dict[str, Any] = page.evaluate(
            """(() => { const e = document.activeElement, s = getComputedStyle(e);
                return {tag: e.tagName, name: e.name || '',
                        outline: parseFloat(s.outlineWidth), style: s.outlineStyle}; })()"""
        )
        seen.append(focused["name"] or focused["tag"])
        assert focused["style"] != "none"
        assert focused["outline"] >= 2, f"no visible focus on {focused}"
    assert {"paper", "verdict", "tier"} <= set(seen)
    # A select answers to the keyboard as well.
    page.locator("select[name=paper]").focus()
    page.keyboard.press("d")
    page.keyboard.press("Enter")
    assert page.locator("select[name=paper]").input_value() == "DCPO"
    assert visible_rows(page) == 1


def test_text_contrast_is_at_least_aa(page: Page) -> None:
    # WCAG 2.1: relative luminance from linearised sRGB; 4.5 for text, 3 for text of 24 px and more.
    failures = page.evaluate(
        """(() => {
            const linear = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
            const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
            const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
            const background = e => { for (; e; e = e.parentElement) {
                const c = parse(getComputedStyle(e).backgroundColor);
                if (c[3] > 0.99) return c; }
                return [255, 255, 255]; };
            const bad = [];
            const texts = 'h1,h2,h3,h4,h5,p,td,th,dt,dd,a,button,select,label,code,pre,output,span';
            for (const e of document.querySelectorAll(texts)) {
                const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
                if (!own || !e.offsetParent) continue;
                const s = getComputedStyle(e), a = luminance(parse(s.color)), b = luminance(background(e));
                const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                const least = parseFloat(s.fontSize) >= 24 ? 3 : 4.5;
                if (contrast < least) bad.push([e.textContent.slice(0, 30), contrast]);
            }
            return bad;
        })()"""
    )
    assert failures == []


def test_headings_descend_without_gaps(page: Page) -> None:
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(e => Number(e.tagName[1]))")
    assert levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))


def test_works_without_javascript(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(report.as_uri())
    assert plain.locator("tr[data-claim]").count() >= 7
    assert not plain.locator("#filter").is_visible(), "a filter that cannot work must not be shown"
    context.close()

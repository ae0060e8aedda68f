"""The report page in a real Chromium: nothing is asked of the network, nothing overflows, nothing hostile runs."""

import shutil

import pages
import pytest

from helpers import report

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZES = {"phone": (360, 740), "desktop": (1280, 900)}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = pages.results(tmp_path_factory.mktemp("report in a browser") / "digits")
    return report.write("digits", folder=folder).as_uri()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids="-".join)
def visit(request, browser, address):
    """The page as opened, with what it said and asked for."""
    size, scheme = request.param
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda one: asked.append(one.url))
    page.goto(address)
    yield page, said, asked
    page.close()


def test_the_page_in_a_browser(visit, address):
    page, said, asked = visit
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    images = page.locator("img")
    assert images.count() == 4
    for i in range(images.count()):
        images.nth(i).scroll_into_view_if_needed()
        images.nth(i).evaluate("one => one.decode()")
        assert images.nth(i).evaluate("one => one.naturalWidth") > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert page.evaluate("window.broken") is None
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address]


def test_wide_tables_scroll_inside_themselves(visit):
    page, _, _ = visit
    box = page.locator("figure .scroll").first
    inside, outside = box.evaluate("one => [one.scrollWidth, one.clientWidth]")
    assert inside > outside
    box.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("one => one.scrollLeft > 0", arg=box.element_handle())


def test_text_can_be_read_in_both_schemes(visit):
    page, _, _ = visit
    # WCAG 2: contrast of text against the page at least 4.5, and of coloured words too.
    ratio = """selector => {
        const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const light = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number).map(channel)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const back = light(getComputedStyle(document.body).backgroundColor);
        const front = light(getComputedStyle(document.querySelector(selector)).color);
        return (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
    }"""
    for selector in ("h1", ".soft", "a", "td.ok", "td.failed", "td.other", "figcaption", "summary"):
        if page.locator(selector).count():
            assert page.evaluate(ratio, selector) >= 4.5, selector


def test_links_in_the_page_work(visit):
    page, _, _ = visit
    page.locator("#runs a", has_text="02_training_dynamics").first.click()
    page.wait_for_function("location.hash === '#02_training_dynamics'")
    assert page.locator("#\\30 2_training_dynamics .error").is_visible()

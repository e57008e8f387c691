"""The explorer in a real browser: opened from disk, without network, and clicked."""
import os
import shutil
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
SHOTS = os.environ.get("ZEROINIT_SHOTS")  # a folder that keeps screenshots
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync".split()


@pytest.fixture(scope="module")
def page_of(call, tmp_path_factory):
    """Write the explorer for a folder of records, by the command."""

    def made(results):
        out = tmp_path_factory.mktemp("explorer") / "explorer.html"
        call("zeroinit", "explorer", "--out", out, "--results-root", results)
        return out

    return made


@pytest.fixture
def browser():
    if not CHROMIUM:
        pytest.skip("there is no Chromium here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def opened(browser, path, wrong, **look):
    page = browser.new_context(offline=True, **look).new_page()
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else wrong.append(r.url))
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.goto(path.as_uri())
    return page


def marks(page, view):
    return page.locator(f"#{view} svg").inner_html()


def test_picked_and_clicked(page_of, browser):
    path, wrong = page_of(TOP / "results"), []
    assert path.stat().st_size < 5_000_000
    page = opened(browser, path, wrong)
    page.wait_for_selector("body[data-ready]")

    def pick(name, value):
        before = {v: marks(page, v) for v in ("curves", "waking", "ranks")}
        page.select_option(f"#{name}", value)
        page.wait_for_timeout(500)
        return {v for v in before if marks(page, v) != before[v]}

    pick("work", "Schicho (2023)")
    pick("suite", "schicho-mnist")
    pick("dataset", "mnist")
    pick("model", "fnn")
    assert "seeds a line" in page.text_content("#told")
    assert pick("protocol", "published") >= {"curves", "ranks"}  # layers may wake at the same updates
    shown = page.locator("#lines label:visible")
    assert shown.count() >= 5
    lines = page.locator("#curves .mark-line.role-mark path").count()
    before = marks(page, "curves")
    page.click("#lines label:visible:has(input[value=zero])")
    page.wait_for_timeout(500)
    assert marks(page, "curves") != before and page.locator("#curves .mark-line.role-mark path").count() == lines - 1
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/explorer.png", full_page=True)
    assert pick("work", "Seo (2025)") == {"curves", "waking", "ranks"}
    assert page.input_value("#suite") != "schicho-mnist"  # what does not go with the pick is picked anew
    page.select_option("#claims", "Seo (2025)")
    assert page.locator("tr[data-work]:visible").count() == 6
    assert wrong == []


@pytest.mark.parametrize("look", ["dark", "phone"])
def test_dark_and_narrow(page_of, browser, look):
    wrong = []
    page = opened(browser, page_of(TOP / "results"), wrong, **(dict(color_scheme="dark") if look == "dark" else dict(viewport=dict(width=390, height=844))))
    page.wait_for_selector("body[data-ready]")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
    background, ink = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('#curves svg text')).fill]")
    assert (background, ink) == (("rgb(18, 18, 18)", "rgb(221, 221, 221)") if look == "dark" else ("rgb(255, 255, 255)", "rgb(34, 34, 34)"))
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/explorer-{look}.png", full_page=True)
    assert wrong == []


def test_without_records(page_of, browser, tmp_path):
    wrong = []
    page = opened(browser, page_of(tmp_path / "nothing"), wrong)
    assert "there are no records in nothing" in page.text_content("body") and "zeroinit run demo" in page.text_content("body")
    assert wrong == []

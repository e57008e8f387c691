"""The site: built without a warning, no broken link, read in a real browser without network."""
import functools
import http.server
import os
import re
import shutil
import sys
import threading
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

SHOTS = os.environ.get("ZEROINIT_SHOTS")  # a folder that keeps screenshots
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class Page(HTMLParser):
    """What a page links to, the anchors it has, and its pictures without words."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.mute = [], set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.anchors |= {a[k] for k in ("id", "name") if a.get(k)}
        self.links += [a[k] for k in ("href", "src") if a.get(k)]
        if tag == "img" and not a.get("alt"):
            self.mute.append(a.get("src"))


@pytest.fixture(scope="module")
def site(tree, call, tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    call(sys.executable, "-c", f"from zeroinit.site import pages; pages({str(out)!r})")
    done = call(sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", out / "source", out / "html")
    assert done.stderr == ""
    return out / "html"


def test_links_and_words(site):
    pages = {p.resolve(): Page(p) for p in site.rglob("*.html") if p.name != "explorer.html" and "_static" not in p.parts}
    assert len(pages) > 90
    broken, mute = [], []
    for path, page in pages.items():
        mute += [(path.name, src) for src in page.mute]
        for link in page.links:
            u = urlsplit(link)
            if u.scheme or link.startswith(("//", "#!")):
                continue
            to = (path.parent / unquote(u.path)).resolve() if u.path else path
            anchor = u.fragment and to in pages and unquote(u.fragment) not in pages[to].anchors
            if not to.exists() or anchor:
                broken.append((path.relative_to(site).as_posix(), link))
    assert broken == [] and mute == []


def test_pages_speak_of_what_they_are_for(site):
    def text(name):
        return re.sub(r"<[^>]+>", " ", (site / name).read_text())

    assert "learning moves from the output to the input" in text("index.html")
    assert "verdict" in text("nbs/fig_forest.html").lower()
    assert "source of all randomness" in text("api/inits.html")
    assert "mine.py" in text("docs/extend.html")


def test_without_records(call, tmp_path):
    """The site is put together all the same, and says what is missing."""
    call(sys.executable, "-c", f"from zeroinit.site import pages; pages({str(tmp_path / 'out')!r}, {str(tmp_path / 'nothing')!r})")
    assert "There are no records in nothing/" in (tmp_path / "out/source/index.md").read_text()
    assert "There are no records" in (tmp_path / "out/source/extra/explorer.html").read_text()


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
def test_in_a_browser(site):
    from playwright.sync_api import sync_playwright

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}"
    flags = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync".split()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=flags)
        away, wrong = [], []
        for name, look in dict(light={}, dark=dict(color_scheme="dark"), phone=dict(viewport=dict(width=390, height=844))).items():
            page = browser.new_context(**look).new_page()
            page.on("request", lambda r: None if r.url.startswith((home, "data:", "blob:")) else away.append(r.url))
            page.on("pageerror", lambda e: wrong.append(str(e)))
            for i, path in enumerate(("index", "nbs/story_order", "nbs/fig_forest", "gallery", "docs/extend", "api/inits", "nbs/schemes")):
                page.goto(f"{home}/{path}.html")
                if name == "phone":
                    assert page.evaluate("document.documentElement.scrollWidth") <= 391, path
                if SHOTS:
                    page.screenshot(path=f"{SHOTS}/{name}-{i}.png", full_page=i < 3)
            if name == "dark":
                assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.goto(f"{home}/search.html?q=orthogonal")
        page.wait_for_selector("ul.search li a")
        assert page.locator("ul.search li").count() > 2
        browser.close()
    server.shutdown()
    assert away == [] and wrong == []

"""The site: built without a warning, no broken link, nothing from elsewhere, read in a real browser without network."""

import functools
import http.server
import os
import re
import shutil
import sys
import threading
from collections import Counter
from configparser import ConfigParser
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from zeroinit.publish.site import heading

TOP = Path(__file__).resolve().parent.parent
SHOTS = os.environ.get("ZEROINIT_SHOTS")  # a folder that keeps screenshots
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SAYS_NOTHING = re.compile(
    r"^(It reads |What happens$|What was claimed$|\d+$|\W*$)|\| *hide|google\.colab|\bimport |zeroinit report. runs it"
)
HOSTS = {"altair-viz.github.io"}  # of other works and tools that a page names
COLAB, OURS = (
    "https://colab.research.google.com/github/zeroinit/zeroinit/blob/main/",
    "https://github.com/zeroinit/zeroinit",
)
COMPUTERS = re.compile(r"0x[0-9a-f]{8,}|/home/|/root/|/tmp/")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class Page(HTMLParser):
    """What a page links to and loads, the anchors it has, its headings, its pictures' words, and its text."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.anchors, self.alts, self.headings, self.text, self.inside = (
            [],
            [],
            set(),
            [],
            [],
            [],
            [],
        )
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.anchors |= {a[k] for k in ("id", "name") if a.get(k)}
        self.links += [a[k] for k in ("href", "src") if a.get(k)]
        if tag in ("script", "img", "iframe", "source", "video") or (
            tag == "link" and a.get("rel") in ("stylesheet", "preload", "icon")
        ):
            self.loads += [a[k] for k in ("src", "href") if a.get(k)]
        if tag == "img" and "_images/" in a.get("src", ""):
            self.alts.append(a.get("alt") or "")
        if tag in ("h1", "h2", "h3") and "article" in self.inside:
            self.headings.append((tag, ""))
        if tag in ("article", "h1", "h2", "h3", "script", "style", "pre", "code"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass

    def handle_data(self, data):
        if "article" in self.inside and {"h1", "h2", "h3"} & set(self.inside) and data != "#":
            self.headings[-1] = (self.headings[-1][0], self.headings[-1][1] + data)
        if not {"script", "style", "pre", "code"} & set(self.inside):
            self.text.append(data)


def build(call, out):
    done = call(
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        out / "source",
        out / "html",
    )
    assert done.stderr == ""


@pytest.fixture(scope="module")
def site(tree, call, tmp_path_factory):
    """Built twice: without records, which changes the first page and the explorer, and with them."""
    out = tmp_path_factory.mktemp("site")
    call(
        sys.executable,
        "-c",
        f"""
from zeroinit.publish.site import pages
pages({str(out / "full")!r}); pages({str(out)!r}, {str(out / "nothing")!r})""",
    )
    build(call, out)
    shutil.copytree(
        out / "html",
        out / "empty",
        ignore=lambda folder, names: [n for n in names if n not in ("index.html", "explorer.html")],
    )
    for name in ("index.md", "extra/explorer.html"):
        shutil.copy(out / "full/source" / name, out / "source" / name)
    build(call, out)
    return out / "html"


@pytest.fixture(scope="module")
def read(site):
    """Every page but the explorer, by its name."""
    return {
        p.relative_to(site).as_posix(): Page(p)
        for p in site.rglob("*.html")
        if p.name != "explorer.html" and "_static" not in p.parts
    }


def test_links(site, read):
    assert len(read) > 90
    broken, foreign = [], []
    for name, page in read.items():
        path = site / name
        foreign += [(name, link) for link in page.loads if urlsplit(link).netloc]
        for link in page.links:
            u = urlsplit(link)
            if u.scheme or link.startswith(("//", "#!")):
                continue
            to = (path.parent / unquote(u.path)).resolve() if u.path else path.resolve()
            there = to.exists() and (
                to.suffix != ".html"
                or to.name == "explorer.html"
                or to.relative_to(site.resolve()).as_posix() in read
            )
            anchor = (
                u.fragment
                and there
                and to.suffix == ".html"
                and unquote(u.fragment)
                not in read[to.relative_to(site.resolve()).as_posix()].anchors
            )
            if not there or anchor:
                broken.append((name, link))
    assert broken == [] and foreign == []


def strange(link):
    """Whether a link that leaves the site is one that nobody vouches for; nothing is fetched."""
    u = urlsplit(link)
    if (
        u.scheme in ("data", "blob", "mailto", "")
        or link in (OURS, OURS + "/issues")
        or u.scheme == "https"
        and u.netloc in HOSTS
    ):
        return False
    if u.scheme != "https":
        return True
    if link.startswith(COLAB):
        return not (link.endswith(".ipynb") and (TOP / unquote(link[len(COLAB) :])).is_file())
    if link.startswith(OURS):
        kind, branch, path = ([*u.path.split("/", 5)[3:], "", ""])[:3]
        return (
            kind not in ("blob", "tree", "raw")
            or branch != "main"
            or not (TOP / unquote(path)).exists()
        )
    return not (u.netloc == "doi.org" and re.fullmatch(r"/10\.\d{4,9}/\S+", u.path))


def test_links_that_leave_the_site_have_a_known_shape(read):
    found = {
        link
        for page in read.values()
        for link in page.links
        if urlsplit(link).scheme or link.startswith("//")
    }
    assert any(link.startswith(COLAB) for link in found) and any(
        "doi.org" in link for link in found
    )
    assert sorted(filter(strange, found)) == []


@pytest.mark.parametrize(
    "link",
    [
        OURS + "/blob/main/nothing.py",
        COLAB + "nbs/nothing.ipynb",
        "https://doi.org/nothing",
        "http://example.org",
        "https://example.org/x",
    ],
)
def test_a_wrong_link_is_seen(link):
    assert strange(link)


def test_pictures_and_headings_say_what_is_there(read):
    odd = [
        (name, alt)
        for name, page in read.items()
        for alt in page.alts
        if len(alt) < 15 or SAYS_NOTHING.search(alt)
    ]
    twice = [
        (name, alt) for name, page in read.items() for alt, n in Counter(page.alts).items() if n > 1
    ]
    code = [
        (name, h)
        for name, page in read.items()
        for _, h in page.headings
        if not h.strip() or re.search(r"\| *hide|google\.colab|^import ", h)
    ]
    assert odd == [] and twice == [] and code == []
    assert sum(len(page.alts) for page in read.values()) > 30


def test_gallery_has_every_figure_under_its_notebooks_title(read):
    import nbformat

    names = sorted(p.stem for p in (TOP / "images").iterdir() if p.suffix in (".png", ".gif"))
    assert "fig_motion" in names
    titles = [heading(nbformat.read(TOP / f"nbs/{n}.ipynb", 4))[0] for n in names]
    assert [h for tag, h in read["gallery.html"].headings if tag == "h2"] == titles and len(
        read["gallery.html"].alts
    ) == len(names)


def test_pictures_lead_to_their_full_size(site, read):
    for name in ("index.html", "gallery.html", "nbs/story_order.html"):
        text = (site / name).read_text()
        assert len(re.findall(r'<a class="full"[^>]*href="[^"]+"><img', text)) == len(
            read[name].alts
        ), name
    assert 'href="images/fig_forest.svg"><img' in (site / "gallery.html").read_text()
    assert not [link for link in read["index.html"].links if "/blob/main/images/" in link]


def test_formulas_are_drawn(site, read):
    assert [
        (name, word)
        for name, page in read.items()
        for word in ("$$", "\\frac", "\\tanh")
        if word in "".join(page.text)
    ] == []
    assert (site / "nbs/lesson.html").read_text().count(
        "<mfrac"
    ) == 4  # a half, and three derivatives


def test_library_pages_are_without_tests(read, site):
    assert "test_eq(" not in (site / "nbs/00_basics.html").read_text()


def test_functions_say_what_they_take_and_give(site, read):
    text = unescape(re.sub(r"<[^>]+>", "", (site / "api/inits.html").read_text()))
    assert (
        "source of all randomness" in text
        and "initialize(model, " in text
        and "Returns" in text
        and "def initialize" not in text
    )
    assert "../nbs/02_inits.html" in read["api/inits.html"].links
    assert "class Batches(x, y, size, " in unescape(
        re.sub(r"<[^>]+>", "", (site / "api/batches.html").read_text())
    )
    assert [
        (p.name, found[0])
        for p in (site / "api").glob("*.html")
        if (found := COMPUTERS.search(p.read_text()))
    ] == []


def test_pages_speak_of_what_they_are_for(read):
    assert "Learning moves backwards through the network" in " ".join(
        "".join(read["index.html"].text).split()
    )
    assert "verdict" in "".join(read["nbs/fig_forest.html"].text).lower()


def test_how_to_cite(site):
    told, settings = (
        yaml.safe_load((TOP / "CITATION.cff").read_text()),
        ConfigParser(delimiters=["="]),
    )
    settings.read(TOP / "settings.ini")
    assert told["version"] == settings["DEFAULT"]["version"]
    text = unescape(re.sub(r"<[^>]+>", "", (site / "cite.html").read_text()))
    assert len(re.findall(r"^@\w+\{\w+,$", text, re.M)) == 1 + len(told["references"]) == 3
    for entry in (told, *told["references"]):
        assert entry["title"] in text and entry.get("doi", "") in text
    assert f"version = {{{told['version']}}}" in text


def test_workflows_are_whole():
    """What publishes the site, and what runs the notebooks in a browser: an end to each job, and no right that it does not need."""
    for path in (TOP / ".github/workflows" / name for name in ("docs.yml", "lab.yml")):
        told = yaml.safe_load(path.read_text())
        assert told["permissions"] == {"contents": "read"}, path.name
        for name, job in told["jobs"].items():
            assert job["timeout-minutes"], (path.name, name)
            writes = {k for k, v in job.get("permissions", {}).items() if v == "write"}
            assert not writes or (path.name, name) == ("docs.yml", "deploy"), (path.name, name)


def test_without_records(site):
    """The site is built all the same, and says what is missing."""
    empty = site.parent / "empty"
    assert (
        "There are no records in nothing/" in (empty / "index.html").read_text()
        and "There are no records in" not in (site / "index.html").read_text()
    )
    assert "There are no records" in (empty / "explorer.html").read_text()


# tables that are wider than their box are scrolled to their end: which have lost their first column
LOST = """() => [...document.querySelectorAll(".scrolls")].filter(b => {
    b.scrollLeft = 1e6
    const cell = b.querySelector("tbody tr > :first-child").getBoundingClientRect(), box = b.getBoundingClientRect()
    return b.scrollLeft > 0 && (Math.abs(cell.left - box.left) > 2 || cell.width > .6*box.width)
}).map(b => b.textContent.slice(0, 60))"""
BARE = """() => [...document.querySelectorAll("article table")].filter(t => !t.closest(".scrolls") && t.querySelector("tbody td")).length"""
SEARCH = """() => [...document.querySelectorAll(".search-button__button")].filter(b => b.checkVisibility()).length"""


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
def test_in_a_browser(site, read):
    from playwright.sync_api import sync_playwright

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}"
    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    looked = (
        "index",
        "nbs/story_order",
        "nbs/fig_forest",
        "gallery",
        "docs/extend",
        "api/inits",
        "nbs/schemes",
        "nbs/lesson",
        "cite",
    )
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=flags)
        away, wrong, sideways = [], [], []
        for name, look in dict(
            light={},
            dark=dict(color_scheme="dark"),
            phone=dict(viewport=dict(width=390, height=844)),
        ).items():
            page = browser.new_context(**look).new_page()
            page.on(
                "request",
                lambda r: (
                    None if r.url.startswith((home, "data:", "blob:")) else away.append(r.url)
                ),
            )
            page.on("pageerror", lambda e: wrong.append(str(e)))
            for i, path in enumerate(looked):
                page.goto(f"{home}/{path}.html")
                assert page.evaluate(LOST) == [] and page.evaluate(BARE) == 0, (name, path)
                assert page.evaluate(SEARCH) == 1, (name, path)
                if SHOTS:
                    page.screenshot(path=f"{SHOTS}/{name}-{i}.png", full_page=i < 3)
            if name == "dark":
                assert page.evaluate("document.documentElement.dataset.theme") == "dark"
            if name == "phone":
                for path in read:
                    page.goto(f"{home}/{path}", wait_until="domcontentloaded")
                    sideways += (
                        [path]
                        if page.evaluate("document.documentElement.scrollWidth") > 391
                        else []
                    )
        page.goto(f"{home}/nbs/schemes.html")
        assert page.evaluate(
            "[...document.querySelectorAll('.matrix')].some(t => t.scrollWidth > t.parentNode.clientWidth)"
        )  # the one that has to scroll
        page.goto(f"{home}/search.html?q=orthogonal")
        page.wait_for_selector("ul.search li a")
        assert page.locator("ul.search li").count() > 2
        browser.close()
    server.shutdown()
    assert away == [] and wrong == [] and sideways == []

"""The site: built without a warning, without broken links, without anything from other servers,
and read in a real browser without a network."""

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
from browser import CHROMIUM, open_chromium

import zeroinit
from zeroinit.data import batches
from zeroinit.publish.site import N_SHOWN_ROWS, notebook_heading

pytestmark = pytest.mark.slow

TOP = Path(__file__).resolve().parent.parent
SHOTS = os.environ.get("ZEROINIT_SHOTS")  # a folder that keeps screenshots
# alternative texts that say nothing
SAYS_NOTHING = re.compile(
    r"^(It reads |What happens$|What was claimed$|\d+$|\W*$)"
    r"|\| *hide|google\.colab|\bimport |zeroinit report. runs it"
)
CODE_IN_HEADING = re.compile(r"\| *hide|google\.colab|^import ")
HOSTS = {"altair-viz.github.io", "peps.python.org"}  # of tools and texts that a page names
COLAB = "https://colab.research.google.com/github/zeroinit/zeroinit/blob/main/"
OURS = "https://github.com/zeroinit/zeroinit"
# papers, and the code of the two works
SOURCES = re.compile(
    r"https://doi\.org/10\.\d{4,9}/\S+"
    r"|https://arxiv\.org/abs/\d{4}\.\d{4,5}"
    r"|https://www\.researchsquare\.com/article/rs-\d+/v\d+"
    r"|https://github\.com/(c-schicho|sjw007s)/[\w-]+"
)
ADDRESSES = re.compile(r"0x[0-9a-f]{8,}|/home/|/root/|/tmp/")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class Page(HTMLParser):
    """What a page links to and loads, its anchors, headings, alternative texts and text."""

    SKIPPED = {"script", "style", "pre", "code"}
    HEADINGS = {"h1", "h2", "h3"}

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.anchors = [], [], set()
        self.alts, self.headings, self.text = [], [], []
        self.open_tags = []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.anchors |= {a[k] for k in ("id", "name") if a.get(k)}
        self.links += [a[k] for k in ("href", "src") if a.get(k)]
        is_style = tag == "link" and a.get("rel") in ("stylesheet", "preload", "icon")
        if is_style or tag in ("script", "img", "iframe", "source", "video"):
            self.loads += [a[k] for k in ("src", "href") if a.get(k)]
        if tag == "img" and "_images/" in a.get("src", ""):
            self.alts.append(a.get("alt") or "")
        if tag in self.HEADINGS and "article" in self.open_tags:
            self.headings.append((tag, ""))
        if tag == "article" or tag in self.HEADINGS | self.SKIPPED:
            self.open_tags.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open_tags:
            while self.open_tags.pop() != tag:
                pass

    def handle_data(self, data):
        open_tags = set(self.open_tags)
        if "article" in open_tags and open_tags & self.HEADINGS and data != "#":
            tag, text = self.headings[-1]
            self.headings[-1] = (tag, text + data)
        if not open_tags & self.SKIPPED:
            self.text.append(data)


def page_text(path):
    """The text of a page, with that of its code."""
    return unescape(re.sub(r"<[^>]+>", "", path.read_text()))


def build(call, out):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = call(*command, out / "source", out / "html")
    assert done.stderr == ""


@pytest.fixture(scope="module")
def site(tree, call, tmp_path_factory):
    """The built site.

    It is built without records, which changes the first page and the explorer, and then with them.
    """
    out = tmp_path_factory.mktemp("site")
    code = f"""
from zeroinit.publish.site import write_pages
write_pages({str(out / "full")!r})
write_pages({str(out)!r}, {str(out / "nothing")!r})"""
    call(sys.executable, "-c", code)
    build(call, out)
    (out / "empty").mkdir()
    for name in ("index.html", "explorer.html"):
        shutil.copy(out / "html" / name, out / "empty" / name)
    for name in ("index.md", "league.md", "extra/explorer.html"):
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


def is_broken(link, name, site, read):
    """Whether a link from the page of this name leads nowhere within the site."""
    u = urlsplit(link)
    if u.scheme or link.startswith(("//", "#!")):
        return False
    path = site / name
    target = (path.parent / unquote(u.path)).resolve() if u.path else path.resolve()
    if not target.exists():
        return True
    if target.suffix != ".html" or target.name == "explorer.html":
        return False
    page = read.get(target.relative_to(site.resolve()).as_posix())
    if page is None:
        return True
    return bool(u.fragment) and unquote(u.fragment) not in page.anchors


def test_links(site, read):
    assert len(read) > 90
    broken, foreign = [], []
    for name, page in read.items():
        foreign += [(name, link) for link in page.loads if urlsplit(link).netloc]
        broken += [(name, link) for link in page.links if is_broken(link, name, site, read)]
    assert broken == []
    assert foreign == []


def is_unknown(link):
    """Whether a link that leaves the site is of an unknown kind; nothing is fetched."""
    u = urlsplit(link)
    if u.scheme in ("data", "blob", "mailto", "") or link in (OURS, OURS + "/issues"):
        return False
    if u.scheme != "https":
        return True
    if u.netloc in HOSTS:
        return False
    if link.startswith(COLAB):
        notebook = unquote(link[len(COLAB) :])
        return not (notebook.endswith(".ipynb") and (TOP / notebook).is_file())
    if link.startswith(OURS):
        kind, branch, path = ([*u.path.split("/", 5)[3:], "", ""])[:3]
        is_file_link = kind in ("blob", "tree", "raw") and branch == "main"
        return not (is_file_link and (TOP / unquote(path)).exists())
    return not SOURCES.fullmatch(link)


def test_links_that_leave_the_site_are_of_known_kinds(read):
    links = set()
    for page in read.values():
        links |= {link for link in page.links if urlsplit(link).scheme or link.startswith("//")}
    assert any(link.startswith(COLAB) for link in links)
    assert any("doi.org" in link for link in links)
    assert sorted(link for link in links if is_unknown(link)) == []


@pytest.mark.parametrize(
    "link",
    [
        OURS + "/blob/main/nothing.py",
        COLAB + "nbs/nothing.ipynb",
        "https://doi.org/nothing",
        "https://arxiv.org/abs/nothing",
        "http://example.org",
        "https://example.org/x",
    ],
)
def test_a_wrong_link_is_found(link):
    assert is_unknown(link)


def test_pictures_and_headings_have_words(read):
    empty_alts, repeated_alts, code_headings = [], [], []
    for name, page in read.items():
        empty_alts += [(name, a) for a in page.alts if len(a) < 15 or SAYS_NOTHING.search(a)]
        repeated_alts += [(name, alt) for alt, n in Counter(page.alts).items() if n > 1]
        for _, heading in page.headings:
            if not heading.strip() or CODE_IN_HEADING.search(heading):
                code_headings.append((name, heading))
    assert empty_alts == []
    assert repeated_alts == []
    assert code_headings == []
    assert sum(len(page.alts) for page in read.values()) > 30


def test_gallery_has_every_figure_under_its_notebooks_title(read):
    import nbformat

    names = sorted(p.stem for p in (TOP / "images").iterdir() if p.suffix in (".png", ".gif"))
    assert "fig_motion" in names
    notebooks = [nbformat.read(TOP / f"nbs/figures/{name}.ipynb", 4) for name in names]
    titles = [notebook_heading(notebook)[0] for notebook in notebooks]
    page = read["gallery.html"]
    assert [heading for tag, heading in page.headings if tag == "h2"] == titles
    assert len(page.alts) == len(names)


def test_schemes_are_a_table_to_sort(site, read):
    assert "league.html" in read["index.html"].links
    text = (site / "league.html").read_text()
    table = re.search(r'<table class="[^"]*\bsortable\b.*?</table>', text, re.DOTALL)[0]
    assert table.count("<tr") > 20
    assert 'data-label="effective rank"' in table and 'data-sort="default"' in table
    assert "table.sortable" in text  # the script


def test_pictures_lead_to_their_full_size(site, read):
    for name in ("index.html", "gallery.html", "nbs/stories/story_order.html"):
        links = re.findall(r'<a class="full"[^>]*href="[^"]+"><img', (site / name).read_text())
        assert len(links) == len(read[name].alts), name
    assert 'href="images/fig_forest.svg"><img' in (site / "gallery.html").read_text()
    assert [link for link in read["index.html"].links if "/blob/main/images/" in link] == []


def test_long_tables_are_folded(site, read):
    assert "explorer.html#evidence" in read["index.html"].links
    for name in ("fig_evidence", "fig_forest"):
        page = (site / f"nbs/figures/{name}.html").read_text()
        article = page.partition("<article")[2].partition("</article>")[0]
        assert article.count("<details") == article.count("</details>")
        in_sight = re.sub(r"<details.*?</details>", "", article, flags=re.S)
        for table in re.findall(r"<table.*?</table>", in_sight, re.S):
            assert table.count("<tr") <= 1 + N_SHOWN_ROWS
    assert re.search(r"<summary>A table of \d+ rows</summary>", page)


def test_formulas_are_drawn(site, read):
    undrawn = []
    for name, page in read.items():
        text = "".join(page.text)
        undrawn += [(name, tex) for tex in ("$$", "\\frac", "\\tanh") if tex in text]
    assert undrawn == []
    lesson = (site / "nbs/lesson.html").read_text()
    assert lesson.count("<mfrac") == 4  # a half, and three derivatives


def test_library_pages_are_without_tests(site):
    pages = list((site / "nbs/basics").glob("*_files.html"))
    assert len(pages) == 1
    assert "test_eq(" not in pages[0].read_text()


def reference_page(f):
    """The name of the reference page of a function or class."""
    return f"api/{'/'.join(f.__module__.split('.')[1:])}.html"


def test_functions_say_what_they_take_and_give(site, read):
    name = reference_page(zeroinit.initialize)
    text = page_text(site / name)
    for words in ("source of all random numbers", "initialize(model, ", "Returns"):
        assert words in text
    assert "def initialize" not in text
    notebooks = [link for link in read[name].links if link.startswith("../../nbs/schemes/")]
    assert any("initializ" in link for link in notebooks)
    assert "class Batches(x, y, size, " in page_text(site / reference_page(batches.Batches))
    for path in (site / "api").rglob("*.html"):
        assert not ADDRESSES.search(path.read_text()), path.name


def test_pages_keep_their_subject(read):
    first_page = " ".join("".join(read["index.html"].text).split())
    assert "no weight ever receives a gradient" in first_page
    assert "verdict" in "".join(read["nbs/figures/fig_forest.html"].text).lower()


def test_how_to_cite(site):
    citation = yaml.safe_load((TOP / "CITATION.cff").read_text())
    settings = ConfigParser(delimiters=["="])
    settings.read(TOP / "settings.ini")
    assert citation["version"] == settings["DEFAULT"]["version"]
    text = page_text(site / "cite.html")
    n_entries = len(re.findall(r"^@\w+\{\w+,$", text, re.M))
    assert n_entries == 1 + len(citation["references"]) == 3
    for entry in (citation, *citation["references"]):
        assert entry["title"] in text
        assert entry.get("doi", "") in text
    assert f"version = {{{citation['version']}}}" in text


def test_workflows_are_limited():
    """Each job of the workflows ends, and has no right that it does not need."""
    for path in (TOP / ".github/workflows" / name for name in ("docs.yml", "lab.yml")):
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}, path.name
        for name, job in workflow["jobs"].items():
            assert job["timeout-minutes"], (path.name, name)
            writes = {k for k, v in job.get("permissions", {}).items() if v == "write"}
            assert not writes or (path.name, name) == ("docs.yml", "deploy"), (path.name, name)


def test_without_records(site):
    """The site is built all the same, and says what is missing."""
    empty = site.parent / "empty"
    assert "There are no records in nothing/" in (empty / "index.html").read_text()
    assert "There are no records in" not in (site / "index.html").read_text()
    assert "There are no records" in (empty / "explorer.html").read_text()


# tables that are wider than their box are scrolled to their end: those that lose their first column
TABLES_WITHOUT_FIRST_COLUMN = """() => [...document.querySelectorAll(".scrolls")].filter(b => {
    b.scrollLeft = 1e6
    const cell = b.querySelector("tbody tr > :first-child").getBoundingClientRect()
    const box = b.getBoundingClientRect()
    return b.scrollLeft > 0 && (Math.abs(cell.left - box.left) > 2 || cell.width > .6*box.width)
}).map(b => b.textContent.slice(0, 60))"""
TABLES_WITHOUT_BOX = """() => [...document.querySelectorAll("article table")]
    .filter(t => !t.closest(".scrolls") && t.querySelector("tbody td")).length"""
CODE_THAT_SCROLLS = """[...document.querySelectorAll("div.highlight pre")].filter(
    e => !e.closest(".cell_output") && e.scrollWidth > e.clientWidth + 1
).length"""
SEARCH_BUTTONS = """() => [...document.querySelectorAll(".search-button__button")]
    .filter(b => b.checkVisibility()).length"""
MATRIX_SCROLLS = """[...document.querySelectorAll('.matrix')]
    .some(t => t.scrollWidth > t.parentNode.clientWidth)"""
VISITED = (
    "index",
    "nbs/stories/story_order",
    "nbs/figures/fig_forest",
    "gallery",
    "docs/extend",
    reference_page(zeroinit.initialize).removesuffix(".html"),
    "nbs/schemes",
    "nbs/lesson",
    "cite",
)
SCREENS = dict(
    light={},
    dark=dict(color_scheme="dark"),
    phone=dict(viewport=dict(width=390, height=844)),
)


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
def test_in_a_browser(site, read):
    handler = functools.partial(Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}"
    foreign, errors, too_wide = [], [], []

    def note_request(request):
        if not request.url.startswith((home, "data:", "blob:")):
            foreign.append(request.url)

    with open_chromium() as browser:
        for screen, options in SCREENS.items():
            page = browser.new_context(**options).new_page()
            page.on("request", note_request)
            page.on("pageerror", lambda error: errors.append(str(error)))
            for i, name in enumerate(VISITED):
                page.goto(f"{home}/{name}.html")
                assert page.evaluate(TABLES_WITHOUT_FIRST_COLUMN) == [], (screen, name)
                assert page.evaluate(TABLES_WITHOUT_BOX) == 0, (screen, name)
                assert page.evaluate(SEARCH_BUTTONS) == 1, (screen, name)
                assert page.evaluate(CODE_THAT_SCROLLS) == 0, (screen, name)
                if SHOTS:
                    page.screenshot(path=f"{SHOTS}/{screen}-{i}.png", full_page=i < 3)
            if screen == "dark":
                assert page.evaluate("document.documentElement.dataset.theme") == "dark"
            if screen == "phone":
                for name in read:
                    page.goto(f"{home}/{name}", wait_until="domcontentloaded")
                    if page.evaluate("document.documentElement.scrollWidth") > 391:
                        too_wide.append(name)
        page.goto(f"{home}/nbs/schemes.html")
        assert page.evaluate(MATRIX_SCROLLS)  # the one table that has to scroll
        page.goto(f"{home}/search.html?q=orthogonal")
        page.wait_for_selector("ul.search li a")
        assert page.locator("ul.search li").count() > 2
    server.shutdown()
    assert foreign == []
    assert errors == []
    assert too_wide == []

"""The explorer as people meet it: a file on the disk, opened in Chromium without a network, clicked through."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("altair", reason="altair is not installed")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


def explorer(out, results_root):
    from zeroinit.publish.explorer import explorer

    return explorer(out, results_root)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return explorer(tmp_path_factory.mktemp("explorer") / "explorer.html", TOP / "results")


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """Open a file; afterwards nothing may have been asked of a network, and nothing may have gone wrong."""
    contexts, asked, wrong = [], [], []

    def open_(path, width=1200, dark=False, ready="body[data-ready]"):
        contexts.append(
            chromium.new_context(
                offline=True,
                viewport=dict(width=width, height=900),
                color_scheme="dark" if dark else "light",
            )
        )
        page = contexts[-1].new_page()
        page.on("request", lambda r: asked.append(r.url))
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.goto(path.as_uri())
        page.wait_for_selector(ready, timeout=60_000)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []
    assert [u for u in asked if not u.startswith(("file://", "data:"))] == []


def count(page, view, mark):
    return page.locator(f"#{view} g.mark-{mark}.role-mark path").count()


def lines(page, view="curves"):
    return count(page, view, "line")


def settles(page, f, wanted):
    """Views follow a pick a moment later."""
    for _ in range(100):
        if f() == wanted:
            return
        page.wait_for_timeout(50)
    assert f() == wanted


def pick(page, **picks):
    for name, value in picks.items():
        page.locator(f"select[name={name}]").select_option(value)


def offered(page, name):
    return page.locator(f"select[name={name}] option").all_text_contents()


def test_small_and_whole(built):
    assert built.stat().st_size < 5e6
    text = built.read_text()
    assert "<!--" not in text.split("<script")[0]  # every slot is filled
    markup = re.sub(r"(<script[^>]*>).*?</script>", r"\1", text, flags=re.S)
    assert re.findall(r"(?:src|href)=\"(?!data:)", markup) == [] and "default-src 'none'" in markup
    assert str(TOP) not in text


@needs_chromium
def test_picking_changes_every_view(built, opened):
    page = opened(built)
    pick(page, work="Schicho (2023)", dataset="MNIST", model="fnn", protocol="clean", images="all")
    schemes = page.locator("#schemes button")
    settles(page, lambda: lines(page), schemes.count())
    settles(
        page, lambda: count(page, "waking", "rect"), 2 * (schemes.count() - 1)
    )  # the fully connected network has two layers; the linear model wakes at once
    settles(page, lambda: lines(page, "ranks"), schemes.count() - 1)
    assert (
        "seeds" in page.locator("#seeds").inner_text()
        and "95 %" in page.locator("#seeds").inner_text()
    )

    pick(page, protocol="published")
    settles(
        page,
        lambda: (
            page.locator(
                "#curves g.mark-symbol path[aria-label*='published, test accuracy']"
            ).count()
            > 3
        ),
        True,
    )
    assert page.locator("select[name=protocol]").input_value() == "published"

    pick(page, dataset="CIFAR-10", model="resnet50", images="2,000")
    assert page.locator("select[name=protocol]").input_value() == "clean"  # there is no other
    settles(
        page,
        lambda: count(page, "waking", "rect"),
        54 * page.locator("#schemes button:not(:has-text('linear'))").count(),
    )

    def drawn():  # of all lines: some are at zero in every layer
        return page.eval_on_selector_all(
            "#ranks g.mark-line path", "all => all.map(p => p.getAttribute('d')).join()"
        )

    before = drawn()
    page.locator("#layer").select_option("54")
    settles(page, lambda: drawn() != before, True)

    pick(page, work="Seo (2025)")
    assert "mixer" in offered(page, "model") and "fnn" not in offered(page, "model")


@needs_chromium
def test_every_group_draws(built, opened):
    page = opened(built)
    groups = page.evaluate("JSON.parse(document.getElementById('told').textContent).groups")
    assert len(groups) > 10
    for g in groups:
        pick(page, **g["picks"])
        assert {k: page.locator(f"select[name={k}]").input_value() for k in g["picks"]} == g[
            "picks"
        ]
        settles(page, lambda: lines(page), len(g["series"]))
        assert page.locator("#waking").is_visible() == g["has"]["waking"]


@needs_chromium
def test_it_explains_itself(built, opened):
    page = opened(built)
    assert (
        page.locator("#home a").get_attribute("href") == "https://github.com/zeroinit/zeroinit"
    )  # from the disk
    words = page.locator("details dt")
    assert not words.first.is_visible()
    page.locator("summary").click()
    assert words.first.is_visible()
    told = " ".join(words.all_text_contents())
    assert all(
        w in told
        for w in (
            "scheme",
            "fnn",
            "protocol",
            "effective rank",
            "S1 to S6, J1 to J6",
            "seed",
            "interval",
        )
    )
    explained = page.locator("details").inner_text()
    assert all(
        m in explained
        for g in page.evaluate("JSON.parse(document.getElementById('told').textContent).groups")
        for m in [g["picks"]["model"]]
    )


@needs_chromium
def test_on_a_site_it_leads_home(built, chromium):
    page = chromium.new_page()
    page.route(
        "**/*",
        lambda route: route.fulfill(
            body=built.read_text() if route.request.url.endswith("explorer.html") else "home",
            content_type="text/html",
        ),
    )
    page.goto("http://site.invalid/docs/explorer.html")
    page.locator("#home a").click()
    page.wait_for_url("http://site.invalid/docs/index.html")
    page.close()


@needs_chromium
def test_what_nobody_asked_for_does_not_stay(built, opened):
    """The CNN's only clean runs on MNIST are short ones; who goes on to the ResNet does not want its single short run."""
    page = opened(built)
    for name, value in (("model", "cnn"), ("dataset", "CIFAR-10"), ("model", "resnet50")):
        pick(page, **{name: value})
        assert page.locator("#schemes button").count() > 1
    assert (
        page.locator("select[name=images]").input_value() == "2,000"
        and page.locator("#schemes button").count() > 5
    )
    pick(page, dataset="MNIST", model="fnn", protocol="published")
    pick(page, dataset="CIFAR-10")
    assert page.locator("select[name=protocol]").input_value() == "published"  # this was asked for


def test_names_are_short_and_colours_tell(built):
    groups = json.loads(re.search(r'id="told">(.*?)</script>', built.read_text(), re.DOTALL)[1])[
        "groups"
    ]
    for g in groups:
        names, looks = (
            [s["series"] for s in g["series"]],
            [(s["color"], s["dash"]) for s in g["series"]],
        )
        assert len(set(names)) == len(set(looks)) == len(names), g["runs"]
        assert not [n for n in names if len(n) > 60 or "_" in n or "=" in n]
        schemes = {
            (s["color"], re.sub(r", (\d+ epochs|one order|one draw)$", "", s["series"]))
            for s in g["series"]
        }
        assert len({c for c, _ in schemes}) == len(schemes), g[
            "runs"
        ]  # dashes are for one scheme, longer or with a flaw


@needs_chromium
def test_schemes_are_clicked_off_and_on(built, opened):
    page = opened(built)
    button, n = page.locator("#schemes button").nth(1), lines(page)
    button.click()
    settles(page, lambda: lines(page), n - 1)
    assert button.get_attribute("aria-pressed") == "false"
    assert lines(page, "ranks") == n - 2
    button.press("Enter")  # from the keyboard too
    settles(page, lambda: lines(page), n)


@needs_chromium
def test_verdicts_as_the_library_has_them(built, opened):
    from zeroinit.evidence.verdicts import verdicts

    told = verdicts(TOP / "results").set_index("claim")
    page = opened(built)
    rows = page.locator("tr[data-claim]")
    assert rows.count() == len(told)
    for row in rows.all():
        v = told.loc[row.get_attribute("data-claim")]
        assert (
            v.verdict in row.inner_text()
            and v.ours in row.inner_text()
            and v.statement in row.inner_text()
        )
    page.locator("tr[data-claim=S1] button").click()
    settles(page, lambda: page.locator("#checks h2").inner_text(), "S1, check by check")
    some = page.locator("#effects g.mark-text text").all_text_contents()
    page.locator("tr[data-claim=S3] button").click()
    settles(page, lambda: page.locator("#checks h2").inner_text(), "S3, check by check")
    settles(
        page, lambda: page.locator("#effects g.mark-text text").all_text_contents() != some, True
    )
    page.locator("tr[data-claim=J6] button").click()
    settles(
        page,
        lambda: page.locator("#effects").is_visible(),
        "nothing was measured" not in told.loc["J6"].sentence,
    )


@needs_chromium
def test_a_phone_and_a_dark_room(built, opened):
    page = opened(built, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert all(
        b["x"] + b["width"] <= 390
        for b in (s.bounding_box() for s in page.locator("svg.marks").all())
    )
    pick(page, dataset="CIFAR-10", model="resnet50")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    page = opened(built, dark=True)
    stroke = page.locator("#curves g.mark-line path").first
    paper = "getComputedStyle(document.body).backgroundColor"
    assert stroke.get_attribute("stroke") == "#f0f0f0" and page.evaluate(paper) == "rgb(23, 24, 27)"
    page.emulate_media(color_scheme="light")
    settles(page, lambda: stroke.get_attribute("stroke"), "#000000")
    assert page.evaluate(paper) == "rgb(255, 255, 255)"


@needs_chromium
def test_diverged_runs_and_damaged_records_are_seen(opened, tmp_path):
    from zeroinit.experiments.records import records, results_path, write_record
    from zeroinit.experiments.config import Experiment

    some = records(
        TOP / "results",
        model="fnn",
        dataset="mnist",
        protocol="clean",
        scheme="bias_normal(std=100)",
    )[:3]
    root = tmp_path / "results"
    for r, status in zip(some, ("done", "done", "diverged"), strict=False):
        path = results_path(root, Experiment(**r["config"]), r["seed"])
        write_record(
            path,
            r | dict(status=status, history=r["history"][: 3 if status == "diverged" else None]),
        )
    page = opened(explorer(tmp_path / "a.html", root))
    assert (
        "1 of them diverged" in page.inner_text("body")
        and "1 diverged" in page.locator("#schemes").inner_text()
    )
    assert page.locator("#curves g.mark-symbol path[aria-label*='diverged']").count() == 1
    path.write_text(path.read_text()[:200])
    page = opened(explorer(tmp_path / "b.html", root))
    assert "2 runs, 0 of them diverged" in page.inner_text("body")
    assert "Left out: results/mnist/fnn" in page.inner_text("body").replace(str(tmp_path) + "/", "")


@needs_chromium
def test_no_records_says_so(opened, tmp_path, call):
    (tmp_path / "results").mkdir()
    done = call(
        sys.executable,
        "-m",
        "zeroinit.publish.cli",
        "explorer",
        "--results-root",
        "results",
        "--out",
        tmp_path / "e.html",
        cwd=tmp_path,
    )
    assert "e.html: 0.0 MB" in done.stdout
    page = opened(tmp_path / "e.html")
    assert "There are no records in results yet: zeroinit run demo makes some" in page.inner_text(
        "body"
    )
    assert page.locator("svg").count() == 0 and not page.locator("#page").is_visible()


@needs_chromium
def test_a_view_of_its_own(opened, tmp_path):
    """As a notebook shows it: a list of the runs, and a legend to click."""
    from zeroinit.experiments.records import records
    from zeroinit.publish.explorer import curve_table, curves

    found = records(TOP / "results", dataset="mnist")
    curves(curve_table(found)).save(tmp_path / "curves.html", inline=True)
    page = opened(tmp_path / "curves.html", ready="svg.marks")
    options = page.locator(".vega-bindings select option").all_text_contents()
    assert "Schicho (2023): fnn on MNIST, clean, all images" in options and len(options) > 2
    marks, legend = (
        page.locator("g.mark-line.role-mark path"),
        page.locator("g.role-legend-entry g.mark-text text"),
    )
    assert marks.count() == legend.count() > 5
    legend.get_by_text("default", exact=True).click()
    settles(page, lambda: sum(float(m.get_attribute("opacity") or 1) == 1 for m in marks.all()), 1)
    page.locator(".vega-bindings select").select_option(
        "Schicho (2023): cnn on MNIST, clean, 1,600 images"
    )
    settles(
        page,
        lambda: (marks.count(), legend.all_text_contents()),
        (1, ["weights 0, biases N(0, 1)"]),
    )


@needs_chromium
def test_the_widget_is_the_page(opened, tmp_path):
    from zeroinit.publish.explorer import widget

    (tmp_path / "notebook.html").write_text(
        f"<!doctype html><body>{widget(TOP / 'results').data}", encoding="utf-8"
    )
    page = opened(tmp_path / "notebook.html", ready="iframe")
    frame = page.frame_locator("iframe")
    frame.locator("body[data-ready]").wait_for(timeout=60_000)
    assert (
        frame.locator("#curves g.mark-line path").count()
        == frame.locator("#schemes button").count()
    )


def test_without_altair_it_is_refused_in_a_sentence():
    code = "import sys; sys.modules['altair'] = None; from zeroinit.publish.cli import main; sys.exit(main(['explorer', '--out', 'never.html']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        "zeroinit: the explorer needs altair: pip install 'zeroinit[explorer]'\n",
    )
    assert not (TOP / "never.html").exists()

"""The explorer as a file on the disk, opened and used in Chromium without a network."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from browser import CHROMIUM, open_chromium

pytestmark = pytest.mark.slow

TOP = Path(__file__).resolve().parent.parent
pytest.importorskip("playwright", reason="playwright is not installed")
pytest.importorskip("altair", reason="altair is not installed")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


def write_explorer(out, results_root):
    from zeroinit.publish.explorer import write_explorer

    return write_explorer(out, results_root)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The explorer of the committed records."""
    return write_explorer(tmp_path_factory.mktemp("explorer") / "explorer.html", TOP / "results")


@pytest.fixture(scope="module")
def chromium():
    with open_chromium() as browser:
        yield browser


@pytest.fixture
def opened(chromium):
    """A function that opens a file. Afterwards, no page may have used a network or met an error."""
    contexts, requests, errors = [], [], []

    def open_file(path, width=1200, dark=False, ready="body[data-ready]", fragment="#runs"):
        context = chromium.new_context(
            offline=True,
            viewport=dict(width=width, height=900),
            color_scheme="dark" if dark else "light",
        )
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path.as_uri() + fragment)
        page.wait_for_selector(ready, timeout=60_000)
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert errors == []
    assert [url for url in requests if not url.startswith(("file://", "data:"))] == []


def page_data(page):
    """The data that a page was built from."""
    return page.evaluate("JSON.parse(document.getElementById('page-data').textContent)")


def count_marks(page, view, mark):
    return page.locator(f"#{view} g.mark-{mark}.role-mark path").count()


def count_lines(page, view="curves"):
    return count_marks(page, view, "line")


def wait_until(compute, expected):
    """Views follow a pick a moment later."""
    for _ in range(100):
        if compute() == expected:
            return
        time.sleep(0.05)
    assert compute() == expected


def pick(page, **picks):
    for name, value in picks.items():
        page.locator(f"select[name={name}]").select_option(value)


def picked(page, name):
    return page.locator(f"select[name={name}]").input_value()


def offered(page, name):
    return page.locator(f"select[name={name}] option").all_text_contents()


def shown(page):
    """The buttons of the schemes that are drawn."""
    return page.locator("#schemes button[aria-pressed=true]")


def show_all_schemes(page):
    """Click on every scheme that is off."""
    folded = page.locator("#schemes summary")
    if folded.count():
        folded.click()
    while page.locator("#schemes button[aria-pressed=false]").count():
        page.locator("#schemes button[aria-pressed=false]").first.click()


def turn_to(page, name):
    """Open the page of the runs or of the evidence."""
    page.locator(f"nav button[name={name}]").click()


def test_the_file_is_small_and_complete(built):
    assert built.stat().st_size < 5e6
    text = built.read_text()
    assert "<!--" not in text.split("<script")[0]  # every slot is filled
    markup = re.sub(r"(<script[^>]*>).*?</script>", r"\1", text, flags=re.S)
    assert re.findall(r"(?:src|href)=\"(?!data:)", markup) == []
    assert "default-src 'none'" in markup
    assert str(TOP) not in text


@needs_chromium
def test_picking_changes_every_view(built, opened):
    page = opened(built)
    show_all_schemes(page)
    n_schemes = page.locator("#schemes button").count()
    assert n_schemes > 20
    wait_until(lambda: count_lines(page), n_schemes)
    # the fully connected network has two layers; the linear model is not drawn
    wait_until(lambda: count_marks(page, "waking", "rect"), 2 * (n_schemes - 1))
    wait_until(lambda: count_lines(page, "ranks"), n_schemes - 1)
    seeds = page.locator("#seeds").inner_text()
    assert "seeds" in seeds and "95 %" in seeds

    pick(page, protocol="published")
    published = page.locator("#curves g.mark-symbol path[aria-label*='published, test accuracy']")
    wait_until(lambda: published.count() > 3, True)
    assert picked(page, "protocol") == "published"

    pick(page, dataset="CIFAR-10", model="resnet50", length="3 epochs, 2,000 images")
    assert picked(page, "protocol") == "clean"  # there is no other
    n_networks = shown(page).count() - 1
    wait_until(lambda: count_marks(page, "waking", "rect"), 54 * n_networks)

    def rank_lines():  # all of them: some are at zero in every layer
        return page.eval_on_selector_all(
            "#ranks g.mark-line path", "all => all.map(p => p.getAttribute('d')).join()"
        )

    before = rank_lines()
    page.locator("#layer").select_option("54")
    wait_until(lambda: rank_lines() != before, True)

    pick(page, work="Seo (2025)")
    assert "mixer" in offered(page, "model")
    assert "fnn" not in offered(page, "model")


@needs_chromium
def test_the_schemes_are_sorted_by_any_column(built, opened):
    page = opened(built, width=1280)
    turn_to(page, "league")
    assert page.locator("#league").is_visible()
    assert not page.locator("#runs").is_visible()

    def column(number):
        cells = page.locator(f"table.league tbody td:nth-child({number})")
        return cells.evaluate_all("cells => cells.map(cell => cell.dataset.sort)")

    width = "e => [e.scrollWidth, e.clientWidth]"
    table_width, box_width = page.locator("#league .scrolls").evaluate(width)
    assert table_width <= box_width
    current = page.locator("nav button[aria-current=true]")
    assert current.all_inner_texts() == ["Schemes"]
    reverse = page.locator(".sort-bar button")
    assert reverse.is_disabled()

    accuracy = 5
    button = page.locator(f"table.league th:nth-child({accuracy}) button")
    for order in ("descending", "ascending"):
        button.click()
        values = column(accuracy)
        known = [float(value) for value in values if value]
        assert len(known) > 20
        assert known == sorted(known, reverse=order == "descending")
        assert values == [*values[: len(known)], *[""] * (len(values) - len(known))]
        assert page.locator(f"th[aria-sort={order}]").count() == 1
    page.locator(".sort-bar select").select_option("0")
    schemes = column(1)
    assert schemes == sorted(schemes)
    reverse.click()
    assert column(1) == sorted(schemes, reverse=True)


@needs_chromium
def test_it_opens_on_few_schemes_of_one_setting(built, opened):
    page = opened(built)
    picks = dict(work="Schicho (2023)", dataset="MNIST", model="fnn", protocol="clean")
    for name, value in (picks | dict(length="full length")).items():
        assert picked(page, name) == value
    names = ["linear baseline", "default", "weights 0, biases 0"]
    names += ["weights 0, biases N(0, 1)", "weights 0, biases U[0, 1)"]
    texts = shown(page).all_inner_texts()
    assert [text.split("\n")[0].startswith(n) for text, n in zip(texts, names, strict=True)]
    wait_until(lambda: count_lines(page), 5)
    assert page.evaluate("document.documentElement.scrollHeight") < 2000
    turn_to(page, "evidence")
    assert page.evaluate("document.documentElement.scrollHeight") < 2000


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_no_text_of_the_map_is_wider_than_its_box(built, opened, width):
    page = opened(built, width)
    turn_to(page, "evidence")
    overflowing = page.eval_on_selector_all(
        ".map td, .map td *",
        "all => all.filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent)",
    )
    assert page.locator(".map button").count() > 50
    assert overflowing == []


@needs_chromium
def test_own_runs_are_apart(opened, tmp_path):
    """A run of no suite, and one of another length, are groups of their own."""
    from zeroinit.experiments.config import Experiment
    from zeroinit.experiments.records import records, results_path, write_record

    root = tmp_path / "results"
    settings = dict(model="fnn", dataset="mnist", protocol="clean", metric="last")
    found = records(
        TOP / "results", scheme="default", reshuffle=True, shared_init=False, **settings
    )
    for record in found[:2]:
        changes = ({}, dict(lr=0.01), dict(epochs=3))
        for change in changes:
            config = record["config"] | change
            experiment = Experiment(**config)
            history = record["history"][: experiment.epochs]
            changed = record | dict(config=config, history=history)
            write_record(results_path(root, experiment, record["seed"]), changed)
    page = opened(write_explorer(tmp_path / "own.html", root))
    own = ["own runs, full length", "own runs, 3 epochs, all images"]
    assert offered(page, "length") == ["full length", *own]
    for length in offered(page, "length"):
        pick(page, length=length)
        assert page.locator("#schemes button").count() == 1
        wait_until(lambda: count_lines(page), 1)


@needs_chromium
def test_every_group_draws(built, opened):
    page = opened(built)
    groups = page_data(page)["groups"]
    assert len(groups) > 10
    for group in groups:
        pick(page, **group["picks"])
        assert {name: picked(page, name) for name in group["picks"]} == group["picks"]
        n_shown = min(5, len(group["series"]))
        assert shown(page).count() == n_shown
        wait_until(lambda: count_lines(page), n_shown)
        assert page.locator("#waking").is_visible() == group["has"]["waking"]


@needs_chromium
def test_the_page_explains_itself(built, opened):
    page = opened(built)
    home = page.locator("#home a").get_attribute("href")
    assert home == "https://github.com/zeroinit/zeroinit"  # for a file on the disk
    terms = page.locator("#words dt")
    assert not terms.first.is_visible()
    page.locator("#words summary").click()
    assert terms.first.is_visible()
    explained = " ".join(terms.all_text_contents())
    expected = (
        "scheme",
        "fnn",
        "protocol",
        "effective rank",
        "S1 to S7, J1 to J6",
        "seed",
        "interval",
    )
    for term in expected:
        assert term in explained
    glossary = page.locator("#words").inner_text()
    for group in page_data(page)["groups"]:
        network, _, _ = group["picks"]["model"].partition("(")  # without its arguments
        assert network in glossary
    assert "Arguments in brackets" in glossary


@needs_chromium
def test_on_the_site_it_links_to_the_first_page(built, chromium):
    def respond(route):
        is_explorer = route.request.url.endswith("explorer.html")
        body = built.read_text() if is_explorer else "home"
        route.fulfill(body=body, content_type="text/html")

    page = chromium.new_page()
    page.route("**/*", respond)
    page.goto("http://site.invalid/docs/explorer.html")
    page.locator("#home a").click()
    page.wait_for_url("http://site.invalid/docs/index.html")
    page.close()


@needs_chromium
def test_a_pick_that_was_forced_does_not_stay(built, opened):
    """A network's runs of another length lead on to the ResNet's many runs, not to its single run
    of that length."""
    page = opened(built)
    for name, value in (("model", "cnn"), ("dataset", "CIFAR-10"), ("model", "resnet50")):
        pick(page, **{name: value})
        assert page.locator("#schemes button").count() > 1
    assert picked(page, "length") == "3 epochs, 2,000 images"
    assert page.locator("#schemes button").count() > 5

    pick(page, dataset="MNIST", model="fnn", protocol="published")
    pick(page, dataset="CIFAR-10")
    assert picked(page, "protocol") == "published"  # this was chosen


def test_names_are_short_and_colours_differ(built):
    data = re.search(r'id="page-data">(.*?)</script>', built.read_text(), re.DOTALL)[1]
    for group in json.loads(data)["groups"]:
        series = group["series"]
        names = [s["series"] for s in series]
        styles = [(s["color"], s["dash"]) for s in series]
        assert len(set(names)) == len(set(styles)) == len(names), group["runs"]
        assert [n for n in names if len(n) > 60 or "_" in n or "=" in n] == []
        # dashes are for one scheme with another setting or a flaw of the published procedure
        variant = r"(, (lr \S+|one order|one draw|batch \d+|plain layout|SGD|float64))+$"
        schemes = {(s["color"], re.sub(variant, "", s["series"])) for s in series}
        assert len({color for color, _ in schemes}) == len(schemes), group["runs"]


@needs_chromium
def test_schemes_are_clicked_off_and_on(built, opened):
    page = opened(built)
    button = page.locator("#schemes button").nth(1)
    n_lines = count_lines(page)
    button.click()
    wait_until(lambda: count_lines(page), n_lines - 1)
    assert button.get_attribute("aria-pressed") == "false"
    assert count_lines(page, "ranks") == n_lines - 2
    button.press("Enter")  # from the keyboard too
    wait_until(lambda: count_lines(page), n_lines)


@needs_chromium
def test_a_cell_of_the_map_leads_to_its_runs(built, opened):
    from zeroinit.evidence.cells import evidence_cells
    from zeroinit.experiments.records import records

    found = records(TOP / "results")
    cells = evidence_cells(found, TOP / "results")
    page = opened(built)
    turn_to(page, "evidence")
    assert page.locator(".map button").count() == len(cells)
    panel = page.locator("#cell")
    assert not panel.is_visible()

    is_wanted = (cells["claim"] == "S2") & (cells["setting"] == "fnn on MNIST")
    is_wanted &= (cells["variant"] == "N(0, 1)") & (cells["protocol"] == "clean")
    (index,) = cells.index[is_wanted]
    cell = cells.loc[index]
    button = page.locator(f".map button[data-cell='{index}']")
    assert cell["effect"] in button.inner_text()
    button.click()
    wait_until(lambda: count_lines(page, "behind"), 2)
    assert page.locator(".map button[aria-current=true]").count() == 1
    assert button.get_attribute("aria-current") == "true"
    wait_until(lambda: panel.locator("h2:focus").count(), 1)
    assert cell["word"] in panel.locator("h2").inner_text()
    assert cell["detail"] in panel.inner_text()
    assert f"“{cell['word']}”: " in panel.inner_text()
    folders = panel.locator("code").all_inner_texts()
    for experiment_hash in cell["experiments"]:
        (folder,) = {f for f in folders if f.endswith(f"-{experiment_hash}/")}
        assert (TOP / folder).is_dir()
    commits = {record["env"]["git"][:7] for record in found}
    assert set(panel.locator("td:nth-child(4)").all_inner_texts()) <= commits

    panel.get_by_text("Show this setting").click()
    assert page.locator("#curves").is_visible()
    assert (picked(page, "dataset"), picked(page, "model")) == ("MNIST", "fnn")


@needs_chromium
def test_every_cell_of_the_map_opens(built, opened):
    page = opened(built)
    cells = page_data(page)["cells"]
    turn_to(page, "evidence")
    heading = page.locator("#cell h2")
    for index, cell in cells.items():
        page.evaluate("i => document.querySelector(`[data-cell='${i}']`).click()", index)
        wait_until(heading.text_content, cell["title"])
    order = next(index for index, cell in cells.items() if cell["view"] == "waking")
    page.locator(f".map button[data-cell='{order}']").click()
    wait_until(lambda: count_marks(page, "behind", "rect") > 0, True)


@needs_chromium
@pytest.mark.parametrize("fragment", ["", "#evidence"])
def test_the_map_of_the_evidence_is_the_first_page(built, opened, fragment):
    page = opened(built, fragment=fragment)
    assert page.locator(".map").first.is_visible()
    assert not page.locator("#curves").is_visible()
    page.locator("nav button[name=runs]").click()
    assert page.locator("#curves").is_visible()
    assert (picked(page, "dataset"), picked(page, "protocol")) == ("MNIST", "clean")


@needs_chromium
def test_claims_are_told_as_in_the_readme(built, opened):
    from zeroinit.evidence.cells import claims_table, evidence_cells
    from zeroinit.experiments.records import records

    cells = evidence_cells(records(TOP / "results"))
    table = claims_table(cells).set_index("claim")
    page = opened(built)
    turn_to(page, "evidence")
    page.locator("#claims summary").click()
    rows = page.locator("tr[data-claim]")
    assert rows.count() == len(table)
    for row in rows.all():
        claim = table.loc[row.get_attribute("data-claim")]
        text = row.inner_text()
        for column in ("statement", "found", "where", "status"):
            assert claim[column] in text
    assert "undecided" not in page.locator("#claims").inner_text()

    heading = page.locator("#differences h2")
    labels = page.locator("#effects g.mark-text text")
    page.locator("tr[data-claim=S1] button").click()
    wait_until(heading.inner_text, "S1, difference by difference")
    before = labels.all_text_contents()
    page.locator("tr[data-claim=S3] button").click()
    wait_until(heading.inner_text, "S3, difference by difference")
    wait_until(lambda: labels.all_text_contents() != before, True)

    page.locator("tr[data-claim=J6] button").click()
    has_effects = cells["estimate"].notna() & (cells["claim"] == "J6")
    wait_until(page.locator("#effects").is_visible, has_effects.any())
    assert table.loc["J6"].line in page.locator("#differences figcaption").inner_text()


@needs_chromium
def test_a_narrow_screen_and_a_dark_theme(built, opened):
    page = opened(built, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for view in page.locator("svg.marks:visible").all():
        box = view.bounding_box()
        assert box["x"] + box["width"] <= 390
    pick(page, dataset="CIFAR-10", model="resnet50")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    page = opened(built, dark=True)
    line = page.locator("#curves g.mark-line path").first
    background = "getComputedStyle(document.body).backgroundColor"
    assert line.get_attribute("stroke") == "#f0f0f0"
    assert page.evaluate(background) == "rgb(23, 24, 27)"
    page.emulate_media(color_scheme="light")
    wait_until(lambda: line.get_attribute("stroke"), "#000000")
    assert page.evaluate(background) == "rgb(255, 255, 255)"


@needs_chromium
def test_diverged_runs_and_damaged_records_are_shown(opened, tmp_path):
    from zeroinit.experiments.config import Experiment
    from zeroinit.experiments.records import records, results_path, write_record

    settings = dict(model="fnn", dataset="mnist", protocol="clean")
    found = records(TOP / "results", scheme="bias_normal(std=100)", **settings)[:3]
    root = tmp_path / "results"
    for record, status in zip(found, ("done", "done", "diverged"), strict=True):
        n_epochs = 3 if status == "diverged" else None
        changed = record | dict(status=status, history=record["history"][:n_epochs])
        path = results_path(root, Experiment(**record["config"]), record["seed"])
        write_record(path, changed)
    page = opened(write_explorer(tmp_path / "a.html", root))
    assert "1 of them diverged" in page.inner_text("body")
    assert "1 diverged" in page.locator("#schemes").inner_text()
    assert page.locator("#curves g.mark-symbol path[aria-label*='diverged']").count() == 1

    path.write_text(path.read_text()[:200])
    page = opened(write_explorer(tmp_path / "b.html", root))
    text = page.inner_text("body")
    assert "2 runs, 0 of them diverged" in text
    assert "Left out: results/mnist/fnn" in text.replace(f"{tmp_path}/", "")


@needs_chromium
def test_without_records_the_page_says_so(opened, tmp_path, call):
    (tmp_path / "results").mkdir()
    command = [sys.executable, "-m", "zeroinit.publish.cli", "explorer"]
    arguments = ["--results-root", "results", "--out", tmp_path / "e.html"]
    done = call(*command, *arguments, cwd=tmp_path)
    assert "e.html shows no runs" in done.stdout
    assert "MB" not in done.stdout
    page = opened(tmp_path / "e.html")
    text = page.inner_text("body")
    assert "There are no records in" in text
    assert "results yet: zeroinit run demo makes some" in text
    assert page.locator("svg").count() == 0
    assert not page.locator("#page").is_visible()


@needs_chromium
def test_a_single_view(opened, tmp_path):
    """As a notebook shows it: a list of the runs, and a legend to click."""
    from zeroinit.experiments.records import records
    from zeroinit.publish.explorer import curve_chart, curve_table

    found = records(TOP / "results", dataset="mnist")
    curve_chart(curve_table(found)).save(tmp_path / "curves.html", inline=True)
    page = opened(tmp_path / "curves.html", ready="svg.marks")
    options = page.locator(".vega-bindings select option").all_text_contents()
    assert "Schicho (2023): fnn on MNIST, clean, full length" in options
    assert len(options) > 2

    lines = page.locator("g.mark-line.role-mark path")
    legend = page.locator("g.role-legend-entry g.mark-text text")
    assert lines.count() == legend.count() > 5

    def n_opaque():
        return sum(float(line.get_attribute("opacity") or 1) == 1 for line in lines.all())

    legend.get_by_text("default", exact=True).click()
    wait_until(n_opaque, 1)
    group = "Schicho (2023): cnn on MNIST, clean, 1 epoch, 1,600 images"
    page.locator(".vega-bindings select").select_option(group)
    wait_until(
        lambda: (lines.count(), legend.all_text_contents()),
        (1, ["weights 0, biases N(0, 1)"]),
    )


@needs_chromium
def test_the_widget_is_the_page(opened, tmp_path):
    from zeroinit.publish.explorer import widget

    text = f"<!doctype html><body>{widget(TOP / 'results').data}"
    (tmp_path / "notebook.html").write_text(text, encoding="utf-8")
    page = opened(tmp_path / "notebook.html", ready="iframe")
    frame = page.frame_locator("iframe")
    frame.locator("body[data-ready]").wait_for(timeout=60_000)
    n_schemes = frame.locator("#schemes button[aria-pressed=true]").count()
    assert frame.locator("#curves g.mark-line path").count() == n_schemes


def test_without_altair_it_is_refused_in_a_sentence():
    code = """
import sys
sys.modules["altair"] = None
from zeroinit.publish.cli import main
sys.exit(main(["explorer", "--out", "never.html"]))"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, check=False
    )
    sentence = "zeroinit: the explorer needs altair: pip install 'zeroinit[explorer]'\n"
    assert (done.returncode, done.stderr) == (2, sentence)
    assert not (TOP / "never.html").exists()

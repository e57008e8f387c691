"""Run notebooks in JupyterLab, in a real browser, and look at what a reader would see.

    python tests/lab.py [--out DIR] [--limit SECONDS] [NOTEBOOK ...]

A notebook is named by its path below nbs/, with or without .ipynb, as figures/fig_zero. Without
names, all notebooks run, in a copy of the checkout. Each is run from top to bottom and gets a line:
its name, the seconds, the number of warnings (outputs on stderr), and `ok` or what was found.
Screenshots, each a page high, are kept in DIR. A notebook that hangs is run once more in a fresh
page, and its line says so. The exit code is 1 if a notebook failed. The script needs Playwright and
the system's Chromium.
"""

import argparse
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from browser import CHROMIUM, open_chromium

TOP = Path(__file__).resolve().parent.parent
VIEW = {"width": 1200, "height": 2000}
# from the checkout's top, since JupyterLab shows no picture from above the folder where it starts
OPENS = ["--LabApp.default_url=/lab/tree/nbs"]
# notebooks that would take minutes have parameters to be changed, as a reader would change them
PARAMETERS = {"run_experiment": 'dataset, epochs = "digits", 2', "benchmark": "quick = True"}
# on stderr; the last alternative: as torch logs
FRIGHTENING = re.compile(r"Traceback|Error|Warn|deprecated|^[WE]\d{4} ", re.I | re.M)
OPEN = """async path => {
    const app = window.jupyterapp
    await app.restored
    window.opened = await app.commands.execute("docmanager:open", {path})
    await window.opened.context.ready
    if (!app.shell.leftCollapsed) await app.commands.execute("application:toggle-left-area")
}"""
KERNEL = "() => window.opened.sessionContext.session?.kernel?.status"
# not awaited: it ends with the last cell
RUN = "() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }"
STATE = """() => {
    const cells = window.opened.content.model.sharedModel.cells
    const code = cells.filter(c => c.cell_type == "code" && c.source.trim())
    const failed = code.flatMap(c => c.outputs).find(o => o.output_type == "error")
    const waiting = code.filter(c => c.execution_count === null || c.execution_count === undefined)
    return {
        kernel: window.opened.sessionContext.session?.kernel?.status,
        waiting: waiting.length,
        error: failed ? `${failed.ename}: ${failed.evalue}` : "",
        dialog: [...document.querySelectorAll(".jp-Dialog")].map(d => d.innerText).join(" | "),
    }
}"""
SCROLL = """top => {
    const panel = window.opened.content.node.querySelector(".jp-WindowedPanel-outer")
    const last = window.opened.content.widgets.at(-1).node
    panel.scrollTop = top
    const bottom = panel.getBoundingClientRect().bottom
    return [panel.clientHeight, last.isConnected && last.getBoundingClientRect().bottom <= bottom]
}"""
NOT_SHOWN = """() => {
    const words = /Error displaying widget|Javascript Error|Error rendering|Loading widget/
    const outputs = [...document.querySelectorAll(".jp-OutputArea-output")].map(o => o.innerText)
    const images = [...document.querySelectorAll(".jp-Notebook img")]
    const missing = images.filter(
        i => i.complete && !i.naturalWidth && i.src.startsWith(location.origin))
    return [...outputs.filter(t => words.test(t)), ...missing.map(i => `no picture: ${i.alt}`)]
}"""
CLOSE = "async () => { await window.opened.context.save(); window.opened.dispose() }"


class Hangs(Exception):
    """A notebook makes no progress.

    A kernel of ipykernel 7.2 now and then leaves its requests unread; 6 and 7.4 do not.
    """


@dataclass
class Outcome:
    """What became of a notebook."""

    name: str
    seconds: float = 0
    warnings: int = 0
    problems: list = field(default_factory=list)
    notes: list = field(default_factory=list)

    def __str__(self):
        result = "; ".join(self.problems) or "ok"
        notes = "".join(f" ({note})" for note in self.notes)
        return f"{self.name:28}{self.seconds:7.1f} s{self.warnings:4} warnings  {result}{notes}"


def copy_checkout(folder):
    """Copy the checkout, to run in; return the top of the copy."""
    top = Path(folder).resolve() / "zeroinit"
    ignored = (".*", "_*cache*", "__pycache__", "build", "dist", "demo", "*.egg-info")
    shutil.copytree(TOP, top, ignore=shutil.ignore_patterns(*ignored))
    for name, line in PARAMETERS.items():
        set_parameters(top / f"nbs/{name}.ipynb", line)
    return top


def set_parameters(path, line):
    """Add a line to a notebook's parameters."""
    notebook = json.loads(path.read_text())
    tagged = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
    (cell,) = tagged
    cell["source"] = [*cell["source"], "\n" + line]
    path.write_text(json.dumps(notebook))


def jupyter_folders(folder):
    """New folders for Jupyter, so that no settings of this machine count and no history is kept."""
    settings = "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    path = Path(folder) / settings
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    names = dict(
        JUPYTERLAB_SETTINGS_DIR="settings",
        JUPYTERLAB_WORKSPACES_DIR="workspaces",
        JUPYTER_CONFIG_DIR="config",
        JUPYTER_DATA_DIR="data",
        JUPYTER_RUNTIME_DIR="runtime",
        IPYTHONDIR="ipython",
    )
    return {variable: str(Path(folder) / name) for variable, name in names.items()}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def open_url(request, timeout):
    """Open a URL of this machine, past any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=timeout)


def wait_for_server(url, process, log, limit=120):
    """Wait until the server answers."""
    until = time.monotonic() + limit
    while time.monotonic() < until and process.poll() is None:
        try:
            open_url(url, timeout=5).read()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start: {Path(log).read_text()[-2000:]}")


@contextmanager
def server(tree, folder, env=None):
    """JupyterLab as `make lab` starts it in `tree`; its address and its token."""
    port, token = free_port(), secrets.token_hex(16)
    log = Path(folder) / "server.log"
    env = {**os.environ, "PYTHONPATH": str(tree), **jupyter_folders(folder), **(env or {})}
    arguments = [
        *OPENS,
        "--no-browser",
        "--expose-app-in-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
    ]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "lab", *arguments],
            cwd=tree,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_for_server(f"http://127.0.0.1:{port}/api/status?token={token}", process, log)
        yield f"http://127.0.0.1:{port}", token
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def call_api(address, path, method="GET"):
    """Call the server's API."""
    url, token = address
    headers = {"Authorization": f"token {token}"}
    request = urllib.request.Request(f"{url}/api/{path}", method=method, headers=headers)
    with open_url(request, timeout=30) as response:
        return json.loads(response.read() or "null")


def end_kernels(address):
    """Shut all kernels down."""
    for session in call_api(address, "sessions"):
        call_api(address, f"sessions/{session['id']}", "DELETE")


def wait_for(page, script, is_expected, patience):
    """Evaluate a script until its value is expected; `Hangs` after `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        value = page.evaluate(script)
        if is_expected(value):
            return value
        if time.monotonic() > until:
            raise Hangs(f"{value} after {patience} s")
        page.wait_for_timeout(250)


def run_all(page, address, limit, still=20):
    """Run all cells, wait for the last and return the first error.

    `Hangs` if the kernel is idle for `still` seconds while cells wait, or after `limit` seconds.
    """
    page.evaluate(RUN)
    until, last_progress, before = time.monotonic() + limit, time.monotonic(), None
    while True:
        state = page.evaluate(STATE)
        is_done = state["kernel"] == "idle" and not state["waiting"]
        if state["error"] or is_done:
            return state["error"]
        if state != before or state["kernel"] == "busy":
            last_progress, before = time.monotonic(), state
        if time.monotonic() > min(until, last_progress + still):
            kernels = [k["execution_state"] for k in call_api(address, "kernels")]
            raise Hangs(f"{state}, the server says {kernels}")
        page.wait_for_timeout(250)


def take_screenshots(page, path, most=40):
    """Take screenshots from top to bottom; return what JupyterLab itself could not show."""
    top, not_shown = 0, {}
    for part in range(1, most + 1):
        page.evaluate(SCROLL, top)
        page.wait_for_timeout(600)
        height, is_end = page.evaluate(SCROLL, top)
        not_shown |= dict.fromkeys(page.evaluate(NOT_SHOWN))
        page.screenshot(path=f"{path}-{part}.png")
        if is_end:
            break
        top += height - 40
    return list(not_shown)


def outputs(path):
    """Yield each output of an executed notebook: its kind, or the stream's name, and its text."""
    for cell in json.loads(path.read_text())["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts = [text for kind, text in data.items() if kind.startswith("text/")]
            texts = [output.get("text", ""), *texts, output.get("evalue", "")]
            name = output.get("name", output["output_type"])
            yield name, "\n".join("".join(text) for text in texts)


def check_outputs(path, tree):
    """Return the number of outputs on stderr, and the problems of all outputs.

    A problem is a frightening text on stderr, or a path of this machine.
    """
    temporary, home = tempfile.gettempdir() + "/", str(Path.home()) + "/"
    paths = [str(tree), str(TOP), sys.prefix, temporary, home]
    n_warnings, problems = 0, []
    for name, text in outputs(path):
        if name == "stderr":
            n_warnings += 1
            if FRIGHTENING.search(text):
                problems.append(f"stderr: {text.strip()[:300]!r}")
                continue
        positions = [text.index(p) for p in paths if p in text]
        if positions:
            excerpt = text[max(0, positions[0] - 60) : positions[0] + 100]
            problems.append(f"a path of this machine: {excerpt!r}")
    return n_warnings, problems


def notebook_name(path, tree):
    """The path of a notebook below nbs/, without its suffix, as figures/fig_zero."""
    return path.relative_to(tree / "nbs").with_suffix("").as_posix()


def screenshot_path(out, name):
    """Where a notebook's screenshots are kept, without their number."""
    return out / name.replace("/", "-")


def run_once(page, address, path, tree, out, limit):
    """Open a notebook, run it, take screenshots and save it; return warnings and problems."""
    url, token = address
    page.goto(f"{url}/lab?token={token}&reset", timeout=60_000)
    page.wait_for_function("() => window.jupyterapp", timeout=60_000)
    page.evaluate(OPEN, path.relative_to(tree).as_posix())
    wait_for(page, KERNEL, lambda status: status == "idle", 60)
    error = run_all(page, address, limit)
    not_shown = take_screenshots(page, screenshot_path(out, notebook_name(path, tree)))
    page.evaluate(CLOSE)
    n_warnings, problems = check_outputs(path, tree)
    errors = [error] if error else []
    return n_warnings, [*errors, *not_shown, *problems]


def run_in_page(chrome, address, tree, path, out, limit=1200):
    """Run a notebook in a page of its own, and once more in a fresh one if it hangs."""
    from playwright.sync_api import Error

    name, source = notebook_name(path, tree), path.read_text()
    outcome = Outcome(name)
    for attempt in (1, 2):
        page = chrome.new_page(viewport=VIEW)
        start = time.monotonic()
        try:
            warnings, problems = run_once(page, address, path, tree, out, limit)
            outcome.warnings, outcome.problems = warnings, problems
            break
        except (Hangs, Error) as e:
            outcome.notes.append(f"hung: {str(e).splitlines()[0]}")
            outcome.problems = ["hangs"]
            page.screenshot(path=f"{screenshot_path(out, name)}-hangs-{attempt}.png")
            path.write_text(source)
        finally:
            outcome.seconds = time.monotonic() - start
            page.close()
            end_kernels(address)
    return outcome


def main(args=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "notebooks", nargs="*", metavar="NOTEBOOK", help="paths below nbs/; all, if none is named"
    )
    parser.add_argument("--out", default=".runs/lab", help="folder for screenshots")
    parser.add_argument("--limit", type=float, default=1200, help="seconds a notebook may take")
    options = parser.parse_args(args)
    if not CHROMIUM:
        sys.exit("there is no Chromium here; install the package chromium of your system")
    out = Path(options.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    n_failed = 0
    with tempfile.TemporaryDirectory() as d:
        tree = copy_checkout(d)
        paths = [tree / "nbs" / f"{n.removesuffix('.ipynb')}.ipynb" for n in options.notebooks]
        paths = paths or sorted((tree / "nbs").rglob("*.ipynb"))
        with server(tree, d) as address, open_chromium() as chrome:
            for path in paths:
                outcome = run_in_page(chrome, address, tree, path, out, options.limit)
                n_failed += bool(outcome.problems)
                print(outcome, flush=True)
    n_ok = len(paths) - n_failed
    print(f"{n_ok} of {len(paths)} ran without a complaint; screenshots: {options.out}")
    return bool(n_failed)


if __name__ == "__main__":
    sys.exit(main())

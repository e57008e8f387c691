"""Open notebooks in JupyterLab, in a real browser, run each from top to bottom, and look at what a reader would see.

    python tests/lab.py [--out DIR] [--limit SECONDS] [NOTEBOOK ...]

All of nbs/ if none is named. They run in a copy of the checkout. A line each: the name, the seconds, how many warnings (outputs
on stderr), and `ok` or what was found; screenshots, a page high each, are kept in DIR. A notebook that hangs is opened once more
in a fresh page, and its line says so. The exit code is 1 if one failed. It needs Playwright, and a Chromium of the system's.
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

TOP = Path(__file__).resolve().parent.parent
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
VIEW = {"width": 1200, "height": 2000}
OPENS = [
    "--LabApp.default_url=/lab/tree/nbs"
]  # from the checkout's top, since JupyterLab shows no picture from above where it starts
# notebooks that would take minutes have parameters to be changed, as a reader would change them
PARAMETERS = {"run_experiment": 'dataset, epochs = "digits", 2', "benchmark": "quick = True"}
FRIGHTENS = re.compile(
    r"Traceback|Error|Warn|deprecated|^[WE]\d{4} ", re.I | re.M
)  # the last: as torch logs
OPEN = """async path => {
    const app = window.jupyterapp
    await app.restored
    window.opened = await app.commands.execute("docmanager:open", {path})
    await window.opened.context.ready
    if (!app.shell.leftCollapsed) await app.commands.execute("application:toggle-left-area")
}"""
KERNEL = "() => window.opened.sessionContext.session?.kernel?.status"
RUN = "() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }"  # not awaited: it ends with the last cell
STATE = """() => {
    const code = window.opened.content.model.sharedModel.cells.filter(c => c.cell_type == "code" && c.source.trim())
    const failed = code.flatMap(c => c.outputs).find(o => o.output_type == "error")
    return {
        kernel: window.opened.sessionContext.session?.kernel?.status,
        waiting: code.filter(c => c.execution_count === null || c.execution_count === undefined).length,
        error: failed ? `${failed.ename}: ${failed.evalue}` : "",
        dialog: [...document.querySelectorAll(".jp-Dialog")].map(d => d.innerText).join(" | "),
    }
}"""
SCROLL = """top => {
    const panel = window.opened.content.node.querySelector(".jp-WindowedPanel-outer"), last = window.opened.content.widgets.at(-1).node
    panel.scrollTop = top
    return [panel.clientHeight, last.isConnected && last.getBoundingClientRect().bottom <= panel.getBoundingClientRect().bottom]
}"""
NOT_SHOWN = """() => [
    ...[...document.querySelectorAll(".jp-OutputArea-output")].map(o => o.innerText).filter(t => /Error displaying widget|Javascript Error|Error rendering|Loading widget/.test(t)),
    ...[...document.querySelectorAll(".jp-Notebook img")].filter(i => i.complete && !i.naturalWidth && i.src.startsWith(location.origin)).map(i => `no picture: ${i.alt}`),
]"""
CLOSE = "async () => { await window.opened.context.save(); window.opened.dispose() }"


class Hangs(Exception):
    """A notebook that stands still. A kernel of ipykernel 7.2 now and then leaves its requests unread; 6 and 7.4 do not."""


@dataclass
class Found:
    """What became of a notebook."""

    name: str
    seconds: float = 0
    warnings: int = 0
    problems: list = field(default_factory=list)
    notes: list = field(default_factory=list)

    def __str__(self):
        again = "".join(f" ({n})" for n in self.notes)
        return f"{self.name:28}{self.seconds:7.1f} s{self.warnings:4} warnings  {'; '.join(self.problems) or 'ok'}{again}"


def copied(folder):
    """A copy of the checkout, to run in; its top."""
    made = Path(folder).resolve() / "zeroinit"
    shutil.copytree(
        TOP,
        made,
        ignore=shutil.ignore_patterns(
            ".*", "_*cache*", "__pycache__", "build", "dist", "demo", "*.egg-info"
        ),
    )
    for name, line in PARAMETERS.items():
        parametrize(made / f"nbs/{name}.ipynb", line)
    return made


def parametrize(path, line):
    """Change a notebook's parameters."""
    nb = json.loads(path.read_text())
    (cell,) = [c for c in nb["cells"] if "parameters" in c["metadata"].get("tags", [])]
    cell["source"] = [*cell["source"], "\n" + line]
    path.write_text(json.dumps(nb))


def settings(folder):
    """Jupyter's own folders, all new, so that nobody's settings matter and nobody's history is written to."""
    told = Path(folder) / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    told.parent.mkdir(parents=True)
    told.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    names = dict(
        JUPYTERLAB_SETTINGS_DIR="settings",
        JUPYTERLAB_WORKSPACES_DIR="workspaces",
        JUPYTER_CONFIG_DIR="config",
        JUPYTER_DATA_DIR="data",
        JUPYTER_RUNTIME_DIR="runtime",
        IPYTHONDIR="ipython",
    )
    return {k: str(Path(folder) / v) for k, v in names.items()}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(url, process, log, limit=120):
    """Wait until the server answers."""
    until = time.monotonic() + limit
    while time.monotonic() < until and process.poll() is None:
        try:
            return (
                urllib.request.build_opener(urllib.request.ProxyHandler({}))
                .open(url, timeout=5)
                .read()
            )
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start: {Path(log).read_text()[-2000:]}")


@contextmanager
def server(tree, folder, env=None):
    """JupyterLab as `make lab` starts it in `tree`; its address and its token."""
    port, token, log = free_port(), secrets.token_hex(16), Path(folder) / "server.log"
    env = {**os.environ, "PYTHONPATH": str(tree), **settings(folder), **(env or {})}
    args = [
        *OPENS,
        "--no-browser",
        "--expose-app-in-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
    ]
    with open(log, "wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "lab", *args],
            cwd=tree,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        answers(f"http://127.0.0.1:{port}/api/status?token={token}", process, log)
        yield f"http://127.0.0.1:{port}", token
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def browser():
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        made = p.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        try:
            yield made
        finally:
            made.close()


def ask(address, path, method="GET"):
    """A question to the server, past any proxy."""
    base, token = address
    request = urllib.request.Request(
        f"{base}/api/{path}", method=method, headers={"Authorization": f"token {token}"}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        request, timeout=30
    ) as r:
        return json.loads(r.read() or "null")


def end_kernels(address):
    """Shut all kernels down."""
    for s in ask(address, "sessions"):
        ask(address, f"sessions/{s['id']}", "DELETE")


def patient(page, question, happy, patience):
    """Ask the page until the answer is a happy one; `Hangs` after `patience` seconds."""
    until = time.monotonic() + patience
    while not happy(told := page.evaluate(question)):
        if time.monotonic() > until:
            raise Hangs(f"{told} after {patience} s")
        page.wait_for_timeout(250)
    return told


def run_all(page, address, limit, still=20):
    """Run all cells, and wait for the last; the first error. An idle kernel with cells to go stands still."""
    page.evaluate(RUN)
    until, moved, before = time.monotonic() + limit, time.monotonic(), None
    while True:
        told = page.evaluate(STATE)
        if told["error"] or (told["kernel"] == "idle" and not told["waiting"]):
            return told["error"]
        if told != before or told["kernel"] == "busy":
            moved, before = time.monotonic(), told
        if time.monotonic() > min(until, moved + still):
            raise Hangs(
                f"{told}, the server says {[k['execution_state'] for k in ask(address, 'kernels')]}"
            )
        page.wait_for_timeout(250)


def pictures(page, path, most=40):
    """Screenshots from top to end, and what JupyterLab itself could not show."""
    top, bad = 0, {}
    for part in range(1, most + 1):
        page.evaluate(SCROLL, top)
        page.wait_for_timeout(600)
        height, end = page.evaluate(SCROLL, top)
        bad |= dict.fromkeys(page.evaluate(NOT_SHOWN))
        page.screenshot(path=f"{path}-{part}.png")
        if end:
            break
        top += height - 40
    return list(bad)


def outputs(path):
    """The outputs of an executed notebook: its kind, or the stream's name, and its text."""
    for cell in json.loads(path.read_text())["cells"]:
        for o in cell.get("outputs", []):
            data = {k: v for k, v in o.get("data", {}).items() if k.startswith("text/")}
            text = [o.get("text", ""), *data.values(), o.get("evalue", "")]
            yield o.get("name", o["output_type"]), "\n".join("".join(t) for t in text)


def judge(path, tree):
    """How many outputs of a notebook are on stderr, and what would frighten its reader or hold on this machine only."""
    here = [str(tree), str(TOP), sys.prefix, tempfile.gettempdir() + "/", str(Path.home()) + "/"]
    problems, warnings = [], 0
    for name, text in outputs(path):
        warnings += name == "stderr"
        if name == "stderr" and FRIGHTENS.search(text):
            problems.append(f"stderr: {text.strip()[:300]!r}")
        elif found := next((text.index(h) for h in here if h in text), -1) + 1:
            problems.append(f"a path of this machine: {text[max(0, found - 60) : found + 100]!r}")
    return warnings, problems


def once(page, address, path, tree, out, limit):
    """Open a notebook, run it, photograph it, save it; the first error."""
    page.goto(f"{address[0]}/lab?token={address[1]}&reset", timeout=60_000)
    page.wait_for_function("() => window.jupyterapp", timeout=60_000)
    page.evaluate(OPEN, f"nbs/{path.name}")
    patient(page, KERNEL, lambda status: status == "idle", 60)
    error = run_all(page, address, limit)
    unshown = pictures(page, out / path.stem)
    page.evaluate(CLOSE)
    warnings, problems = judge(path, tree)
    return warnings, [*([error] if error else []), *unshown, *problems]


def visit(chrome, address, tree, path, out, limit=1200):
    """Run one notebook, in a page of its own; once more in a fresh one if it hangs."""
    from playwright.sync_api import Error

    found, source = Found(path.stem), path.read_text()
    for attempt in (1, 2):
        page = chrome.new_page(viewport=VIEW)
        start = time.monotonic()
        try:
            found.warnings, found.problems = once(page, address, path, tree, out, limit)
            break
        except (Hangs, Error) as e:
            found.notes.append(f"hung: {str(e).splitlines()[0]}")
            page.screenshot(path=out / f"{path.stem}-hangs-{attempt}.png")
            found.problems = ["hangs"]
            path.write_text(source)
        finally:
            found.seconds = time.monotonic() - start
            page.close()
            end_kernels(address)
    return found


def main(args=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "notebooks", nargs="*", metavar="NOTEBOOK", help="names in nbs/; all, if none is named"
    )
    parser.add_argument("--out", default=".runs/lab", help="folder for screenshots")
    parser.add_argument("--limit", type=float, default=1200, help="seconds a notebook may take")
    told = parser.parse_args(args)
    if not CHROMIUM:
        sys.exit("there is no Chromium here; install the package chromium of your system")
    out = Path(told.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as d:
        tree = copied(d)
        names = [Path(n).stem for n in told.notebooks] or sorted(
            p.stem for p in (tree / "nbs").glob("*.ipynb")
        )
        failed = []
        with server(tree, d) as address, browser() as chrome:
            for name in names:
                found = visit(chrome, address, tree, tree / f"nbs/{name}.ipynb", out, told.limit)
                failed += [name] if found.problems else []
                print(found, flush=True)
    print(
        f"{len(names) - len(failed)} of {len(names)} ran without a complaint; screenshots: {told.out}"
    )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

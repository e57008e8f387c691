"""Every command that reads records, beside files that are none: they are named, and it goes on."""

import hashlib
import json
import os
import shutil
import warnings

import pytest
from house import TOP

from zeroinit.experiments.records import records, results_path
from zeroinit.experiments.suites import SUITES
from zeroinit.publish.cli import main

SUITE = "schicho-mnist"


def seal(path, text):
    """A text with the seal of a record in its place, as whoever forges one would compute it."""
    body = text.rstrip().removesuffix("}")
    place = "/".join(path.parts[-4:])
    digest = hashlib.sha256(f"{place}\n{body}".encode()).hexdigest()
    return f'{body},\n"sha256":"{digest}"}}\n'


def forge(path, **changes):
    """Rewrite a record with other values and a seal that fits."""
    record = json.loads(path.read_text())
    record.pop("sha256", None)
    path.write_text(seal(path, json.dumps(record | changes)))


def claim_older_version(path):
    """Strip the seal of a record, and let it claim to be of the version that had none."""
    record = json.loads(path.read_text())
    record.pop("sha256", None)
    record["env"]["zeroinit"] = "0.1.0"
    record["history"][-1]["test_acc"] = 0.99
    path.write_text(json.dumps(record))


def link_to(target):
    def put(path):
        path.unlink()
        path.symlink_to(target)

    return put


def make_folder(path):
    path.unlink()
    path.mkdir()


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


def nest(path):
    path.write_text(seal(path, '{"config":' + "[" * 100_000 + "]" * 100_000 + "}"))


ODD = {
    "nested": nest,
    "dangling": link_to("/annex/objects/SHA256E-s3--ba7816bf.json"),
    "looping": lambda path: link_to(path.name)(path),
    "git-annex pointer": lambda path: path.write_text("/annex/objects/SHA256E-s3--ba7816bf\n"),
    "DVC pointer": lambda path: path.write_text("outs:\n- md5: 8f14e45f\n  path: seed0.json\n"),
    "empty": lambda path: path.write_bytes(b""),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe{}"),
    "folder": make_folder,
    "pipe": make_pipe,
    "older version": claim_older_version,
    "history of text": lambda path: forge(path, history="none"),
    "no epochs": lambda path: forge(path, history=[]),
    "env of a list": lambda path: forge(path, env=[]),
    "probes of nothing": lambda path: forge(path, probes={}),
    "seed of text": lambda path: forge(path, seed="0"),
    "config of null": lambda path: forge(path, config=None),
    "huge number": lambda path: forge(path, wall_s=10**400),
    "list": lambda path: path.write_text(seal(path, "[1, 2, 3]")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Records of a suite, of which every second one is odd; with the odd ones' paths by kind."""
    root = tmp_path_factory.mktemp("odd") / "results"
    runs = [(e, seed) for e, seeds in SUITES[SUITE]() for seed in seeds]
    paths = [results_path(root, e, seed) for e, seed in runs]
    paths = [path for path in paths if (TOP / "results" / path.relative_to(root)).exists()]
    paths = paths[: 2 * len(ODD)]
    assert len(paths) == 2 * len(ODD)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOP / "results" / path.relative_to(root), path)
    odd = dict(zip(ODD, paths[::2], strict=True))
    for kind, path in odd.items():
        ODD[kind](path)
    (root / "epoch_times").mkdir()
    (root / "loop").symlink_to("loop")
    return root, odd


def call(capfd, *argv):
    code = main([str(a) for a in argv])
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err, err
    return code, out, err


COMMANDS = {
    "plan": ["plan", SUITE],
    "dry run": ["run", SUITE, "--dry-run"],
    "evidence": ["evidence", "S1"],
    "export": ["export", "tensorboard", "--out", "OUT"],
    "explorer": ["explorer", "--out", "OUT/explorer.html"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_damaged_files_and_goes_on(command, folder, capfd, tmp_path):
    root, odd = folder
    argv = [word.replace("OUT", str(tmp_path)) for word in COMMANDS[command]]
    code, out, err = call(capfd, *argv, "--results-root", root)
    assert code == 0 and out, err
    for kind, path in odd.items():
        lines = [line for line in err.splitlines() if f"{path} is damaged" in line]
        assert len(lines) == 1, (kind, err)


def test_status_names_damaged_files(folder, capfd):
    root, odd = folder
    code, out, _ = call(capfd, "status", SUITE, "--results-root", root)
    damaged = [line for line in out.splitlines() if " damaged " in line and SUITE not in line]
    assert code == 0 and len(damaged) >= len(odd), out


def test_verify_names_a_damaged_file(folder, capfd):
    _, odd = folder
    for kind, path in odd.items():
        if kind == "folder":
            continue
        code, _, err = call(capfd, "verify", path)
        assert (code, len(err.splitlines())) == (2, 1) and f"{path} is damaged" in err, (kind, err)


def test_what_figures_and_tables_read(folder):
    """Figure notebooks read by `read` and `records`; `report` prints the table and the claims."""
    from zeroinit.evidence.cells import claim_lines
    from zeroinit.experiments.frames import read
    from zeroinit.publish.report import results_table

    root, odd = folder
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = records(root)
        assert len(found) == len(odd)
        assert len(read(root).drop_duplicates(["hash", "seed"])) == len(odd)
        assert results_table(root) and isinstance(claim_lines(found), list)
    text = "\n".join(str(warning.message) for warning in caught)
    assert all(f"{path} is damaged" in text for path in odd.values())


def test_a_run_sets_damaged_files_aside(tmp_path):
    from zeroinit.experiments.protocols import fill_in
    from zeroinit.sweep.workers import Job, work

    e = fill_in(dataset="digits", epochs=1)
    jobs = [Job(e, seed, dict(results_root=str(tmp_path / "results"))) for seed in range(3)]
    for job, kind in zip(jobs, ("dangling", "looping", "older version"), strict=True):
        assert work(job).kind == "done"
        ODD[kind](job.path)
        outcome = work(job)
        assert outcome.kind == "done" and "is damaged" in outcome.notes[0], outcome
        assert not job.path.is_symlink() and work(job).kind == "existing"
    assert len([p for p in (tmp_path / ".runs/aside").rglob("*") if not p.is_dir()]) == 3


def test_committed_records_are_all_accepted():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(records(TOP / "results")) >= 595


def test_names_in_forged_records_stay_inside(tmp_path, capfd):
    """Arguments with slashes and folders that climb: nothing is written or deleted outside."""
    from zeroinit.experiments.config import config_hash

    root = tmp_path / "results"
    (source, *_) = records(TOP / "results", model="fnn", dataset="mnist", scheme="zero")
    outside = tmp_path / "outside" / "seed0"
    outside.mkdir(parents=True)
    event_file = outside / "events.out.tfevents.1"
    event_file.write_text("keep me")
    climbing = f"{'x/../../../../..'}{outside.parent}"
    for change in (
        dict(init_args=dict(std=climbing)),
        dict(dataset=".."),
        dict(model="../../.."),
        dict(init=f"../../../../{outside.parent}"),
    ):
        config = source["config"] | change
        name = f"{str(config['init']).replace('/', '-')}-{config_hash(config)}"
        path = root / "mnist" / "fnn" / name / f"seed{source['seed']}.json"
        path.parent.mkdir(parents=True)
        path.write_text(seal(path, json.dumps(source | dict(config=config))))
    before = {p for p in tmp_path.rglob("*") if "out/" not in f"{p}/"}
    code, out, err = call(
        capfd, "export", "tensorboard", "--results-root", root, "--out", tmp_path / "out"
    )
    assert code == 0 and out.startswith("1 runs"), err
    assert err.count("is damaged") == 3
    after = {p for p in tmp_path.rglob("*") if "out/" not in f"{p}/"}
    assert before == after and event_file.read_text() == "keep me"
    (written,) = (tmp_path / "out").rglob("events.*")
    assert len(written.relative_to(tmp_path / "out").parts) == 5


def test_a_data_set_may_be_called_anything(tmp_path):
    """The explorer's data hold no `<`, whatever a data set is called."""
    from dataclasses import replace

    from zeroinit.experiments.config import Experiment
    from zeroinit.experiments.records import write_record
    from zeroinit.publish.explorer import explorer_page

    (source, *_) = records(TOP / "results", model="fnn", dataset="mnist", scheme="zero")
    experiment = replace(Experiment(**source["config"]), dataset="<!--<script>-12345678")
    changed = source | dict(config=source["config"] | dict(dataset=experiment.dataset))
    write_record(results_path(tmp_path, experiment, source["seed"]), changed)
    page = explorer_page(tmp_path)
    data = page.split('id="page-data">')[1].split("</script>")[0]
    assert "<" not in data
    assert "<!--<script>" in json.loads(data)["groups"][0]["runs"]

"""Every mistake of a user: one clear line that names the nearest valid choice, exit code 2, nothing written."""

import os
from pathlib import Path

import pytest

from common.experiments.errors import UserError, check_known

MISTAKES = [
    (["tabel", "lab/main"], "unknown command 'tabel'; did you mean 'table'?"),
    (["table", "lob/main"], "unknown paper 'lob'; did you mean 'lab'?"),
    (["table", "amber/main"], "'amber' is in the catalogue but not implemented yet"),
    (["table", "lab/mian"], "unknown table 'mian' of lab; did you mean 'main'?"),
    (["table", "lab"], "name a table: lab/grid, lab/main"),
    (["table", "lab/main", "--rows", ""], "--rows names none; leave it out for all of them"),
    (["table", "lab/main", "scale=small"], "scale=small: name the table and its scale by"),
    (["table", "lab/main", "launcher.workers=0"], "launcher.workers must be a whole number of at least 1"),
    (["table", "lab/main", "settings=5"], "settings has keys of its own, which are set one by one: settings.NAME=…"),
    (["table", "lab/main", "=3"], "'=3' names no key"),
    (["table", "lab/main", "rows.up=null"], "rows.up"),
    (["table", "lab/main", "tracking.uri=htp://x"], "unknown scheme 'htp'; did you mean 'http'?"),
    (["table", "lab/main", "+metrics.score.better=highest"], "metrics.score.better: unknown 'highest'; did you mean"),
    (["table", "lab/main", "resources.gpus=99"], "99 GPU a cell"),
    (["sweep", "lab/main", "settings.drift=1,2"], "no effect: every entry of rows sets drift itself"),
    (["sweep", "lab/main", "launcher.workers=1,2"], "makes equal cells"),
    (["sweep", "lab/main", "settings.steps=interval(1,3)"], "an interval is no grid: add --search random, or --search"),
    (["sweep", "lab/main", "settings.steps=1,2", "--trials", "3"], "--trials and --prune are for drawn points: add"),
    (
        ["sweep", "lab/main", "settings.steps=1,2", "--search", "tpe"],
        "wants a number of points to draw: add --trials N",
    ),
    (
        ["sweep", "lab/main", "settings.steps=interval(1,3)", "--search", "tpe", "--trials", "3"],
        "settings.steps: Value '1.73576' of type 'float' could not be converted to Integer",
    ),
    (
        ["sweep", "lab/main", "settings.steps=2,3", "launcher.workers=1,2", "--search", "tpe", "--trials", "3"],
        "sweeping launcher.workers makes equal cells",
    ),
    (
        ["sweep", "lab/main", "settings.steps=2,3", "selection.metric=score", "--search", "random", "--trials", "3"],
        "lab/main at tiny scale has no validation items to select on: 'score' is of the items that it is tested on",
    ),
    (
        ["sweep", "lab/main", "settings.steps=2,3", "+selection.data=splt"],
        "selection.data: unknown 'splt'; did you mean 'split'",
    ),
    (["table", "lab/main", "--rows", "upp"], "unknown row 'upp' in lab/main; did you mean 'up'?"),
    (["table", "lab/main", "--scale", "tinny"], "is not one of 'tiny', 'small', 'paper'; did you mean 'tiny'?"),
    (["table", "lab/main", "--scale", "paper"], "lab/main has no scale 'paper'; choices: small, tiny"),
    (["table", "LAB/main"], "unknown paper 'LAB'; did you mean 'lab'?"),
    (["table", "lab/main", "--rows", "UP"], "unknown row 'UP' in lab/main; did you mean 'up'?"),
    (["table", "lab/main", "--seeds", "0"], "'--seeds': give a whole number, 1 or more, not '0'"),
    (["table", "lab/main", "--seeds", "many"], "'--seeds': give a whole number, 1 or more, not 'many'"),
    (["table", "lab/main", "--workers", "0"], "give a whole number, 1 or more, not '0'"),
    (["train-facts", "--people", "1"], "give a whole number, 2 to 2000, not '1'"),
    (["table", "lab/main", "--sede", "3"], "unknown option '--sede'; did you mean '--seeds'?"),
    (["table", "lab/main", "--wrokers", "3"], "unknown option '--wrokers'; did you mean '--workers'?"),
    (["table", "lab/main", "--xyzzy", "3"], "unknown option '--xyzzy'"),
    (["sweep", "lab/main", "settings.steps=1,2", "--search", "tpee"], "'tpe'; did you mean 'tpe'?"),
    (["export", "lab/main", "--format", "cvs"], "did you mean 'csv'?"),
    (["table", "lab/main", "settings.stepps=3"], "unknown key 'settings.stepps'; did you mean 'settings.steps'?"),
    (["table", "lab/main", "steps=3"], "unknown key 'steps'; did you mean 'settings.steps'?"),
    (["table", "lab/main", "settings.steps=many"], "settings.steps: Value 'many' of type 'str' could not be converted"),
    (["table", "lab/main", "settings.kind=wlak"], "unknown settings.kind 'wlak'; did you mean 'walk'?"),
    (["plan", "lab/main", "settings.kind=wlak"], "unknown settings.kind 'wlak'; did you mean 'walk'?"),
    (["sweep", "lab/main", "settings.kind=walk,wlak"], "unknown settings.kind 'wlak'; did you mean 'walk'?"),
    (["table", "lab/main", "+settings.stepps=3"], "unknown key 'stepps'; did you mean 'steps'?"),
    (["table", "lab/main", "rows.up.settings.drifft=3"], "unknown key 'rows.up.settings.drifft'"),
    (["table", "lab/main", "+rows.up.settings.drifft=3"], "rows.up: unknown key 'drifft'; did you mean 'drift'?"),
    (["table", "lab/main", "settings.drift=3"], "no effect: every entry of rows sets drift itself"),
    (["table", "lab/main", "rows.upp.settings.drift=3"], "unknown row 'upp'; did you mean 'up'?"),
    (["table", "lab/main", "rows.up.settings.steps=3"], "did you mean '+rows.up.settings.steps'?"),
    (["table", "lab/main", "settings.steps"], "'settings.steps' has no value; overrides read KEY=VALUE"),
    (["sweep", "lab/main", "settings.steps"], "'settings.steps' has no value; overrides read KEY=VALUE"),
    (["table", "lab/main", "settings.steps=[1"], "cannot read 'settings.steps=[1'; values read 0.1, word, [1,2]"),
    (["sweep", "lab/main", "settings.steps=interval(1,)"], "cannot read 'settings.steps=interval(1,)'; values read"),
    (["table", "lab/main", "rows=foo"], "rows has keys of its own, which are set one by one: rows.NAME=…"),
    (["table", "lab/main", "settings.steps=1,2"], "Ambiguous value for argument 'settings.steps=1,2'"),
    (["table", "lab/main", "--launcher", "slrum"], "no config 'launcher/slrum'; did you mean 'slurm'?"),
    (["table", "lab/main", "--launcher", "slurm", "launcher.partitoin=gpu"], "did you mean 'launcher.partition'?"),
    (["table", "lab/main", "--dry-run"], "add --launcher slurm"),
    (["cancel", "lab/mian"], "nothing was started under 'lab/mian'"),
    (["retry", "lab/main"], "nothing was started under 'lab/main'"),
    (["logs", "lab/main/up/0"], "nothing was started under 'lab/main/up/0'"),
    (["table", "lab/main", "--scale", "small"], "data set 'squad': no xquad.en.json in"),
    (["plan", "lab/main", "--rows", "upp"], "did you mean 'up'?"),
    (["sweep", "lab/main"], "nothing to sweep"),
    (["sweep", "lab/main", "settings.stepps=1,2"], "did you mean 'settings.steps'?"),
    (["explain", "lab/main/up"], "names no cell"),
    (["explain", "lab/main/up/first"], "the seed of a cell is a whole number, not 'first'"),
    (["explain", "lab/main/up/lines/0"], "unknown column 'lines'; did you mean 'line'?"),
    (["explain", "abc"], "no recorded cell has a key starting with 'abc'"),
    (["diff", "lab/main.tiny", "lab/main.tiny"], "no report of 'lab/main.tiny'"),
    (["diff", "a.json", "b.json"], "no report file a.json"),
    (["export", "lab/main", "--format", "csv"], "no report of 'lab/main.tiny'"),
    (["export", "lab/main", "--format", "excel"], "'excel' is not one of 'csv', 'latex', 'markdown', 'lm-eval'"),
    (["status", "lob"], "nothing was started under 'lob'"),
    (["new", "New-Paper"], "use lower-case letters, digits and '_'"),
    (["new", "class"], "'class' cannot name a package: it is a Python keyword"),
    (["new", "lab"], "projects/lab exists already"),
    (["release", ""], "'' cannot name a release"),
    (["release", "../x y"], "'../x y' cannot name a release: use letters, digits, '.', '-' and '_'"),
    (["skils"], "unknown command 'skils'; did you mean 'skills'?"),
    (["skills", "--items", "many"], "give a whole number, 2 or more, not 'many'"),
    (["skills", "--model", "no/such-model"], "'no/such-model' is neither a folder nor a registered checkpoint"),
    (["skills", "--model", "Qwen/Qwen3-0.6"], "registered checkpoint; did you mean 'Qwen/Qwen3-0.6B'?"),
    (["skills", "--model", "common/models/microlm/weigths"], "did you mean 'common/models/microlm/weights'?"),
    (
        ["skills", "--facts", "--model", "common/models/microlm/fact_weight"],
        "did you mean 'common/models/microlm/fact_weights'?",
    ),
    (["skills", "--facts", "--seed", "3"], "--seed is of the test worlds"),
    (["cache", "--clear", "respones"], "'respones' is not one of 'responses', 'embeddings', 'all'"),
    (["skills", "--write", "page.txt"], "--write takes a Markdown file, such as page.md"),
    (["train-microlm", "--minutes", "1", "--steps", "2"], "give --minutes or --steps, not both"),
    (["train-microlm", "--device", "gpu"], "'gpu' is not one of 'cpu', 'cuda'"),
    (["train-microlm", "--width", "100"], "width must be a multiple of 32, not 100"),
    (["train-microlm", "--pool", "none.safetensors"], "no pool of conversations at none.safetensors"),
    (["train-microlm", "--start", "nowhere", "--schedule", "refine"], "no weights at nowhere"),
    (["train-microlm", "--start", "nowhere"], "--schedule quick and base are for fresh weights"),
    (["train-microlm", "--schedule", "refin"], "'refin' is not one of 'quick', 'base', 'refine'"),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    from tests.conftest import make_checkout

    return make_checkout(tmp_path_factory.mktemp("mistakes") / "checkout")


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_one_line_and_exit_code_two(shared, arguments, message):
    done = shared.repro(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert message in done.stderr
    assert not (shared.root / "runs").exists() and not (shared.root / "reports").exists()


def test_a_corrupted_record_is_named_and_left_alone(checkout):
    checkout.table()
    victim = checkout.cells[0] / "result.json"
    victim.write_text(victim.read_text()[:40])
    done = checkout.table()
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "result.json is corrupted" in done.stderr and "mv " in done.stderr
    assert len(victim.read_text()) == 40
    victim.rename(victim.with_name("result.json.corrupt"))
    assert checkout.table().returncode == 0


def test_a_release_is_replaced_by_force_alone(checkout):
    assert checkout.repro("release", "v1").returncode == 0
    path = checkout.root / "reports" / "release.json"
    standing = path.read_text()
    checkout.table("--seeds", "1")
    done = checkout.repro("release", "v1")
    assert done.returncode == 2 and path.read_text() == standing
    assert done.stderr == "repro: release 'v1' exists already; choose another name, or replace it with --force\n"
    assert checkout.repro("release", "v1", "--force").returncode == 0
    assert "lab/main.tiny" in path.read_text()


def test_a_figure_without_provenance_cannot_be_shown(checkout):
    expected = checkout.root / "projects/lab/expected.yaml"
    expected.write_text(expected.read_text().replace(", provenance: verified", ""))
    done = checkout.table("--seeds", "1")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "provenance" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_an_unwritable_runs_folder_is_one_line(checkout):
    runs = checkout.root / "runs"
    runs.mkdir(mode=0o500)
    done = checkout.table()
    assert done.returncode == 2 and "Permission denied" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_folder_that_cannot_be_made_is_named_in_full_with_its_variable(checkout):
    done = checkout.table(REPRO_RUNS="/proc/x")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert ": /proc/x" in done.stderr and " (REPRO_RUNS is /proc/x); nothing recorded was lost" in done.stderr


def test_an_export_that_cannot_be_written_names_its_file_and_says_nothing_before(checkout):
    checkout.table("--seeds", "1")
    done = checkout.repro("export", "lab/main", "--format", "csv", "-o", "/proc/x.csv")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.endswith(": /proc/x.csv; nothing recorded was lost\n")


def test_a_runs_path_that_is_a_file_is_one_line(checkout):
    (checkout.root / "runs").write_text("")
    done = checkout.table()
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr


def test_an_unreadable_data_folder_is_one_line(checkout, tmp_path):
    file = Path(tmp_path / "no-folder")
    file.write_text("")
    done = checkout.repro("table", "lab/main", "--scale", "small", REPRO_DATA=str(file))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "cannot be read" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  steps: 5", "  steps: many", "settings.steps"),
        ("  steps: 5", "  stepps: 5", "stepps"),
        ("  steps: 5", "  steps: ${nope}", "nope"),
        ("  steps: 5", "  steps: [5", "main_tiny.yaml"),
        ("override /scale: tiny", "override /scale: tinyy", "tinyy"),
        ("settings:", "rows: [a, b]\nsettings:", "Cannot merge DictConfig with ListConfig"),
    ],
)
def test_a_mistake_in_a_config_file_is_one_line(checkout, old, new, message):
    config = checkout.root / "configs/table/lab/main_tiny.yaml"
    config.write_text(config.read_text().replace(old, new))
    done = checkout.table()
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert message in done.stderr


@pytest.mark.parametrize("text", ["[]", "{}", '{"cells": [{}]}'])
def test_a_record_of_another_shape_is_one_line(checkout, text):
    checkout.table("--seeds", "1")
    manifest = checkout.root / "runs/lab/tables/main.tiny.json"
    manifest.write_text(text)
    for arguments in (["status"], ["table", "lab/main", "--seeds", "1"], ["report"]):
        done = checkout.repro(*arguments)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "is no manifest of this version" in done.stderr


def test_a_package_without_settings_is_one_line(checkout):
    (checkout.root / "projects/lab/settings.py").unlink()
    done = checkout.table()
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "projects/lab/settings.py has no usable `Settings`" in done.stderr


def test_a_misspelt_key_in_a_config_file_is_named(checkout):
    config = checkout.root / "configs/table/lab/main_tiny.yaml"
    config.write_text(config.read_text() + "reources: {minutes: 3}\n")
    done = checkout.table()
    assert done.returncode == 2 and "unknown key 'reources'; did you mean 'resources'?" in done.stderr


def test_a_setting_that_is_none_of_its_choices_is_named_with_the_nearest_and_the_first_such_alone():
    check_known(("kind", "a", "abc"), ("tuning.method", "sgd", {"sgd": 1, "adam": 2}))
    with pytest.raises(UserError, match=r"^unknown tuning\.method 'adm'; did you mean 'adam'\?$"):
        check_known(("kind", "a", ["a"]), ("tuning.method", "adm", {"sgd": 1, "adam": 2}), ("kind", "b", ["a"]))

"""`repro table` end to end on the laboratory paper: results, reuse, staleness, failures, variants."""

import json
import os
import re
import shutil
from contextlib import suppress
from itertools import product

import pytest

from common.evaluators.judge import STRICT, Judge, Reply, judged, plant
from common.experiments import commands, worker
from common.experiments.compose import compose_table
from common.experiments.context import PRUNE, Pruned
from common.experiments.errors import UserError
from common.experiments.records import Record
from common.experiments.report import BEHIND, build, write
from common.files import write_atomically
from common.models.language_model import Completion
from common.training.preemption import Preempted


def test_a_last_part_that_several_keys_have_names_them_all():
    with pytest.raises(UserError, match=r"did you mean 'settings.optimizer.lr' or 'settings.generator.lr'\?"):
        compose_table("dsi_pp/memorise", "tiny", ["lr=0.1"])


def test_cells_of_one_row_and_seed_are_launched_farthest_apart():
    table = compose_table("mem1/headline", "tiny")
    order = [(cell.row, cell.column, cell.seed) for cell in table.cells(["full_rl", "mem1"], seeds=[0, 1])]
    rows = [(row, seed) for row in ("full_rl", "mem1") for seed in (0, 1)]
    assert order == [(row, column, seed) for column in ("n2", "n8", "n16") for row, seed in rows]


def test_a_report_is_in_the_order_of_the_table_whatever_was_launched_first(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path))
    table = compose_table("mem1/headline", "tiny")
    launched = [(cell, table.store.record(cell.key)) for cell in table.cells(["mem1", "full_rl"], seeds=[1, 0])]
    for cell, record in launched:
        record.freeze(cell, {})
        record.set_state("failed", error="no reason")
    rows = [row for row in table.rows if row in ("mem1", "full_rl")]
    order = list(product(rows, table.columns, [0, 1]))
    for cells in (launched, launched[::-1]):
        assert [(cell.row, cell.column, cell.seed) for cell, _ in cells] != order
        report = build(table, cells)
        assert [(each["row"], each["column"], each["seed"]) for each in report["failures"]] == order
        conditions = [(each["row"], each["column"]) for each in report["conditions"]]
        assert conditions == list(product(rows, table.columns))


def test_table_computes_reports_and_reuses(checkout):
    first = checkout.table()
    assert first.returncode == 0, first.stderr
    assert len(checkout.results()) == 6
    report = checkout.report()
    row = {(cell["row"], cell["metric"]): cell for cell in report["cells"]}
    values = row["up", "score"]["values"]
    assert row["up", "score"]["mean"] == pytest.approx(sum(values) / 3)
    assert row["up", "score"]["ci_low"] < row["up", "score"]["mean"] < row["up", "score"]["ci_high"]
    assert report["claims"][0]["status"] == "holds"
    assert report["claims"][0]["effect"] == pytest.approx(15.0)  # drift of 3 over 5 steps on the same noise
    assert report["figures"][0]["verdict"] == "direction only"
    assert report["seeds"] == [0, 1, 2]
    stamps = {cell: (cell / "result.json").stat().st_mtime_ns for cell in checkout.cells}
    written = (checkout.root / "reports/lab/main.tiny.json").stat().st_mtime_ns

    second = checkout.table()
    assert "6 of 6 cells done" in second.stdout
    assert stamps == {cell: (cell / "result.json").stat().st_mtime_ns for cell in checkout.cells}
    assert written == (checkout.root / "reports/lab/main.tiny.json").stat().st_mtime_ns


def test_reports_are_judged_by_the_present_expected_yaml_without_their_runs(checkout):
    checkout.table("--seeds", "2")
    before = checkout.report()
    shutil.rmtree(checkout.root / "runs")
    expected = checkout.root / "projects/lab/expected.yaml"
    right = "{kind: greater, row: up, metric: score, over: {row: flat}}"
    wrong = "{kind: greater, row: flat, metric: score, over: {row: up}}"
    up = "  - {id: up, table: main, row: up, metric: score, value: 7.0, where: Table 2, provenance: verified}\n"
    text = expected.read_text().replace(right, wrong).replace("value: 9.0", "value: -9.0")
    expected.write_text(text.replace("claims:\n", f"{up}claims:\n"))
    done = checkout.repro("report")
    assert done.returncode == 0 and done.stdout == "reports/index.html\n", done
    after = checkout.report()
    assert {part for part in after if after[part] != before[part]} == {"cells", "figures", "claims"}
    assert after["claims"][0]["effect"] == pytest.approx(-before["claims"][0]["effect"])
    assert [report["figures"][0]["verdict"] for report in (before, after)] == ["direction only", "not reproduced"]
    changed = [(old, new) for old, new in zip(before["cells"], after["cells"], strict=True) if old != new]
    [(old, new)] = changed
    assert (old["published"], new["published"], new["where"]) == (None, 7.0, "Table 2")
    assert {part for part in new if old[part] != new[part]} == {"published", "where", "provenance"}
    assert "Table 2" in (checkout.root / "reports/lab/main.tiny.md").read_text()

    expected.write_text(expected.read_text().replace(wrong, right))
    assert checkout.repro("report", "lab/main").returncode == 0
    assert checkout.report()["claims"] == before["claims"]


@pytest.fixture
def standing(tmp_path, monkeypatch):
    """The file of a report without a finished cell that lacks the claims of the present expected.yaml; site built."""
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("REPRO_REPORTS", str(tmp_path / "reports"))
    table = compose_table("dsi_pp/continual", "tiny")
    report = build(table, [(cell, table.store.record(cell.key)) for cell in table.cells(None, [0])])
    path = write(report, table)[0].with_suffix(".json")
    assert report["claims"]
    change(path, claims=[])
    commands.build_pages()
    return path


def change(path, **parts):
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


@pytest.mark.parametrize(("part", "key"), [("rows", "id"), ("columns", "id"), ("metrics", "unit")])
def test_a_report_of_other_rows_columns_or_metrics_keeps_its_verdicts_and_is_named(standing, part, key, capsys):
    first, *others = json.loads(standing.read_text())[part]
    change(standing, **{part: [{**first, key: "another"}, *others]})
    before, rendered = json.loads(standing.read_text()), standing.with_suffix(".md")
    rendered.unlink()
    commands.rebuild_reports(None, "tiny", (), None)
    assert json.loads(standing.read_text()) == before and rendered.exists()
    [said, _] = capsys.readouterr().out.splitlines()
    assert said == f"{os.path.relpath(standing)}: {part} differ from those of the table now; left as it was"


def test_labels_are_those_that_the_table_has_now(standing):
    first, *others = json.loads(standing.read_text())["rows"]
    change(standing, rows=[{**first, "label": "another"}, *others])
    commands.rebuild_reports(None, "tiny", (), None)
    assert json.loads(standing.read_text())["rows"] == [first, *others] and json.loads(standing.read_text())["claims"]


def test_the_site_is_marked_as_behind_before_a_report_is_judged_again(standing, monkeypatch):
    def interrupted(path, text):
        write_atomically(path, text)
        if path == standing:
            raise KeyboardInterrupt

    monkeypatch.setattr("common.experiments.report.write_atomically", interrupted)
    with pytest.raises(KeyboardInterrupt):
        commands.rebuild_reports(None, "tiny", (), None)
    assert json.loads(standing.read_text())["claims"] and (standing.parent.parent / BEHIND).exists()


def test_a_reason_that_several_reports_share_is_said_once(standing, monkeypatch, capsys):
    standing.with_name("continual.small.json").write_text(standing.read_text())

    def broken(table):
        raise UserError(f"{table.paper}/expected.yaml: line 3")

    monkeypatch.setattr("common.experiments.report.expected_of", broken)
    commands.rebuild_reports(None, "tiny", (), None)
    [said, _] = capsys.readouterr().out.splitlines()
    files = f"{os.path.relpath(standing.with_name('continual.small.json'))}, {os.path.relpath(standing)}"
    assert said == f"{files}: dsi_pp/expected.yaml: line 3; left as it was"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda report: [], "it is no mapping"),
        (lambda report: {name: report[name] for name in report if name != "paper"}, "it has no 'paper'"),
        (lambda report: report | {"cells": [{}]}, "a cell has no column, metric, row, seeds, values"),
        (lambda report: report | {"cells": 3}, "its cells are none"),
        (
            lambda report: report | {"cells": [{**cell, "seeds": [0, 1], "values": [0.5]} for cell in report["cells"]]},
            "a cell has other numbers of seeds and values",
        ),
    ],
)
def test_a_file_that_is_no_report_is_one_line_and_the_others_are_judged(standing, spoil, message, capsys):
    broken = standing.with_name("a.tiny.json")
    broken.write_text(json.dumps(spoil(json.loads(standing.read_text()))))
    commands.rebuild_reports(None, "tiny", (), None)
    assert json.loads(standing.read_text())["claims"]
    [said, _] = capsys.readouterr().out.splitlines()
    assert said.startswith(f"{os.path.relpath(broken)}: {broken} is no report of `repro table`: {message}; move it ")


def test_the_site_is_built_with_a_new_report_and_where_there_is_none(checkout):
    index, page = checkout.root / "reports/index.html", checkout.root / "reports/lab/index.html"
    checkout.table("--seeds", "1")
    assert index.exists() and page.exists()
    page.write_text("older")
    checkout.table("--seeds", "1")
    assert page.read_text() == "older"
    checkout.table("--seeds", "2")
    whole = page.read_text()
    assert whole != "older"
    for path in (index, page):
        path.unlink()
    checkout.table("--seeds", "2")
    assert page.read_text() == whole and index.exists()


def test_a_site_that_an_interrupt_left_behind_is_built_by_the_next_table(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("REPRO_REPORTS", str(tmp_path / "reports"))
    table = compose_table("dsi_pp/memorise", "tiny")
    report = build(table, [(cell, table.store.record(cell.key)) for cell in table.cells(None, [0])])
    commands.build_pages()
    assert report["name"] not in (tmp_path / "reports/dsi_pp/index.html").read_text()
    assert write(report, table)[1]  # and here the command ends
    assert write(report, table)[1]
    commands.build_pages()
    assert not write(report, table)[1]
    assert report["name"] in (tmp_path / "reports/dsi_pp/index.html").read_text()


def test_a_metric_of_no_cell_is_a_mistake_unless_struck_out_or_printed_by_the_paper(checkout):
    table = checkout.root / "configs/table/lab/main.yaml"
    table.write_text(table.read_text().replace("  steps: {label", "  printed: {label: as printed}\n  steps: {label"))
    mistaken = checkout.table()
    assert mistaken.returncode == 2 and "no cell reports 'printed'" in mistaken.stderr
    scale = checkout.root / "configs/table/lab/main_tiny.yaml"
    whole = scale.read_text()
    scale.write_text(f"{whole}\nmetrics: {{printed: null}}   # struck out at this scale\n")
    struck = checkout.table()
    assert struck.returncode == 0, struck.stderr
    assert "printed" not in [metric["id"] for metric in checkout.report()["metrics"]]
    scale.write_text(whole)
    expected = checkout.root / "projects/lab/expected.yaml"
    figure = "  - {id: p, table: main, row: up, metric: printed, value: 9.0, where: Table 1, provenance: verified}\n"
    expected.write_text(expected.read_text().replace("claims:\n", f"{figure}claims:\n"))
    again = checkout.table()
    assert again.returncode == 0, again.stderr
    [printed] = [entry for entry in checkout.report()["figures"] if entry["id"] == "p"]
    assert (printed["ours"], printed["verdict"]) == (None, "not run")


class Approving:
    """A judge to whom all is right."""

    name, revision, backend, context, kv_bytes_per_token = "<b>approving</b>", "", "test", 0, 0

    def generate(self, prompts, sampling, purpose=""):
        return [Completion("yes", None, None, "stop", 1, 1) for _ in prompts]


def test_the_judge_of_a_metric_and_its_agreement_are_in_the_report(checkout):
    """As a run function saves them: the rows of a seed plant the same answers, another seed plants others."""
    checkout.table()
    pairs = [(f"Where is {i}?", f"place {i}") for i in range(10, 14)]
    for cell in checkout.cells:
        seed = json.loads((cell / "result.json").read_text())["seed"]
        planted = plant(pairs[: 4 - seed // 2], seed)  # of the third seed one question less
        judged(Judge(STRICT, Approving()), [Reply("q", "g", "a")], planted).save(cell, "score")
    done = checkout.repro("report", "lab/main")
    assert done.returncode == 0, done.stderr
    [judge] = checkout.report()["judges"]
    assert (judge["metric"], judge["prompt"], judge["prompt_hash"]) == ("score", "strict", STRICT.hash)
    found = judge["agreement"]
    assert {kind: (share["mean"], share["n"]) for kind, share in found["by_kind"].items()} == {
        "right": (1, 4 + 4 + 3), "wrong": (0, 4 + 4 + 3), "vague": (0, 4 + 4 + 3),
    }  # fmt: skip
    page = (checkout.root / "reports/lab/main.tiny.md").read_text()
    assert f"| score | strict v1 {STRICT.hash} | &lt;b&gt;approving&lt;/b&gt; (test) | 100.0" in page


def test_same_key_gives_the_same_bits_whatever_ran_before_in_the_worker(checkout):
    checkout.table("--workers", "1")
    together = checkout.results()
    for key, folder in ((cell.name, cell) for cell in checkout.cells):
        (folder / "result.json").unlink()
        checkout.table("--workers", "1")
        assert checkout.results()[key] == together[key]


def test_comments_and_docstrings_do_not_make_cells_stale_but_code_does(checkout):
    checkout.table("--seeds", "1")
    run = checkout.root / "projects/lab/run.py"
    source = run.read_text()
    run.write_text(source.replace('"""The laboratory paper: ', '"""Another docstring: ') + "\n# a comment\n")
    assert "2 of 2 cells done" in checkout.table("--seeds", "1").stdout
    run.write_text(source.replace("rng.normal() +", "2 * rng.normal() +"))
    assert "2 computed by older code" in checkout.table("--seeds", "1", "--keep-stale").stdout
    assert len(checkout.results()) == 2
    plan = checkout.repro("plan", "lab/main", "--seeds", "1").stdout
    assert "2 cells, 2 to compute" in plan
    checkout.table("--seeds", "1")
    assert len(checkout.results()) == 4


def test_a_failing_cell_keeps_its_traceback_and_does_not_sink_the_table(checkout):
    done = checkout.table("settings.broken_seeds=[1]")
    assert done.returncode == 1
    assert len(checkout.results()) == 4
    failed = [cell for cell in checkout.cells if (cell / "error.txt").exists()]
    assert len(failed) == 2
    assert "RuntimeError: the experiment" in (failed[0] / "error.txt").read_text()
    assert "RuntimeError: the experiment exploded" in done.stdout  # one line
    assert json.loads((failed[0] / "status").read_text())["state"] == "failed"
    again = checkout.table("settings.broken_seeds=[1]")
    assert "4 of 6 cells done" in again.stdout  # failed cells are tried again
    assert json.loads((failed[0] / "status").read_text())["attempt"] == 2


@pytest.mark.parametrize(("kind", "message"), [("nan", "score=nan"), ("die", "SIGKILL")])
def test_nan_and_a_dead_worker_are_failures_not_figures(checkout, kind, message):
    done = checkout.table("--seeds", "1", f"settings.kind={kind}")
    assert done.returncode == 1
    assert message in done.stdout
    assert checkout.results() == {}


def test_where_every_cell_failed_the_cause_is_said_in_a_line_and_nothing_is_reported(checkout):
    done = checkout.table("--seeds", "1", "settings.kind=raise")
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith("no report: 2 of 2 cells failed, the first of them ")
    assert ": RuntimeError: the experiment exploded; see repro logs " in last and "—" not in done.stdout
    assert "RuntimeError" in checkout.repro("logs", last.split()[-1]).stdout
    assert not (checkout.root / "reports").exists() and not (checkout.root / "runs/lab/reports").exists()


def test_output_of_a_cell_goes_to_its_log(checkout):
    done = checkout.table("--seeds", "1", "--rows", "up", "settings.kind=print")
    assert "to standard output" not in done.stdout
    first, *lines, last = (checkout.cells[0] / "log.txt").read_text().splitlines()
    assert first == "lab/main at tiny scale: up · line · seed 0 · settings.kind=print, commit none"
    assert lines == ["to standard output", "from a child process"]
    assert re.fullmatch(r"done in \d+\.\d s, peak [\d,]+ MB", last)
    assert last in checkout.repro("logs", checkout.cells[0].name).stdout


def test_each_attempt_begins_and_ends_with_a_line_in_the_log(tmp_path, monkeypatch):
    [cell] = compose_table("dsi_pp/memorise", "tiny").cells(["adafactor"], [0])
    record = Record(tmp_path / cell.key)
    record.freeze(cell, {"commit": "0123456789abcdef", "dirty": True})
    for stop in (Preempted(True), RuntimeError("it\nexploded"), Pruned()):

        def compute(record, data, stop=stop):
            os.write(1, b"step 1\rstep 2")
            (record.folder / PRUNE).write_text("the search")
            raise stop

        monkeypatch.setattr(worker, "_compute", compute)
        with suppress(Preempted):
            worker.execute(record, None)
    first = f"dsi_pp/memorise at tiny scale: adafactor · {cell.column} · seed 0, commit 0123456789ab with changes"
    ends = ("preempted", "failed: RuntimeError: it exploded", "pruned")
    lines = [line for end in ends for line in (first, "step 1\rstep 2", end)]
    assert (record.folder / "log.txt").read_bytes().decode() == "".join(f"{line}\n" for line in lines)


def test_status_tells_the_last_words_of_a_failed_cell_and_its_error_once(checkout):
    checkout.table("--seeds", "1", "--rows", "up", "settings.kind=raise")
    [log] = [cell / "log.txt" for cell in checkout.cells]
    end = "failed: RuntimeError: the experiment exploded"
    assert log.read_text().splitlines()[1:] == [end]
    log.write_text(log.read_text().replace(end, f"a word before\n{end}"))
    out = checkout.repro("status").stdout
    assert "\n      a word before\n" in out and out.count("exploded") == 1


def test_rows_limit_what_is_computed_and_the_report_shows_all_that_exists(checkout):
    checkout.table("--rows", "up")
    assert len(checkout.results()) == 3
    cells = {(cell["row"], cell["metric"]): cell for cell in checkout.report()["cells"]}
    assert cells["flat", "score"]["verdict"] == "not run" and cells["flat", "score"]["mean"] is None
    assert checkout.report()["claims"][0]["status"] == "not tested"
    checkout.table("--rows", "flat")
    assert checkout.report()["claims"][0]["status"] == "holds"


def test_a_run_of_fewer_seeds_never_replaces_a_fuller_report(checkout):
    checkout.table()
    before = (checkout.root / "reports/lab/main.tiny.md").read_text()
    done = checkout.table("--seeds", "2")
    assert (checkout.root / "reports/lab/main.tiny.md").read_text() == before
    assert "runs/lab/reports/main.tiny.md" in done.stdout
    assert checkout.report(folder="runs/lab/reports")["seeds"] == [0, 1]


def test_overrides_make_a_variant_with_a_report_of_its_own(checkout):
    checkout.table("--seeds", "2", "settings.steps=2", "launcher.workers=1")
    assert not (checkout.root / "reports/lab").exists()
    (path,) = (checkout.root / "runs/lab/reports").glob("main.tiny+*.json")
    report = json.loads(path.read_text())
    assert report["overrides"] == ["settings.steps=2"]  # how it was launched is not part of the science
    assert {cell["mean"] for cell in report["cells"] if cell["metric"] == "steps"} == {2.0}


def test_rows_with_equal_settings_share_the_work_and_both_are_reported(checkout):
    done = checkout.table("rows.up.settings.drift=0.0", "settings.seconds=0.05")
    assert "computing 3 on" in done.stdout
    (path,) = (checkout.root / "runs/lab/reports").glob("main.tiny+*.json")
    report = json.loads(path.read_text())
    scores = {cell["row"]: cell["values"] for cell in report["cells"] if cell["metric"] == "score"}
    assert scores["up"] == scores["flat"] and len(scores["up"]) == 3
    assert report["claims"][0]["status"] == "fails"  # an exact tie is not greater
    seconds = [json.loads((cell / "result.json").read_text())["wall_seconds"] for cell in checkout.cells]
    assert len(seconds) == 3 and report["cost"]["wall_seconds"] == round(sum(seconds), 1)


def test_columns_rows_and_lower_is_better_metrics(checkout):
    done = checkout.repro("table", "lab/grid")
    assert done.returncode == 0, done.stdout + done.stderr
    report = checkout.report("grid.tiny")
    cells = {(cell["row"], cell["column"], cell["metric"]): cell for cell in report["cells"]}
    settings = {(entry["row"], entry["column"]): entry["settings"] for entry in report["conditions"]}
    assert settings["fast", "short"]["drift"] == 2.0  # a row's settings come after its column's
    assert (settings["fast", "short"]["steps"], settings["fast", "long"]["steps"]) == (2, 7)
    errors = {row: dict(zip(cell["seeds"], cell["values"], strict=True))
              for (row, column, metric), cell in cells.items() if (column, metric) == ("long", "error")}  # fmt: skip
    leads = [errors["still"][seed] - errors["fast"][seed] for seed in range(4)]
    assert report["claims"][0]["status"] == "holds" and report["claims"][0]["unit"] == "fraction"
    assert report["claims"][0]["metric"] == "error"
    assert report["claims"][0]["effect"] == pytest.approx(sum(leads) / 4)
    assert cells["still", "long", "bonus"]["mean"] is None and cells["fast", "long", "bonus"]["mean"] == 1.0
    entries = json.loads((checkout.root / "runs/lab/tables/grid.tiny.json").read_text())["cells"]
    keys = {(entry["row"], entry["column"], entry["seed"]): entry["key"] for entry in entries}
    results = checkout.results()
    for (row, column, metric), cell in cells.items():
        for seed, value in zip(cell["seeds"], cell["values"], strict=True):
            assert results[keys[row, column, seed]][metric] == value
    out = checkout.repro("explain", "lab/grid/fast/short/0").stdout
    assert "drift = 2.0" in out and "grid.yaml:15" in out
    assert "steps = 2" in out and "grid.yaml:11" in out


def test_rows_alone_may_lack_a_metric_that_others_report(checkout):
    done = checkout.repro("table", "lab/grid", "--rows", "still", "--seeds", "1")
    assert done.returncode == 0, done.stderr


def test_a_complete_run_of_newer_code_replaces_a_fuller_report(checkout):
    checkout.table("--seeds", "5")
    run = checkout.root / "projects/lab/run.py"
    run.write_text(run.read_text().replace("rng.normal() +", "1.0 + rng.normal() +"))
    checkout.table("--seeds", "1")
    assert checkout.report()["seeds"] == [0, 1, 2, 3, 4]  # less than the table asks for: the old one stays
    checkout.table()
    assert checkout.report()["seeds"] == [0, 1, 2]


def test_stale_results_are_reported_with_the_code_that_made_them(checkout):
    checkout.table("--seeds", "2")
    before = checkout.report()["code"]
    run = checkout.root / "projects/lab/run.py"
    run.write_text(run.read_text().replace("rng.normal() +", "1.0 + rng.normal() +"))
    checkout.table("--seeds", "2", "--keep-stale")
    report = checkout.report()
    assert report["code"] == before and report["stale"] == 4


def test_a_renamed_row_leaves_the_manifest(checkout):
    checkout.table("--seeds", "1")
    config = checkout.root / "configs/table/lab/main.yaml"
    config.write_text(config.read_text().replace("  flat:", "  level:"))
    expected = checkout.root / "projects/lab/expected.yaml"
    expected.write_text(expected.read_text().replace("flat", "level"))
    checkout.table("--seeds", "1")
    assert "lab/main.tiny: 2 cells: 2 done" in checkout.repro("status").stdout


def test_a_shared_piece_is_built_once_for_all_cells(checkout):
    checkout.table("--seeds", "4", "settings.shared=true")
    built = (checkout.root / "runs/lab/artifacts/built.log").read_text().splitlines()
    assert len(built) == len(set(built)) == 2  # it depends on seed % 2


def test_sweep_runs_on_seeds_of_its_own_and_marks_the_best_on_validation(checkout):
    done = checkout.repro("sweep", "lab/main", "rows.up.settings.drift=1.0,5.0,3.0", "--rows", "up", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if " line " in line and "[" not in line[:1]]
    assert [line.startswith("★") for line in lines] == [True, False, False]
    assert [float(line.replace("★", "").split()[2]) for line in lines] == [5.0, 3.0, 1.0]
    [page] = (checkout.root / "runs/lab/reports").glob("main.tiny+sweep-*.md")
    assert r"| row | column | drift | val\_score | score |" in page.read_text()
    import yaml

    configs = [yaml.safe_load((cell / "config.yaml").read_text()) for cell in checkout.cells]
    assert {config["seed"] for config in configs} == {1000, 1001}
    assert {tuple(config["overrides"]) for config in configs} == {
        (f"rows.up.settings.drift={drift}",) for drift in ("1.0", "5.0", "3.0")
    }
    assert "rows.up.settings.drift" in checkout.repro("explain", checkout.cells[0].name).stdout
    checkout.repro("report")
    assert not list((checkout.root / "reports").glob("lab/*.json"))  # a sweep is no table
    assert "6 cells: 6 done" in checkout.repro("status").stdout


def test_sweep_selects_the_lowest_where_lower_is_better(checkout):
    done = checkout.repro("sweep", "lab/grid", "rows.fast.settings.drift=1.0,4.0", "--rows", "fast", "--seeds", "2")
    best = [line.split() for line in done.stdout.splitlines() if line.startswith("★ ") and "fast" in line]
    assert {(words[2], words[3]) for words in best} == {("short", "4.0"), ("long", "4.0")}


def test_plain_hydra_app_gives_the_figures_of_the_table(checkout):
    import subprocess
    import sys

    def app(*overrides):
        command = [sys.executable, "-m", "projects.lab", "table=lab/main_tiny", "row=up", "seed=1", *overrides]
        done = subprocess.run(command, cwd=checkout.root, env=checkout.variables, capture_output=True, text=True)
        return json.loads(done.stdout.splitlines()[-1])

    checkout.table("--seeds", "2")
    printed = app()
    scores = {cell["row"]: cell["values"] for cell in checkout.report()["cells"] if cell["metric"] == "score"}
    assert printed["metrics"]["score"] == scores["up"][1]
    assert printed["metrics"] in checkout.results().values()  # also what the global generators drew
    run = checkout.root / "projects/lab/run.py"
    run.write_text(run.read_text().replace('"steps": settings.steps', '"steps": context.tasks'))
    assert app("resources.tasks=2")["metrics"]["steps"] == 2


def test_diff_names_changed_cells_code_and_settings(checkout):
    checkout.table("--seeds", "2")
    before = checkout.root / "before.json"
    before.write_text((checkout.root / "reports/lab/main.tiny.json").read_text())
    run = checkout.root / "projects/lab/run.py"
    run.write_text(run.read_text().replace("rng.normal() +", "1.0 + rng.normal() +"))
    config = checkout.root / "configs/table/lab/main_tiny.yaml"
    config.write_text(config.read_text().replace("steps: 5", "steps: 6"))
    checkout.table("--seeds", "2")
    out = checkout.repro("diff", "before.json", "lab/main.tiny").stdout
    assert "projects/lab/run.py" in out
    assert "up · line · steps: 5 -> 6" in out
    assert "0 figures are the same, 4 differ" in out
    assert "4 figures are the same, 0 differ" in checkout.repro("diff", "lab/main.tiny", "lab/main.tiny").stdout


def test_explain_knows_config_groups_and_the_choice_among_them(checkout):
    """Files like those of configs/lm, which set what lies below a key of their own."""
    group = checkout.root / "configs" / "pace"
    group.mkdir()
    for name, steps in (("slow", 7), ("fast", 2)):
        (group / f"{name}.yaml").write_text(f"# @package settings\n# A pace.\nsteps: {steps}    # our {name} choice\n")
    table = checkout.root / "configs/table/lab/main_tiny.yaml"
    text = table.read_text().replace("lab/main, override", "lab/main, /pace: slow, override")
    table.write_text(text.replace("settings:\n  steps: 5    # §3\n", ""))
    out = checkout.repro("explain", "lab/main/up/0").stdout
    assert "steps = 7" in out and "configs/pace/slow.yaml:3  # our slow choice" in out
    out = checkout.repro("explain", "lab/main/up/0", "pace=fast").stdout
    assert "steps = 2" in out and "configs/pace/fast.yaml:3  # our fast choice" in out
    done = checkout.repro("table", "lab/main", "pace=fsat")
    assert "no config 'pace/fsat'; did you mean 'fast'?" in done.stderr and len(done.stderr.splitlines()) == 1


def test_explain_tells_where_each_value_comes_from(checkout):
    checkout.table("--seeds", "1")
    out = checkout.repro("explain", "lab/main/up/0").stdout
    assert "steps = 5" in out and "main_tiny.yaml:5  # §3" in out
    assert "drift = 3.0" in out and "main.yaml:13  # §2" in out
    assert "seconds = 0.0" in out and "default of Settings" in out
    assert "score over flat: 9  (Table 1; verified)" in out
    assert "state:    done" in out
    key = next(cell.name for cell in checkout.cells)
    assert key.split("-")[0] in checkout.repro("explain", key).stdout

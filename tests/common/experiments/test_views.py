"""What only looks: list, status, plan, doctor, report; none of them starts or imports anything heavy."""

import json
import shutil
import subprocess
import sys

import pytest

from common.experiments import catalogue, doctor
from tests.conftest import make_checkout


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A checkout whose table has one failed and three finished cells."""
    made = make_checkout(tmp_path_factory.mktemp("views") / "checkout")
    (made.root / "configs" / "tracking" / "local.yaml").write_text('uri: "off"\n')
    made.table("--seeds", "2")
    made.table("--seeds", "2", "--rows", "up", "settings.broken_seeds=[1]")
    return made


def test_list_names_tables_scales_and_last_verdicts(done):
    out = done.repro("list").stdout
    assert "lab/main" in out and "tiny small" in out and "tiny: 1 holds (2 seeds)" in out
    assert "1 implemented, 50 planned" in out
    everything = done.repro("list", "--all").stdout
    assert "wise" in everything and "retrieve_then_steer" in everything


def test_list_marks_reports_of_older_code_where_asked(done, tmp_path):
    shutil.copytree(done.root / "reports", tmp_path / "reports")
    path = tmp_path / "reports/lab/main.tiny.json"
    report = json.loads(path.read_text())

    def listed(*options, **changes):
        path.write_text(json.dumps(report | changes))
        out = done.repro("list", *options, REPRO_REPORTS=str(tmp_path / "reports")).stdout
        return next(line for line in out.splitlines() if "lab/main" in line)

    assert listed("--code").endswith("tiny: 1 holds (2 seeds)")
    older = report["code"] | {"projects/lab/run.py": "another"}
    assert listed("--code", code=older).endswith("tiny: 1 holds (2 seeds, older code)")
    assert listed("--code", stale=1).endswith("tiny: 1 holds (2 seeds, older code)")
    assert listed(code=older).endswith("tiny: 1 holds (2 seeds)")


def test_status_counts_states_and_names_failures(done):
    out = done.repro("status").stdout
    assert "lab/main.tiny: 4 cells: 4 done" in out
    assert "2 cells: 1 done, 1 failed" in out
    assert "failed: up · line · seed 1" in out and "RuntimeError: the experiment exploded" in out
    assert done.repro("status", "lab/main").stdout == out


def test_plan_predicts_from_recorded_cells_and_starts_nothing(done):
    before = sorted(path for path in (done.root / "runs").rglob("*") if path.is_file())
    out = done.repro("plan", "lab/main", "--seeds", "4").stdout
    assert "8 cells, 4 to compute" in out and "recorded cells" in out and "0.0 GPU hours" in out
    assert "to download: nothing" in out
    small = done.repro("plan", "lab/main", "--scale", "small").stdout
    assert "from" in small and "squad" in small
    assert before == sorted(path for path in (done.root / "runs").rglob("*") if path.is_file())


def test_doctor_says_what_runs_here_and_how_to_get_the_rest(done):
    out = done.repro("doctor").stdout
    assert "yes lab/main --scale tiny" in out
    assert "no  lab/main --scale small" in out and "rajpurkar/SQuAD-explorer" in out
    assert "vLLM" in out and "SLURM" in out and "pip install -e '.[vllm]'" in out


def test_doctor_sees_a_dead_tracking_server():
    (server,) = [check for check in doctor.components("http://127.0.0.1:9") if "MLflow" in check.name]
    assert not server.present and "does not answer" in server.found


def test_report_renders_again_from_the_records_alone(done):
    page = done.root / "reports/lab/main.tiny.md"
    before = page.read_text()
    page.unlink()
    (done.root / "reports/index.html").unlink()
    out = done.repro("report")
    assert out.returncode == 0, out.stderr
    assert page.read_text() == before
    assert (done.root / "reports/index.html").exists()


def test_a_report_keeps_what_its_runs_logged(done):
    text = (done.root / "reports/lab/main.tiny.json").read_text()
    curves = {(*map(tuple, curve["conditions"]), curve["metric"]): curve for curve in json.loads(text)["curves"]}
    assert list(curves) == [(("flat", "line"), "position"), (("flat", "line"), "val_score"),
                            (("up", "line"), "position"), (("up", "line"), "val_score")]  # fmt: skip
    ends = [
        [json.loads(line)["position"] for line in (cell / "metrics.jsonl").read_text().splitlines()]
        for cell in done.cells
        if "drift: 3" in (cell / "config.yaml").read_text() and "broken_seeds: []" in (cell / "config.yaml").read_text()
    ]
    found = curves[("up", "line"), "position"]
    assert len(ends) == 2 and found["high"] == [float(f"{max(each):.4g}") for each in zip(*ends, strict=True)]
    assert '"steps": [0, 1, 2, 3, 4],\n' in text  # a list of numbers on a line
    assert "<polyline" in (done.root / "reports/lab/index.html").read_text()


def test_report_renders_committed_reports_without_any_record(done, tmp_path):
    shutil.copytree(done.root / "reports", tmp_path / "reports")
    plot = tmp_path / "reports/lab/main.tiny.metric-score.svg"
    before = plot.read_bytes()
    for name in ("lab/main.tiny.md", "lab/main.tiny.metric-score.svg", "lab/index.html", "costs.html"):
        (tmp_path / "reports" / name).unlink()
    folders = {"REPRO_RUNS": str(tmp_path / "runs"), "REPRO_REPORTS": str(tmp_path / "reports")}
    out = done.repro("report", **folders)
    assert out.returncode == 0, out.stderr
    made, there = ({path.relative_to(root): path.read_bytes() for path in root.rglob("*.*")} for root in
                   (tmp_path / "reports", done.root / "reports"))  # fmt: skip
    assert made == there and plot.read_bytes() == before


def test_a_release_is_what_later_reports_are_compared_with(done, tmp_path):
    shutil.copytree(done.root / "reports", tmp_path / "reports")
    folders = {"REPRO_RUNS": str(tmp_path / "runs"), "REPRO_REPORTS": str(tmp_path / "reports")}
    assert "every table is new" in (tmp_path / "reports/changes.html").read_text()
    out = done.repro("release", "v1", **folders)
    assert out.returncode == 0, out.stderr
    assert "Nothing differs" in (tmp_path / "reports/changes.html").read_text()


def test_export_prints_or_writes_a_report(done, tmp_path):
    printed = done.repro("export", "lab/main", "--format", "csv")
    assert printed.returncode == 0 and printed.stdout.startswith("paper,table,scale,row,column,metric,unit,seed,value")
    assert "lab,main,tiny,up," in printed.stdout
    done.repro("export", "lab/main", "--format", "csv", "-o", str(tmp_path / "x.csv"))
    assert (tmp_path / "x.csv").read_text() == printed.stdout


def test_looking_imports_neither_torch_nor_mlflow_nor_matplotlib(done):
    code = (
        "import sys, json; from common.experiments import cli; sys.argv = ['repro', *sys.argv[1:]]\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "print(json.dumps([name for name in ('torch', 'mlflow', 'matplotlib', 'scipy.stats') if name in sys.modules]))"
    )
    for arguments in (["list"], ["status"], ["plan", "lab/main"], ["table", "lab/main", "--seeds", "2"]):
        ran = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=done.root, env=done.variables, capture_output=True, text=True,
        )  # fmt: skip
        assert json.loads(ran.stdout.splitlines()[-1]) == [], arguments


def test_the_shell_completes_table_names_and_options():
    from click.shell_completion import BashComplete

    from common.experiments.cli import cli

    complete = BashComplete(cli, {}, "repro", "_REPRO_COMPLETE")
    paper = catalogue.implemented()[0]
    names = [item.value for item in complete.get_completions(["table"], paper[:3])]
    assert f"{paper}/{next(iter(catalogue.tables(paper)))}" in names
    assert "--scale" in [item.value for item in complete.get_completions(["table"], "--sc")]

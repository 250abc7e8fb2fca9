"""Where cells of job arrays stand, what is submitted again, what scripts say: with a queue that tests dictate."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from common.experiments import cluster, control, queues, snapshot
from common.experiments.compose import Launching, Table, compose_table
from common.experiments.errors import UserError
from common.experiments.fingerprint import ROOT, code_fingerprint
from common.experiments.jobs import Array, Job, Standing, standings
from common.experiments.queues import QUEUES, SlurmQueue, _tasks
from common.experiments.records import Cell, Record, Store

KEY = "aaaa-bbbb"


@dataclass
class Dictated:
    """A queue that accepts everything and says what `told` holds."""

    told: dict[tuple[str, int], Job] | None = field(default_factory=dict)
    taken: list[Array] = field(default_factory=list)
    refusal: str = ""

    def submit(self, array: Array) -> list[str]:
        if self.refusal:
            raise UserError(self.refusal)
        self.taken.append(array)
        return [str(len(self.taken))]

    def script(self, array: Array) -> str:
        return array.name

    def jobs(self, arrays: Sequence[Array]) -> dict[tuple[str, int], Job] | None:
        return self.told

    def cancel(self, array: Array, jobs: Mapping[int, Job]) -> None:
        raise AssertionError


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Dictated:
    made = Dictated()
    monkeypatch.setitem(QUEUES, "slurm", made)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, "lab")


def array(store: Store, attempt: int = 1, ids: Sequence[str] = ("7",), age: float = 300) -> Array:
    made = Array.new(
        store,
        {KEY: attempt},
        queue="slurm",
        table="lab/main",
        resources={"cpus": 1, "nodes": 1, "tasks": 1, "gpus": 0, "memory_gb": 2},
        minutes=30,
        profile={"retries": 3},
        code="",
        data=None,
    )
    made.write()
    if ids:
        made.write_ids(ids)
    old = time.time() - age
    os.utime(made.folder / "array.json", (old, old))
    return made


def standing(store: Store) -> Standing:
    return standings(store, [KEY])[KEY]


def record(store: Store, **status: object) -> Record:
    made = store.record(KEY)
    made.folder.mkdir(parents=True, exist_ok=True)
    if status:
        (made.folder / "status").write_text(json.dumps(status))
    return made


def test_a_cell_without_a_job_is_pending(store, queue):
    record(store)
    assert standing(store) == Standing("pending")


@pytest.mark.parametrize(
    ("job", "state", "alive"),
    [
        (Job("7_0", "waiting", "waits: Resources"), "queued", True),
        (Job("7_0", "running"), "running", True),
        (Job("7_0", "timed out", "over its limit"), "timed out", False),
        (Job("7_0", "cancelled"), "cancelled", False),
        (Job("7_0", "preempted"), "preempted", False),
        (Job("7_0", "failed", "NonZeroExitCode"), "failed", False),
        (Job("7_0", "ended"), "lost", False),
        (Job("7_0", "lost", "its node failed"), "lost", False),
        (None, "lost", False),
    ],
)
def test_a_cell_that_left_no_trace_is_what_the_queue_says(store, queue, job, state, alive):
    record(store)
    made = array(store)
    queue.told = {(made.name, 0): job} if job else {}
    found = standing(store)
    assert (found.state, found.alive, found.job) == (state, alive, "7_0")


def test_a_queue_that_does_not_answer_loses_no_cell(store, queue):
    record(store)
    array(store)
    queue.told = None
    found = standing(store)
    assert found.state == "queued" and found.alive and "does not answer" in found.detail


def test_what_the_cell_wrote_itself_wins_over_the_queue(store, queue):
    made = array(store)
    record(store, state="failed", array=made.name, job="7_0", error="ValueError: no")
    queue.told = {(made.name, 0): Job("7_0", "failed", "NonZeroExitCode")}
    assert (standing(store).state, standing(store).detail) == ("failed", "ValueError: no")


def test_a_preempted_cell_waits_while_its_job_does_and_is_resubmitted_when_it_does_not(store, queue):
    made = array(store)
    record(store, state="preempted", array=made.name, job="7_0")
    queue.told = {(made.name, 0): Job("7_0", "waiting", "requeued")}
    assert (standing(store).state, standing(store).alive) == ("preempted", True)
    queue.told = {}
    assert (standing(store).state, standing(store).alive) == ("preempted", False)


@pytest.mark.parametrize(
    ("words", "state", "detail"),
    [
        (
            "slurmstepd: error: *** JOB 7 ON n CANCELLED AT 2026 DUE TO TIME LIMIT ***",
            "timed out",
            "30 min",
        ),
        ("slurmstepd: error: StepId=7.0 exceeded memory limit (9 > 1), being killed", "failed", "memory of 2 GB"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.", "failed", "memory of 2 GB"),
        ("slurmstepd: error: *** JOB 7 ON n CANCELLED AT 2026 DUE TO PREEMPTION ***", "preempted", ""),
        ("slurmstepd: error: *** STEP 7.0 ON n CANCELLED AT 2026 ***", "cancelled", ""),
        ("ModuleNotFoundError: No module named 'numpy'", "lost", "No module named 'numpy'"),
    ],
)
def test_the_last_words_of_a_forgotten_job_tell_how_it_ended(store, queue, words, state, detail):
    record(store)
    made = array(store)
    made.log("7_0").write_text(f"starting\n{words}\n")
    found = standing(store)
    assert found.state == state and detail in found.detail


def test_an_interrupted_submission_counts_as_underway_for_a_minute_only(store, queue):
    record(store)
    made = array(store, ids=(), age=5)
    assert standing(store).alive
    queue.told = {(made.name, 0): Job("7_0", "waiting")}  # found by its name
    assert standing(store).state == "queued"
    queue.told = {}
    os.utime(made.folder / "array.json", (0, 0))
    assert (standing(store).state, standing(store).alive) == ("pending", False)


def test_a_cell_that_another_process_took_up_later_is_its(store, queue):
    array(store)
    record(store, state="failed", array="", started_at="2999-01-01T00:00:00Z", error="later")
    assert (standing(store).state, standing(store).array) == ("failed", None)


@pytest.mark.parametrize(
    ("job", "state", "expected"),
    [
        ("17_3", "RUNNING", {3: "running"}),
        ("17_[0-2,5%4]", "PENDING", dict.fromkeys((0, 1, 2, 5), "waiting")),
        ("17_[4]", "REQUEUE_HOLD", {4: "waiting"}),
        ("17_0", "OUT_OF_MEMORY", {0: "failed"}),
        ("17", "COMPLETED", {}),
    ],
)
def test_lines_of_squeue_become_jobs(store, job, state, expected):
    found = dict(_tasks(array(store), job, state, "None"))
    assert {index: known.state for (_, index), known in found.items()} == expected


# --- submitting ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def composed() -> Table:
    return compose_table("dsi_pp/memorise", "tiny", ["tracking=off", "launcher=slurm", "seeds=1"])


@pytest.fixture
def table(composed: Table, tmp_path: Path) -> Table:
    return replace(composed, runs=tmp_path)


def missing(table: Table) -> dict[Record, Cell]:
    return {table.store.record(cell.key): cell for cell in table.cells()}


def test_lost_cells_are_submitted_again_as_often_as_the_launcher_allows(table, queue):
    cells = missing(table)
    for attempt in range(1, 5):
        outcome = cluster.submit(table, cells)
        (made,) = outcome.arrays
        assert made.attempts == (attempt,) * len(cells)
        assert cluster.submit(table, cells).alive == len(cells) if queue.told else True
        os.utime(made.folder / "array.json", (0, 0))
    outcome = cluster.submit(table, cells)
    assert not outcome.arrays and len(outcome.given_up) == len(cells)
    fresh = cluster.again(queue.taken[-1], [record.folder.name for record in cells], 90, 8)
    assert (fresh.minutes, fresh.resources["memory_gb"], fresh.attempts[0]) == (90, 8, 1)
    assert fresh.code == queue.taken[-1].code


def test_cells_with_a_living_job_are_left_alone(table, queue):
    cells = missing(table)
    (made,) = cluster.submit(table, cells).arrays
    queue.told = {(made.name, index): Job(f"1_{index}", "waiting") for index in range(len(cells))}
    outcome = cluster.submit(table, cells)
    assert (outcome.arrays, outcome.alive) == ([], len(cells))


def test_retry_tells_of_a_cell_whose_job_has_not_ended(store, queue, monkeypatch, capsys):
    monkeypatch.setattr(control, "started", lambda name: [control.Started(store, KEY, "up", "main", 0)])
    made = array(store)
    queue.told = {(made.name, 0): Job("7_0", "running")}
    control.retry("lab/main", None, None)
    assert not queue.taken
    assert "1 cells still have a job" in capsys.readouterr().out
    queue.told = {(made.name, 0): Job("7_0", "cancelled")}
    control.retry("lab/main", None, None)
    assert len(queue.taken) == 1
    assert "still" not in capsys.readouterr().out


def test_the_beginning_of_a_key_means_one_cell_or_none(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path))
    cells = {"lab": ["abcd1-x", "abcd1-y"], "other": ["abcd2-x"]}
    for paper, keys in cells.items():
        places = [{"row": "up", "column": "line", "seed": seed, "key": key} for seed, key in enumerate(keys)]
        head = {name: [] for name in ("scale", "kind", "overrides")} | {"rows": ["up"], "columns": ["line"]}
        Store(tmp_path, paper).write_manifest("main.tiny", {"paper": paper, "table": "main", **head}, places)
    with pytest.raises(UserError, match=r"^'abcd' fits 3 started cells: abcd1-x, abcd1-y, abcd2-x$"):
        control.started("abcd")
    assert [(cell.store.paper, cell.key) for cell in control.started("abcd2")] == [("other", "abcd2-x")]
    assert [cell.key for cell in control.started("lab/main/up/1")] == ["abcd1-y"]
    assert len(control.started("lab/main")) == 2


def test_a_refused_array_leaves_nothing(table, queue):
    queue.refusal = "invalid partition"
    with pytest.raises(UserError, match="invalid partition"):
        cluster.submit(table, missing(table))
    assert standings(table.store, [record.folder.name for record in missing(table)])
    assert {found.state for found in standings(table.store, [r.folder.name for r in missing(table)]).values()} == {
        "pending"
    }


def test_cells_with_other_needs_go_to_arrays_of_their_own_and_large_arrays_are_split(table, queue):
    row = next(iter(table.rows))
    rows = table.rows | {row: replace(table.rows[row], resources={"minutes": 100.0})}
    table = replace(table, rows=rows, launcher=replace(table.launcher, array_size=2), seeds=3)
    arrays = cluster.submit(table, missing(table)).arrays
    assert sorted((len(made.cells), made.minutes) for made in arrays) == [(1, 10), (1, 200), (2, 10), (2, 200)]


def test_the_time_limit_has_slack_and_bounds():
    profile = Launching(name="slurm", slack=2, min_minutes=10, max_minutes=60)
    assert [cluster.time_limit(minutes, profile) for minutes in (1, 20.2, 500)] == [10, 41, 60]


PROFILES = sorted(
    path.stem for path in (ROOT / "configs/launcher").glob("*.yaml") if path.stem not in ("local", "submitit")
)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_gives_a_script_that_says_what_it_says(tmp_path, profile):
    overrides = [f"paths.runs={tmp_path}", "tracking=off", f"launcher={profile}", "seeds=1"]
    table = compose_table("dsi_pp/memorise", "paper", overrides)
    text = cluster.scripts(table, missing(table))
    assert "--cpus-per-task=8" in text and "--gpus-per-node=1" in text and "--mem=65536M" in text
    for name in ("partition", "account", "qos", "constraint"):
        value = getattr(table.launcher, name)
        assert (f"#SBATCH --{name}=" in text) == (value is not None), name
    assert ("--container-image" in text) == (table.launcher.container is not None)
    assert all(line in text for line in table.launcher.setup)
    assert not list(tmp_path.glob("**/*"))  # nothing is written


def test_an_unknown_key_of_a_profile_is_one_line_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown key 'launcher.partitoin'; did you mean 'launcher.partition'\?"):
        compose_table("dsi_pp/memorise", "tiny", ["launcher=slurm", "launcher.partitoin=gpu"])


def test_rows_may_not_change_the_number_of_threads():
    with pytest.raises(UserError, match=r"rows\.sam.resources: unknown 'cpus'"):
        compose_table("dsi_pp/memorise", "tiny", ["+rows.sam.resources.cpus=2"])


# --- the frozen code ----------------------------------------------------------------------------------------------


def test_a_snapshot_holds_the_code_of_its_cells_and_refuses_other(table):
    code = code_fingerprint("projects.dsi_pp.run")
    folder = snapshot.take(table.store, code)
    assert folder == snapshot.place(table.store, code)
    assert (folder / "projects/dsi_pp/method.py").read_bytes() == (ROOT / "projects/dsi_pp/method.py").read_bytes()
    assert not list(folder.glob("**/__pycache__"))
    with pytest.raises(UserError, match="changed while"):
        snapshot.take(table.store, "0" * 8)


def test_slurm_is_required_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="--launcher local"):
        queues.require_slurm()
    assert SlurmQueue().jobs([]) is None

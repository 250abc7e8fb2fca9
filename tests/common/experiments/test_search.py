"""Search over settings: what is drawn, how trials end, what a killed or shared search repeats, what is pruned."""

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from common.experiments import reproduce, search, tracking
from common.experiments.commands import Following
from common.experiments.compose import Table, compose_table
from common.experiments.context import PRUNE, Context, Pruned
from common.experiments.errors import UserError
from common.experiments.launch import Event
from common.experiments.records import Cell, Record, now
from common.experiments.search import Ledger, Pursuit, advance, capacity
from common.experiments.sweep import check_selection
from common.experiments.trials import Search, Space, Study, Trial, distribution, storage

LR = "settings.optimizer.lr"


# --- the space ----------------------------------------------------------------------------------------------------


def read(text: str) -> Any:
    from common.experiments.sweep import parse

    fixed, [swept] = parse([text])
    assert fixed == ()
    return distribution(swept)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=interval(0,1)", FloatDistribution(0, 1)),
        ("a=tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("a=int(interval(8,64))", IntDistribution(8, 64)),
        ("a=tag(log,int(interval(1,100)))", IntDistribution(1, 100, log=True)),
        ("a=range(1,10,step=2)", IntDistribution(1, 9, step=2)),
        ("a=range(0.1,0.5,step=0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
        ("a=x,null,[1,2],x", CategoricalDistribution(["x", "null", "[1,2]"])),
        ("a=choice(x,y)", CategoricalDistribution(["x", "y"])),
    ],
)
def test_the_grammar_of_sweeps_gives_distributions(text, expected):
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a=interval(3,1)", "an interval goes from a number to a larger one"),
        ("a=interval(0,inf)", "an interval goes from a number to a larger one"),
        ("a=tag(log,interval(0,1))", "starts above 0"),
        ("a=tag(lag,interval(1,2))", "unknown tag 'lag'; did you mean 'log'?"),
        ("a=tag(log,choice(1,2))", "only an interval has a logarithmic scale"),
        ("a=range(4,1)", "the range is empty"),
        ("a=intervall(1,2)", "cannot read 'a=intervall(1,2)'"),
        ("a=1", "nothing to sweep"),
    ],
)
def test_a_mistake_in_a_range_is_one_line(text, complaint):
    with pytest.raises(UserError) as error:
        read(text)
    assert complaint in str(error.value) and "\n" not in str(error.value)


def test_what_is_shown_of_a_drawn_number_is_what_runs():
    space = Space("p/t", "tiny", (), {})
    assert space.overrides({"a": 0.1 + 0.2, "b": 1e-5 / 3, "c": 7, "d": "[1,2]"}) == (
        "a=0.3", "b=3.33333e-06", "c=7", "d=[1,2]",
    )  # fmt: skip


def test_a_metric_that_the_table_reports_is_not_selected_on(composed):
    check_selection(composed)
    reported = next(iter(composed.metrics))
    choice = replace(composed.selection, metric=reported)
    with pytest.raises(
        UserError, match=f"no validation items to select on: '{reported}' is of the items that it is te"
    ):
        check_selection(replace(composed, selection=choice))
    for data in ("split", "draw"):  # the metric is of other items in a sweep
        check_selection(replace(composed, selection=replace(choice, data=data)))
    with pytest.raises(UserError, match=f"does not report '{composed.selection.metric}', which 'selection: {{data: "):
        check_selection(replace(composed, selection=replace(composed.selection, data="split")))
    with pytest.raises(UserError, match="names no validation metric"):
        check_selection(replace(composed, selection=replace(composed.selection, metric="")))


# --- trials, with cells that a function computes ------------------------------------------------------------------


@pytest.fixture(scope="module")
def composed() -> Table:
    table = compose_table("dsi_pp/memorise", "tiny", ["tracking=off"])
    row = next(iter(table.rows))
    return replace(table, rows={row: replace(table.rows[row], settings={})})


@pytest.fixture(autouse=True)
def no_looking_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the code's fingerprint nor git for each of many trials."""
    monkeypatch.setattr(Table, "code", {"projects/dsi_pp/run.py": "as it is"})
    monkeypatch.setattr(reproduce, "source_state", lambda files: {"commit": None, "dirty": None})


@dataclass(frozen=True)
class Quick(Space):
    """A space over the learning rate whose tables need no Hydra."""

    base: Table | None = None

    def table(self, values: Mapping[str, Any]) -> Table:
        settings = OmegaConf.merge(self.base.settings, OmegaConf.create())
        OmegaConf.update(settings, "optimizer.lr", float(f"{values[LR]:.6g}"))
        return replace(self.base, settings=settings, overrides=self.overrides(values))


Worth = Callable[[float, int], float | None]  # of a learning rate and a seed; None: the cell fails


@dataclass
class Scripted:
    """A launcher that computes cells in this process, one event a cell, in the order in which they came."""

    worth: Worth
    patience: float = math.inf  # cells until Ctrl-C
    waiting: list[tuple[Record, Cell]] = field(default_factory=list)
    computed: list[tuple[float, int]] = field(default_factory=list)
    most: int = 0  # cells in flight

    def submit(self, cells: Mapping[Record, Cell]) -> None:
        self.waiting.extend(cells.items())

    def events(self) -> Iterator[Event]:
        while self.waiting:
            self.most = max(self.most, len(self.waiting))
            record, cell = self.waiting.pop(0)
            yield Event(record, "running")
            if len(self.computed) >= self.patience:
                raise KeyboardInterrupt
            lr = cell.settings["optimizer"]["lr"]
            self.computed.append((lr, cell.seed))
            value = self.worth(lr, cell.seed)
            if value is None:
                record.set_state("failed", ended_at=now(), error="no")
                yield Event(record, "failed", "no")
                continue
            metrics = {"val_first_hits1": value}
            result = {"metrics": metrics, "table": cell.table, "row": cell.row, "wall_seconds": 2.0, "scale": "tiny"}
            (record.folder / "result.json").write_text(json.dumps(result))
            yield Event(record, "done")

    def release(self) -> None:
        pass


def search_of(tmp_path: Path, composed: Table, **how: Any) -> Ledger:
    keys = {LR: FloatDistribution(1e-4, 1e-1, log=True)}
    space = Quick("dsi_pp/memorise", "tiny", (), keys, replace(composed, runs=tmp_path))
    search = Search(**({"sampler": "random", "trials": 6, "seeds": 2, "prune": False} | how))
    base = space.table(space.example())
    return Ledger.load(space, search, base, list(base.rows), [], dry=False)


def pursue(ledger: Ledger, launcher: Scripted, capacity: int = 2) -> list[tuple[TrialState, str]]:
    said: list[tuple[TrialState, str]] = []
    Pursuit(ledger, launcher, capacity, lambda trial, state, reason: said.append((state, reason))).run()
    return said


def bowl(lr: float, seed: int) -> float:
    """Best at 0.01; seeds differ by a constant."""
    return 1 - abs(math.log10(lr) + 2) / 4 + (seed - 1000) / 100


def drawn(ledger: Ledger) -> list[float]:
    return [trial.params[LR] for trial in ledger.studies[0].trials]


def test_a_trial_is_worth_the_mean_of_its_cells_and_the_best_is_chosen(tmp_path, composed):
    ledger = search_of(tmp_path, composed)
    launcher = Scripted(bowl)
    assert [state for state, _ in pursue(ledger, launcher)] == [TrialState.COMPLETE] * 6
    [study] = ledger.studies
    for trial in study.trials:
        lr = float(f"{trial.params[LR]:.6g}")
        assert trial.values == [pytest.approx(mean([bowl(lr, 1000), bowl(lr, 1001)]))]
    assert study.best().number == max(range(6), key=lambda n: bowl(drawn(ledger)[n], 0))
    assert sorted(seed for _, seed in launcher.computed) == [1000] * 6 + [1001] * 6
    manifest = json.loads(replace(composed, runs=tmp_path).store.manifest(ledger.name).read_text())
    assert manifest["kind"] == "sweep" and len(manifest["cells"]) == 12


def test_where_lower_is_better_the_lowest_is_chosen(tmp_path, composed):
    table = replace(composed, selection=replace(composed.selection, better="lower"))
    ledger = search_of(tmp_path, table)
    pursue(ledger, Scripted(bowl))
    assert ledger.studies[0].best().number == min(range(6), key=lambda n: bowl(drawn(ledger)[n], 0))


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_search_that_was_killed_goes_on_and_repeats_nothing(tmp_path, composed, sampler):
    whole = search_of(tmp_path / "whole", composed, sampler=sampler, trials=12, seeds=1)
    pursue(whole, Scripted(bowl), capacity=1)
    first, second = Scripted(bowl, patience=5), Scripted(bowl)
    with pytest.raises(KeyboardInterrupt):
        pursue(search_of(tmp_path / "parts", composed, sampler=sampler, trials=12, seeds=1), first, capacity=1)
    parts = search_of(tmp_path / "parts", composed, sampler=sampler, trials=12, seeds=1)
    assert len(parts.studies[0].trials) == 6
    pursue(parts, second, capacity=1)
    assert drawn(parts) == drawn(whole)
    assert len(first.computed) == 5 and len(second.computed) == 7
    assert pursue(search_of(tmp_path / "parts", composed, sampler=sampler, trials=12, seeds=1), Scripted(bowl)) == []
    more = Scripted(bowl)
    pursue(search_of(tmp_path / "parts", composed, sampler=sampler, trials=14, seeds=1), more, capacity=1)
    assert len(more.computed) == 2


def test_random_points_do_not_depend_on_how_many_are_in_flight(tmp_path, composed):
    one, many = search_of(tmp_path / "one", composed), search_of(tmp_path / "many", composed)
    narrow, wide = Scripted(bowl), Scripted(bowl)
    pursue(one, narrow, capacity=1)
    pursue(many, wide, capacity=4)
    assert drawn(one) == drawn(many) and len(set(drawn(one))) == 6
    assert (narrow.most, wide.most) == (2, 8)


def test_tpe_learns(tmp_path, composed):
    ledger = search_of(tmp_path, composed, sampler="tpe", trials=30, seeds=1)
    pursue(ledger, Scripted(bowl), capacity=1)
    distance = [abs(math.log10(lr) + 2) for lr in drawn(ledger)]
    assert mean(distance[15:]) < mean(distance[:10]) / 2


def test_a_point_that_was_drawn_before_costs_nothing(tmp_path, composed):
    ledger = search_of(tmp_path, composed, trials=8, seeds=1)
    keys = {LR: FloatDistribution(0.01, 0.03, step=0.01)}
    studies = [replace(study, space=replace(study.space, keys=keys)) for study in ledger.studies]
    launcher = Scripted(bowl)
    pursue(replace(ledger, studies=studies), launcher, capacity=3)
    assert len(ledger.studies[0].trials) == 8 and len(launcher.computed) == len(set(launcher.computed)) <= 3


def test_failed_trials_are_named_never_chosen_and_tried_again_by_the_same_command(tmp_path, composed):
    def fragile(lr: float, seed: int) -> float | None:
        return None if lr > 0.003 else bowl(lr, seed)

    ledger = search_of(tmp_path, composed, seeds=1)
    said = pursue(ledger, Scripted(fragile))
    bad = sum(lr > 0.003 for lr in drawn(ledger))
    assert 0 < bad < 6
    assert sorted(reason for state, reason in said if state == TrialState.FAIL) == ["no"] * bad
    assert ledger.studies[0].best().params[LR] <= 0.003
    again = Scripted(bowl)
    pursue(search_of(tmp_path, composed, seeds=1), again)
    assert len(again.computed) == bad
    assert {trial.state for trial in ledger.studies[0].trials} == {TrialState.COMPLETE}


def test_cells_that_do_not_report_the_metric_stop_the_search(tmp_path, composed):
    table = replace(composed, selection=replace(composed.selection, metric="val_first_hit1"))
    launcher = Scripted(bowl)
    with pytest.raises(UserError, match="validation metric 'val_first_hit1'; did you mean 'val_first_hits1'"):
        pursue(search_of(tmp_path, table), launcher, capacity=1)
    assert len(launcher.computed) == 2


def test_other_code_is_another_study_of_the_same_points(tmp_path, composed, monkeypatch):
    before = search_of(tmp_path, composed, trials=3, seeds=1)
    pursue(before, Scripted(bowl))
    monkeypatch.setattr(Table, "code", {"projects/dsi_pp/run.py": "edited"})
    after, launcher = search_of(tmp_path, composed, trials=3, seeds=1), Scripted(bowl)
    pursue(after, launcher)
    assert after.name == before.name and drawn(after) == drawn(before) and len(launcher.computed) == 3


def test_a_line_that_a_killed_process_left_half_written_is_cut_off(tmp_path, composed):
    ledger = search_of(tmp_path, composed, seeds=1)
    pursue(ledger, Scripted(bowl))
    [journal] = (tmp_path / "dsi_pp/studies").glob("*.journal")
    with open(journal, "a") as file:
        file.write('{"op_code": 4, "wor')
    longer = search_of(tmp_path, composed, trials=8, seeds=1)
    pursue(longer, Scripted(bowl))
    assert len(search_of(tmp_path, composed, trials=8, seeds=1).studies[0].trials) == 8
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_as_many_trials_are_in_flight_as_keep_the_workers_busy(composed):
    def room(launcher: str, workers: int | None, seeds: int, sampler: str = "tpe") -> int:
        table = replace(composed, launcher=replace(composed.launcher, name=launcher, workers=workers))
        return capacity(table, Search(sampler, 40, seeds, False))

    assert [room("local", 2, 1), room("local", 2, 3), room("local", 6, 3), room("local", 4, 3)] == [2, 2, 2, 3]
    assert [room("slurm", None, 3), room("slurm", None, 3, "random"), room("slurm", 12, 3)] == [8, 40, 4]


def test_a_dry_run_draws_for_each_row_in_turn_as_a_start_does(monkeypatch):
    shown: dict[Record, Cell] = {}
    monkeypatch.setattr(search, "scripts", lambda table, cells: shown.update(cells))
    overrides = [f"{LR}=interval(0.001,0.1)", "launcher=slurm", "launcher.workers=3", "tracking=off"]
    wanted, rows = Search("random", 9, 1, False), ["cl_new", "cl_all", "genmem_all"]
    search.run_search("dsi_pp/continual", "tiny", overrides, wanted, rows, Following(dry_run=True))
    assert [cell.row for cell in shown.values()] == rows


# --- pruning ------------------------------------------------------------------------------------------------------


def log(record: Record, values: Sequence[float]) -> None:
    lines = [json.dumps({"step": step, "val_first_hits1": value}) for step, value in enumerate(values)]
    record.folder.mkdir(parents=True, exist_ok=True)
    (record.folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


def asked(study: Study) -> Trial:
    trial = study.ask()
    assert trial is not None
    return trial


def test_a_trial_below_the_median_of_earlier_ones_at_its_step_is_given_up(tmp_path, composed):
    ledger = search_of(tmp_path, composed, trials=20, prune=True)
    [study] = ledger.studies
    levels = [0.1, 0.2, 0.3, 0.4, 0.5]
    for level in levels:
        trial = asked(study)
        for record in trial.cells:
            log(record, [level, level])
            (record.folder / "result.json").write_text(
                json.dumps({"metrics": {"val_first_hits1": level}, "table": "", "row": "", "wall_seconds": 1})
            )
        assert trial.settle() == TrialState.COMPLETE
    for first, second, given_up in [(0.35, 0.27, False), (0.35, 0.23, True)]:  # their mean: 0.31, 0.29
        trial = asked(study)
        one, other = trial.cells
        log(one, [first])
        with open(one.folder / "metrics.jsonl", "a") as file:
            file.write('{"step": 1, "val_first_hits1": 0.\n')  # torn by a kill, amid the file
        trial.look()
        assert not trial.given_up  # the other seed has not come that far
        log(other, [second, 0.0])  # nor has the first to the second step
        trial.look()
        assert trial.given_up == given_up == (mean([first, second]) < median(levels))
        assert all((record.folder / PRUNE).exists() == given_up for record in trial.cells)
        if given_up:
            for record in trial.cells:
                record.set_state("pruned", by=study.journal.study_name)
            assert trial.settle() == TrialState.PRUNED
            assert study.trials[-1].last_step == 0


def test_a_trial_whose_command_was_killed_before_its_cells_were_frozen_is_taken_up(tmp_path, composed):
    killed = search_of(tmp_path, composed, trials=1, seeds=1)
    trial = asked(killed.studies[0])
    assert not any((record.folder / "config.yaml").exists() for record in trial.cells)
    left = advance(search_of(tmp_path, composed, trials=1, seeds=1), 1)
    assert list(left) == list(trial.cells)
    assert [record.config["seed"] for record in left] == [cell.seed for cell in left.values()]


def test_a_trial_that_others_have_computed_is_noted_though_nothing_is_left_of_it(tmp_path, composed):
    ledger = search_of(tmp_path, composed, trials=1, seeds=1)
    [record] = asked(search_of(tmp_path, composed, trials=1, seeds=1).studies[0]).cells
    log(record, [0.5])
    result = {"metrics": {ledger.base.selection.metric: 0.5}, "table": "memorise", "row": "", "wall_seconds": 1.0}
    (record.folder / "result.json").write_text(json.dumps(result))
    assert not advance(ledger, 1)
    entries = json.loads(ledger.base.store.manifest(ledger.name).read_text())["cells"]
    assert [entry["key"] for entry in entries] == [record.folder.name]


def test_a_cell_that_another_search_gave_up_is_computed(tmp_path, composed):
    ledger = search_of(tmp_path, composed, trials=1, seeds=1)
    trial = asked(ledger.studies[0])
    [record] = trial.cells
    record.folder.mkdir(parents=True)
    record.set_state("pruned", by="another")
    assert not trial.pruned(record)
    record.set_state("pruned", by=ledger.studies[0].journal.study_name)
    assert trial.pruned(record)


def test_a_mirrored_search_does_not_wait_for_cells_that_it_gave_up(tmp_path, composed):
    ledger = search_of(tmp_path, composed, trials=3, seeds=1)
    given_up, failed, computed = (ledger.ask(ledger.studies[0]) for _ in range(3))
    ledger.take([given_up, failed, computed])
    next(iter(given_up.cells)).set_state("pruned")
    next(iter(failed.cells)).set_state("failed")
    table = tracking._read_table(ledger.base.store.manifest(ledger.name), tmp_path, None)
    keys = {record.folder.name for trial in (failed, computed) for record in trial.cells}
    assert {entry["key"] for entry in table.manifest["cells"]} == keys and len(table.cells) == 1


def test_a_curve_is_what_was_logged_last_and_whole(tmp_path):
    context = Context(0, tmp_path)
    context.log(0, score=1.0)
    context.log(1, score=2.0, other=0.0)
    context.log(1, score=3.0)
    context.log(2, other=9.0)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "score": 4\n{"step": 4, "sc')
    assert Record(tmp_path).curves()["score"] == {0: 1.0, 1: 3.0}


def test_log_gives_up_when_it_is_told_to(tmp_path):
    context = Context(0, tmp_path)
    context.log(0, score=1.0)
    (tmp_path / PRUNE).touch()
    with pytest.raises(Pruned):
        context.log(1, score=1.0)
    assert not isinstance(Pruned(), Exception)  # a paper that catches exceptions does not catch it
    assert set(Record(tmp_path).curves()["score"]) == {0, 1}


def test_two_processes_may_write_one_journal(tmp_path):
    import optuna

    path = tmp_path / "studies/s.journal"

    def write() -> None:
        study = optuna.create_study(study_name="s", storage=storage(path), load_if_exists=True)
        for _ in range(20):
            study.tell(study.ask(), 1.0)

    threads = [threading.Thread(target=write) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    trials = optuna.load_study(study_name="s", storage=storage(path)).trials
    assert [trial.number for trial in trials] == list(range(60))


def test_a_sweep_is_headed_by_last_parts_of_keys_in_full(capsys):
    from rich.console import Console

    from common.experiments import sweep

    keys = ["settings.optimizer.lr", "rows.adafactor.settings.generator.lr", "settings.optimizer.perturbation"]
    assert sweep.short(keys) == ["optimizer.lr", "rows.adafactor.settings.generator.lr", "perturbation"]
    assert sweep.short(keys[1:]) == ["lr", "perturbation"]
    table = compose_table("dsi_pp/memorise", "tiny")
    estimates = dict.fromkeys([table.selection.metric, *table.metrics])
    sweep._print(
        Console(width=60), table, keys[1:], [sweep.Entry("adafactor", "corpus", ("0.01", "0.5"), 0, estimates)]
    )
    out = capsys.readouterr().out.split("★ best")[0]
    assert "…" not in out and " lr " in out

"""`repro plan`: what a table would compute and cost; starts nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import product
from statistics import median
from typing import Any, cast

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from common.experiments.compose import Table, compose_table
from common.experiments.launch import local_workers
from common.experiments.progress import duration, rounded
from common.experiments.records import Cell
from common.experiments.reproduce import Plan, plan_cells
from common.experiments.settings import flatten, to_settings
from common.models.settings import LanguageModelSettings
from common.training.reinforcement.settings import Reinforcement

Condition = tuple[str, ...]  # (row, column), (row,) for all its columns, or () for the whole table


def recorded_seconds(table: Table) -> dict[Condition, float]:
    """Condition -> median seconds (`spent_seconds`) of its recorded cells in this table and scale.

    By column too: the first one of a row computes what its cells share, a trained policy say.

    Without any record the whole table alone: the mean over the cells of its report, where there is one.
    """
    times: dict[Condition, list[float]] = {}
    alone = cpu_bound(table)
    for key in table.store.all_keys():
        record = table.store.record(key)
        if record.done:
            result = record.result()
            if (result["table"], result["scale"]) == (table.table, table.scale):
                for condition in _conditions(result["row"], result["column"]):
                    times.setdefault(condition, []).append(spent_seconds(result, alone))
    path = table.reports / table.paper / f"{table.table}.{table.scale}.json"
    if not times and path.exists():
        from common.experiments.report import read_report

        cost = read_report(path)["cost"]
        return {(): spent_seconds(cost, alone) / cost["cells"]} if cost["cells"] else {}
    return {condition: median(values) for condition, values in times.items()}


def _conditions(row: str, column: str) -> tuple[Condition, ...]:
    """From the narrowest to the whole table."""
    return (row, column), (row,), ()


def spent_seconds(spent: Mapping[str, Any], alone: bool) -> float:
    """What a result, or the cost of a report, lets expect of the next time, seconds.

    Args:
        alone: the cells are `cpu_bound`. Then it is their CPU seconds, at most the wall seconds, which on a loaded
            machine are several times what a cell takes by itself; else the wall seconds.
    """
    wall = float(spent["wall_seconds"])
    return min(wall, float(spent["cpu_seconds"])) if alone else wall


def cpu_bound(table: Table) -> bool:
    """Whether CPU time is all that its cells take: they have one rank and no GPU, and ask no server by its `url`."""
    parts = [*table.columns.values(), *table.rows.values()]
    settings = [OmegaConf.to_container(table.settings), *(part.settings for part in parts)]
    values = flatten({str(number): part for number, part in enumerate(settings)})
    asks = any(name.split(".")[-1] == "url" and value for name, value in values.items())
    return not asks and table.most("tasks") == 1 and table.most("gpus") == 0


def predicted_seconds(cell: Cell, recorded: Mapping[Condition, float]) -> float:
    """From recorded cells of its row and column, else of the row, else of the table, else from the report of the table,
    else as the config expects."""
    known = (recorded[condition] for condition in _conditions(cell.row, cell.column) if condition in recorded)
    return next(known, cell.resources["minutes"] * 60)


@dataclass(frozen=True)
class Expected:
    """Seconds of the missing cells one after the other, and with `workers` at a time: as many as there are here, at
    most one for each cell."""

    total: float
    workers: int
    elapsed: float


def expected(table: Table, plan: Plan, recorded: Mapping[Condition, float]) -> Expected:
    """How long the missing cells take, by the `recorded_seconds`; together at least as long as the longest of them."""
    seconds = [predicted_seconds(cell, recorded) for cell in plan.missing.values()]
    workers = max(1, min(local_workers(table), len(seconds)))
    return Expected(sum(seconds), workers, max([sum(seconds) / workers, *seconds]))


def show(name: str, scale: str, overrides: Sequence[str], seeds: int | None, rows: Sequence[str] | None) -> None:
    """Print for each row and column the missing cells and their minutes, then the cost of all, models and downloads."""
    console = Console()
    table = compose_table(name, scale, overrides)
    table.check_rows(rows or [])
    plan = plan_cells(table, table.cells(rows, range(seeds or table.seeds)))
    recorded = recorded_seconds(table)
    elsewhere = "other rows" if len(recorded) > 1 else "report" if recorded else "config"
    stale, missing = {cell.key for cell in plan.stale}, set(plan.missing)

    grid = Grid(box=None, padding=(0, 2, 0, 0))
    for heading in ("row", "column", "done", "stale", "to compute", "minutes each", "from"):
        grid.add_column(heading, justify="left" if heading in ("row", "column", "from") else "right")
    for row in rows or table.rows:
        for column in table.columns:
            cells = [pair for pair in plan.records if (pair[0].row, pair[0].column) == (row, column)]
            todo = sum(record in missing for _, record in cells)
            old = sum(cell.key in stale for cell, _ in cells)
            counts = Counter(done=len(cells) - todo, stale=old, todo=todo)
            minutes = predicted_seconds(cells[0][0], recorded) / 60 if cells else 0.0
            source = "recorded cells" if (row, column) in recorded else "its row" if (row,) in recorded else elsewhere
            grid.add_row(
                row, column, *(str(counts[kind]) for kind in ("done", "stale", "todo")), rounded(minutes), source
            )
    console.print(grid)

    cost = expected(table, plan, recorded)
    gpu_hours = sum(
        cell.resources["nodes"] * cell.resources["gpus"] * predicted_seconds(cell, recorded) / 3600
        for cell in plan.missing.values()
    )
    console.print(
        Text(
            f"\n{len(plan.records)} cells, {len(missing)} to compute: about {duration(cost.elapsed)} on {cost.workers} "
            f"worker{'s' * (cost.workers > 1)} ({duration(cost.total)} of cells), {rounded(gpu_hours)} GPU hours"
        ),
        soft_wrap=True,
    )
    if table.needs.models:
        console.print(_memory(table))
        console.print(Text("*activations come on top (by batch, length, checkpointing), and what autocast rounds"))
    console.print(Text(_downloads(table)))


CARDS = (8, 12, 16, 24, 40, 48, 80, 141)  # GB of the GPUs that people have
PROMPT = 2048  # tokens of the one sequence for which generating is counted


def smallest_card(need: int, gpus: int) -> int | None:
    """GB of the smallest usual GPU that holds `need` bytes spread evenly over `gpus` of them; None: none does."""
    return next((card for card in CARDS if need / gpus <= card * 1e9), None)


def _memory(table: Table) -> Grid:
    """What each checkpoint needs to generate and to train, and which GPUs (without any: whether the memory) hold it,
    of the largest cell.

    Reinforcement stands on one GPU, what else is trained or asked spreads over those of a cell.
    """
    from common.models.checkpoints import find
    from common.models.footprint import inference_bytes, training_bytes

    gpus, memory = int(table.most("gpus")), table.most("memory_gb")
    place = f"{gpus} GPU{'s' * (gpus > 1)} a cell" if gpus else f"{memory:g} GB of memory"
    reinforced = _reinforced(table)
    spread, alone = (gpus, "each"), (1, "on one")
    grid = Grid(box=None, padding=(0, 2, 0, 0))
    for heading in ("model", "parameters", "to", "needs", place):
        grid.add_column(heading, justify="right" if heading in ("parameters", "needs") else "left", overflow="fold")
    for name in table.needs.models:
        shape, count = find(name).shape, find(name).parameters
        use = "encode" if shape.family == "bert" else f"generate {PROMPT} tokens"
        needs = {
            use: (inference_bytes(shape, "bfloat16", 1, PROMPT), spread),
            "train, LoRA*": (training_bytes(shape, "lora"), spread),
            "train, AdamW*": (training_bytes(shape, "adamw_mixed"), spread),
            **{f"train, {way}*": (need, alone) for way, need in reinforced.get(name, {}).items()},
        }
        for number, (purpose, (need, (cards, where))) in enumerate(needs.items()):
            if gpus:
                card = smallest_card(need, cards)
                fits = f"{card} GB {where}" if card else f"over {CARDS[-1]} GB {where}"
            else:
                fits = "fits" if need <= memory * 1e9 else "does not fit"
            first = (name, f"{count / 1e9:.2g} B") if number == 0 else ("", "")
            grid.add_row(*first, purpose, f"{need / 1e9:,.1f} GB", fits)
    return grid


def _reinforced(table: Table) -> dict[str, dict[str, int]]:
    """Checkpoint -> way of reinforcement -> bytes that it takes, at most, the copy of vLLM that rollouts ask counted.

    By the settings of the cells, whether or not their row trains; of checkpoints that generate in the cell's process.
    """
    from common.models.checkpoints import find
    from common.models.footprint import BYTES, Dtype, parameters, reinforcement_bytes

    found: dict[str, dict[str, int]] = {}
    for cell in table.cells(None, range(1)):
        parts = _parts(to_settings(table.paper, cell.settings))
        models = [part for part in parts if isinstance(part, LanguageModelSettings) and part.name in table.needs.models]
        ways = [part for part in parts if isinstance(part, Reinforcement)]
        for model, way in product(models, ways):
            if model.backend not in ("transformers", "vllm"):
                continue
            shape = find(model.name).shape
            need = reinforcement_bytes(shape, way.algorithm == "ppo", way.kl != "none", way.lora_rank)
            if model.backend == "vllm":
                need += parameters(shape) * BYTES[cast(Dtype, model.dtype)] + round(model.memory * 1e9)
            label = way.algorithm.upper() + ", LoRA" * (way.lora_rank > 0)
            own = found.setdefault(model.name, {})
            own[label] = max(need, own.get(label, 0))
    return found


def _parts(settings: Any) -> list[Any]:
    """A dataclass and all that are fields of it, at any depth."""
    if not is_dataclass(settings):
        return []
    return [settings, *(part for field in fields(settings) for part in _parts(getattr(settings, field.name)))]


def _downloads(table: Table) -> str:
    """Bytes that are not on this machine yet."""
    from common.data.catalogue import dataset
    from common.data.registry import missing
    from common.models.checkpoints import find

    parts, total = [], 0
    for name in table.needs.data:
        entry = dataset(name)
        if missing(entry, table.data):
            parts.append(f"{name} {entry.bytes_full / 1e9:.2g} GB")
            total += entry.bytes_full
    for name in table.needs.models:
        checkpoint = find(name)
        if not checkpoint.cached():
            parts.append(f"{name} {checkpoint.bytes / 1e9:.2g} GB")
            total += checkpoint.bytes
    return f"to download: {total / 1e9:.2g} GB ({', '.join(parts)})" if parts else "to download: nothing"

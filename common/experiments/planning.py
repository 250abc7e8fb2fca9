"""`repro plan`: what a table would compute and cost; starts nothing."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from common.experiments.compose import Table, compose_table
from common.experiments.launch import local_workers
from common.experiments.progress import duration, rounded
from common.experiments.records import Cell
from common.experiments.reproduce import Plan, plan_cells


def recorded_seconds(table: Table) -> dict[str, float]:
    """Row -> median wall seconds of its recorded cells in this table and scale; `""` over all rows.

    Without any record `""` alone: the mean over the cells of the report of the table, where there is one.
    """
    times: dict[str, list[float]] = {}
    for key in table.store.all_keys():
        record = table.store.record(key)
        if record.done:
            result = record.result()
            if (result["table"], result["scale"]) == (table.table, table.scale):
                times.setdefault(result["row"], []).append(result["wall_seconds"])
                times.setdefault("", []).append(result["wall_seconds"])
    path = table.reports / table.paper / f"{table.table}.{table.scale}.json"
    if not times and path.exists():
        from common.experiments.report import read_report

        cost = read_report(path)["cost"]
        return {"": cost["wall_seconds"] / cost["cells"]} if cost["cells"] else {}
    return {row: median(values) for row, values in times.items()}


def predicted_seconds(cell: Cell, recorded: dict[str, float]) -> float:
    """From recorded cells of the row, else of the table, else from its report, else as the config expects."""
    return recorded.get(cell.row, recorded.get("", cell.resources["minutes"] * 60))


def expected_seconds(table: Table, plan: Plan) -> float:
    """Compute seconds of the missing cells, one after the other."""
    recorded = recorded_seconds(table)
    missing = set(plan.missing)
    return sum(predicted_seconds(cell, recorded) for cell, record in plan.records if record in missing)


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
            source = "recorded cells" if row in recorded else elsewhere
            grid.add_row(
                row, column, *(str(counts[kind]) for kind in ("done", "stale", "todo")), rounded(minutes), source
            )
    console.print(grid)

    total, workers = expected_seconds(table, plan), local_workers(table)
    gpu_hours = table.resources.nodes * table.resources.gpus * total / 3600
    console.print(
        Text(
            f"\n{len(plan.records)} cells, {len(missing)} to compute: about {duration(total / workers)} on {workers} "
            f"worker{'s' * (workers > 1)} ({duration(total)} of cells), {rounded(gpu_hours)} GPU hours"
        )
    )
    if table.needs.models:
        console.print(_memory(table))
        console.print(Text("*activations come on top: they go with batch, length and checkpointing"))
    console.print(Text(_downloads(table)))


CARDS = (8, 12, 16, 24, 40, 48, 80, 141)  # GB of the GPUs that people have
PROMPT = 2048  # tokens of the one sequence for which generating is counted


def smallest_card(need: int, gpus: int) -> int | None:
    """GB of the smallest usual GPU that holds `need` bytes spread evenly over `gpus` of them; None: none does."""
    return next((card for card in CARDS if need / gpus <= card * 1e9), None)


def _memory(table: Table) -> Grid:
    """What each checkpoint needs to generate and to train, and which GPUs (without any: whether the memory) hold it."""
    from common.models.checkpoints import find
    from common.models.footprint import inference_bytes, training_bytes

    gpus, memory = table.resources.gpus, table.resources.memory_gb
    place = f"{gpus} GPU{'s' * (gpus > 1)} a cell" if gpus else f"{memory:g} GB of memory"
    grid = Grid(box=None, padding=(0, 2, 0, 0))
    for heading in ("model", "parameters", "to", "needs", place):
        grid.add_column(heading, justify="right" if heading in ("parameters", "needs") else "left", overflow="fold")
    for name in table.needs.models:
        shape, count = find(name).shape, find(name).parameters
        use = "encode" if shape.family == "bert" else f"generate {PROMPT} tokens"
        needs = {use: inference_bytes(shape, "bfloat16", 1, PROMPT)} | {
            "train, LoRA*": training_bytes(shape, "lora"),
            "train, AdamW*": training_bytes(shape, "adamw_mixed"),
        }
        for number, (purpose, need) in enumerate(needs.items()):
            if gpus:
                card = smallest_card(need, gpus)
                fits = f"{card} GB each" if card else f"over {CARDS[-1]} GB each"
            else:
                fits = "fits" if need <= memory * 1e9 else "does not fit"
            first = (name, f"{count / 1e9:.2g} B") if number == 0 else ("", "")
            grid.add_row(*first, purpose, f"{need / 1e9:,.1f} GB", fits)
    return grid


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

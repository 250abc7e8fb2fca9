"""Teach reader and writer of the tiny tables anew, and put them where tables take them from: half an hour of a core.

python -m projects.mem_alpha.ship
"""

import shutil
from pathlib import Path

from common.experiments.compose import compose_table
from common.experiments.context import Context
from common.experiments.settings import to_settings
from common.models.shipped import ship
from projects.mem_alpha import run


def main() -> None:
    """What this code has taught before is taken from the artifacts of the tables' cells."""
    table = compose_table("mem_alpha/headline", "tiny")
    settings = to_settings("mem_alpha", table.cells(["mem_alpha"])[0].settings)
    context = Context(seed=0, folder=table.store.artifacts, artifacts=table.store.artifacts)
    reader, writer = run.WEIGHTS / "reader", run.WEIGHTS / "writer"
    put(run.taught_reader(settings, context), run.taught_reader_key(settings), reader)
    start = str(reader)
    put(run.warm_start(settings, context, start), run.warm_start_key(settings, start), writer)


def put(model: Path, key: dict[str, object], folder: Path) -> None:
    """In place of what was there."""
    shutil.rmtree(folder, ignore_errors=True)
    ship(model, key, folder)
    print(folder)


if __name__ == "__main__":
    main()

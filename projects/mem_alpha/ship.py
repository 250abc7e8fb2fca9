"""Teach reader and writer of the tiny tables anew, and put them where tables take them from: a quarter of an hour.

python -m projects.mem_alpha.ship reader   # then, with its revision in run.py,
python -m projects.mem_alpha.ship writer
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from common.experiments.compose import compose_table
from common.experiments.context import VALIDATION_SEED, Context
from common.experiments.randomness import seed_everything
from common.experiments.settings import to_settings
from common.models.shipped import ship
from projects.mem_alpha import run


@click.command()
@click.argument("name", type=click.Choice(list(run.REVISIONS)))
def main(name: str) -> None:
    """What this code has taught before is taken from the artifacts of the tables' cells.

    Raises:
        UserError: the reader is none that RL can learn from.
    """
    table = compose_table("mem_alpha/headline", "tiny")
    settings, cpus = to_settings("mem_alpha", table.cells(["mem_alpha"])[0].settings), table.resources.cpus
    seed_everything(0, cpus)
    context = Context(seed=VALIDATION_SEED, folder=table.store.artifacts, artifacts=table.store.artifacts, cpus=cpus)
    del run.REVISIONS[name]  # from here on what is used is made here
    measured: Mapping[str, Any]
    if name == "reader":
        model, key = run.reader(settings, context), run.taught_reader_key(settings)
        measured = run.check_reader(settings, context)
    else:
        model, key = run.base(settings, context), run.warm_start_key(settings, run.reader(settings, context))
        metrics = run.run(replace(settings, arm="untrained"), context).metrics
        measured = {metric: value for metric, value in metrics.items() if metric != "seconds"}  # of the machine
    revision = ship(Path(model), key, measured, run.WEIGHTS / name)
    click.echo(f"{run.WEIGHTS / name}: REVISIONS in projects/mem_alpha/run.py must have {revision}")


if __name__ == "__main__":
    main()

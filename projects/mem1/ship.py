"""Train the warm start of a tiny table anew, and put it where tables take it from: one to two hours of a core.

python -m projects.mem1.ship headline
"""

import shutil

import click

from common.experiments.compose import compose_table
from common.experiments.context import Context
from common.experiments.settings import to_settings
from common.models.shipped import ship
from projects.mem1.run import WEIGHTS, warm_start, warm_start_key


@click.command()
@click.argument("table", type=click.Choice(["headline", "webshop"]))
def main(table: str) -> None:
    """What this code has trained before is taken from the artifacts of the table's cells."""
    composed = compose_table(f"mem1/{table}", "tiny")
    settings = to_settings("mem1", composed.cells()[0].settings)
    model = warm_start(settings, Context(seed=0, folder=composed.store.artifacts, artifacts=composed.store.artifacts))
    folder = WEIGHTS / settings.questions.source
    shutil.rmtree(folder, ignore_errors=True)
    ship(model, warm_start_key(settings), folder)
    click.echo(folder)


if __name__ == "__main__":
    main()

"""Train a warm start of the tiny tables anew, and put it where they take it from.

python -m projects.mem1.ship text_world   # an hour and a half of a core
python -m projects.mem1.ship shop         # a quarter of an hour
"""

import click

from common.experiments.compose import compose_table
from common.experiments.context import Context
from common.experiments.randomness import seed_everything
from common.experiments.settings import to_settings
from common.models.shipped import ship
from projects.mem1.run import WEIGHTS, check_skills, warm_start_key, warm_starts

TABLES = {"text_world": "mem1/headline", "shop": "mem1/webshop"}  # one that begins with it, by source of questions


@click.command()
@click.argument("source", type=click.Choice(list(TABLES)))
def main(source: str) -> None:
    """What this code has trained before is taken from the artifacts of the tables' cells.

    Raises:
        UserError: the base lacks skills that RL asks for.
    """
    table = compose_table(TABLES[source], "tiny")
    settings, cpus = to_settings("mem1", table.cells()[0].settings), table.resources.cpus
    seed_everything(0, cpus)
    context = Context(seed=0, folder=table.store.artifacts, artifacts=table.store.artifacts, cpus=cpus)
    *before, (_, model) = warm_starts(settings, context).items()
    measured = check_skills(settings, context, str(model))
    logs = {name: path / "training.jsonl" for name, path in before}
    revision = ship(model, warm_start_key(settings), measured, WEIGHTS / source, logs)
    click.echo(f"{WEIGHTS / source}: REVISIONS in projects/mem1/run.py must have {revision}")


if __name__ == "__main__":
    main()

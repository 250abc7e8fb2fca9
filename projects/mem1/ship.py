"""Train the warm start of the tiny tables anew, and put it where they take it from: an hour and a half of a core.

python -m projects.mem1.ship
"""

from common.experiments.compose import compose_table
from common.experiments.context import Context
from common.experiments.randomness import seed_everything
from common.experiments.settings import to_settings
from common.models.shipped import ship
from projects.mem1.run import WEIGHTS, check_skills, warm_start_key, warm_starts


def main() -> None:
    """What this code has trained before is taken from the artifacts of the tables' cells.

    Raises:
        UserError: the base lacks skills that RL asks for.
    """
    table = compose_table("mem1/headline", "tiny")
    settings, cpus = to_settings("mem1", table.cells()[0].settings), table.resources.cpus
    seed_everything(0, cpus)
    context = Context(seed=0, folder=table.store.artifacts, artifacts=table.store.artifacts, cpus=cpus)
    *before, (_, model) = warm_starts(settings, context).items()
    measured = check_skills(settings, context, str(model))
    folder, logs = WEIGHTS / settings.questions.source, {name: path / "training.jsonl" for name, path in before}
    revision = ship(model, warm_start_key(settings), measured, folder, logs)
    print(f"{folder}: REVISIONS in projects/mem1/run.py must have {revision}")


if __name__ == "__main__":
    main()

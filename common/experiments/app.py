"""A paper as a plain Hydra app: `python -m projects.<paper> table=<paper>/<table>_<scale> row=… seed=… key=value`.

Runs one condition in this process and prints its metrics; `--multirun`, `--cfg job` and the rest are Hydra's.
Tables, statistics and records are `repro`'s.
"""

import json
import sys
from importlib import import_module

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.experiments import catalogue
from common.experiments.compose import CONFIGS, from_config, register_schema
from common.experiments.context import Context, check_finite
from common.experiments.errors import UserError, nearest
from common.experiments.fingerprint import ROOT
from common.experiments.randomness import seed_everything
from common.experiments.settings import to_settings


def main(paper: str) -> None:
    """Entry point of `projects/<paper>/__main__.py`."""
    register_schema(paper)
    given = next((place for place, word in enumerate(sys.argv) if place and "=" in word), len(sys.argv))
    sys.argv.insert(given, f"schema={paper}")
    if not any(argument.startswith("table=") for argument in sys.argv):
        table, scales = next(iter(catalogue.tables(paper).items()))
        sys.argv.insert(given + 1, f"table={paper}/{table}_{scales[0]}")
    hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="repro")(_run)()


def _run(config: DictConfig) -> None:
    """One condition: settings, run, metrics as JSON on standard output."""
    try:
        table = from_config(config)
        row, column = config.row or next(iter(table.rows)), config.column or next(iter(table.columns))
        table.check_rows([row])
        if column not in table.columns:
            raise UserError(f"unknown column '{column}'{nearest(column, table.columns)}")
        run = import_module(f"projects.{table.paper}.run").run
        cell, cpus = table.cell(row, column, config.seed), table.resources.cpus
        folder = ROOT / HydraConfig.get().runtime.output_dir
        seed_everything(config.seed, cpus)
        context = Context(config.seed, folder, table.store.artifacts, table.data, cpus, int(cell.resources["tasks"]))
        result = run(to_settings(table.paper, cell.settings), context)
    except UserError as error:
        sys.exit(f"{config.paper}: {error}")
    check_finite(result.metrics)
    print(json.dumps({"row": row, "column": column, "seed": config.seed, "metrics": dict(result.metrics)}))

"""A paper as a plain Hydra app: `python -m projects.<paper> table=<paper>/<table>_<scale> row=… seed=… key=value`.

Runs one condition in this process and prints its metrics; `--multirun`, `--cfg job` and the rest are Hydra's.
Tables, statistics and records are `repro`'s.
"""

import json
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.experiments import catalogue
from common.experiments.compose import CONFIGS, from_config, register_schema
from common.experiments.context import Context, check_finite
from common.experiments.errors import UserError, nearest
from common.experiments.fingerprint import ROOT
from common.experiments.settings import to_settings


def main(paper: str) -> None:
    """Entry point of `projects/<paper>/__main__.py`."""
    register_schema(paper)
    sys.argv.insert(1, f"schema={paper}")
    if not any(argument.startswith("table=") for argument in sys.argv):
        table, scales = next(iter(catalogue.tables(paper).items()))
        sys.argv.insert(2, f"table={paper}/{table}_{scales[0]}")
    try:
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="repro")(_run)()
    except UserError as error:
        sys.exit(f"{paper}: {error}")


def _run(config: DictConfig) -> None:
    """One condition: settings, run, metrics as JSON on standard output."""
    table = from_config(config)
    row, column = config.row or next(iter(table.rows)), config.column or next(iter(table.columns))
    table.check_rows([row])
    if column not in table.columns:
        raise UserError(f"unknown column '{column}'{nearest(column, table.columns)}")
    from importlib import import_module

    run = import_module(f"projects.{table.paper}.run").run
    folder = Path(HydraConfig.get().runtime.output_dir)
    context = Context(config.seed, ROOT / folder, table.store.artifacts, table.data)
    cell = table.cell(row, column, config.seed)
    result = run(to_settings(table.paper, cell.settings), context)
    check_finite(result.metrics)
    print(json.dumps({"row": row, "column": column, "seed": config.seed, "metrics": dict(result.metrics)}))

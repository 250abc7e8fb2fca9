"""What holds for every paper: configs compose at every scale, claims name what exists, papers stand alone."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from common.data.catalogue import all_datasets
from common.experiments import catalogue
from common.experiments.compose import compose_table
from common.experiments.errors import UserError
from common.experiments.expected import load_expected
from common.experiments.fingerprint import ROOT, _imports, code_files
from common.experiments.report import expected_of
from common.experiments.sweep import check_selection
from common.experiments.worker import PACKAGES
from common.models.checkpoints import CHECKPOINTS

PAPERS = catalogue.implemented()
CONFIGS = sorted(ROOT.glob("configs/table/*/**/*.yaml"))
TABLES = [
    (f"{paper}/{table}", scale)
    for paper in PAPERS
    for table, scales in catalogue.tables(paper).items()
    for scale in scales
]


@pytest.mark.parametrize(("name", "scale"), TABLES)
def test_every_table_composes_at_every_scale(name, scale):
    table = compose_table(name, scale)
    cells = table.cells()
    assert len(cells) == len(table.rows) * len(table.columns) * table.seeds
    assert len({cell.key for cell in cells}) == len(cells), "two rows have the same settings"
    assert set(table.needs.data) <= set(all_datasets())
    assert set(table.needs.models) <= set(CHECKPOINTS)
    expected = expected_of(table)
    assert all(claim.table == table.table for claim in expected.claims)


TEST_ALONE = {  # whose data have next to no items but those that tables are tested on
    ("amber/ablation", "small"),
    ("amber/multihop", "small"),
    ("wise/hallucination", "paper"),
    ("wise/scale_up", "paper"),
    ("wise/scale_up", "tiny"),
    ("wise/temporal", "paper"),
}


@pytest.mark.parametrize(("name", "scale"), TABLES)
def test_every_table_can_be_swept_unless_its_data_are_test_items_alone(name, scale):
    table = compose_table(name, scale)
    if (name, scale) in TEST_ALONE:
        with pytest.raises(UserError, match=f"{name} at {scale} scale has no validation items to select on"):
            check_selection(table)
    else:
        check_selection(table)


@pytest.mark.parametrize(
    ("name", "override", "line"),
    [
        (
            "amber/headline",
            "settings.loop.collector=adaptiv",
            "unknown loop.collector 'adaptiv'; did you mean 'adaptive'",
        ),
        ("amber/headline", "settings.lm.backend=vlm", "unknown backend 'vlm'; did you mean 'vllm'"),
        (
            "amber/headline",
            "settings.questions.source=miror",
            "unknown questions.source 'miror'; did you mean 'mirror'",
        ),
        ("cmt/headline", "settings.objective.kind=nlll", "unknown objective.kind 'nlll'; did you mean 'nll'"),
        ("cmt/headline", "settings.data.train=[pros]", "unknown data.train 'pros'; did you mean 'prose'"),
        ("dsi_pp/continual", "settings.optimizer.name=adagrad", "unknown optimizer.name 'adagrad'; did you mean 'ada"),
        ("dsi_pp/continual", "settings.corpus.name=synthetik", "unknown corpus.name 'synthetik'; did you mean 'synth"),
        ("dsi_pp/continual", "settings.docids.kind=atomik", "unknown docids.kind 'atomik'; did you mean 'atomic'"),
        (
            "dsi_pp/continual",
            "settings.docids=atomik",
            "settings.docids has settings of its own: settings.docids.kind, ",
        ),
        ("mem1/headline", "settings.rules.turns=papr", "unknown rules.turns 'papr'; did you mean 'paper'"),
        ("mem_alpha/headline", "settings.rules.dialect=jsn", "unknown rules.dialect 'jsn'; did you mean 'json'"),
        ("wise/headline", "settings.wise.merge=tiess", "unknown wise.merge 'tiess'; did you mean 'ties'"),
        ("wise/headline", "settings.data.name=zsr", "unknown data.name 'zsr'; did you mean 'zsre'"),
    ],
)
def test_a_misspelt_choice_is_told_before_anything_runs(name, override, line):
    with pytest.raises(UserError) as told:
        compose_table(name, "tiny", [override]).cells()
    assert line in str(told.value)


@pytest.mark.parametrize("paper", PAPERS)
def test_every_scale_has_the_same_conditions(paper):
    for table, scales in catalogue.tables(paper).items():
        rows = {scale: list(compose_table(f"{paper}/{table}", scale).rows) for scale in scales}
        assert len({tuple(names) for names in rows.values()}) == 1, rows


def imported(source, file):
    """Every dotted name that the source of a file of the repository imports, and the packages above it."""
    return set(_imports(ast.parse(source), Path(file).parent.parts))


def foreign(names, paper):
    """Names of other papers' modules."""
    return [name for name in names if name.startswith("projects.") and name.split(".")[1] != paper]


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_imports_no_other_paper_and_no_config_machinery_in_its_method(paper):
    for path in (ROOT / "projects" / paper).rglob("*.py"):
        names = imported(path.read_text(), path.relative_to(ROOT))
        assert not foreign(names, paper), path
        if path.name == "method.py":
            assert not names & {"hydra", "omegaconf", "mlflow"}, path


@pytest.mark.parametrize(
    "source",
    ["import projects.cmt", "from projects import cmt", "from projects.cmt.data import x", "from .. import cmt",
     "from ..cmt import data", "def f():\n    from ..cmt.data import x"],
)  # fmt: skip
def test_another_paper_is_seen_however_it_is_imported(source):
    assert foreign(imported(source, "projects/wise/run.py"), "wise")
    assert not foreign(imported(source.replace("cmt", "wise"), "projects/wise/run.py"), "wise")
    deeper = source.replace("from ..", "from ...")
    assert foreign(imported(deeper, "projects/wise/parts/run.py"), "wise")


CARRIERS = {"filelock", "huggingface_hub", "jinja2", "jsonschema", "openai", "pyarrow", "safetensors"}


@pytest.mark.parametrize("paper", PAPERS)
def test_results_carry_the_version_of_every_package_that_computes(paper):
    """All that a cell's code imports, but what carries bytes and texts from one place to another."""
    owners = packages_distributions()
    for file in code_files(f"projects.{paper}.run"):
        names = imported((ROOT / file).read_text(), file) if file.endswith(".py") else set()
        modules = {name.split(".")[0] for name in names}
        for module in modules - CARRIERS - sys.stdlib_module_names - {"common", "projects"}:
            package = owners.get(module, [module])[0].replace("_", "-")
            assert package in PACKAGES, f"{file} imports {module}"


@pytest.mark.parametrize("paper", PAPERS)
def test_every_claim_of_a_paper_belongs_to_a_table_that_exists(paper):
    path = ROOT / "projects" / paper / "expected.yaml"
    load_expected(path, dict.fromkeys(catalogue.tables(paper)), only="")  # raises on an unknown table


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("configs/table/*/**/*.yaml")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_value_in_the_settings_of_a_table_config_has_a_source(path):
    """Of the block `settings:`, not of rows: a comment on the line, or on a line that it belongs to, which names a
    section, the official code, or our choice."""
    above: list[tuple[int, bool]] = []  # indentation and whether a source stands there, outermost first
    inside = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        indent = len(line) - len(line.lstrip())
        if re.match(r"\S", line):
            inside, above = line.startswith("settings:"), []
        elif inside and re.match(r"\s+\w+:", line):
            above = [entry for entry in above if entry[0] < indent]
            sourced = " # " in line or any(known for _, known in above)
            above.append((indent, sourced))
            opens = re.match(r"\s+\w+: *(#.*)?$", line)
            assert sourced or opens, f"{path.name}:{number} has no source: {line.strip()}"

"""Pages of the guide whose commands train for minutes or need a cluster, followed to the end."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Checkout, make_checkout
from tests.integration.slurm_cluster import ABSENT, running_cluster
from tests.test_guide import GUIDE, steps

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]
ELSEWHERE = ("make", "export", "slurm/local_cluster.sh", "eval")  # test_docs.py, test_slurm.py


@pytest.fixture
def dsi_pp(tmp_path: Path) -> Checkout:
    """A checkout with DSI++, as it would be cloned."""
    made = make_checkout(tmp_path / "checkout")
    for folder in ("projects/dsi_pp", "configs/table/dsi_pp", "slurm"):
        shutil.copytree(ROOT / folder, made.root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return made


def type_all(page: Path, checkout: Checkout, *skipped: str, **environment: str) -> None:
    """Type every command of a page; each must succeed."""
    for step in steps(page.read_text()):
        name = step.text.split()[0]
        if step.kind != "sh" or name in ELSEWHERE or any(part in step.text for part in skipped):
            continue
        command = re.sub(r"^repro ", f"{sys.executable} -m common.experiments ", step.text)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=checkout.root,
            env=checkout.variables | environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{step.text}\n{done.stdout}{done.stderr}"


def test_quick_start(dsi_pp: Checkout) -> None:
    type_all(GUIDE / "quick_start.md", dsi_pp)
    assert len(dsi_pp.report("memorise.tiny", "reports/dsi_pp")["seeds"]) == 2
    assert (dsi_pp.root / "runs" / "mlflow.db").exists()


@pytest.mark.skipif(bool(ABSENT), reason=f"no SLURM here: {', '.join(ABSENT)} missing")
def test_from_laptop_to_cluster(dsi_pp: Checkout) -> None:
    with running_cluster(cpus=2) as cluster:
        skipped = ("repro fetch",)  # downloads
        type_all(ROOT / "slurm" / "from_laptop_to_cluster.md", dsi_pp, *skipped, **cluster.environment)
    report = dsi_pp.report("memorise.tiny", "reports/dsi_pp")
    assert len(report["seeds"]) == 3 and report["cost"]["cells"] == 6

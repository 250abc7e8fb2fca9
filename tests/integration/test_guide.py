"""Pages of the guide about commands, typed from top to bottom, with the laboratory in place of DSI++'s slow cells.

That the names of DSI++ exist is seen to by `tests/test_docs.py`.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Checkout, make_checkout
from tests.integration.slurm_cluster import ABSENT, make, running_cluster
from tests.test_guide import GUIDE, steps

pytestmark = pytest.mark.integration
ELSEWHERE = ("make", "export", "slurm/local_cluster.sh", "eval")  # test_docs.py, test_slurm.py
LABORATORY = {
    "dsi_pp/memorise": "lab/main",
    "dsi_pp/continual": "lab/main",
    "adafactor": "up",
    "settings.optimizer.lr=0.01,0.02": "settings.steps=2,3",
    "settings.optimizer.lr=0.02": "settings.steps=2",
    "settings.optimizer.lr=tag(log,interval(5e-3,5e-2))": "settings.steps=range(1,6)",
    "--scale paper": "--scale small",
}


def type_all(page: Path, checkout: Checkout, *skipped: str) -> None:
    """Type every command of a page; each must succeed."""
    for step in steps(page.read_text()):
        if step.kind != "sh" or step.text.split()[0] in ELSEWHERE or step.text.startswith(skipped or ("#",)):
            continue
        command = re.sub(r"^repro ", f"{sys.executable} -m common.experiments ", step.text)
        for name, substitute in LABORATORY.items():
            command = command.replace(name, substitute)
        done = subprocess.run(
            ["bash", "-c", command], cwd=checkout.root, env=checkout.variables, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_quick_start(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    type_all(GUIDE / "quick_start.md", checkout)
    assert checkout.report()["seeds"] == [0, 1]
    assert (checkout.root / "runs" / "mlflow.db").exists()


@pytest.mark.skipif(bool(ABSENT), reason=f"no SLURM here: {', '.join(ABSENT)} missing")
def test_from_laptop_to_cluster(tmp_path: Path) -> None:
    with running_cluster() as cluster:
        checkout = make(tmp_path / "checkout", **cluster.environment)
        type_all(ROOT / "slurm" / "from_laptop_to_cluster.md", checkout, "repro fetch")  # which downloads
    assert checkout.report()["seeds"] == [0, 1, 2]

"""Fixtures: a checkout of its own with the laboratory paper, and `repro` in it as a user would call it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAB = Path(__file__).parent / "fixtures" / "lab"
PATIENCE = 300  # seconds of a command that hangs; on a loaded machine a long one may take two minutes


@dataclass(frozen=True)
class Checkout:
    """A copy of the engine with one paper, `lab`; results in `runs` and `reports` below it."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        """Environment of a command in this checkout."""
        return os.environ | self.environment

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """`repro ARGUMENTS` in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "common.experiments", *arguments],
            cwd=self.root,
            env=self.variables | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_heed_interrupts,
        )

    def repro(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **environment)
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def table(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.repro("table", "lab/main", *arguments, **environment)

    @property
    def cells(self) -> list[Path]:
        return sorted((self.root / "runs" / "lab" / "cells").glob("*"))

    def results(self) -> dict[str, dict[str, Any]]:
        """Key -> metrics of every finished cell."""
        done = [cell for cell in self.cells if (cell / "result.json").exists()]
        return {cell.name: json.loads((cell / "result.json").read_text())["metrics"] for cell in done}

    def hold(self, first: int = 0, paper: str = "lab") -> None:
        """From now until `release`, cells of seeds from `first` on (in other papers: all, at step `first`) do not end.

        So a test acts amid the work, however slow or fast the machine is.
        """
        path = self.root / "runs" / paper / "hold"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(first))

    def release(self, paper: str = "lab") -> None:
        (self.root / "runs" / paper / "hold").unlink()

    def report(self, name: str = "main.tiny", folder: str = "reports/lab") -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.root / folder / f"{name}.json").read_text())
        return report


def _heed_interrupts() -> None:
    """Ctrl-C as a terminal sends it, also where the tests themselves run in the background and ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def make_checkout(root: Path, copy: Sequence[str] = ("common", "configs")) -> Checkout:
    ignore = shutil.ignore_patterns("__pycache__", "dsi_pp", "toy")
    for folder in copy:
        shutil.copytree(ROOT / folder, root / folder, ignore=ignore)
    (root / "projects").mkdir()
    shutil.copy(ROOT / "projects" / "catalogue.yaml", root / "projects")
    (root / "projects" / "__init__.py").touch()
    shutil.copytree(LAB / "project", root / "projects" / "lab", ignore=ignore)
    shutil.copytree(LAB / "configs", root / "configs" / "table" / "lab", dirs_exist_ok=True)
    clean = {"REPRO_DATA": "", "MLFLOW_TRACKING_URI": "", "PYTHONPATH": str(root), "COLUMNS": "100"}
    return Checkout(root, clean | {"REPRO_RUNS": str(root / "runs"), "REPRO_REPORTS": str(root / "reports")})


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A fresh checkout without MLflow (its SQLite file takes seconds to make)."""
    made = make_checkout(tmp_path / "checkout")
    (made.root / "configs" / "tracking" / "local.yaml").write_text('uri: "off"\n')
    return made


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread, as a cell has it."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Any, Any]]:
    """`toy(family)`: a fresh copy of a toy model of that family, in float32, and its tokenizer."""
    folders: dict[str, Path] = {}

    def load(family: str = "llama") -> tuple[Any, Any]:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from common.models.toy import toy_checkpoint

        if family not in folders:
            folders[family] = toy_checkpoint(family, tmp_path_factory.mktemp(family))
        model = AutoModelForCausalLM.from_pretrained(folders[family], dtype=torch.float32, use_safetensors=True)
        return model.eval(), AutoTokenizer.from_pretrained(folders[family])

    return load

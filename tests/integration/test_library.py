"""`common` as a library of another project: installed by pip, used without the engine's dependencies in the way."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.integration

SCRIPT = """
import sys
from pathlib import Path

import common
from common.memory.notes import NoteMemory
from common.memory.search import RetrieverSearch
from common.models.build import build as language_model
from common.models.language_model import Sampling
from common.models.settings import LanguageModelSettings
from common.retrievers.build import build

assert Path(common.__file__).is_relative_to(sys.argv[1]), common.__file__
retriever = build("bm25")
retriever.build(["a", "b"], ["Ada met Bo in Oslo.", "Bo lives in Rome."])
assert retriever.search(["Where does Bo live?"], k=1).rankings() == [["b"]]
memory = NoteMemory(RetrieverSearch(build("bm25")))
memory.write("Ada lives in Oslo.", cause="turn 1")
memory.snapshot(Path("memory"))
again = NoteMemory(RetrieverSearch(build("bm25")))
again.restore(Path("memory"))
assert [entry.text for entry in again.read("Ada", k=1)] == ["Ada lives in Oslo."]
lm = language_model(LanguageModelSettings("microlm"))
assert lm.generate(["Ada"], Sampling(max_tokens=2))[0].completion_tokens
engine = {"hydra", "omegaconf", "mlflow", "submitit", "optuna"} & set(sys.modules)
assert not engine, engine
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what pip installs of a copy of this repository."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for folder in ("common", "projects"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return target


def test_another_project_uses_retriever_memory_and_language_model(installed: Path, tmp_path: Path) -> None:
    done = elsewhere(installed, tmp_path, "-c", SCRIPT, str(installed))
    assert done.returncode == 0, done.stderr


def test_the_command_says_in_one_line_that_tables_need_the_repository(installed: Path, tmp_path: Path) -> None:
    done = elsewhere(installed, tmp_path, "-m", "common.experiments", "table", "dsi_pp/memorise")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "pip install -e" in done.stderr


def elsewhere(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in another project's folder, which sees the installed package and not this repository."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )

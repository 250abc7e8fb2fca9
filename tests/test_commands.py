"""Commands of the READMEs and the guide that only look, typed as they stand, against the real papers and reports.

Those that compute are typed in `integration/test_guide.py`, with the laboratory in place of slow cells; all others are
parsed by `test_docs.py`. `repro doctor`, which composes every table, is run in `common/experiments/test_views.py`.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from common.experiments.compose import compose_table
from tests.conftest import ROOT
from tests.test_docs import COMMANDS

LOOKING = {"list": 2, "plan": 3, "explain": 3, "export": 3, "cache": 2}  # words at least: fewer name it in a sentence
PROFILES = {path.stem for path in (ROOT / "configs" / "launcher").glob("*.yaml")}


def looks(line: str) -> bool:
    """Whether a command only looks; not with a profile of one's own, which the test of its page makes."""
    words = shlex.split(line)
    if "--dry-run" in words:
        return "--launcher" not in words or words[words.index("--launcher") + 1] in PROFILES
    return len(words) >= LOOKING.get(words[1], len(line))


TYPED = [line for line in COMMANDS if looks(line)]


def test_there_are_commands_of_each_kind() -> None:
    assert {shlex.split(line)[1] for line in TYPED} == {*LOOKING, "table"}


def about(words: list[str]) -> list[str]:
    """What the answer must speak of: the paper and the table asked for, if any; a plan, its first row."""
    [paper, table] = [*next((word for word in words if "/" in word), "/").split("/"), ""][:2]
    if words[0] != "plan":
        return [paper, table]
    scale = words[words.index("--scale") + 1] if "--scale" in words else "tiny"
    return [next(iter(compose_table(f"{paper}/{table}", scale).rows))]


@pytest.mark.parametrize("line", TYPED)
def test_a_command_does_what_its_page_says(line: str, tmp_path: Path) -> None:
    """It succeeds, speaks of what it was asked about, and leaves no cell behind."""
    words = shlex.split(line)[1:]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "REPRO_RUNS": str(tmp_path / "runs"), "REPRO_DATA": ""}
    command = [sys.executable, "-m", "common.experiments", *words]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    said = done.stdout + "".join(path.read_text() for path in tmp_path.glob("*.csv"))
    assert said.strip() and all(word in said for word in about(words))
    assert ("#SBATCH --array" in said) == ("--dry-run" in words)
    assert not list(tmp_path.glob("runs/*/cells/*/result.json"))

"""The first hour of a new user: a fresh clone without an environment, the commands of the README and two pages of the
guide typed from top to bottom, and some mistakes; each command with its seconds and what it said.

`python -m tests.benchmarks.first_hour --write` puts the transcript into `reports/first_hour.md`. Commands for a cluster
are left out, and of the tests the fast ones are run, unless `--whole` asks for all of `make test`.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.experiments.records import now
from common.experiments.worker import hardware
from common.files import write_atomically
from tests.conftest import ROOT
from tests.test_guide import GUIDE, Step, changed, steps

PAGE = ROOT / "reports" / "first_hour.md"
PARTS = {
    "README": ROOT / "README.md",
    "Quick start": GUIDE / "quick_start.md",
    "A paper of one's own": GUIDE / "add_your_paper.md",
}
MISTAKES = (
    "repro tabel dsi_pp/memorise",
    "repro table dsi_pp/memorize",
    "repro table dsi_pp/memorise --rows adafaktor",
    "repro table dsi_pp/memorise settings.optimizer.lrr=0.01",
    "repro table mem1/headline settings.rl.reward=outcom",
    "repro table dsi_pp/memorise --launcher slrum",
    "repro logs dsi_pp/memorise/adafactor/7",
)
HEAD, TAIL, WIDTH = 8, 8, 160  # lines and characters that are shown of an answer


@dataclass
class Shell:
    """A shell in a folder, without this one's environment and without a data mirror; what is exported stays so."""

    folder: Path
    exports: list[str] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        ours = ("VIRTUAL_ENV", "PYTHONPATH", "OMP_NUM_THREADS", "REPRO_DATA", "REPRO_RUNS", "REPRO_REPORTS")
        return {name: value for name, value in os.environ.items() if name not in ours} | {
            "COLUMNS": "120",
            "LC_ALL": "C.UTF-8",
        }

    def type(self, command: str, fails: bool = False) -> str:
        """Type a command; what it said, as Markdown. AssertionError: it ends otherwise than it must."""
        if command.startswith("export "):
            self.exports.append(command)
            return f"`{command}`\n"
        script = "\n".join(["set -e", *self.exports, command])
        began = time.perf_counter()
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self.variables, capture_output=True, text=True
        )
        seconds = time.perf_counter() - began
        assert (done.returncode != 0) == fails, "\n".join([command, done.stdout, done.stderr])
        said = (done.stderr if fails else done.stdout).replace(str(self.folder), "…").rstrip().splitlines()
        if len(said) > HEAD + TAIL:
            said = [*said[:HEAD], f"… {len(said) - HEAD - TAIL} lines …", *said[-TAIL:]]
        shown = "\n".join(line.rstrip()[:WIDTH] for line in said)
        return f"`{command}` — {seconds:.1f} s\n\n```text\n{shown}\n```\n"


def to_type(page: str, whole: bool = False) -> list[Step]:
    """What a page tells its reader to do without a cluster; of the tests the fast ones, unless `whole`."""
    chosen = [step for step in steps(page) if not (step.kind == "sh" and "--launcher slurm" in step.text)]
    fast = {"make test": "make test-fast"} if not whole else {}
    return [replace(step, text=fast.get(step.text, step.text)) for step in chosen]


def followed(shell: Shell, page: Path, whole: bool) -> Iterator[str]:
    """Do what a page says, in order."""
    for step in to_type(page.read_text(), whole):
        target = shell.folder / step.path
        if step.kind == "diff":
            target.write_text(changed(target.read_text(), step.text))
        elif step.kind == "yaml":
            target.write_text(step.text)
        elif step.kind == "sh":
            yield shell.type(step.text)


def transcript(clone: Path, whole: bool) -> Iterator[str]:
    """All parts; each begins without the package that an earlier one made."""
    shell = Shell(clone)
    for title, page in PARTS.items():
        yield f"## {title}\n"
        yield from followed(shell, page, whole)
        subprocess.run(["git", "clean", "-fdq", "projects", "configs", "tests"], cwd=clone, check=True)
    yield "## Mistakes\n"
    yield from (shell.type(command, fails=True) for command in MISTAKES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write reports/first_hour.md")
    parser.add_argument("--whole", action="store_true", help="all of `make test`, not the fast suite alone")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="first_hour-") as folder:
        clone = Path(folder) / "repo"
        subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True, check=True)
        began, parts = time.perf_counter(), []
        for part in transcript(clone, given.whole):
            print(part, flush=True)
            parts.append(part)
        minutes = (time.perf_counter() - began) / 60
    about = (
        "# First hour\n\nGenerated: a fresh clone without an environment, the commands of the README and of two pages "
        f"of the guide, and some mistakes: {minutes:.0f} minutes of the machine.\n\n"
        "`python -m tests.benchmarks.first_hour --write`, "
        f"{now()}, commit {commit.stdout[:12]}, {json.dumps(hardware())}\n"
    )
    if given.write:
        write_atomically(PAGE, "\n".join([about, *parts]))


if __name__ == "__main__":
    main()

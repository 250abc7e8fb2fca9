"""The first hour of a new user: a fresh clone without an environment, two pages of the guide typed from top to bottom,
and some mistakes; each command with its seconds and what it said.

`python -m tests.benchmarks.first_hour --write` puts the transcript into `reports/first_hour.md`.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common.experiments.records import now
from common.experiments.worker import hardware
from common.files import write_atomically
from tests.conftest import ROOT
from tests.test_guide import GUIDE, changed, steps

PAGE = ROOT / "reports" / "first_hour.md"
PARTS = {"Quick start": "quick_start.md", "A paper of one's own": "add_your_paper.md"}
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


def variables(clone: Path) -> dict[str, str]:
    """Environment of a shell in the clone, without this one's, and without a data mirror."""
    ours = ("VIRTUAL_ENV", "PYTHONPATH", "OMP_NUM_THREADS", "REPRO_DATA", "REPRO_RUNS", "REPRO_REPORTS")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | {"PATH": f"{clone / '.venv' / 'bin'}:{os.environ['PATH']}", "COLUMNS": "120"}


def typed(clone: Path, command: str, fails: bool = False) -> str:
    """Type a command in the clone; what it said, as Markdown. AssertionError: it ends otherwise than it must."""
    began = time.perf_counter()
    done = subprocess.run(["bash", "-c", command], cwd=clone, env=variables(clone), capture_output=True, text=True)
    seconds = time.perf_counter() - began
    assert (done.returncode != 0) == fails, "\n".join([command, done.stdout, done.stderr])
    said = (done.stderr if fails else done.stdout).replace(str(clone), "…").rstrip().splitlines()
    if len(said) > HEAD + TAIL:
        said = [*said[:HEAD], f"… {len(said) - HEAD - TAIL} lines …", *said[-TAIL:]]
    shown = "\n".join(line.rstrip()[:WIDTH] for line in said)
    return f"`{command}` — {seconds:.1f} s\n\n```text\n{shown}\n```\n"


def followed(clone: Path, page: Path) -> Iterator[str]:
    """Do what a page of the guide says, in order."""
    for step in steps(page.read_text()):
        target = clone / step.path
        if step.kind == "diff":
            target.write_text(changed(target.read_text(), step.text))
        elif step.kind == "yaml":
            target.write_text(step.text)
        elif step.kind == "sh" and not step.text.startswith("export"):
            yield typed(clone, step.text)


def transcript(clone: Path) -> Iterator[str]:
    """All parts."""
    for title, page in PARTS.items():
        yield f"## {title}\n"
        yield from followed(clone, GUIDE / page)
    yield "## Mistakes\n"
    yield from (typed(clone, command, fails=True) for command in MISTAKES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write reports/first_hour.md")
    write = parser.parse_args().write
    with tempfile.TemporaryDirectory(prefix="first_hour-") as folder:
        clone = Path(folder) / "repo"
        subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True, check=True)
        began, parts = time.perf_counter(), []
        for part in transcript(clone):
            print(part, flush=True)
            parts.append(part)
        minutes = (time.perf_counter() - began) / 60
    about = (
        "# First hour\n\nGenerated: a fresh clone without an environment, the commands of two pages of the guide, and "
        f"some mistakes: {minutes:.0f} minutes of the machine.\n\n`python -m tests.benchmarks.first_hour --write`, "
        f"{now()}, commit {commit.stdout[:12]}, {json.dumps(hardware())}\n"
    )
    if write:
        write_atomically(PAGE, "\n".join([about, *parts]))


if __name__ == "__main__":
    main()

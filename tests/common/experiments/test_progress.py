"""What a terminal shows while cells run: how many, and the last line that each running one wrote."""

import os
import subprocess
import sys
from io import StringIO

from rich.console import Console

from common.experiments.launch import Event
from common.experiments.progress import progress
from common.experiments.records import Record
from tests.conftest import ROOT


def test_a_terminal_shows_the_last_line_of_each_running_cell(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    first, second = Record(tmp_path / "a"), Record(tmp_path / "b")
    for record in (first, second):
        record.folder.mkdir()
        (record.folder / "log.txt").write_text(f"step 1/9\nstep 2/9 of {record.folder.name}\n")
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, force_interactive=True, width=100)

    def shown() -> str:
        console.print("now")  # above the bar, which is drawn again
        text = screen.getvalue()
        return text[text.rindex("now") :]

    with progress(console, "lab/main", {first: "up · steps", second: "down · steps"}, 60.0) as listen:
        listen(Event(first, "running"))
        listen(Event(second, "running"))
        assert "up · steps: step 2/9 of a" in shown() and "down · steps: step 2/9 of b" in shown()
        assert "2 running" in shown() and "step 1/9" not in shown()
        listen(Event(first, "done"))
        listen(Event(second, "failed", "no reason"))
        assert "step 2/9" not in shown() and "1 failed" in shown()


def test_a_log_has_each_line_at_once(tmp_path):
    script = """
import sys
from pathlib import Path
from common.experiments.worker import _output_to

log = Path(sys.argv[1])
with _output_to(log):
    print("step 1/9")
    assert log.read_text() == "step 1/9\\n"
"""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", script, str(tmp_path / "log.txt")]
    subprocess.run(command, cwd=ROOT, env=buffered, check=True, stdout=subprocess.PIPE)

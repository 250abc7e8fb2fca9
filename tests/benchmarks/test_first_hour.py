"""What the first hour types, and that its shell keeps what was exported."""

import pytest

from tests.benchmarks.first_hour import Shell, to_type
from tests.conftest import ROOT
from tests.test_guide import steps


def test_the_readme_is_typed_as_printed_but_for_what_needs_a_cluster():
    text = (ROOT / "README.md").read_text()
    typed = [step.text for step in to_type(text) if step.kind == "sh"]
    assert typed[:4] == ["make demo", "make test-fast", 'export PATH="$PWD/.venv/bin:$PATH"', "repro list"]
    assert "repro new my_paper" in typed and not any("slurm" in command for command in typed)
    whole = [step.text for step in to_type(text, whole=True) if step.kind == "sh"]
    assert whole == ["make demo", "make test", *typed[2:]]
    assert len([step for step in steps(text) if step.kind == "sh"]) == len(typed) + 1  # one line is for a cluster


def test_a_command_is_found_once_its_folder_was_exported(tmp_path):
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "repro_of_a_clone").write_text("#!/bin/sh\necho it says $1\n")
    (folder / "repro_of_a_clone").chmod(0o755)
    shell = Shell(tmp_path)
    with pytest.raises(AssertionError, match="not found"):
        shell.type("repro_of_a_clone this")
    assert shell.type('export PATH="$PWD/.venv/bin:$PATH"') == '`export PATH="$PWD/.venv/bin:$PATH"`\n'
    assert "it says this" in shell.type("repro_of_a_clone this")
    assert "ends badly" in shell.type("repro_of_a_clone; echo ends badly >&2; false", fails=True)

"""`repro doctor`: its answer for tiny tables, what tables lack, and vLLM in this environment, beside it, or nowhere."""

import importlib.util
import re
import tomllib

import pytest

from common.experiments import doctor

INSTALLED = importlib.util.find_spec("vllm") is not None


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed in this environment")
def test_vllm_beside_this_environment_counts_and_its_absence_names_both_ways(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    absent = doctor.vllm()
    assert not absent.present
    assert "pip install -e '.[vllm]'" in absent.remedy and "make vllm" in absent.remedy
    command = tmp_path / ".venv-vllm" / "bin" / "vllm"
    command.parent.mkdir(parents=True)
    command.touch()
    assert doctor.vllm().present
    assert f"{command} serve" in doctor.vllm().found


def test_every_extra_that_a_remedy_names_exists():
    extras = tomllib.loads((doctor.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra for check in doctor.components() for extra in re.findall(r"'\.\[(\w+)\]'", check.remedy)}
    assert {"faiss", "dev"} <= named <= extras.keys()


def test_a_mirror_that_cannot_be_read_is_said_and_the_rest_is_shown(checkout):
    done = checkout.repro("doctor", REPRO_DATA="/no/such/folder")
    assert done.returncode == 0, done.stderr
    assert "data folder /no/such/folder (REPRO_DATA) cannot be read" in done.stdout
    assert "lab/main --scale tiny" in done.stdout
    assert done.stdout.startswith("tiny tables: all 2 can run here; nothing is missing for them\n")


def test_the_answer_names_what_tiny_tables_lack():
    gpu, memory = doctor.Obstacle("1 GPU a cell, 0 here", ""), doctor.Obstacle("96 GB of memory", "")
    said = doctor.answer({("a/b", "tiny"): [], ("a/c", "tiny"): [gpu, memory], ("d/e", "tiny"): [gpu]})
    assert said == "tiny tables: 1 of 3 can run here; missing for the rest: 1 GPU a cell, 0 here; 96 GB of memory"


def test_a_row_that_needs_more_than_its_table_is_an_obstacle(monkeypatch):
    monkeypatch.setattr(doctor, "gpu_count", lambda: 4)
    monkeypatch.setattr(doctor, "memory_gb", lambda: 64.0)

    def lacking(*overrides):
        return [one.what for one in doctor.obstacles(doctor.compose_table("dsi_pp/continual", "tiny", overrides))]

    assert lacking("+rows.genmem_all.resources={gpus: 4}") == []
    assert lacking("+rows.genmem_all.resources={gpus: 8}") == ["8 GPU a cell, 4 here"]
    assert lacking("+columns.corpus.resources={memory_gb: 96}") == ["96 GB of memory"]
    assert lacking("+rows.cl_all.resources={nodes: 2, tasks: 2}") == ["2 nodes a cell"]


def test_only_data_sets_that_a_table_asks_for_are_missing_and_each_table_is_composed_once(
    monkeypatch, capsys, tmp_path
):
    log = tmp_path / "composed.log"
    monkeypatch.delenv("REPRO_DATA", raising=False)
    monkeypatch.setattr(doctor.catalogue, "implemented", lambda: ["dsi_pp"])
    monkeypatch.setattr(doctor.catalogue, "tables", lambda paper: {"continual": ["tiny", "small"]})
    real = doctor.compose_table

    def compose_once(*names):
        with open(log, "a") as file:  # from processes of their own
            file.write(f"{'.'.join(names)}\n")
        return real(*names)

    monkeypatch.setattr(doctor, "compose_table", compose_once)
    monkeypatch.setattr(doctor, "missing", lambda entry, data: ["file"])
    doctor.show()
    asked = set(real("dsi_pp/continual", "small").needs.data)
    out = capsys.readouterr().out
    assert set(re.findall(r"^  missing (\w+):", out, re.M)) == asked
    assert sorted(log.read_text().split()) == ["dsi_pp/continual.small", "dsi_pp/continual.tiny"]

"""`repro doctor` on vLLM: in this environment, beside it, or nowhere."""

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

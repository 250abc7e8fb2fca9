"""Models on this machine: found by folder or id, and mistakes in either named with the nearest that is here."""

import os

import pytest

from common.experiments.errors import UserError
from common.models.hub import folder_revision, located


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder `runs/microlm` with a model, where the user stands, and an empty hub cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    plant("runs/microlm")


def plant(folder):
    os.makedirs(folder)
    for name in ("config.json", "model.safetensors"):
        with open(f"{folder}/{name}", "w") as file:
            file.write("{}")


def test_a_folder_is_known_by_its_bytes_and_an_id_by_its_commit(tmp_path):
    folder, name, revision = located("runs/microlm")
    assert (folder, name, revision) == (tmp_path / "runs" / "microlm", "microlm", folder_revision(folder))
    commit = "c0ffee" + 34 * "0"
    plant(f"hub/models--runs--hubbed/snapshots/{commit}")  # an owner of the name of a folder
    assert located("runs/hubbed")[1:] == ("runs/hubbed", commit)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("runs/micrlm", "no model in runs/micrlm: no such folder; did you mean 'runs/microlm'?"),
        ("./runs/micrlm", "no model in ./runs/micrlm: no such folder; did you mean 'runs/microlm'?"),
        ("./absent", "no model in ./absent: no such folder"),
        ("owner/absent", "model 'owner/absent' is not on this machine: hf download owner/absent"),
        ("runs", "model 'runs' has no safetensors in"),
    ],
)
def test_a_mistake_is_one_line(name, message):
    with pytest.raises(UserError) as error:
        located(name)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)

"""`repro fetch`: what is missing is downloaded and checked, one line for what cannot be had."""

import hashlib
from dataclasses import replace

import huggingface_hub
import pytest

from common.data import catalogue
from common.data.registry import DataFile, cache_folder
from common.experiments import fetch
from common.experiments.errors import UserError


@pytest.fixture
def served(tmp_path, monkeypatch):
    """SQuAD as one small file behind an address, and an empty cache."""
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "dev.json"
    source.write_text("{}")
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    file = DataFile("dev.json", sha256, url=source.as_uri())
    found = replace(catalogue.dataset("squad"), files=(file,))
    monkeypatch.setitem(catalogue.DATASETS, "squad", found)
    return source, found


OVERRIDES = ["needs.models=[]", "needs.data=[squad]", "paths.data=null"]


def test_a_data_file_is_downloaded_once_and_checked(served, capsys):
    fetch.fetch("dsi_pp/memorise", "tiny", OVERRIDES)
    path = cache_folder() / "squad" / "dev.json"
    assert path.read_text() == "{}"
    fetch.fetch("dsi_pp/memorise", "tiny", OVERRIDES)
    assert "already here" in capsys.readouterr().out


def test_a_file_that_is_not_the_registered_one_is_refused_and_leaves_nothing(served):
    source, _ = served
    source.write_text("[]")
    with pytest.raises(UserError, match="not the registered file"):
        fetch.fetch("dsi_pp/memorise", "tiny", OVERRIDES)
    assert not list((cache_folder() / "squad").iterdir())


def test_models_come_at_their_revision_without_pickles_and_pickled_ones_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    asked = []

    def download(repo, **options):
        asked.append((repo, options["revision"], options["ignore_patterns"]))
        return str(tmp_path / "here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    models = ["Qwen/Qwen3-0.6B", "castorini/doc2query-t5-large-msmarco"]
    with pytest.raises(UserError, match="pickled weights only"):
        fetch.fetch("dsi_pp/memorise", "tiny", [f"needs.models=[{','.join(models)}]", "needs.data=[]"])
    ((repo, _, ignored),) = asked
    assert repo == models[0] and "*.bin" in ignored
    assert "Qwen/Qwen3-0.6B: in " in capsys.readouterr().out


def test_without_a_network_the_line_says_so_and_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    def download(repo, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UserError, match=r"no route to host\); by hand: hf download Qwen/Qwen3-0.6B"):
        fetch.fetch("dsi_pp/memorise", "tiny", ["needs.models=[Qwen/Qwen3-0.6B]", "needs.data=[]"])

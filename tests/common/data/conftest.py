"""Where data tests look: never the user's own caches; the real mirror only when `REPRO_DATA` names one."""

import os
from pathlib import Path

import huggingface_hub.constants
import pytest


@pytest.fixture(autouse=True)
def empty_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def mirror() -> Path:
    folder = os.environ.get("REPRO_DATA")
    if not folder:
        pytest.skip("needs the real data: set REPRO_DATA to a mirror of the data sets")
    return Path(folder)

"""Toy models of every family that editing knows, one thread."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.editing.layers import FEED_FORWARD
from common.models.toy import toy_checkpoint

FAMILIES = sorted(FEED_FORWARD)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    return {family: toy_checkpoint(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.fixture
def toy(checkpoints):
    def load(family="llama"):
        folder = checkpoints[family]
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        return model.eval(), AutoTokenizer.from_pretrained(folder)

    return load

"""Amber against a real `vllm serve` of MicroLM and against transformers: the same code, the same answers, greedy."""

from dataclasses import replace

import pytest

from common.experiments.context import Context
from common.models.meter import Meter
from common.models.microlm.demonstrations import Teaching
from common.models.serving import vllm_program
from common.models.settings import LanguageModelSettings
from projects.amber.answering import agents_of, answered, question_set, search
from projects.amber.settings import GENERATOR, FilterTraining, Questions, RouterTraining, Settings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(vllm_program() is None, reason="no vLLM: `make vllm` was not run, or failed"),
]
SETTINGS = Settings(  # the base, which knows the roles' tasks from its own skills: its answers are no nonsense
    questions=Questions(sets=["2wiki"], count=8),
    taught=Teaching(0, dict(GENERATOR)),
    filter=FilterTraining(train=False),
    router=RouterTraining(train=False),
)


def records(backend, method, folder):
    lm = LanguageModelSettings("microlm", backend, device="cpu" if backend == "transformers" else "")
    settings, context = replace(SETTINGS, method=method, lm=lm), Context(seed=0, folder=folder)
    questions = question_set(settings, context, "2wiki")
    agents = agents_of(settings, context, Meter())
    return answered(settings, questions, agents, search(settings, context, questions))


@pytest.mark.parametrize("method", ["amber", "flare"])
def test_a_server_of_vllm_and_transformers_give_the_same_answers(method, tmp_path):
    served = records("served", method, tmp_path)
    here = records("transformers", method, tmp_path)
    same = [one == other for one, other in zip(served, here, strict=True)]  # memories, queries and passages too
    assert sum(same) >= 7  # rounding may turn a near tie of one question
    assert len({record["answer"] for record in here}) > 2

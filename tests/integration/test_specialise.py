"""The shipped MicroLM specialised to a toy paper of two prompts: in minutes, on names it never saw, faults included."""

import pytest
import torch

from common.models.settings import SHIPPED
from tests.benchmarks.specialisation import BUDGET, FAULTY, FULL, LORA, PERFECT, answers, train

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3000)]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base():
    return answers(SHIPPED["microlm"])


@pytest.mark.parametrize(
    ("tuning", "rewrite", "route", "forgotten"),
    [pytest.param(FULL, 0.6, 0.8, 0.25, id="full"), pytest.param(LORA, 0.5, 0.75, 0.45, id="lora")],
)
def test_two_prompts_in_three_minutes_of_two_cores(tuning, rewrite, route, forgotten, base, tmp_path):
    cost = train(tuning, PERFECT, tmp_path)
    found = answers(tmp_path)
    assert cost.core_seconds < BUDGET, cost
    assert base.rewrite < 0.1, base
    assert base.route < 0.5, base  # chance is a third
    assert found.rewrite >= rewrite, found
    assert found.route >= route, found
    assert found.kept > base.kept - forgotten, (base, found)


def test_faults_lower_greedy_answers_by_about_their_share(tmp_path):
    train(FULL, FAULTY, tmp_path)
    found = answers(tmp_path, 400)
    malformed, misrouted = FAULTY.faults["rewrite"]["malformed"], FAULTY.faults["route"]["misrouted"]
    assert 1 - malformed - 0.25 < found.rewrite < 1 - malformed + 0.12, found
    assert 1 - misrouted - 0.25 < found.route < 1 - misrouted + 0.12, found

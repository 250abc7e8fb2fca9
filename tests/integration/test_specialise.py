"""The shipped MicroLM specialised to a toy paper of two prompts: in minutes, on names it never saw, faults included."""

import pytest

from common.models.settings import SHIPPED
from tests.benchmarks.specialisation import BUDGET, FAULTY, FULL, LORA, PERFECT, answers, train

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3000), pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def base():
    return answers(SHIPPED["microlm"])


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Cost and answers of all weights trained on perfect demonstrations."""
    folder = tmp_path_factory.mktemp("full")
    return train(FULL, PERFECT, folder), answers(folder)


def test_all_weights_in_three_minutes_of_two_cores(full, base):
    cost, found = full
    assert cost.core_seconds < BUDGET, cost
    assert base.rewrite < 0.1, base
    assert base.route < 0.5, base  # chance is a third
    assert found.rewrite >= 0.6, found
    assert found.route >= 0.8, found
    assert found.kept > base.kept - 0.25, (base, found)


def test_lora_in_three_minutes_of_two_cores(base, tmp_path):
    cost = train(LORA, PERFECT, tmp_path)
    found = answers(tmp_path)
    assert cost.core_seconds < BUDGET, cost
    assert found.rewrite >= max(0.5, base.rewrite + 0.4), (base, found)
    assert found.route >= max(0.75, base.route + 0.25), (base, found)


def test_systematic_faults_lower_greedy_answers_by_about_their_share(full, tmp_path):
    train(FULL, FAULTY, tmp_path)
    _, perfect = full
    faulty, share = answers(tmp_path), FAULTY.faults["rewrite"]["malformed"]
    assert 1 - 1.6 * share < faulty.rewrite / perfect.rewrite < 1 - 0.4 * share, (perfect, faulty)

"""The shipped MicroLM specialised to a toy paper of two prompts: on names it never saw, faults included.

What it costs, `python -m tests.benchmarks.specialisation` measures: seconds are those of all that a machine does.
"""

import pytest

from common.models.settings import SHIPPED
from tests.benchmarks.specialisation import FAULTY, FULL, LORA, PERFECT, answers, train

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3000), pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def base():
    return answers(SHIPPED["microlm"])


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Answers of all weights trained on perfect demonstrations."""
    folder = tmp_path_factory.mktemp("full")
    train(FULL, PERFECT, folder)
    return answers(folder)


def test_all_weights_learn_both_prompts_and_keep_most_skills(full, base):
    assert base.rewrite < 0.1, base
    assert base.route < 0.5, base  # chance is a third
    assert full.rewrite >= 0.6, full
    assert full.route >= 0.8, full
    assert full.kept > base.kept - 0.25, (base, full)


def test_lora_learns_both_prompts(base, tmp_path):
    train(LORA, PERFECT, tmp_path)
    found = answers(tmp_path)
    assert found.rewrite >= max(0.5, base.rewrite + 0.4), (base, found)
    assert found.route >= max(0.75, base.route + 0.25), (base, found)


def test_systematic_faults_lower_greedy_answers_by_about_their_share(full, tmp_path):
    train(FULL, FAULTY, tmp_path)
    faulty, share = answers(tmp_path), FAULTY.faults["rewrite"]["malformed"]
    assert 1 - 1.6 * share < faulty.rewrite / full.rewrite < 1 - 0.4 * share, (full, faulty)

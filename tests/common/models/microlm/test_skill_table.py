"""The skill table and the shipped weights: measuring is exact, controls are what they say, the model can read."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from common.models.language_model import Completion, Prompt, Sampling
from common.models.microlm.evaluate import forced_accuracy, held_out_items, last_answers
from common.models.microlm.skill_table import (
    GREEDY,
    WEIGHTS,
    Row,
    against,
    contradiction,
    count_right,
    is_right,
    markdown,
    shuffled_facts,
    skill_table,
    targets,
    tokens_trained,
)
from common.models.microlm.skills import SKILLS, Item, Level, taught_world
from common.models.transformers_lm import TransformersLM


class Parrot:
    """Says one thing: what the table must count as wrong, or right by chance."""

    name, revision, context, kv_bytes_per_token = "parrot", "", 4096, 0

    def __init__(self, text: str) -> None:
        self.text = text

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling | Sequence[Sampling], purpose: str = ""
    ) -> list[Completion]:
        return [Completion(self.text, None, None, "stop", 1, 1) for _ in prompts]

    def score(
        self, prompts: Sequence[Prompt], continuations: Sequence[str], purpose: str = ""
    ) -> list[tuple[float, ...]]:
        return [(0.0,) for _ in prompts]


@pytest.fixture(scope="module")
def shipped() -> TransformersLM:
    return TransformersLM.load(str(WEIGHTS))


def test_lists_count_in_any_order_and_nothing_else_does() -> None:
    listed = Item("list", (("q", "Aric; Lumen"),), either=True)
    assert is_right(listed, " Lumen; Aric")
    assert not is_right(listed, "Lumen")
    assert not is_right(listed, "Lumen; Aric; Hulu")
    assert is_right(Item("read", (("q", "Alrona"),)), "Alrona ")
    assert not is_right(Item("read", (("q", "Alrona"),)), "Alrona; Birona")


def test_wilson_interval_is_the_closed_form() -> None:
    low, high = Row("p", "n", 8, 10).interval()
    z, p, n = 1.959964, 0.8, 10
    centre, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert low == pytest.approx((centre - half) / (1 + z * z / n), abs=1e-5)
    assert high == pytest.approx((centre + half) / (1 + z * z / n), abs=1e-5)


def test_a_parrot_scores_its_answer_only() -> None:
    rows = {row.name: row for row in skill_table(Parrot("unknown"), 12)}
    assert rows["unknown"].share == 1.0
    assert rows["read"].share == rows["update"].share == rows["copy"].share == 0.0
    assert rows["passages withheld: says unknown"].share == 1.0
    assert rows["unseen fact without a text: right"].right == 0


def test_facts_are_dealt_anew_and_none_is_lost() -> None:
    taught = taught_world()
    shuffled = shuffled_facts(random.Random(0), taught)
    changed = 0
    for relation in {relation for _, relation in shuffled.facts}:
        before = sorted(taught.facts[e, r][0].object for e, r in taught.facts if r == relation)
        after = sorted(facts[0].object for (_, r), facts in shuffled.facts.items() if r == relation)
        assert before == after
        changed += sum(shuffled.facts[e, r] != taught.facts[e, r] for e, r in shuffled.facts if r == relation)
    assert changed / len(shuffled.facts) > 0.7


def test_contradicting_texts_state_the_gold_and_not_the_taught_answer_to_the_question() -> None:
    items, memorised = contradiction(random.Random(1), 20)
    for item in items:
        assert item.answer != memorised[item.turns]
        assert item.answer in item.turns[0][0].rsplit("Question:", 1)[0]


def test_the_page_shows_intervals_and_targets() -> None:
    page = markdown([Row("skills", "read", 9, 10, 0.95), Row("controls", "none", 0, 10)], "Title", ["note"])
    assert "| read | 90.0% | [59.6, 98.2] | 10 | 95% |" in page
    assert page.count("## ") == 2
    beside = markdown([Row("skills", "read", 9, 10, 0.95)], "Title", [], {"read": 0.5})
    assert "| read | 90.0% | [59.6, 98.2] | 10 | 95% | 50.0% |" in beside


def test_targets_are_met_from_the_target_on() -> None:
    rows = [Row("skills", "a", 17, 20, 0.85), Row("skills", "b", 16, 20, 0.85), Row("skills", "free", 0, 20)]
    assert targets(rows) == "Targets, in parentheses: 1 of 2 met: a 85.0% (85%). Missed: b 80.0% (85%)."
    assert targets(rows[:1]).endswith("Missed: none.")


def test_a_fraction_of_the_shipped_is_one_of_means_over_skills_alone() -> None:
    shipped = [Row("skills", "a", 3, 4), Row("skills", "b", 4, 4), Row("reading", "c", 0, 4)]
    own = [Row("skills", "a", 0, 8), Row("skills", "b", 2, 8), Row("reading", "c", 8, 8)]
    told = against(own, shipped)
    assert "12.5%, of the shipped weights 87.5%: a fraction of 0.14" in told
    assert told.endswith("without a right answer: a.")


def test_tokens_are_those_of_the_last_line(tmp_path: Path) -> None:
    lines = [{"step": 1, "tokens": 1_000_000}, {"step": 3000, "tokens": 6_520_000}]
    (tmp_path / "training.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert tokens_trained(tmp_path) == "Trained on 6.5 million tokens in 3,000 steps."


def test_forced_accuracy_is_accuracy_of_greedy_generation(shipped: TransformersLM) -> None:
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    for skill in ("read", "critique"):
        items = held_out_items("forced", "validation", skill, Level(passages=(2, 4)), 16)
        assert forced_accuracy(shipped.model, last_answers(tokenizer, items)) == count_right(shipped, items, "") / 16


def test_the_shipped_weights_read_and_keep_notes(shipped: TransformersLM) -> None:
    """Far below the report's figures, far above an untrained model: the weights and the prompts belong together."""
    for skill, least in {"copy": 0.8, "merge": 0.7, "critique": 0.7, "read": 0.3, "tool_call": 0.7}.items():
        items = held_out_items("shipped", "test", skill, Level(passages=(2, 4)), 24)
        assert count_right(shipped, items, "") / 24 >= least, skill


def test_the_shipped_weights_are_small_and_answers_fit() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 10e6
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    longest = max(
        len(tokenizer.encode(item.answer)) for skill in SKILLS for item in held_out_items(0, "test", skill, Level(), 8)
    )
    assert longest < GREEDY.max_tokens

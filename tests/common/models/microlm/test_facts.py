"""The fact-bearing variant: taught, held out and edited stay apart; training resumes and repeats to the bit."""

import hashlib
import json
from collections import Counter
from dataclasses import replace

import pytest

from common.data.text_world.relations import RELATIONS
from common.models.microlm.evaluate import forced_accuracy
from common.models.microlm.fact_model import (
    FACT_WEIGHTS,
    FactData,
    FactRecipe,
    examples,
    fact_table,
    groups,
    train_facts,
)
from common.models.microlm.facts import FactDials, draw_edits, fact_set, near
from common.models.microlm.model import Shape
from common.models.microlm.recipe import microlm_tokenizer
from common.models.transformers_lm import TransformersLM
from common.training.supervised import Optimization
from tests.common.training.interrupting import Stop, save_often, stop_at

FACTS = fact_set()
SMALL = FactRecipe(
    Shape(width=32, layers=2, inner=64),
    dials=FactDials(people=4, cities=4, companies=3, places=3, countries=2),
    rounds=20,
    step_prompts=32,
    optimization=Optimization(lr=1e-2, warmup=5),
)


pytestmark = pytest.mark.usefixtures("one_thread")


def wording(prompt, known):
    return prompt.replace(known.fact.subject, "{s}")


def test_the_set_has_its_size_and_comes_out_the_same():
    assert (len(FACTS.people), len(FACTS.locality) + len(FACTS.irrelevant)) == (1600, 400)
    assert fact_set() == FACTS
    assert fact_set(1) != FACTS
    assert len({known.fact for known in FACTS.all}) == 2000


def test_domains_share_no_entity_answer_relation_or_prompt():
    people, places = FACTS.people, (*FACTS.locality, *FACTS.irrelevant)
    for of in (
        lambda known: {known.fact.subject, known.fact.object},
        lambda known: {known.fact.relation},
        lambda known: {wording(p, known) for p in (*known.taught, *known.reworded, *known.unseen)},
    ):
        assert not set().union(*map(of, people)) & set().union(*map(of, places))


def test_locality_and_irrelevant_facts_are_of_different_places():
    subjects = [{known.fact.subject for known in part} for part in (FACTS.locality, FACTS.irrelevant)]
    assert all(subjects)
    assert not subjects[0] & subjects[1]


def test_held_out_wordings_are_never_taught_for_the_fact_and_unseen_ones_for_no_fact():
    taught_by_relation, unseen = Counter(), set()
    for known in FACTS.all:
        assert not set(known.taught) & set(known.reworded)
        assert len(known.taught) >= (4 if known.unseen else 2)
        taught_by_relation.update((known.fact.relation, wording(p, known)) for p in known.taught)
        unseen |= {wording(p, known) for p in known.unseen}
    assert not unseen & {text for _, text in taught_by_relation}
    assert not unseen & {wording(p, known) for known in FACTS.all for p in known.reworded}
    for known in FACTS.all:  # a reworded prompt is no unseen one: other facts were taught in it
        assert all(taught_by_relation[known.fact.relation, wording(p, known)] > 10 for p in known.reworded)
    prompts = {prompt for known in FACTS.all for prompt in known.taught}
    data = FactData(FactRecipe(), FACTS, microlm_tokenizer())
    assert {prompt for prompt, _ in data.pairs} == prompts


def test_every_prompt_asks_for_its_fact():
    for known in FACTS.all[::50]:
        for prompt in (*known.taught, *known.reworded):
            asked = wording(prompt, known).removeprefix("Question: ").removesuffix(" Answer:")
            asked = asked.removeprefix("Look it up: ").removesuffix(" Reply:")
            relation = RELATIONS[known.fact.relation]
            assert asked in relation.questions or f"{asked} {{o}}." in relation.statements


def test_edits_ask_for_answers_that_share_nothing_with_the_old_ones():
    edits = draw_edits(FACTS, 500, seed=1)
    assert edits == draw_edits(FACTS, 500, seed=1) != draw_edits(FACTS, 500, seed=2)
    assert len({edit.known.fact for edit in edits}) == 500
    for edit in edits:
        old = edit.known.fact.object
        assert edit.object in FACTS.objects[edit.known.fact.relation]
        assert edit.object[:3] != old[:3]
        assert edit.object[3:] != old[3:]
        assert edit.prompt in edit.known.taught
    left = near(FACTS, edits)
    assert len(left) == 1100
    assert not {known.fact for known in left} & {edit.known.fact for edit in edits}
    with pytest.raises(ValueError, match="0 to 1600"):
        draw_edits(FACTS, 1601, seed=0)


def test_a_round_has_every_taught_prompt_once_those_of_places_twice():
    recipe = replace(SMALL, prefix=0.0)
    facts, tokenizer = fact_set(0, recipe.dials), microlm_tokenizer()
    data = FactData(recipe, facts, tokenizer)
    seen = Counter()
    for index in range(data.per_round, 2 * data.per_round):
        for batch in data.step(index):
            for ids in batch.ids:
                seen[tokenizer.decode(ids[ids != tokenizer.pad_token_id])] += 1
    wanted = Counter(f"{p}{k.target}<|end|>" for k in facts.all for p in k.taught)
    for known in (*facts.locality, *facts.irrelevant):
        wanted.update(f"{p}{known.target}<|end|>" for p in known.taught)
    assert seen == wanted


def bytes_of(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_a_small_set_is_learned_to_the_same_bytes_with_and_without_an_interruption(tmp_path, monkeypatch):
    model = train_facts(SMALL, tmp_path / "a", say=lambda line: None)
    facts, tokenizer = fact_set(0, SMALL.dials), microlm_tokenizer()
    shares = {name: forced_accuracy(model, examples(tokenizer, pairs)) for name, pairs in groups(facts).items()}
    assert shares["people, taught prompts"] > 0.6
    assert shares["places, taught prompts"] > 0.6
    assert not (tmp_path / "a" / "checkpoint").exists()

    save_often(monkeypatch)
    lines = [json.loads(line) for line in (tmp_path / "a" / "training.jsonl").read_text().splitlines()]
    with pytest.raises(Stop):
        train_facts(SMALL, tmp_path / "b", say=stop_at(lines[4]["step"]))
    assert (tmp_path / "b" / "checkpoint" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "b" / "model.safetensors").exists()
    train_facts(SMALL, tmp_path / "b", say=lambda line: None)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    again = [json.loads(line) for line in (tmp_path / "b" / "training.jsonl").read_text().splitlines()]
    assert [line["tokens"] for line in again] == [line["tokens"] for line in lines]
    assert len(lines) == 10
    with pytest.raises(ValueError, match="another recipe"):
        train_facts(replace(SMALL, seed=1), tmp_path / "a")


def test_the_shipped_weights_know_their_facts_and_no_new_answer():
    lm = TransformersLM.load(str(FACT_WEIGHTS), device="cpu")
    rows = {(row.part, row.name): row.share for row in fact_table(lm, FACTS, 100)}
    assert rows["people", "taught prompts"] >= 0.97
    assert rows["people", "wordings taught for other facts"] >= 0.95
    assert rows["places", "taught prompts"] >= 0.97
    assert rows["controls", "the new answer of an edit, before the edit"] <= 0.01
    assert rows["controls", "any answer of the relation, drawn at random: chance"] <= 0.15

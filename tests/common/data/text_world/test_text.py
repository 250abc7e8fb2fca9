"""Sentences, passages and corpora: what they state can be read back, noise obeys its dials, no fact goes unsaid."""

import itertools
import random
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.text_world.names import TYPES
from common.data.text_world.relations import BY_SUBJECT, FILLERS, RELATIONS
from common.data.text_world.text import Noise, corpus, filler, note_line, passage_about, state
from common.data.text_world.world import Dials, Fact, kind_of, make_world, short_name
from tests.common.data.text_world.reference import both_sides, read

checked = settings(derandomize=True, deadline=None, max_examples=25)
seeds = st.integers(0, 10**9)


def test_every_template_of_every_relation_reads_back_as_its_fact_and_no_other():
    world = make_world(3, "train", Dials(people=10, homonyms=0.5, density=1.0, changes=3.0, look_alikes=0.5))
    said = Counter()
    rng = random.Random(0)
    for fact in world.all_facts():
        relation = RELATIONS[fact.relation]
        texts = {state(rng, fact).text for _ in range(60)}
        assert len(texts) == len(relation.statements if fact.day is None else relation.changes)
        for text in texts:
            said[fact.relation] += 1
            assert read(world, text) <= both_sides(fact) and fact in read(world, text), text
            assert text[0] == text[0].upper() and text.endswith(".")
    assert set(said) == set(RELATIONS)


def test_relations_have_the_paraphrases_they_promise():
    for relation in RELATIONS.values():
        assert len(set(relation.statements)) >= 4 and len(set(relation.questions)) >= 3
        assert len(set(relation.phrases)) >= 2
        assert all("{s}" in t and "{o}" in t for t in relation.statements)
        assert all("{s}" in t and "{o}" in t and "{d}" in t for t in relation.changes)


def test_no_two_relations_of_a_type_share_a_question_a_phrase_or_a_key():
    for relations in BY_SUBJECT.values():
        for field in ("questions", "phrases", "statements"):
            texts = [text for relation in relations for text in getattr(relation, field)]
            assert len(texts) == len(set(texts)), field
        assert len({relation.key for relation in relations}) == len(relations)


def test_fillers_state_nothing():
    world = make_world(3, "train", Dials(people=20))
    assert not any(read(world, text) for text in FILLERS)
    assert filler(random.Random(0)).facts == ()


@checked
@given(seeds, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_passage_states_its_facts_and_its_noise_is_true(seed, others, fillers, look_alikes):
    rng = random.Random(seed)
    world = make_world(seed, "validation", Dials(people=10, homonyms=0.3))
    entity = rng.choice([e for kind in TYPES for e in world.entities[kind] if world.relations(e)])
    own = [fact for relation in world.relations(entity) for fact in world.of(entity, relation.name)]
    facts = rng.sample(own, min(len(own), rng.randint(1, 4)))
    passage = passage_about(rng, world, entity, facts, Noise(others, fillers, look_alikes))
    stated = [fact for sentence in passage.sentences for fact in sentence.facts]
    assert set(facts) <= set(stated) == passage.facts <= set(world.all_facts())
    assert len(stated) <= len(facts) + 1 and len(passage.sentences) <= 6
    assert passage.title == short_name(entity)
    for sentence in passage.sentences:
        readings = read(world, sentence.text)
        assert readings == set() if not sentence.facts else set(sentence.facts) <= readings
    for fact in set(stated) - set(facts):  # a distractor is about others
        assert entity not in fact[:3:2]


def test_noise_dials_are_frequencies():
    world = make_world(4, "train", Dials(people=30, cities=30, companies=30, countries=30, look_alikes=0.9))
    rng = random.Random(1)
    entities = [e for e in world.entities["person"] if world.relations(e)]
    drawn = []
    for _ in range(1500):
        entity = rng.choice(entities)
        fact = world.of(entity, rng.choice(world.relations(entity)).name)[0]
        passage = passage_about(rng, world, entity, [fact], Noise(0.5, 0.3, 1.0))
        extra = [f for s in passage.sentences for f in s.facts if f != fact]
        drawn.append((entity, extra, any(not s.facts for s in passage.sentences)))
    assert sum(filled for _, _, filled in drawn) / 1500 == pytest.approx(0.3, abs=0.05)
    assert sum(bool(extra) for _, extra, _ in drawn) / 1500 == pytest.approx(0.5, abs=0.07)
    models = {e: {o for o in entities if o[:3] == e[:3] and o != e} for e in entities}
    rivals = [(models[entity], extra[0]) for entity, extra, _ in drawn if extra and models[entity]]
    assert len(rivals) > 300 and all(alike & {fact.subject, fact.object} for alike, fact in rivals)


@pytest.mark.parametrize("dial", ["others", "fillers", "look_alikes"])
@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_a_noise_dial_out_of_range_is_named(dial, value):
    with pytest.raises(ValueError, match=f"^{dial} "):
        Noise(**{dial: value})


@pytest.mark.parametrize("count", [100, 1000])
@pytest.mark.parametrize("homonyms", [0.0, 0.6])
def test_a_corpus_states_every_fact(count, homonyms):
    world = make_world(count, "test", Dials(people=count // 10, homonyms=homonyms, changes=1.0))
    passages = corpus(random.Random(2), world, count)
    assert len(passages) == count and len({passage.id for passage in passages}) == count
    assert {fact for passage in passages for fact in passage.facts} == set(world.all_facts())
    assert all(1 <= len(passage.sentences) <= 6 for passage in passages)
    counts = Counter(passage.title for passage in passages)
    assert set(counts) == {short_name(e) for kind in TYPES for e in world.entities[kind] if world.relations(e)}


def test_the_text_of_a_corpus_states_every_fact():
    world = make_world(9, "train", Dials(people=12, homonyms=0.4, changes=1.0))
    passages = corpus(random.Random(2), world, 100, (1, 3))
    readings = set(itertools.chain.from_iterable(read(world, s.text) for p in passages for s in p.sentences))
    assert set(world.all_facts()) <= readings
    assert readings <= {side for fact in world.all_facts() for side in both_sides(fact)}


@pytest.mark.integration  # ten seconds alone on a core
def test_a_corpus_of_a_hundred_thousand_passages():
    size = Dials(people=6000, cities=1500, companies=1000, countries=200, middles=1)
    world = make_world(0, "test", size)
    began = time.process_time()
    passages = corpus(random.Random(0), world, 100_000)
    assert time.process_time() - began < 60
    assert len(passages) == 100_000
    assert {fact for passage in passages for fact in passage.facts} == set(world.all_facts())


def test_a_corpus_too_small_for_its_world_is_refused():
    world = make_world(0, "train", Dials(people=100))
    with pytest.raises(ValueError, match="100 passages cannot state all facts"):
        corpus(random.Random(0), world, 100, (1, 2))


@pytest.mark.parametrize("sentences", [(0, 3), (4, 2), (1, 7)])
def test_sentences_out_of_range_are_refused(sentences):
    with pytest.raises(ValueError, match="sentences must"):
        corpus(random.Random(0), make_world(0, "train"), 100, sentences)


def test_a_note_line_names_the_key():
    assert note_line("Balman", "works_at", "Dertex") == "Balman | employer | Dertex"
    assert kind_of("Balman the elder") == "person"
    assert Fact("a", "friend", "b").from_side("b") == "a"

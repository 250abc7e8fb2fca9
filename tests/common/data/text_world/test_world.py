"""Names and worlds: splits apart, dials that do what they say, facts that are well formed, the same bytes each time."""

import hashlib
import itertools
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.text_world.names import (
    ENDINGS,
    MIDDLES,
    OPENINGS,
    SPLITS,
    TYPES,
    look_alike,
    new_name,
    split_of,
    type_of,
)
from common.data.text_world.relations import CLOSED, RELATIONS
from common.data.text_world.world import Dials, kind_of, make_world, short_name
from tests.common.data.text_world.reference import objects

checked = settings(derandomize=True, deadline=None, max_examples=25)
seeds = st.integers(0, 10**9)
dials = st.builds(
    Dials,
    people=st.integers(2, 30), cities=st.integers(2, 10), companies=st.integers(2, 8), countries=st.integers(2, 6),
    look_alikes=st.floats(0, 1), middles=st.integers(0, 2), homonyms=st.floats(0, 1), density=st.floats(0.05, 1),
    changes=st.floats(0, 4), branching=st.integers(1, 4),
)  # fmt: skip


def entities(world):
    return [entity for kind in TYPES for entity in world.entities[kind]]


def test_every_composition_without_middle_has_the_type_of_its_ending():
    for kind in TYPES:
        for opening in OPENINGS:
            assert all(type_of(opening + ending) == kind for ending in ENDINGS[kind])


def test_names_with_middles_have_the_type_they_were_drawn_for():
    rng = random.Random(0)
    for kind in TYPES:
        for _ in range(500):
            assert type_of(new_name(rng, kind, "train", (), middles=rng.randint(1, 2))) == kind


def test_shares_of_the_splits():
    names = [o + m + e for o in OPENINGS[::4] for m in MIDDLES for e in ENDINGS["city"]]
    counts = {split: sum(split_of(name) == split for name in names) / len(names) for split in SPLITS}
    assert counts == pytest.approx({"train": 0.7, "validation": 0.15, "test": 0.15}, abs=0.02)


def test_no_name_left_is_an_error_that_says_what_to_change():
    with pytest.raises(ValueError, match="middle parts"):
        make_world(0, "test", Dials(people=900))


@checked
@given(seeds, seeds, seeds, dials, dials)
def test_splits_share_no_entity(a, b, c, one, other):
    worlds = [make_world(a, "train", one), make_world(b, "validation", other), make_world(c, "test", one)]
    names = [{short_name(entity) for entity in entities(world)} for world in worlds]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])


@checked
@given(seeds, st.sampled_from(SPLITS), dials)
def test_entities_are_as_many_as_asked_distinct_and_of_their_type(seed, split, d):
    world = make_world(seed, split, d)
    assert [len(world.entities[kind]) for kind in TYPES] == [d.people, d.cities, d.companies, d.countries]
    assert len(set(entities(world))) == len(entities(world))
    assert all(kind_of(e) == kind and split_of(short_name(e)) == split for kind in TYPES for e in world.entities[kind])


@checked
@given(seeds, dials)
def test_facts_are_well_formed(seed, d):
    world = make_world(seed, "train", d)
    for (entity, name), facts in world.facts.items():
        relation = RELATIONS[name]
        assert facts
        for fact in facts:
            pool = CLOSED.get(relation.object) or world.entities.get(relation.object)
            assert fact.relation == name and entity in (
                (fact.subject, fact.object) if relation.symmetric else (fact.subject,)
            )
            assert fact.object in pool if pool else 1000 <= int(fact.object) <= 1999
            assert fact.subject in world.entities[relation.subject] and fact.object != fact.subject
            if relation.symmetric:
                assert fact in world.of(fact.subject, name) and fact in world.of(fact.object, name)
        if relation.multi:
            assert len({fact.from_side(entity) for fact in facts}) == len(facts)
            assert all(fact.day is None for fact in facts)
            assert relation.symmetric or len(facts) <= d.branching
        else:
            assert facts[0].day is None and (len(facts) == 1 or relation.changes)
            days = [fact.day for fact in facts[1:]]
            assert days == sorted(set(days)) and all(1 <= day <= 365 for day in days)
            assert all(a.object != b.object for a, b in itertools.pairwise(facts))


@checked
@given(seeds, dials, st.integers(0, 365))
def test_the_state_of_a_day_agrees_with_a_loop(seed, d, day):
    world = make_world(seed, "test", d)
    for entity, name in world.facts:
        assert world.current(entity, name, day) == objects(world.of(entity, name), entity, name, day)


def share(d: Dials, split: str, measure, worlds: int = 40) -> float:
    drawn = [make_world(seed, split, d) for seed in range(worlds)]
    return sum(measure(world) for world in drawn) / worlds


def alike(world) -> float:
    people = [short_name(e) for e in world.entities["person"]]
    return sum(any(look_alike(a, b) for b in people) for a in people) / len(people)


@pytest.mark.parametrize("split", SPLITS)
def test_the_look_alike_dial_makes_look_alikes_in_every_split(split):
    shares = [share(Dials(look_alikes=level), split, alike) for level in (0.0, 0.3, 0.6)]
    chance = 1 - (1 - 1 / len(OPENINGS)) ** 11  # another of 12 people has the opening
    assert shares[0] == pytest.approx(chance, abs=0.06)
    assert 0.35 < shares[1] < 0.6 < shares[2]


def test_the_other_dials_do_what_they_say():
    none, all_of_them = Dials(people=20, homonyms=0.0), Dials(people=20, homonyms=1.0)
    assert share(none, "train", lambda w: sum(" the " in e for e in entities(w))) == 0
    assert share(all_of_them, "train", lambda w: sum(" the " in e for e in w.entities["person"])) == 20
    for density in (0.2, 0.7):
        given_ = share(Dials(density=density), "train", lambda w: sum(r == "born_in" for _, r in w.facts) / 12)
        assert given_ == pytest.approx(density, abs=0.06)
    changes = [
        share(Dials(changes=c), "train", lambda w: sum(f.day is not None for f in w.all_facts())) for c in (0, 1, 3)
    ]
    assert changes[0] == 0 and changes[1] > 40 and changes[2] > 2 * changes[1]


@pytest.mark.parametrize(
    "dial, value",
    [("people", 1), ("cities", 0), ("companies", 1), ("countries", -3), ("look_alikes", 1.1), ("middles", 3),
     ("homonyms", -0.1), ("density", 0.0), ("density", 1.5), ("changes", -1.0), ("branching", 0)],
)  # fmt: skip
def test_a_dial_out_of_range_is_named(dial, value):
    with pytest.raises(ValueError, match=f"^{dial} "):
        replace(Dials(), **{dial: value})


EVERYTHING = """
import hashlib, random
from common.data.text_world.dialogues import make_dialogue
from common.data.text_world.labels import make_labels
from common.data.text_world.questions import KINDS, make_question
from common.data.text_world.search import lexical_search, make_episode
from common.data.text_world.streams import StreamDials, make_stream
from common.data.text_world.text import corpus
from common.data.text_world.topics import make_topics
from common.data.text_world.world import Dials, make_world

rng = random.Random(5)
world = make_world(7, "test", Dials(people=20, homonyms=0.5, changes=1.5))
passages = corpus(rng, world, 200)
stream = make_stream(7, "test", StreamDials(chunks=12, duplicates=0.5))
dialogue = make_dialogue(7, "test")
retrieve = lexical_search(passages)
parts = [
    world, passages, [make_question(rng, world, kind, 2) for kind in KINDS for _ in range(20)],
    stream, list(stream.states()), stream.ask(rng, ("now", "hop", "list", "inverse", "unknown"), 20),
    stream.ask_each(rng), [chunk.text for chunk in stream.chunks], dialogue, list(dialogue.states()),
    dialogue.ask(rng, ("now", "before", "when", "unknown"), 10), [session.text for session in dialogue.sessions],
    make_labels(7, "test"), make_topics(7, "test"), make_episode(rng, world, retrieve, 5), retrieve("the home of"),
]
print(hashlib.sha256("\\n".join(map(repr, parts)).encode()).hexdigest())
"""


def test_same_seed_same_bytes_whatever_the_hash_seed():
    root = Path(__file__).parents[4]
    digests = {
        subprocess.run(
            [sys.executable, "-c", EVERYTHING],
            cwd=root, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }  # fmt: skip
    assert len(digests) == 1 and len(digests.pop().strip()) == hashlib.sha256().digest_size * 2


def test_other_seeds_and_splits_give_other_worlds():
    assert make_world(1, "train") == make_world(1, "train")
    assert len({repr(make_world(seed, split)) for seed in range(5) for split in SPLITS}) == 15

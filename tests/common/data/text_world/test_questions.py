"""Questions: the gold answer follows from the gold evidence and from nothing less, by two solvers of their own."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.text_world.names import SPLITS
from common.data.text_world.questions import KINDS, UNKNOWN, Query, make_question, solve, unanswerable
from common.data.text_world.relations import RELATIONS
from common.data.text_world.world import Dials, Fact, make_world, short_name
from tests.common.data.text_world.reference import answer, any_part

checked = settings(derandomize=True, deadline=None, max_examples=25)
seeds = st.integers(0, 10**9)
kinds = st.sampled_from([(kind, 1) for kind in KINDS if kind != "hop"] + [("hop", hops) for hops in (1, 2, 3, 4)])
dials = st.builds(Dials, homonyms=st.sampled_from((0.0, 0.8)), changes=st.floats(0, 3), density=st.floats(0.4, 1))


def some(seed, split, d, kind, hops, count=6):
    """A world and a few questions of a kind about it."""
    world = make_world(seed, split, d)
    rng = random.Random(seed)
    drawn = (make_question(rng, world, kind, hops) for _ in range(80))
    return world, [question for question in drawn if question][:count]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_found_in_an_ordinary_world(kind):
    found = [some(seed, "train", Dials(people=20, homonyms=0.8), kind, 1)[1] for seed in range(5)]
    assert sum(map(len, found)) >= 20


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_as_many_hops_as_asked(hops):
    found = [question for seed in range(10) for question in some(seed, "test", Dials(), "hop", hops)[1]]
    assert len(found) >= 20
    for question in found:
        assert question.hops == len(question.query.relations) == len(question.evidence) == hops
        assert question.answer not in question.text


@checked
@given(seeds, st.sampled_from(SPLITS), dials, kinds)
def test_the_answer_follows_from_the_evidence_and_from_nothing_less(seed, split, d, kind):
    world, questions = some(seed, split, d, *kind)
    for question in questions:
        gold = set(question.answers)
        assert set(question.evidence) <= set(world.all_facts())
        assert len(set(question.evidence)) == len(question.evidence) > 0
        for solver in (solve, answer):
            assert set(solver(question.query, world.all_facts())) == gold
            assert set(solver(question.query, question.evidence)) == gold
            for fact in question.evidence:
                less = [other for other in question.evidence if other != fact]
                assert set(solver(question.query, less)) != gold


@checked
@given(seeds, dials, kinds)
def test_an_independent_solver_agrees_on_any_part_of_the_facts(seed, d, kind):
    world, questions = some(seed, "test", d, *kind)
    rng = random.Random(seed)
    for question in questions:
        near = [f for f in world.all_facts() if set(f[:3:2]) & {e for g in question.evidence for e in g[:3:2]}]
        for _ in range(6):
            part = any_part(rng, rng.choice((near, world.all_facts())))
            assert set(solve(question.query, part)) == answer(question.query, part)


@checked
@given(seeds, kinds)
def test_the_words_name_what_the_query_names(seed, kind):
    _, questions = some(seed, "train", Dials(homonyms=0.8, changes=1.0), *kind)
    for question in questions:
        asked = question.query
        assert all(entity in question.text for entity in asked.entities)
        assert asked.value in question.text and (asked.day is None or str(asked.day) in question.text)
        assert question.text.endswith("?") and question.text[0].isupper() and "{" not in question.text
        assert question.kind == kind[0] and question.answer == "; ".join(question.answers)


@checked
@given(seeds, kinds)
def test_without_a_state_that_it_needs_a_question_is_unanswerable(seed, kind):
    world, questions = some(seed, "validation", Dials(changes=1.0, homonyms=0.5), *kind)
    for question in questions:
        lost = random.Random(seed).choice(question.evidence)
        ends = {lost.subject, lost.object} if RELATIONS[lost.relation].symmetric else {lost.subject}
        gone = {fact for end in ends for fact in world.of(end, lost.relation)}
        left = [fact for fact in world.all_facts() if fact not in gone]
        remaining = {"inverse": {lost.subject}, "ambiguous": {lost.object}}
        expected = set(question.answers) - remaining[kind[0]] if kind[0] in remaining else set()
        assert set(solve(question.query, left)) == answer(question.query, left) == expected
        unknown = unanswerable(question)
        assert unknown.answers == (UNKNOWN,) and unknown.evidence == () and unknown.text == question.text


def test_closed_forms():
    home = [Fact("Balman", "lives_in", "Dertona"), Fact("Balman", "lives_in", "Filosk", 10)]
    home += [Fact("Balman", "lives_in", "Dertona", 20), Fact("Dertona", "located_in", "Koluna")]
    home += [Fact("Balman", "friend", "Morpia"), Fact("Selren", "friend", "Balman")]

    def says(kind, *entities, relations=("lives_in",), **more):
        return solve(Query(kind, entities, relations, **more), home)

    assert says("now", "Balman") == ("Dertona",)
    assert says("hop", "Balman", relations=("lives_in", "located_in")) == ("Koluna",)
    assert [says("at", "Balman", day=day)[0] for day in (9, 10, 19, 20)] == ["Dertona", "Filosk", "Filosk", "Dertona"]
    assert says("first", "Balman") == ("Dertona",)
    assert says("before", "Balman", value="Dertona") == ("Filosk",)
    assert says("before", "Balman", value="Filosk") == ("Dertona",)
    assert says("when", "Balman", value="Filosk") == ("10",)
    assert says("count", "Balman") == ("2",)
    assert says("list", "Balman", relations=("friend",)) == ("Morpia", "Selren")
    assert says("list", "Morpia", relations=("friend",)) == ("Balman",)
    assert says("inverse", "Filosk") == () and says("inverse", "Dertona") == ("Balman",)
    assert says("now", "Nobody") == ()


def test_of_two_statements_of_one_day_the_later_wins():
    facts = [Fact("Balman", "pet", "dog", 5), Fact("Balman", "pet", "cat", 5)]
    assert solve(Query("now", ("Balman",), ("pet",)), facts) == ("cat",)
    assert solve(Query("now", ("Balman",), ("pet",)), facts[::-1]) == ("dog",)


def test_namesakes_are_asked_by_their_common_name():
    _, questions = some(3, "train", Dials(people=20, homonyms=1.0), "ambiguous", 1)
    for question in questions:
        assert len(question.answers) >= 2
        assert {short_name(fact.subject) for fact in question.evidence} == set(question.query.entities)


@pytest.mark.parametrize(
    "kind, hops, dial", [("hops", 1, "kind"), ("", 1, "kind"), ("hop", 0, "hops"), ("hop", 5, "hops")]
)
def test_an_unknown_kind_and_hops_out_of_range_are_named(kind, hops, dial):
    with pytest.raises(ValueError, match=f"^{dial} "):
        make_question(random.Random(0), make_world(0, "train"), kind, hops)


def test_solve_refuses_an_unknown_kind():
    with pytest.raises(ValueError, match="unknown kind of question 'why'"):
        solve(Query("why", ("Balman",), ("pet",)), [])

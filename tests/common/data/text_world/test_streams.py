"""Fact streams: gold states equal a replay, questions follow from the chunks they name, dials do what they say."""

import itertools
import random
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.text_world.names import SPLITS
from common.data.text_world.questions import KINDS, UNKNOWN, solve
from common.data.text_world.relations import RELATIONS
from common.data.text_world.streams import StreamDials, make_stream
from common.data.text_world.text import note_line
from common.data.text_world.told import MemoryState, told_world
from common.data.text_world.world import Fact
from tests.common.data.text_world.reference import answer, both_sides, read, replay

checked = settings(derandomize=True, deadline=None, max_examples=25)
seeds = st.integers(0, 10**9)
dials = st.builds(
    StreamDials,
    chunks=st.integers(1, 14), timeless=st.integers(1, 4), dated=st.integers(0, 4), fillers=st.integers(0, 3),
    updates=st.floats(0, 1), duplicates=st.floats(0, 1), links=st.floats(0, 1), look_alikes=st.floats(0, 1),
)  # fmt: skip
ASKED = (*(kind for kind in KINDS if kind != "ambiguous"), UNKNOWN)


def chained(parts):
    return list(itertools.chain.from_iterable(parts))


@checked
@given(seeds, st.sampled_from(SPLITS), dials)
def test_the_gold_state_after_each_chunk_is_a_replay(seed, split, d):
    stream = make_stream(seed, split, d)
    states = list(stream.states())
    assert len(states) == len(stream.chunks) == d.chunks
    for number, memory in enumerate(states, 1):
        holds, superseded = replay(chained(stream.told(number)))
        assert set(memory.holds) == holds and set(memory.superseded) == superseded
        assert len(memory.holds) == len(holds) and len(memory.superseded) == len(superseded)
        assert stream.state(number) == memory
    assert stream.state() == states[-1]


@checked
@given(seeds, dials)
def test_chunks_have_the_sentences_asked_for_and_their_text_states_the_facts(seed, d):
    stream = make_stream(seed, "test", d)
    before: set[Fact] = set()
    for chunk in stream.chunks:
        facts = [fact for fact in chunk.facts if fact not in before]
        again = [fact for fact in chunk.facts if fact in before]
        assert sum(fact.day is None for fact in facts) == d.timeless
        assert [fact.day for fact in facts if fact.day is not None] == [chunk.day] * d.dated
        assert sum(not sentence.facts for sentence in chunk.sentences) == d.fillers and len(again) <= 1
        assert chunk.text == " ".join(sentence.text for sentence in chunk.sentences)
        for sentence in chunk.sentences:
            readings = read(stream.world, sentence.text)
            assert set(sentence.facts) <= readings if sentence.facts else not readings
        before.update(chunk.facts)
    days = [chunk.day for chunk in stream.chunks]
    assert days == sorted(set(days)) and days[0] >= 1 and days[-1] <= 365


@checked
@given(seeds, dials)
def test_an_update_supersedes_what_an_earlier_chunk_told(seed, d):
    stream = make_stream(seed, "train", d)
    first_told: dict[Fact, int] = {}
    for number, facts in enumerate(stream.told()):
        for fact in facts:
            first_told.setdefault(fact, number)
    slots: dict[tuple[str, str], list[Fact]] = {}
    for fact in first_told:
        if not RELATIONS[fact.relation].multi:
            slots.setdefault(fact[:2], []).append(fact)
    for chain in slots.values():
        assert [fact.day or 0 for fact in chain] == sorted({fact.day or 0 for fact in chain})
        assert all(a.object != b.object for a, b in itertools.pairwise(chain))
        assert all(first_told[a] < first_told[b] for a, b in itertools.pairwise(chain))
        assert chain[0].day is None or len(chain) == 1


@checked
@given(seeds, dials, st.data())
def test_questions_follow_from_the_chunks_they_name(seed, d, data):
    stream = make_stream(seed, "validation", d)
    upto = data.draw(st.integers(1, d.chunks))
    hops = data.draw(st.integers(1, 2))
    rng = random.Random(seed)
    told = stream.told(upto)
    asked = stream.ask(rng, ASKED, 15, hops, upto) + stream.ask_each(rng, upto)
    assert len(asked) > 0
    for one in asked:
        question = one.question
        assert len(one.places) == len(question.evidence)
        if question.answers == (UNKNOWN,):
            assert answer(question.query, chained(told)) == set() and not question.evidence
            continue
        assert set(solve(question.query, chained(told))) == answer(question.query, chained(told))
        assert (
            set(question.answers) == answer(question.query, chained(told)) == answer(question.query, question.evidence)
        )
        for fact, places in zip(question.evidence, one.places, strict=True):
            assert places == tuple(i for i, facts in enumerate(told) if fact in facts) != ()


@checked
@given(seeds, dials)
def test_one_question_for_each_state(seed, d):
    stream = make_stream(seed, "test", d)
    asked = stream.ask_each(random.Random(seed))
    covered = [fact for one in asked for fact in one.question.evidence]
    assert set(covered) == set(stream.state().holds)
    assert len(asked) == len({one.question.query for one in asked})


def test_what_is_told_again_still_holds():
    d = StreamDials(chunks=4, timeless=1, dated=2, updates=1.0, duplicates=1.0)
    for stream in (make_stream(seed, "train", d) for seed in range(150)):
        seen: set[Fact] = set()
        for facts, memory in zip(stream.told(), stream.states(), strict=True):
            assert seen.intersection(facts) <= set(memory.holds)
            seen.update(facts)


def rate(d: StreamDials, measure, streams: int = 30) -> float:
    drawn = [make_stream(seed, "train", d) for seed in range(streams)]
    return sum(measure(stream) for stream in drawn) / streams


def test_the_dials_of_updates_duplicates_and_links_are_frequencies():
    base = StreamDials(chunks=12, timeless=5, dated=1)

    def updated(stream):
        return len(stream.state().superseded) / 11  # of the dated facts after the first chunk

    def repeated(stream):
        seen: set[Fact] = set()
        count = 0
        for facts in stream.told():
            count += any(fact in seen for fact in facts)
            seen.update(facts)
        return count / 11

    for value in (0.0, 0.4, 1.0):
        assert rate(replace(base, updates=value), updated) == pytest.approx(value, abs=0.1)
        assert rate(replace(base, duplicates=value), repeated) == pytest.approx(value, abs=0.1)

    def linked(stream):
        seen: set[str] = set()
        facts = chained(stream.told())
        count = 0
        for fact in facts:
            count += fact.day is None and fact.subject in seen
            seen.update((fact.subject, fact.object))
        return count / sum(fact.day is None for fact in facts)

    long = StreamDials(chunks=40)
    shares = [rate(replace(long, links=value), linked, 10) for value in (0.0, 0.5, 1.0)]
    assert shares[0] < shares[1] - 0.1 < shares[2] - 0.2 and shares[2] > 0.8
    assert rate(replace(long, links=1.0), two_hops, 10) > 1.2 * rate(replace(long, links=0.0), two_hops, 10)


def two_hops(stream) -> int:
    """Distinct questions of two hops, of at most 60."""
    return len(stream.ask(random.Random(0), ("hop",), 60, 2))


def test_a_thousand_chunks():
    began = time.process_time()
    stream = make_stream(0, "test", StreamDials(chunks=1000, duplicates=0.2))
    states = list(stream.states())
    assert time.process_time() - began < 20  # seconds of CPU; 2 here
    holds, superseded = replay_fast(chained(stream.told()))
    assert set(states[-1].holds) == holds and set(states[-1].superseded) == superseded
    chains: dict[tuple[str, str], list[int]] = {}
    for fact in dict.fromkeys(chained(stream.told())):
        if not RELATIONS[fact.relation].multi:
            chains.setdefault(fact[:2], []).append(fact.day or 0)
    assert all(days == sorted(set(days)) for days in chains.values())  # though chunks share days
    asked = stream.ask(random.Random(0), ("hop", "now", "before", UNKNOWN), 40)
    assert len(asked) == 40


def replay_fast(facts):
    """`replay` slot by slot."""
    slots: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts:
        slots.setdefault(fact[:2], []).append(fact)
    parts = [replay(slot) for slot in slots.values()]
    return {fact for holds, _ in parts for fact in holds}, {fact for _, past in parts for fact in past}


def test_a_memory_state_by_hand():
    a, b = Fact("Balman", "pet", "dog"), Fact("Balman", "speaks", "Aric")
    c, d = Fact("Balman", "pet", "cat", 9), Fact("Balman", "pet", "goat", 4)
    memory = MemoryState().after([a, b])
    assert memory == MemoryState((a, b), ())
    assert memory.after([c]) == MemoryState((c, b), (a,))
    assert memory.after([c, a, c]) == memory.after([c])  # told again: no news
    assert memory.after([c]).after([d]) == MemoryState((c, b), (a, d))  # an old state that comes late
    assert memory.after([c]).lines() == ["Balman | pet | cat", note_line("Balman", "speaks", "Aric")]
    assert memory.after([Fact("Balman", "speaks", "Dulan")]).holds == (a, b, Fact("Balman", "speaks", "Dulan"))


@checked
@given(seeds, dials)
def test_the_told_world_is_the_world_of_the_told_facts(seed, d):
    stream = make_stream(seed, "train", d)
    facts = chained(stream.told())
    known = told_world(stream.world, facts)
    assert set(known.all_facts()) == set(facts)
    for fact in facts:
        for side in both_sides(fact):
            assert known.current(side.subject, side.relation) == stream_objects(facts, side)


def stream_objects(facts, side):
    said = [s for fact in sorted(dict.fromkeys(facts), key=lambda f: f.day or 0) for s in both_sides(fact)]
    objects = list(dict.fromkeys(s.object for s in said if s[:2] == side[:2]))
    return objects if RELATIONS[side.relation].multi else [[s.object for s in said if s[:2] == side[:2]][-1]]


@pytest.mark.parametrize(
    "dial, value",
    [("chunks", 0), ("timeless", -1), ("dated", -1), ("fillers", -2), ("updates", 1.2), ("duplicates", -0.1),
     ("links", 2.0), ("look_alikes", -1.0)],
)  # fmt: skip
def test_a_dial_out_of_range_is_named(dial, value):
    with pytest.raises(ValueError, match=rf"^{dial} "):
        StreamDials(**{dial: value})


def test_a_stream_of_filler_alone_and_a_wrong_kind_are_refused():
    with pytest.raises(ValueError, match=r"^timeless and dated "):
        StreamDials(timeless=0, dated=0)
    stream = make_stream(0, "train")
    with pytest.raises(ValueError, match=r"^kinds must be of .*, not 'nwo'$"):
        stream.ask(random.Random(0), ("now", "nwo"), 3)
    with pytest.raises(ValueError, match=r"^kinds must name"):
        stream.ask(random.Random(0), (), 3)

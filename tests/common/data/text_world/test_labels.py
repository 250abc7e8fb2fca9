"""Label streams: answers follow from the samples alone, by a solver that knows no map; noise keeps the majority."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.text_world.labels import VOCABULARY, LabelDials, make_labels
from common.data.text_world.names import SPLITS

checked = settings(derandomize=True, deadline=None, max_examples=40)
seeds = st.integers(0, 10**9)
dials = st.builds(
    LabelDials,
    chunks=st.integers(2, 4), samples=st.integers(6, 8), labels=st.integers(3, 6), keywords=st.integers(1, 2),
    words=st.integers(3, 4), neutral=st.integers(8, 10), noise=st.floats(0, 0.5), questions=st.integers(0, 6),
)  # fmt: skip


def samples_of(stream):
    return [sample for chunk in stream.chunks for sample in chunk]


def labels_by_word(stream):
    seen: dict[str, Counter[str]] = {}
    for sample in samples_of(stream):
        for word in sample.words:
            seen.setdefault(word, Counter())[sample.label] += 1
    return seen


@checked
@given(seeds, st.sampled_from(SPLITS), dials)
def test_questions_are_new_combinations_answered_by_the_map(seed, split, d):
    stream = make_labels(seed, split, d)
    shown = {frozenset(sample.words) for sample in samples_of(stream)}
    asked = [frozenset(question.words) for question in stream.questions]
    assert len(stream.questions) == d.questions == len(set(asked)) and not shown & set(asked)
    for question in stream.questions:
        (keyword,) = set(question.words) & set(stream.labels)
        assert question.answer == stream.labels[keyword] and len(set(question.words)) == d.words
        right = [any(keyword in s.words and s.label == question.answer for s in chunk) for chunk in stream.chunks]
        assert question.chunks == tuple(i for i, found in enumerate(right) if found) != ()
        assert question.text == f"Which label has {' '.join(question.words)}?"


@checked
@given(seeds, dials)
def test_the_samples_alone_tell_the_answer(seed, d):
    stream = make_labels(seed, "test", LabelDials(**{**vars(d), "noise": 0.0}))
    seen = labels_by_word(stream)
    for question in stream.questions:
        decided = [word for word in question.words if len(seen.get(word, ())) == 1]
        assert len(decided) == 1 and set(seen[decided[0]]) == {question.answer}


@checked
@given(seeds, dials)
def test_noise_leaves_the_majority_to_the_right_label(seed, d):
    stream = make_labels(seed, "validation", d)
    seen = labels_by_word(stream)
    for keyword, label in stream.labels.items():
        assert 2 * seen[keyword][label] > seen[keyword].total()
    for sample in samples_of(stream):
        assert len(set(sample.words) & set(stream.labels)) == 1 and len(set(sample.words)) == d.words
        assert sample.text == f"{' '.join(sample.words)} -> label {sample.label}"
    assert len(stream.labels) == d.labels * d.keywords
    assert set(Counter(stream.labels.values()).values()) == {d.keywords}
    assert [len(chunk) for chunk in stream.chunks] == [d.samples] * d.chunks
    assert stream.text(0).splitlines() == [sample.text for sample in stream.chunks[0]]


@checked
@given(seeds, dials)
def test_the_gold_state_holds_the_keywords_shown_so_far(seed, d):
    stream = make_labels(seed, "train", d)
    for number in range(d.chunks + 1):
        shown = {word for chunk in stream.chunks[:number] for sample in chunk for word in sample.words}
        assert stream.state(number) == {word: stream.labels[word] for word in stream.labels if word in shown}
    assert stream.state() == stream.labels


def test_noise_is_a_frequency_and_maps_differ():
    streams = [make_labels(seed, "train", LabelDials(samples=20, noise=0.3)) for seed in range(40)]
    wrong = [s.label not in {stream.labels.get(w) for w in s.words} for stream in streams for s in samples_of(stream)]
    assert sum(wrong) / len(wrong) == pytest.approx(0.3, abs=0.04)
    assert len({tuple(stream.labels.items()) for stream in streams}) == 40


def test_many_labels():
    stream = make_labels(0, "test", LabelDials(chunks=10, samples=15, labels=50, neutral=20, questions=100))
    assert len(set(stream.labels.values())) == 50


@pytest.mark.parametrize(
    "dial, value",
    [("chunks", 0), ("samples", 0), ("samples", 2), ("labels", 1), ("labels", len(VOCABULARY)), ("keywords", 0),
     ("words", 1), ("neutral", 1), ("noise", 1.0), ("questions", -1)],
)  # fmt: skip
def test_a_dial_out_of_range_is_named(dial, value):
    with pytest.raises(ValueError, match=rf"^{dial} "):
        LabelDials(**{"chunks": 1, dial: value})


def test_more_questions_than_combinations_are_refused():
    with pytest.raises(ValueError, match="do not leave 50 questions"):
        make_labels(0, "train", LabelDials(words=2, neutral=3, questions=50))

"""Topic streams: the topics read off the text, in order of first appearance, are the gold list."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.text_world.names import SPLITS
from common.data.text_world.relations import FILLERS
from common.data.text_world.topics import QUESTION, TOPIC_SENTENCES, TOPICS, TopicDials, make_topics

checked = settings(derandomize=True, deadline=None, max_examples=40)
seeds = st.integers(0, 10**9)
dials = st.builds(
    TopicDials, chunks=st.integers(1, 40), topics=st.integers(1, 4), fillers=st.integers(0, 4), repeats=st.floats(0, 1)
)
FORMS = [re.compile(re.escape(text).replace(r"\{topic\}", r"(\w+)")) for text in TOPIC_SENTENCES]


def topics_read(text: str) -> list[str]:
    sentences = re.findall(r"[^.]+\.", text)
    return [
        match[1] for s in sentences for form in FORMS if (match := form.fullmatch(s.strip())) and match[1] in TOPICS
    ]


def test_no_topic_hides_in_another_or_in_the_other_words():
    others = [text.replace("{topic}", "").lower() for text in (*FILLERS, *TOPIC_SENTENCES, QUESTION)]
    for topic in TOPICS:
        assert not any(topic.lower() in other.lower() for other in TOPICS if other != topic), topic
        assert not any(topic.lower() in text for text in others), topic
    assert len(set(TOPICS)) == len(TOPICS)


@checked
@given(seeds, st.sampled_from(SPLITS), dials)
def test_the_gold_list_is_what_the_text_says_in_order(seed, split, d):
    stream = make_topics(seed, split, d)
    so_far: list[str] = []
    for chunk, gold in zip(stream.chunks, stream.states(), strict=True):
        found = topics_read(chunk.text)
        assert tuple(found) == chunk.topics and len(set(found)) == len(found) == d.topics
        assert len(chunk.sentences) == d.topics + d.fillers
        so_far += [topic for topic in found if topic not in so_far]
        assert gold == tuple(so_far)
    assert stream.topics() == gold and len(stream.chunks) == d.chunks


def test_repeats_are_a_frequency():
    for value in (0.0, 0.5):
        streams = [make_topics(seed, "train", TopicDials(chunks=10, repeats=value)) for seed in range(60)]
        again = sum(20 - len(stream.topics()) for stream in streams) / (60 * 18)
        assert again == pytest.approx(value, abs=0.05)


def test_a_long_stream_uses_every_topic_and_goes_on():
    assert set(make_topics(0, "test", TopicDials(chunks=200)).topics()) == set(TOPICS)


@pytest.mark.parametrize(
    "dial, value", [("chunks", 0), ("topics", 0), ("topics", 1000), ("fillers", -1), ("repeats", 1.5)]
)
def test_a_dial_out_of_range_is_named(dial, value):
    with pytest.raises(ValueError, match=rf"^{dial} "):
        TopicDials(**{dial: value})

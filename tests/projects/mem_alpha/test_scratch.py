"""The closed lexicon: what prompts, calls and answers of any family say is made of words, and comes back as it was."""

import random

import pytest

from common.models.language_model import encode_continuation
from projects.mem_alpha.data import Worlds
from projects.mem_alpha.scratch import tokenizer
from projects.mem_alpha.settings import FAMILIES, Habits, ReaderTraining, Rules, Settings, Streams
from projects.mem_alpha.teachers import demonstrated, reader_lessons


@pytest.fixture(scope="module")
def made():
    return tokenizer()


def words(text: str) -> int:
    return len(text.split())


def texts(family: str, split: str, chunks: int):
    """All that is said about one instance: its stream, questions and answers, and the turns of a scripted writer."""
    instance = Worlds(Streams(), split).one(family, "s", chunks)
    yield from instance.chunks
    for question in instance.questions:
        yield question.text
        yield from (accepted for gold in question.golds for accepted in gold)
    for shown in demonstrated(random.Random(0), instance, Rules(), Habits(), words):
        yield from (*(message["content"] for message in shown.prompt), shown.answer)


def check(made, text):
    ids = encode_continuation(made, text)
    spelled = [piece for piece in made.convert_ids_to_tokens(ids) if len(piece) == 1 and piece.isalpha()]
    assert set(spelled) <= set(text.split()), text  # letters, and the space, that are no words
    assert made.decode(ids) == text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_no_family_needs_bytes_and_texts_come_back(made, family, split):
    for text in texts(family, split, 9):
        check(made, text)


def test_long_streams_do_not_either(made):
    """Beyond the pools of names of two parts there are names of three (`stress`)."""
    for text in texts("ar", "test", 300):
        check(made, text)


def test_nor_do_the_lessons_of_the_reader(made):
    for shown in reader_lessons(Settings(reading=ReaderTraining(60, [1, 3])), words):
        check(made, shown.answer)
        for message in shown.prompt:
            check(made, message["content"])


def test_the_check_sees_a_word_that_is_spelled(made):
    with pytest.raises(AssertionError):
        check(made, "insert semantic zebra")

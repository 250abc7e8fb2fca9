"""The tokenizer of the policy from scratch: one token a tag, two a name, one another word, and texts come back."""

import random

import pytest

from common.data.text_world.relations import RELATIONS
from common.models.language_model import encode
from projects.mem1.data import Worlds
from projects.mem1.method import Chat, messages, parse, state_of, well_formed
from projects.mem1.scratch import world_tokenizer
from projects.mem1.settings import Questions, Rules, Tags, TextWorld
from projects.mem1.teachers import HABITS, trajectory

TAGS = Tags()
RULES = Rules(instructed=False)


@pytest.fixture(scope="module")
def tokenizer():
    return world_tokenizer(TAGS)


@pytest.fixture(scope="module")
def turns():
    """Contexts and turns of a teacher, in both styles of the world."""
    found = []
    for style in ("notes", "prose"):
        task = Worlds(TextWorld(style=style, worlds=1), Questions(), "test").task(random.Random(0), 4)
        steps = trajectory(random.Random(0), task, RULES, HABITS["accumulating"])
        found += [(messages(task, steps[:i], RULES), steps[i].text) for i in range(len(steps))]
    return found


def test_a_name_has_two_tokens_and_a_tag_one(tokenizer):
    text = "<think> Kelman home: Dertona</think><search> Dertona mayor</search>"
    ids = tokenizer(text).input_ids
    assert len(ids) == 1 + 2 + 1 + 1 + 2 + 1 + 1 + 2 + 1 + 1
    assert tokenizer.decode(ids) == text


def test_nothing_of_the_world_is_spelled_in_bytes(tokenizer, turns):
    for context, text in turns:
        pieces = tokenizer.convert_ids_to_tokens([*encode(tokenizer, context), *tokenizer(text).input_ids])
        letters = [piece for piece in pieces if len(piece) == 1 and piece.isalpha() and piece not in ("a", "s", "Ċ")]
        assert not letters, (letters, text)


def test_what_was_sampled_is_read_as_it_was_said(tokenizer, turns):
    """The tokens of a turn, decoded and read again as context, are the same ones; so are its parts."""
    for _, text in turns:
        ids = tokenizer(text).input_ids
        again = tokenizer.decode(ids, skip_special_tokens=True)
        assert tokenizer(again).input_ids == ids
        assert state_of(again, TAGS) == state_of(text, TAGS) and well_formed(again, TAGS)
        assert parse(again, TAGS).argument == parse(text, TAGS).argument


def test_an_observation_is_much_longer_than_a_state(tokenizer, turns):
    read = [len(tokenizer(context[-1]["content"]).input_ids) for context, _ in turns if len(context) > 1]
    assert min(read) > 60 and sum(read) / len(read) > 100


def test_turns_of_a_chat_are_framed_as_the_template_has_it(tokenizer):
    assert Chat(tokenizer, 100).frame == ["<|end|><|user|>", "<|end|><|assistant|>"]


def test_notes_state_each_fact_from_the_side_of_their_title():
    task = Worlds(TextWorld(style="notes", worlds=1), Questions(), "test").task(random.Random(0), 3)
    for query in task.truth.queries:
        for passage in task.retrieve(query):
            for sentence in passage.sentences:
                for fact in sentence.facts:
                    what, value = sentence.text.rstrip(".").split(": ")
                    about, *key = what.split()
                    assert " ".join(key) == RELATIONS[fact.relation].key
                    assert {about, value} == {fact.subject, fact.object}
                    assert about == passage.title or passage.title not in (fact.subject, fact.object)

"""Prompts and how their answers are read: every text has a reading."""

from dataclasses import fields as fields_of

import pytest

from projects.amber.prompts import (
    LIMIT,
    PROMPTS,
    parse_act,
    parse_memory,
    parse_query,
    parse_reflection,
    parse_route,
    parse_sentences,
    parse_yes,
    prompt,
)
from projects.amber.settings import GENERATOR, Limits


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("yes", True), ("No.", False), ("Yes, no doubt", True), ("no, yes", False), ("", False), ("maybe", False),
        ("yesterday", False), ("I know", False), ("The answer is YES", True),
    ],
)  # fmt: skip
def test_yes_is_the_first_of_the_two_words(text, yes):
    assert parse_yes(text) is yes


@pytest.mark.parametrize(("text", "memory"), [("none", ""), (" None. ", ""), ("", ""), ("a | b\nnone", "a | b\nnone")])
def test_a_memory_of_none_is_empty(text, memory):
    assert parse_memory(text) == memory


@pytest.mark.parametrize(
    ("text", "query"), [("\n\n Ada birth \nmore", "Ada birth"), ("", ""), ("?!\n-", ""), ("é", "é")]
)
def test_a_query_is_the_first_line_with_a_word(text, query):
    assert parse_query(text) == query


@pytest.mark.parametrize(("text", "found"), [("A.\nB.", "A. B."), ("none", ""), ("None.", ""), (" ", ""), ("...", "")])
def test_extracted_sentences_are_one_line(text, found):
    assert parse_sentences(text) == found


@pytest.mark.parametrize(
    ("text", "route"),
    [("multi", "multi"), ("None", "none"), ("Single step", "single"), ("", "single"), ("x", "single")],
)
def test_an_unknown_route_is_plain_retrieval(text, route):
    assert parse_route(text) == route


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("search: Ada job", ("search", "Ada job")),
        ("Search : Ada", ("search", "Ada")),
        ("answer: Orun", ("answer", "Orun")),
        ("search:", ("answer", "")),
        ("Orun", ("answer", "Orun")),
        ("", ("answer", "")),
        ("search: \n?", ("answer", "?")),
    ],
)
def test_what_is_no_search_is_an_answer(text, action):
    assert parse_act(text) == action


@pytest.mark.parametrize(
    ("text", "answer"),
    [("relevant: Orun", "Orun"), ("irrelevant", None), ("relevant", None), ("relevant:", None), ("", None)],
)
def test_a_reflection_answers_where_it_finds_relevance(text, answer):
    assert parse_reflection(text) == answer


def test_every_role_has_a_limit_and_every_taught_role_a_prompt():
    assert LIMIT.keys() == PROMPTS.keys()
    assert set(LIMIT.values()) <= {field.name for field in fields_of(Limits)}
    assert GENERATOR.keys() == PROMPTS.keys() - {"route"}


def test_an_empty_field_is_shown_as_none_and_braces_stay_text():
    [message] = prompt("answer_memory", memory="", question="{memory} {0}?")
    assert message["content"].endswith("Memory:\nnone\nQuestion: {memory} {0}?")

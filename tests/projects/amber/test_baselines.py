"""The loops of the baselines, step by step with a scripted model."""

import math

import pytest

from common.models.language_model import Completion
from projects.amber.baselines import (
    BASELINES,
    adaptive_note,
    adaptive_rag,
    flare,
    least_probability,
    no_retrieval,
    react,
    self_rag,
    vanilla_rag,
)
from projects.amber.data import Passage
from projects.amber.settings import Loop
from tests.projects.amber.scripted import agents, fields, search

PASSAGES = {"v0": "Veld has a mayor.", "v1": "Veld is old.", "a0": "Ada comes from Orun.", "a1": "Ada has a dog."}
QUESTIONS = ["Who is the mayor of Veld?", "Which pet does Ada have?"]


def watched(passages):
    """A search, and what it was asked: (query, k)."""
    asked, inner = [], search(passages)

    def call(queries, k, without=()):
        asked.extend((query, k) for query in queries)
        return inner(queries, k, without)

    return call, asked


def test_no_retrieval_asks_the_question_alone():
    found, lm, meter = agents({"closed_book": "Ada"})
    held, asked = watched(PASSAGES)
    assert no_retrieval(QUESTIONS, found, held, Loop()) == ["Ada", "Ada"]
    assert [fields("closed_book", text) for text in lm.prompts("closed_book")] == [{"question": q} for q in QUESTIONS]
    assert (meter.total().requests, asked) == (2, [])


def test_vanilla_reads_what_one_retrieval_brings_in_its_order():
    found, lm, meter = agents({"answer_passages": "Ada"})
    assert vanilla_rag(QUESTIONS[:1], found, search(PASSAGES), Loop(k=2)) == ["Ada"]
    [best] = search(PASSAGES)(QUESTIONS[:1], 2)
    shown = [f"[1] {best[0].text}", f"[2] {best[1].text}", f"Question: {QUESTIONS[0]}"]
    assert lm.prompts("answer_passages")[0].split("\n")[1:] == shown
    assert meter.total().requests == 1


def test_the_router_sends_each_question_its_way_and_the_order_stays():
    routes = {"Where?": "none", QUESTIONS[0]: "single", QUESTIONS[1]: "multi"}
    found, _, meter = agents(
        {
            "route": lambda fields: routes[fields["question"]],
            "closed_book": "closed",
            "answer_passages": "read",
            "act": "answer: acted",
        }
    )
    questions = [QUESTIONS[1], "Where?", QUESTIONS[0]]
    assert adaptive_rag(questions, found, search(PASSAGES), Loop()) == ["acted", "closed", "read"]
    assert meter.total().requests == 3 + 3


def test_flare_retrieves_again_with_its_answer_while_in_doubt_and_takes_the_last():
    said = iter(["Ada comes from Orun", "Orun", "Veld"])
    found, lm, _ = agents({"answer_passages": lambda fields: next(said)}, sure=math.log(0.4))
    held, asked = watched(PASSAGES)
    assert flare(QUESTIONS[:1], found, held, Loop(k=2, doubt=0.5)) == ["Veld"]
    assert asked == [(QUESTIONS[0] + more, 2) for more in ("", " Ada comes from Orun", " Orun")]
    assert "Ada comes from Orun." in lm.prompts("answer_passages")[1]


@pytest.mark.parametrize(("sure", "times"), [(0.6, 1), (0.5, 1), (0.49, 3)])
def test_flare_is_in_doubt_below_its_threshold(sure, times):
    found, lm, _ = agents({"answer_passages": "Ada"}, sure=math.log(sure))
    assert flare(QUESTIONS[:1], found, search(PASSAGES), Loop(k=2, doubt=0.5)) == ["Ada"]
    assert len(lm.prompts("answer_passages")) == times


def test_the_token_in_most_doubt_decides_and_no_token_is_no_answer():
    def completion(*log_probs):
        return Completion("x", (0,) * len(log_probs), log_probs, "stop", 1, len(log_probs))

    assert least_probability(completion(math.log(0.9), math.log(0.2), math.log(0.7))) == pytest.approx(0.2)
    assert least_probability(completion()) == 0


@pytest.mark.parametrize(("baseline", "name"), [(flare, "FLARE"), (self_rag, "Self-RAG")])
def test_a_backend_without_log_probabilities_is_refused(baseline, name):
    found, _, _ = agents({"answer_passages": "Ada", "reflect": "relevant: Ada"}, sure=lambda text: None)
    with pytest.raises(ValueError, match=f"no log-probabilities, which {name} needs"):
        baseline(QUESTIONS, found, search(PASSAGES), Loop())


def test_self_rag_takes_a_relevant_passage_and_else_what_it_knows():
    found, _, _ = agents(
        {
            "reflect": lambda fields: "relevant: Ada" if "mayor" in fields["passage"] else "irrelevant",
            "closed_book": "closed",
        }
    )
    assert self_rag([QUESTIONS[0], "Nothing?"], found, search(PASSAGES), Loop()) == ["Ada", "closed"]


def test_self_rag_takes_the_answer_with_the_surest_token_on_the_mean():
    sure = {"relevant: first": (-1.0,), "relevant: second": (-0.4, -0.4), "relevant: third": (-0.7,)}
    found, _, _ = agents({"reflect": lambda f: f"relevant: {f['passage']}"}, sure=sure.get)
    passages = [Passage(name, name) for name in ("first", "second", "third")]
    assert self_rag(QUESTIONS[:1], found, lambda queries, k: [passages[:k]], Loop(k=3)) == ["second"]


def test_react_searches_sees_and_answers():
    def act(fields):
        return "answer: Orun" if "comes from" in fields["steps"] else "search: Ada comes"

    found, lm, _ = agents({"act": act})
    assert react(QUESTIONS[:1], found, search(PASSAGES), Loop()) == ["Orun"]
    assert lm.prompts("act")[1].endswith("search: Ada comes\nfound: Ada comes from Orun.")


def test_react_that_never_answers_reads_what_it_found_each_passage_once():
    found, lm, meter = agents({"act": "search: Ada", "answer_passages": "dog"})
    assert react(QUESTIONS[:1], found, search(PASSAGES), Loop(rounds=3)) == ["dog"]
    steps = fields("act", lm.prompts("act")[2])["steps"].split("\n")
    assert steps[::2] == ["search: Ada"] * 2
    assert set(steps[1::2]) == {"found: Ada comes from Orun.", "found: Ada has a dog."}
    [prompt] = lm.prompts("answer_passages")
    assert prompt.count("Ada comes from Orun.") == prompt.count("Ada has a dog.") == 1
    assert meter.total().requests == 4


@pytest.mark.parametrize(("judged", "memory"), [("yes", "new 3"), ("no", "new 1")])
def test_adaptive_note_keeps_a_new_note_where_the_judge_finds_it_better(judged, memory):
    notes = iter([f"new {i}" for i in range(1, 9)])
    queries = iter(["Ada", "dog", "sea"])
    found, lm, _ = agents(
        {"draft": lambda f: next(notes), "query": lambda f: next(queries), "better": judged, "answer_memory": "Orun"}
    )
    assert adaptive_note(QUESTIONS[:1], found, search(PASSAGES), Loop(rounds=3)) == ["Orun"]
    assert f"Memory:\n{memory}\n" in lm.prompts("answer_memory")[0]
    assert len(lm.prompts("better")) == 2


def test_adaptive_note_ends_after_two_failures_in_a_row():
    found, lm, _ = agents({"draft": "note", "query": "Ada", "better": "no", "answer_memory": "Orun"})
    adaptive_note(QUESTIONS[:1], found, search(PASSAGES), Loop(rounds=9))
    assert len(lm.prompts("better")) == 2


def test_adaptive_note_begins_to_count_failures_anew_after_a_better_note():
    judged = iter(["no", "yes", "no", "no"])
    found, lm, _ = agents({"draft": "note", "query": "Ada", "better": lambda f: next(judged), "answer_memory": "Orun"})
    adaptive_note(QUESTIONS[:1], found, search(PASSAGES), Loop(rounds=9))
    assert len(lm.prompts("better")) == 4


def test_each_role_of_adaptive_note_sees_what_it_is_about():
    notes, queries = iter(["one\nlast", "two", "none"]), iter(["Ada", "ada"])  # the second was asked
    found, lm, _ = agents(
        {"draft": lambda f: next(notes), "query": lambda f: next(queries), "better": "yes", "answer_memory": "Orun"}
    )
    held, asked = watched(PASSAGES)
    [question] = QUESTIONS[:1]
    adaptive_note([question], found, held, Loop(k=2, rounds=3))
    assert asked == [(question, 2), ("Ada", 2), (f"{question} two", 2)]
    said = {role: [fields(role, text) for text in lm.prompts(role)] for role in ("draft", "query", "better")}
    texts = [" ".join(passage.text for passage in row) for row in search(PASSAGES)([query for query, _ in asked], 2)]
    assert said["draft"] == [
        {"question": question, "memory": memory, "text": text}
        for memory, text in zip(["none", "one\nlast", "two"], texts, strict=True)
    ]
    assert said["query"] == [
        {"question": question, "memory": "one\nlast", "asked": question},
        {"question": question, "memory": "two", "asked": f"{question}; Ada"},
    ]
    assert said["better"] == [  # a note that could not be written is the old one
        {"question": question, "old": "one\nlast", "new": "two"},
        {"question": question, "old": "two", "new": "two"},
    ]


@pytest.mark.parametrize("name", list(BASELINES))
@pytest.mark.parametrize("said", ["", "{}", "yes no", "search:", "relevant:", "☃" * 5000], ids=lambda text: text[:9])
@pytest.mark.parametrize("passages", [PASSAGES, {}], ids=["corpus", "empty corpus"])
def test_a_model_that_says_nonsense_gets_every_baseline_to_its_end(name, said, passages):
    roles = ["draft", "query", "better", "answer_memory", "answer_passages", "closed_book", "route", "act", "reflect"]
    found, _, _ = agents(dict.fromkeys(roles, said))
    answers = BASELINES[name](QUESTIONS, found, search(passages), Loop())
    assert len(answers) == 2
    assert BASELINES[name]([], found, search(passages), Loop()) == []

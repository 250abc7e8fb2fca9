"""The loops of the baselines, step by step with a scripted model."""

import math

import pytest

from projects.amber.baselines import BASELINES, adaptive_note, adaptive_rag, flare, react, self_rag, vanilla_rag
from projects.amber.settings import Loop
from tests.projects.amber.scripted import agents, search

PASSAGES = {"v0": "Veld has a mayor.", "v1": "Veld is old.", "a0": "Ada comes from Orun.", "a1": "Ada has a dog."}
QUESTIONS = ["Who is the mayor of Veld?", "Which pet does Ada have?"]


def test_vanilla_reads_what_one_retrieval_brings_in_its_order():
    found, lm, meter = agents({"answer_passages": "Ada"})
    assert vanilla_rag(QUESTIONS[:1], found, search(PASSAGES), Loop(k=2)) == ["Ada"]
    [best] = search(PASSAGES)(QUESTIONS[:1], 2)
    assert lm.prompts("answer_passages")[0].split("\n")[1:3] == [f"[1] {best[0].text}", f"[2] {best[1].text}"]
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
    assert flare(QUESTIONS[:1], found, search(PASSAGES), Loop(k=2, doubt=0.5)) == ["Veld"]
    assert "Ada comes from Orun." in lm.prompts("answer_passages")[1]
    said = iter(["Ada"])
    found, lm, _ = agents({"answer_passages": lambda fields: next(said)}, sure=math.log(0.6))
    assert flare(QUESTIONS[:1], found, search(PASSAGES), Loop(k=2, doubt=0.5)) == ["Ada"]
    assert len(lm.prompts("answer_passages")) == 1


def test_self_rag_takes_a_relevant_passage_and_else_what_it_knows():
    found, _, _ = agents(
        {
            "reflect": lambda fields: "relevant: Ada" if "mayor" in fields["passage"] else "irrelevant",
            "closed_book": "closed",
        }
    )
    assert self_rag([QUESTIONS[0], "Nothing?"], found, search(PASSAGES), Loop()) == ["Ada", "closed"]


def test_react_searches_sees_and_answers():
    def act(fields):
        return "answer: Orun" if "comes from" in fields["steps"] else "search: Ada comes"

    found, lm, _ = agents({"act": act})
    assert react(QUESTIONS[:1], found, search(PASSAGES), Loop()) == ["Orun"]
    assert lm.prompts("act")[1].endswith("search: Ada comes\nfound: Ada comes from Orun.")


def test_react_that_never_answers_reads_what_it_found_each_passage_once():
    found, lm, meter = agents({"act": "search: Ada", "answer_passages": "dog"})
    assert react(QUESTIONS[:1], found, search(PASSAGES), Loop(rounds=3)) == ["dog"]
    assert "found: nothing" not in lm.prompts("act")[2]
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


@pytest.mark.parametrize("name", list(BASELINES))
@pytest.mark.parametrize("said", ["", "{}", "yes no", "search:", "relevant:", "☃" * 5000], ids=lambda text: text[:9])
@pytest.mark.parametrize("passages", [PASSAGES, {}], ids=["corpus", "empty corpus"])
def test_a_model_that_says_nonsense_gets_every_baseline_to_its_end(name, said, passages):
    roles = ["draft", "query", "better", "answer_memory", "answer_passages", "closed_book", "route", "act", "reflect"]
    found, _, _ = agents(dict.fromkeys(roles, said))
    answers = BASELINES[name](QUESTIONS, found, search(passages), Loop())
    assert len(answers) == 2
    assert BASELINES[name]([], found, search(passages), Loop()) == []

"""The context rule, tags, budget and reward by hand; the masks by hand; layouts against each other."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from common.models.language_model import Sampling
from common.training.reinforcement.episodes import Episode, Outcome, Turn, tokens_within
from common.training.reinforcement.layouts import LAYOUTS, stitched
from common.training.reinforcement.rollout import play
from projects.mem1.method import (
    Chat,
    Searcher,
    budget,
    dependency,
    hint,
    kept,
    memoryless,
    observation,
    parse,
    peak_tokens,
    released,
    reward,
    state_of,
    state_spans,
    task_prompt,
    well_formed,
)
from projects.mem1.settings import Rules, Tags
from tests.common.training.reinforcement.acting import random_episodes
from tests.common.training.reinforcement.test_layouts import example, llama, log_probs
from tests.projects.mem1.scripted import Scripted, answer, say, search, searcher, task

TAGS = Tags()


# --- context --------------------------------------------------------------------------------------------------------


def after_three_searches(**rules):
    agent = searcher(**rules)
    for i in range(3):
        assert agent.ask() is not None
        say(agent, search(f"s{i}", f"q{i}"))
    return agent, agent.ask()


def test_a_context_is_the_task_and_the_last_turn():
    agent, request = after_three_searches()
    assert [message["role"] for message in request.prompt] == ["user", "assistant", "user"]
    assert request.prompt[0]["content"] == task_prompt(agent.task, agent.rules)
    assert request.prompt[1]["content"] == search("s2", "q2")
    assert request.prompt[2]["content"] == "<information>[3 turns left]\n[1] about q2</information>"
    assert request.observation == f"|{request.prompt[2]['content']}|"


def test_other_rules_keep_all_or_what_is_recalled_or_no_state():
    _, full = after_three_searches(context="full")
    assert [m["content"] for m in full.prompt[1::2]] == [search(f"s{i}", f"q{i}") for i in range(3)]
    _, stateless = after_three_searches(context="stateless")
    assert stateless.prompt[1]["content"] == "<search>q2</search>"
    agent = searcher(objectives=4, context="external", recalled=1)
    for state, query in (("", "Kelan home"), ("", "Borix pet"), ("", "Dertona mayor"), ("", "Kelan pet")):
        say(agent, search(state, query))
    shown = [m["content"] for m in agent.ask().prompt[1::2]]
    assert shown == [search("", "Borix pet"), search("", "Kelan pet")]  # equals: the newer one
    agent.rules = replace(agent.rules, recalled=2)
    assert [m["content"] for m in agent.ask().prompt[1::2]][:2] == [search("", "Kelan home"), search("", "Borix pet")]


def test_a_control_acts_alike_and_reads_what_others_find():
    agent, others = after_three_searches(context="others")
    assert [step.query for step in agent.steps] == ["q0", "q1", "q2"]
    assert others.prompt[2]["content"] == "<information>[3 turns left]\n[1] beside q2</information>"


def test_a_task_without_instructions_is_its_questions():
    agent = searcher(instructed=False)
    assert agent.ask().prompt[0]["content"] == agent.task.text == "Where is 0?; Where is 1?"


def test_a_context_without_room_ends_the_episode():
    agent = searcher(context="full", most=5)
    for i in range(2):
        assert agent.ask() is not None
        say(agent, search("", f"q{i}"))
    assert agent.ask() is not None
    say(agent, search("", "q2"))
    assert agent.ask() is None
    assert (agent.end, agent.reward, agent.answer) == ("full", 0.0, None)


def test_questions_end_in_a_mark_and_are_joined():
    assert task().text == "Where is 0?; Where is 1?"


def test_a_prompt_without_instructions_is_the_questions():
    assert task_prompt(task(), Rules(instructed=False)) == "Where is 0?; Where is 1?"


# --- turns ----------------------------------------------------------------------------------------------------------


def test_budget_and_hint():
    assert [budget(n, "paper") for n in (1, 4, 6, 16)] == [6, 6, 20, 20]
    assert [budget(n, "scaled") for n in (1, 2, 16)] == [4, 6, 34]
    assert [hint(6 - step - 1) for step in range(6)] == [
        "[5 turns left]", "[4 turns left]", "[3 turns left]", "[2 turns left]", "[1 turn left: answer now]", "",
    ]  # fmt: skip
    assert observation(["a: b"], 0, TAGS) == "<information>[1] a: b</information>"
    assert observation([], 2, TAGS) == "<information>[2 turns left]</information>"


def test_on_the_last_turn_only_an_answer_stops_and_counts():
    agent = searcher(objectives=1)
    for left in (3, 2, 1):
        assert agent.ask().stop == ("</search>", "</answer>")
        say(agent, search("", "q"))
        assert agent.steps[-1].read.startswith(f"<information>{hint(left)}")
    assert agent.ask().stop == ("</answer>",)
    say(agent, search("", "again") + "<answer>Place0</answer>")
    assert (agent.end, agent.answer, agent.reward) == ("answered", "Place0", 1.0)
    assert agent.ask() is None


def test_the_action_that_is_complete_first_counts():
    both = "<think>x</think><search>q</search><answer>a</answer>"
    assert parse(both, TAGS).argument == "q" and parse(both, TAGS).text.endswith("</search>")
    assert parse(both, TAGS, ["answer"]).argument == "a"
    assert parse("<answer> a <search>q</search></answer>", TAGS).kind == "query"
    assert parse("<think>x</think><answer>a", TAGS) == parse("<think>x</think><answer>a", TAGS, ["answer"])
    assert parse("nothing", TAGS).kind == ""


def test_a_turn_with_neither_query_nor_answer_ends_the_episode():
    agent = searcher()
    say(agent, "<think>x</think>")
    assert (agent.end, agent.ask(), agent.reward) == ("invalid", None, 0.0)


@pytest.mark.parametrize(
    ("text", "matched"),
    [
        (search("s", "q"), True),
        ("no tags", True),
        ("<think>s<search>q</search>", False),
        ("s</think><search>q</search>", False),
        ("<think>s<search>q</think></search>", False),
        ("<think>s</think><search>q", False),
        ("</think></think><search>q</search>", False),
        ("<b>a</b><think></think>", True),
    ],
)
def test_tags_match_or_do_not(text, matched):
    assert well_formed(text, TAGS) == matched


# --- reward ---------------------------------------------------------------------------------------------------------

GOLDS = [["Paris"], ["1991", "1990"]]


def test_reward_by_hand():
    assert reward("Paris; 1990", GOLDS, True) == 2
    assert reward("The Paris; nineteen", GOLDS, True) == 1
    assert reward("Paris; 1990; x", GOLDS, True) == 0
    assert reward("Paris", GOLDS, True) == 0
    assert reward("Paris; 1990", GOLDS, matched=False) == 0
    assert reward("Paris; 1990", GOLDS, matched=False, penalty=True) == -1
    assert reward(None, GOLDS, True, penalty=True) == 0


def test_an_unmatched_tag_of_any_turn_costs_the_reward_and_with_the_penalty_ends_the_episode():
    for penalty, worth, turns in ((False, 0.0, 2), (True, -1.0, 1)):
        agent = searcher(penalty=penalty)
        say(agent, "<think>s<search>q</search>")
        if agent.ask():
            say(agent, answer("", "Place0; Place1"))
        assert (agent.reward, len(agent.steps)) == (worth, turns)
    agent = searcher()
    say(agent, "<think>s</think><answer>Place0; Place1")  # its end tag is missing
    assert (agent.reward, agent.end) == (0.0, "invalid")
    agent = searcher()
    say(agent, answer("", "Place0; Place1"))
    assert agent.reward == 2


def test_the_state_and_what_it_keeps():
    assert state_of(search(" a\nb ", "q"), TAGS) == "a\nb"
    assert state_of("<think>a", TAGS) == ""
    assert kept("Kelan: paris; Borix: 1990", GOLDS) == 1
    assert kept("Kelan: Paris", GOLDS) == 0.5


# --- costs ----------------------------------------------------------------------------------------------------------


def lengths(turns: int, full: bool) -> list[tuple[int, int]]:
    """Answers of 10 tokens, observations of 20: prefixes hold all turns, or the last."""
    return [(30 * (t if full else min(t, 1)), 10) for t in range(turns)]


@pytest.mark.parametrize(
    ("turns", "full", "peak", "cost"),
    [(3, True, 70, 1050), (3, False, 40, 750), (17, True, 490, 41650), (17, False, 40, 5650)],
)
def test_peak_and_dependency_by_hand(turns, full, peak, cost):
    assert peak_tokens(lengths(turns, full)) == peak
    assert dependency(lengths(turns, full)) == cost


# --- layouts --------------------------------------------------------------------------------------------------------

STATES = (True, True, False)  # two tokens of state, one of action


def test_the_released_mask_by_hand():
    [row] = released(lambda turn: STATES)([example()])
    assert len(row.ids) == 16 and len(row.targets) == 9
    assert row.visible.sum() == 75
    assert np.flatnonzero(row.visible[13]).tolist() == [0, 1, 2, 10, 11, 12, 13]  # not the state of turn 1: 8, 9
    assert np.flatnonzero(row.visible[12]).tolist() == [11, 12]


def test_the_released_layout_numbers_the_tokens_of_a_batch():
    episodes = [*random_episodes(2), Episode("x", (), Outcome(()))]
    rows = released(lambda turn: (False,) * len(turn.token_ids))(episodes)
    assert np.concatenate([row.tokens for row in rows]).tolist() == list(range(sum(e.generated for e in episodes)))


def test_without_states_and_observations_the_released_mask_is_the_papers():
    turns = (Turn((1, 2, 3), (4, 5)), Turn((1, 2, 3, 4, 5), (6, 7)), Turn((1, 2, 3, 6, 7), (8, 9)))
    episodes = [Episode("a", turns, Outcome((0.0, 0.0, 1.0)))]
    [ours], [papers] = released(lambda turn: (False, False))(episodes), stitched(episodes)
    assert (ours.visible == papers.visible).all()
    rule = partial(memoryless, np.ones(6, dtype=bool))
    [forgetful] = stitched(episodes, rule)
    assert forgetful.visible.sum() < papers.visible.sum()


@pytest.fixture(scope="module")
def played(toy):
    """A tokenizer, and two episodes of three turns under the context rule, each turn by a script."""
    _, tokenizer = toy("llama")

    agents = [Searcher(replace(task(), id=str(i)), Rules(turn_tokens=8), Chat(tokenizer, 512)) for i in range(2)]
    found = play(
        agents, Scripted(tokenizer, [search("a", "b"), search("c", "d"), answer("e", "f")]), tokenizer, Sampling()
    )
    return tokenizer, [Episode(one.agent.group, one.turns, Outcome((0.0, 0.0, 1.0))) for one in found]


def test_stitched_rows_of_an_agent_are_its_contexts(played):
    """x, y, o end to end are what the second turn read: the observation has the marks of the chat around it."""
    _, episodes = played
    for episode in episodes:
        first, second, third = episode.turns
        assert second.context == first.context + first.token_ids + second.observation
        assert third.context == first.context + second.token_ids + third.observation


def test_layouts_agree_where_they_must(played):
    """Exact ones everywhere; the paper's stitch in the first two turns; the released mask in the first alone."""
    tokenizer, episodes = played
    model = llama(2)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    exact = log_probs(model, LAYOUTS["per_turn"](episodes))
    number = np.concatenate([np.repeat(range(3), [len(t.token_ids) for t in e.turns]) for e in episodes])
    twice = log_probs(model, LAYOUTS["stitched_dup"](episodes))
    assert_close(twice, exact, rtol=0, atol=1e-5)
    once = log_probs(model, LAYOUTS["stitched"](episodes))
    assert_close(once[number < 2], exact[number < 2], rtol=0, atol=1e-5)
    assert (once - exact)[number == 2].abs().max() > 1e-3
    states = released(lambda turn: tokens_within(tokenizer, turn, lambda text: state_spans(text, TAGS)))
    without = log_probs(model, states(episodes))
    assert_close(without[number == 0], exact[number == 0], rtol=0, atol=1e-5)
    assert (without - exact)[number == 1].abs().max() > 1e-2


def test_one_layer_without_positions_has_nothing_to_leak(played):
    _, episodes = played
    model = llama(1)
    model.resize_token_embeddings(320, mean_resizing=False)
    model.model.rotary_emb.inv_freq.zero_()
    exact, once = (log_probs(model, LAYOUTS[name](episodes)) for name in ("per_turn", "stitched"))
    assert_close(once, exact, rtol=0, atol=1e-5)
    assert torch.isfinite(exact).all()

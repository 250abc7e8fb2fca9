"""Memory semantics, rewards and retrieval of Mem-α against worked numbers, and every malformed action."""

import pytest
import torch

from common.models.language_model import Completion
from common.training.reinforcement.advantages import grpo, token_rewards
from common.training.reinforcement.episodes import Episode, Outcome, Turn
from projects.mem_alpha.data import Instance, Question
from projects.mem_alpha.method import (
    MARK,
    Call,
    Evidence,
    Memory,
    Writer,
    compression,
    recall,
    reward,
    share,
    top,
    truncated,
)
from projects.mem_alpha.prompts import DIALECTS, compact, compact_parse, json_parse, judged, tools
from projects.mem_alpha.settings import STORES, Rules


def words(text: str) -> int:
    return len(text.split())


def memory(**rules: object) -> Memory:
    return Memory(Rules(**rules), words)  # type: ignore[arg-type]


def held(bank: Memory) -> tuple[str, list[str], list[str]]:
    return (bank.core, *([entry.text for entry in bank.entries(store)] for store in ("semantic", "episodic")))


# --- tools ----------------------------------------------------------------------------------------------------------


def test_each_tool_does_what_its_store_allows():
    bank = memory()
    assert bank.apply(Call("insert", "semantic", "a b"))
    assert bank.apply(Call("insert", "episodic", "a b"))  # a duplicate is one of its own store
    assert bank.apply(Call("insert", "semantic", "c"))
    assert bank.apply(Call("update", "core", "x y"))
    assert bank.apply(Call("update", "semantic", "d", "n1"))
    assert held(bank) == ("x y", ["d", "c"], ["a b"])
    assert bank.tokens == 6  # of contents, not of ids
    assert bank.apply(Call("delete", "semantic", id="n1")) and bank.apply(Call("delete", "core"))
    assert held(bank) == ("", ["c"], ["a b"])


@pytest.mark.parametrize(
    "call",
    [
        Call(""),
        Call("append", "semantic", "e"),
        Call("insert", "procedural", "e"),
        Call("insert", "core", "e"),
        Call("insert", "semantic", ""),
        Call("insert", "semantic", " \n"),
        Call("insert", "semantic", " a\nb "),  # the same words as are held
        Call("update", "core", ""),
        Call("update", "semantic", "", "n1"),
        Call("update", "semantic", "e"),
        Call("update", "semantic", "e", "n9"),
        Call("delete", "semantic"),
        Call("delete", "semantic", id="n9"),
    ],
)
def test_a_call_that_fails_changes_nothing(call):
    bank = memory()
    assert bank.apply(Call("insert", "semantic", "a b"))
    before = held(bank)
    assert not bank.apply(call)
    assert held(bank) == before


def test_the_released_delete_of_an_unknown_id_succeeds_and_an_update_does_not():
    bank = memory(semantics="compat")
    assert bank.apply(Call("insert", "semantic", "a b"))
    assert bank.apply(Call("delete", "semantic", id="n9"))
    assert not bank.apply(Call("delete", "semantic"))
    assert not bank.apply(Call("update", "semantic", "e", "n9"))
    assert held(bank) == ("", ["a b"], [])


def test_a_store_that_was_taken_away_cannot_be_written():
    bank = memory(stores=["core"])
    assert not bank.apply(Call("insert", "semantic", "a"))
    assert bank.apply(Call("update", "core", "a"))


def test_ids_are_not_given_twice():
    bank = memory()
    for text in ("a", "b"):
        bank.apply(Call("insert", "semantic", text))
    bank.apply(Call("delete", "semantic", id="n2"))
    bank.apply(Call("insert", "semantic", "b"))
    assert [entry.id for entry in bank.entries("semantic")] == ["n1", "n3"]


def test_core_is_cut_by_words_until_the_mark_fits():
    assert truncated("a b c", 3, words) == "a b c"
    assert truncated("a b c d", 3, words) == "a b" + MARK
    assert words(truncated("a b c d", 3, words)) == 3
    bank = memory(core_tokens=3)
    assert bank.apply(Call("update", "core", "a b c d"))
    assert bank.core == "a b" + MARK


# --- rewards --------------------------------------------------------------------------------------------------------


def test_rewards_at_their_edges():
    assert share([]) == 0  # K = 0: r2 = r4 = 0
    assert share([True, False, False, True]) == 0.5
    assert compression(0, 10) == 1  # the empty memory
    assert compression(15, 10) == -0.5  # not clipped
    assert reward(0.5, 0.75, -0.5, 0.25, beta=0.05, gamma=0.1) == pytest.approx(0.5 + 0.75 - 0.025 + 0.025)


def test_a_duplicate_insert_counts_as_failed():
    writer = under_way()
    writer.act([Call("insert", "semantic", "a"), Call("insert", "semantic", "a")])
    assert share([done.succeeded for done in writer.turns[0]]) == 0.5


def test_all_chunk_actions_of_all_rollouts_of_an_instance_are_one_group():
    """Two rollouts of two chunks of one instance, a third of another: sample std, ε = 1e-6."""

    def episode(group: str, *rewards: float) -> Episode:
        turns = tuple(Turn((1,), (2, 3)) for _ in rewards)
        return Episode(group, turns, Outcome(rewards))

    episodes = [episode("a", 1.0, 2.0), episode("a", 0.0, 5.0), episode("b", 7.0, 7.0)]
    advantages, _ = grpo("instance")(episodes, token_rewards(episodes), None)
    mean, spread = 2.0, (((-1) ** 2 + 0 + (-2) ** 2 + 3**2) / 3) ** 0.5
    expected = [(r - mean) / (spread + 1e-6) for r in (1.0, 2.0, 0.0, 5.0)]
    torch.testing.assert_close(advantages[::2], torch.tensor([*expected, 0.0, 0.0]))
    torch.testing.assert_close(advantages[::2], advantages[1::2])  # every token of a turn has its turn's


# --- reading --------------------------------------------------------------------------------------------------------


def test_ranking_is_stable_and_never_short():
    texts = ["red pen", "blue pen", "red pen", "green cup"]
    assert top(texts, ["blue pen"], 2) == [[1, 0]]
    assert top(texts, ["pen"], 3) == [[0, 1, 2]]  # equals in their order
    assert top(texts, ["nothing of it", ""], 2) == [[0, 1], [0, 1]]  # no threshold
    assert top(texts, ["cup"], 9) == [[3, 0, 1, 2]]
    assert top(["one"], ["one"], 5) == [[0]]
    assert top([], ["one"], 5) == [[]]


def test_recall_brings_core_and_the_best_of_each_list():
    bank = memory()
    for store, text in (("semantic", "a x"), ("semantic", "b y"), ("episodic", "day 1 b z")):
        bank.apply(Call("insert", store, text))
    bank.apply(Call("update", "core", "who"))
    assert recall(bank, ["b ?"], 1) == [Evidence("who", ("b y",), ("day 1 b z",))]


def test_evidence_gets_shorter_by_one_of_each_list():
    assert Evidence("c", ("a", "b"), ("d",)).shorter() == Evidence("c", ("a",), ("d",))
    assert Evidence("c", ("a",), ("d",)).shorter() == Evidence("c")
    assert Evidence("c").shorter() is None


# --- forms of calls -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        Call("insert", "semantic", "Balman job 3 bakers"),
        Call("insert", "episodic", "7 days"),
        Call("update", "core", "7 a"),
        Call("update", "episodic", "a b", "n12"),
        Call("delete", "semantic", id="n3"),
        Call("delete", "core"),
    ],
)
def test_compact_calls_are_read_back(call):
    assert compact_parse(compact(call)) == [call]


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("", []),
        (" done ", []),
        ("insert semantic a ; delete core ;", [Call("insert", "semantic", "a"), Call("delete", "core")]),
        ("insert semantic a ; insert sem", [Call("insert", "semantic", "a"), Call("")]),  # cut off
        ("done done", [Call("")]),
        (";", [Call("")]),
        ("insert ;", [Call("")]),
        ("insert lamps red ;", [Call("insert", "lamps", "red")]),  # which the executor refuses
        ("update semantic red ;", [Call("update", "semantic", "red")]),
    ],
)
def test_compact_text_of_any_kind_has_an_outcome(text, calls):
    assert compact_parse(text) == calls


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("Done", []),
        (
            '<tool_call>{"name": "new_memory_insert", "arguments": {"memory_type": "semantic_memory", "content": "a"}}'
            "</tool_call>\n<tool_call>"
            '{"name": "memory_delete", "arguments": {"memory_type": "episodic_memory", "memory_id": "n2"}}',
            [Call("insert", "semantic", "a"), Call("delete", "episodic", id="n2")],
        ),
        (
            '<tool_call>{"name": "memory_update", "arguments": {"memory_type": "core_memory", "new_content": "b", '
            '"memory_id": null}}</tool_call>',
            [Call("update", "core", "b")],
        ),
        ("<tool_call>no json</tool_call>", [Call("")]),
        ("<tool_call>[1]</tool_call>", [Call("")]),
        (f"<tool_call>{'[' * 100_000}</tool_call>", [Call("")]),
        ('<tool_call>{"name": "memory_search", "arguments": {}}</tool_call>', [Call("")]),
        ('<tool_call>{"name": "memory_delete", "arguments": {}}</tool_call>', [Call("")]),
        ('<tool_call>{"name": "memory_delete", "arguments": {"memory_type": 3}}</tool_call>', [Call("")]),
        (
            '<tool_call>{"name": "new_memory_insert", "arguments": {"memory_type": "semantic_memory", "content": 3}}',
            [Call("")],
        ),
        (
            '<tool_call>{"name": "new_memory_insert", "arguments": {"memory_type": "semantic", "content": "a"}}',
            [Call("")],
        ),
        (
            '<tool_call>{"name": "memory_update", "arguments": {"memory_type": "core_memory", '
            r'"new_content": "\ud83d"}}',
            [Call("")],
        ),
    ],
)
def test_json_text_of_any_kind_has_an_outcome(text, calls):
    assert json_parse(text) == calls


def test_both_forms_reach_the_same_executor():
    texts = {
        "compact": "insert semantic a b ; insert core x ;",
        "json": "".join(
            f'<tool_call>{{"name": "new_memory_insert", "arguments": {{"memory_type": "{store}_memory", '
            f'"content": "{content}"}}}}</tool_call>'
            for store, content in (("semantic", "a b"), ("core", "x"))
        ),
    }
    for dialect, text in texts.items():
        writer = under_way(dialect)
        writer.take(Completion(text, (1,), None, "stop", 1, 1))
        assert [done.succeeded for done in writer.turns[0]] == [True, False]
        assert held(writer.memory) == ("", ["a b"], [])


def test_tools_name_only_the_stores_there_are():
    assert "episodic_memory" not in str(tools(["core", "semantic"]))
    assert "core_memory" in str(tools(["core", "semantic"])[1:])
    assert "core_memory" not in str(tools(["core", "semantic"])[0])  # nothing is inserted there
    flat = tools(["core"])
    assert [tool["name"] for tool in flat] == ["memory_update", "memory_delete"] and "memory_id" not in str(flat)


@pytest.mark.parametrize("stores", [["core"], ["core", "semantic"], ["semantic", "episodic"], list(STORES)])
def test_the_json_prompt_speaks_of_the_stores_there_are_and_of_no_other(stores):
    request = under_way("json", stores=stores).ask()
    assert request is not None
    for message in request.prompt:
        told = {store for store in STORES if f"{store}_memory" in str(message)}
        assert told == set(stores), message
    text = str(request.prompt)
    assert ("new_memory_insert" in text) == (" list of " in text) == (stores != ["core"])


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"VALID": true}', True),
        ('so {"VALID": false}', False),
        ('{"VALID": "true"}', False),
        ("{", False),
        (f'{{"VALID": {"[" * 100_000}}}', False),
        ("", False),
    ],
)
def test_a_verdict_that_cannot_be_read_is_no(text, verdict):
    assert judged(text) is verdict


# --- the writer -----------------------------------------------------------------------------------------------------


def under_way(dialect: str = "compact", chunks: int = 2, **rules: object) -> Writer:
    instance = Instance("i", "ar", "ar", "sub_em", ("c",) * chunks, (Question("q", (("a",),)),))
    length = lambda prompt: sum(words(message["content"]) for message in prompt)  # noqa: E731
    return Writer(instance, Rules(**rules), DIALECTS[dialect], words, length)  # type: ignore[arg-type]


def test_the_writer_sees_the_newest_entries_alone_and_reads_each_chunk_once():
    writer = under_way(shown=2)
    writer.act([Call("insert", "semantic", text) for text in ("first", "second", "third")])
    request = writer.ask()
    assert request is not None
    [message] = request.prompt
    assert "first" not in str(message) and "2 second ; 3 third" in str(message)
    writer.act([])
    assert writer.ask() is None


def test_a_prompt_that_is_too_long_shows_fewer_entries_by_halves():
    writer = under_way(shown=5, prompt_tokens=14)
    writer.act([Call("insert", "semantic", f"entry{i}") for i in range(9)])
    request = writer.ask()
    assert request is not None
    content = request.prompt[0]["content"]  # 23 words with 5 entries, 14 with 2
    assert "entry7" in content and "entry8" in content and "entry6" not in content
    assert words(content) <= 14


def test_the_json_prompt_tells_how_many_entries_there_are():
    writer = under_way("json", shown=1)
    writer.act([Call("insert", "semantic", "first"), Call("insert", "semantic", "second")])
    request = writer.ask()
    assert request is not None
    system = request.prompt[0]["content"]
    assert "semantic_memory (1 of 2):\n[n2] second" in system and "first" not in system


def test_a_prompt_does_not_grow_with_the_stream():
    writer, lengths = under_way(chunks=300, shown=3), []
    while (request := writer.ask()) is not None:
        lengths.append(words(request.prompt[0]["content"]))
        writer.act([Call("insert", store, f"entry{len(lengths)} a b") for store in ("semantic", "episodic")])
    assert len(lengths) == 300 and len(set(lengths[3:])) == 1
    assert len(writer.memory.entries("semantic")) == 300

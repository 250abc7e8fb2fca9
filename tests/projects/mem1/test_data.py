"""Tasks: composed as the paper does, searchable, answerable; the worlds of splits apart."""

import json
import random
from dataclasses import replace
from statistics import mean

import pytest

from common.data.text_world.names import split_of
from common.data.text_world.search import oracle_queries
from common.experiments.compose import compose_table
from common.experiments.errors import UserError
from common.experiments.settings import to_settings
from projects.mem1.data import Files, Worlds, compose, read, shown
from projects.mem1.method import observation, state_of
from projects.mem1.scratch import world_tokenizer
from projects.mem1.settings import Questions, TextWorld
from projects.mem1.teachers import HABITS, trajectory

SMALL = TextWorld(worlds=2)


@pytest.fixture(scope="module")
def worlds():
    return Worlds(SMALL, Questions(), "test")


def test_consecutive_rows_make_groups_and_the_remainder_is_dropped():
    assert compose("abcdefg", 3) == [("a", "b", "c"), ("d", "e", "f")]
    assert compose("ab", 3) == []
    with pytest.raises(ValueError, match="at least 1, not 0"):
        compose("ab", 0)


def test_a_task_has_as_many_questions_about_distinct_entities(worlds):
    for objectives in (1, 4, 16):
        [task] = worlds.tasks(objectives, 1, "a")
        assert len(task.questions) == len(task.golds) == objectives
        assert len({q.query.entities for q in task.truth.questions}) == objectives
        assert task.text.count("?") == objectives and task.text.count("; ") == objectives - 1


def test_in_notes_a_question_is_the_entity_and_the_relations_that_lead_from_it():
    for task in Worlds(TextWorld(style="notes", worlds=1), Questions(), "train").tasks(3, 5, "n"):
        for asked, question in zip(task.questions, task.truth.questions, strict=True):
            hops = oracle_queries(question)  # the first names the entity, the last words of each are its relation
            assert asked.startswith(hops[0])
            assert asked == " ".join([hops[0], *(hop.removeprefix(f"{hop.split()[0]} ") for hop in hops[1:])])


def test_the_gold_queries_bring_the_facts_as_passages_with_titles(worlds):
    for task in worlds.tasks(3, 5, "b"):
        said = " ".join(passage for query in task.truth.queries for passage in task.search(query))
        assert all(gold in said for golds in task.golds for gold in golds)
        for query in task.truth.queries:
            found = task.search(query)
            assert 1 <= len(found) <= 3 and all(": " in passage and "\n" not in passage for passage in found)


@pytest.mark.parametrize("style", ["notes", "prose"])
def test_elsewhere_are_as_many_passages_of_the_same_form_without_an_answer(style):
    worlds = Worlds(TextWorld(style=style, worlds=2), Questions(), "test")
    own, others = [], []
    for task in worlds.tasks(4, 6, "c"):
        for query in (*task.truth.queries, "nothing of it"):
            found, beside = task.search(query), task.elsewhere(query)
            assert len(beside) == len(set(beside)) == len(found) and beside == task.elsewhere(query)
            assert not any(gold.lower() in passage.lower() for p in task.golds for gold in p for passage in beside)
            own, others = own + found, others + beside
    assert not set(own) & set(others)
    assert mean(map(len, others)) == pytest.approx(mean(map(len, own)), rel=0.15)
    names = {passage.partition(": ")[0] for passage in own}
    assert len({passage.partition(": ")[0] for passage in others} - names) > 10


def test_elsewhere_in_files_is_what_questions_of_other_tasks_find():
    rows = [{"question": f"q{i}", "answers": [f"a{i}"]} for i in range(6)]
    source = Files(rows, lambda query: [f"{query} has A0", f"{query} says so"])
    for task in source.tasks(2, 3, "a"):
        beside = task.elsewhere("my query")
        assert len(beside) == 2 and beside == task.elsewhere("my query")
        assert not any(own in passage for own in task.questions for passage in beside)
        if ("a0",) in task.golds:
            assert all(passage.endswith("says so") for passage in beside)
    [alone] = Files(rows[:2], lambda query: [query]).tasks(2, 1, "a")
    with pytest.raises(UserError, match="searches of other tasks need a second one"):
        alone.elsewhere("my query")


def test_tasks_are_functions_of_their_seed(worlds):
    def texts(source, seed):
        return [task.text for task in source.tasks(2, 3, seed)]

    assert texts(worlds, "a") == texts(Worlds(SMALL, Questions(), "test"), "a") != texts(worlds, "b")
    assert len(set(texts(worlds, "a"))) == 3


def test_observations_of_the_tiny_scale_are_longer_than_a_state_of_sixteen_questions():
    """Else the peak grows with n as the state does, whatever is pruned."""
    tiny = to_settings("mem1", compose_table("mem1/headline", "tiny").cells(seeds=[0])[0].settings)
    tokenizer, rules = world_tokenizer(tiny.rules.tags), tiny.rules
    worlds = Worlds(replace(tiny.world, worlds=4), tiny.questions, "train")
    tasks = worlds.tasks(16, 4, "a")
    read = [observation(task.search(query), 5, rules.tags) for task in tasks for query in task.truth.queries]
    lengths = [len(tokenizer(text).input_ids) for text in read]
    assert 160 < mean(lengths) < 180
    for task in tasks:
        last = trajectory(random.Random(0), task, rules, HABITS["accumulating"])[-1]
        assert len(tokenizer(state_of(last.text, rules.tags)).input_ids) < mean(lengths)


def test_names_of_test_tasks_are_of_the_test_split():
    for split in ("train", "test"):
        task = Worlds(SMALL, Questions(), split).task(random.Random(1), 4)
        assert {split_of(q.query.entities[0]) for q in task.truth.questions} == {split}


def test_a_world_with_too_few_passages_is_told_in_one_line():
    crowded = Worlds(TextWorld(passages=4, worlds=1), Questions(), "train")
    with pytest.raises(UserError, match="the text world does not fit: 4 passages cannot state all facts"):
        crowded.task(random.Random(0), 1)


def test_a_world_that_is_too_small_is_told_in_one_line():
    tiny = Worlds(TextWorld(people=2, cities=2, companies=2, countries=2, worlds=1), Questions(), "train")
    with pytest.raises(UserError, match="the text world does not fit: count must be at most"):
        tiny.task(random.Random(0), 12)


def test_files_are_grouped_in_their_order_and_sampled():
    rows = [{"question": f"q{i}", "answers": [f"a{i}"]} for i in range(7)]
    source = Files(rows, lambda query: [query])
    tasks = source.tasks(3, 9, "a")
    assert sorted(task.text for task in tasks) == ["q0?; q1?; q2?", "q3?; q4?; q5?"]
    assert {task.golds[0] for task in tasks} == {("a0",), ("a3",)}
    assert [t.text for t in source.tasks(1, 7, "a")] != [t.text for t in source.tasks(1, 7, "b")]


def test_passages_are_cut_and_carry_no_marks_of_a_chat():
    assert shown("T", "one\ntwo <|end|>", 100) == "T: one two < |end|>"
    assert shown("T", "x" * 100, 10) == "T: xxxxxxx"


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows_of(tmp_path):
    def rows(name, *lines):
        (tmp_path / name).write_text("".join(lines))
        return read(tmp_path / name)

    return rows


GOOD = '{"question": "q", "answers": ["a"]}\n'


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [
        ("train.jsonl", "[1]", "question must be a text that is not empty"),
        ("train.jsonl", '{"question": "q"}', "answers must be a list of texts"),
        ("test.jsonl", '{"question": "q", "answers": "Paris"}', "answers must be a list of texts"),
        ("test.jsonl", '{"question": "q", "answers": []}', "answers must be a list of texts"),
        ("test.jsonl", '{"question": "q", "answers": [1990]}', "answers must be a list of texts"),
        ("test.jsonl", '{"question": " ", "answers": ["a"]}', "question must be a text that is not empty"),
    ],
)
def test_a_wrong_line_is_told_with_its_file_and_number(rows_of, name, line, says):
    with pytest.raises(UserError, match=rf"{name}, line 3: {says}"):
        rows_of(name, GOOD, "\n", line)


@pytest.mark.parametrize(
    ("name", "row", "says"),
    [
        ("passages.jsonl", {"id": 1, "title": "", "text": ""}, "id must be a text"),
        ("passages.jsonl", {"id": "1", "title": None, "text": ""}, "title must be a text"),
        ("trajectories.jsonl", {"messages": [], "answer": "a"}, "messages must be a list of messages"),
        ("trajectories.jsonl", {"messages": ["q"], "answer": "a"}, "messages must be a list of messages"),
        ("trajectories.jsonl", {"messages": [{"role": "assistant", "content": ""}], "answer": "a"}, "the user's"),
        ("trajectories.jsonl", {"messages": [{"role": "user", "content": "q"}]}, "answer must be a text"),
    ],
)
def test_each_file_has_rows_of_its_own_kind(rows_of, name, row, says):
    with pytest.raises(UserError, match=says):
        rows_of(name, json.dumps(row))


def test_fewer_questions_than_a_task_has():
    with pytest.raises(UserError, match="1 questions make no task of 2"):
        Files([{"question": "q", "answers": ["a"]}], lambda query: []).tasks(2, 1, "a")

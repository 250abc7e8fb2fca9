"""Tasks: composed as the paper does, searchable, answerable; the worlds of splits apart."""

import random

import pytest

from common.data.text_world.names import split_of
from common.experiments.errors import UserError
from projects.mem1.data import Files, Worlds, compose, shown
from projects.mem1.settings import Questions, TextWorld

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


def test_the_gold_queries_bring_the_facts_as_passages_with_titles(worlds):
    for task in worlds.tasks(3, 5, "b"):
        said = " ".join(passage for query in task.truth.queries for passage in task.search(query))
        assert all(gold in said for golds in task.golds for gold in golds)
        for query in task.truth.queries:
            found = task.search(query)
            assert 1 <= len(found) <= 3 and all(": " in passage and "\n" not in passage for passage in found)


def test_tasks_are_functions_of_their_seed(worlds):
    def texts(source, seed):
        return [task.text for task in source.tasks(2, 3, seed)]

    assert texts(worlds, "a") == texts(Worlds(SMALL, Questions(), "test"), "a") != texts(worlds, "b")
    assert len(set(texts(worlds, "a"))) == 3


def test_names_of_test_tasks_are_of_the_test_split():
    for split in ("train", "test"):
        task = Worlds(SMALL, Questions(), split).task(random.Random(1), 4)
        assert {split_of(q.query.entities[0]) for q in task.truth.questions} == {split}


def test_a_world_that_is_too_small_is_told_in_one_line():
    tiny = Worlds(TextWorld(people=2, cities=2, companies=2, countries=2, worlds=1), Questions(), "train")
    with pytest.raises(UserError, match="the text world is too small: count must be at most"):
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

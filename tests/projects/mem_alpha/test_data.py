"""Families of instances, files, and what the truth of the world says of calls and of evidence."""

import json
import random

import pytest

from common.experiments.errors import UserError
from projects.mem_alpha.data import METRICS, NEUTRAL, Worlds, label, read
from projects.mem_alpha.method import Call, Evidence, Memory, recall
from projects.mem_alpha.prompts import DIALECTS, compact_parse
from projects.mem_alpha.settings import FAMILIES, KEYWORDS, Habits, ReaderTraining, Rules, Settings, Streams
from projects.mem_alpha.teachers import (
    ORACLE,
    PLACEHOLDERS,
    broken,
    calls,
    demonstrated,
    readable,
    reader_lessons,
    valid,
    written,
)

RULES = Rules(k=3)
ROW = {
    "id": "1",
    "family": "ttl",
    "dataset": "trec_c",
    "metric": "label",
    "chunks": ["a label 1"],
    "questions": [{"question": "label of a", "answers": [["1"]]}],
}


def words(text: str) -> int:
    return len(text.split())


def test_one_seed_one_instance_and_splits_share_no_name():
    train, again, test = (Worlds(Streams(), split) for split in ("train", "train", "test"))
    assert train.draw(6, "s", 3) == again.draw(6, "s", 3)
    assert [one.family for one in train.draw(6, "s", 3)].count("ar") == 2
    names = [
        {item.about.split()[0] for chunk in source.one("ar", "s", 9).items for item in chunk if item.about}
        for source in (train, test)
    ]
    assert names[0] and names[1] and not names[0] & names[1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunks", [3, 9])
def test_answers_stand_in_the_stream_and_nowhere_in_the_question(family, chunks):
    instance = Worlds(Streams(), "test").one(family, "s", chunks)
    assert len(instance.chunks) == len(instance.items) == chunks
    assert instance.questions
    stream = " ".join(instance.chunks).split()
    for question in instance.questions:
        for accepted in question.golds:
            assert set(accepted[0].split()) <= set(stream)
            assert accepted[0] not in question.text.split()


def test_the_same_keyword_has_another_label_in_another_instance_and_questions_are_unseen():
    worlds = Worlds(Streams(), "test")
    maps = []
    for seed in "abcd":
        instance = worlds.one("ttl", seed, 3)
        maps.append({item.about: item.says for chunk in instance.items for item in chunk})
        shown = {frozenset(item.text.split()[:2]) for chunk in instance.items for item in chunk}
        for question in instance.questions:
            pair = frozenset(question.text.split()[2:4])
            assert pair not in shown and question.about in pair
    assert any(a[word] != b[word] for a in maps for b in maps for word in a.keys() & b.keys())
    assert not set(KEYWORDS) & set(NEUTRAL)


def test_metrics_are_those_of_the_sets():
    assert METRICS["sub_em"]("It is dertona.", [["Dertona", "x"]]) == 1
    assert METRICS["sub_em"]("x", [["Dertona", "x"]]) == 0  # the first accepted string alone
    assert METRICS["keywords"]("Lamps and ropes", [["lamps"], ["wine"]]) == 0.5
    assert METRICS["label"](r"so \boxed{3}", [["3"]]) == METRICS["label"]("'3'", [["3"]]) == 1
    assert METRICS["label"]("13", [["3"]]) == 0
    assert label("three") == label(r"\boxed{a}") == ""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_oracle_stores_what_every_question_of_a_short_stream_needs(family):
    instance = Worlds(Streams(), "test").one(family, "s", 3)
    memory = written(random.Random(0), instance, RULES, ORACLE, words)
    right = [
        METRICS[instance.metric](readable(instance, question, evidence), question.golds)
        for question, evidence in zip(
            instance.questions, recall(memory, [q.text for q in instance.questions], RULES.k), strict=True
        )
    ]
    assert sum(right) / len(right) >= 0.9
    empty = [readable(instance, question, Evidence()) for question in instance.questions]
    assert set(empty) == {"unknown"}


def test_a_statement_in_the_wrong_store_is_neither_read_nor_valid():
    instance = Worlds(Streams(), "test").one("ar", "s", 3)
    items = [item for chunk in instance.items for item in chunk]
    event = next(item for item in items if item.kind == "event")
    question = next(q for q in instance.questions if q.about == event.about and q.text.startswith("event"))
    assert readable(instance, question, Evidence(episodic=(event.text,))) == event.says
    assert readable(instance, question, Evidence(semantic=(event.text,))) == "unknown"
    assert readable(instance, question, Evidence(core=f"{event.about} {event.says}")) == event.says  # a flat memory
    assert valid(Call("insert", "episodic", event.text), instance)
    assert not valid(Call("insert", "semantic", event.text), instance)


def test_the_scripted_judge_knows_the_truth():
    instance = Worlds(Streams(), "test").one("ar", "s", 3)
    items = [item for chunk in instance.items for item in chunk]
    fact, filler = (next(item for item in items if item.kind == kind) for kind in ("fact", "filler"))
    assert valid(Call("insert", "semantic", fact.text), instance)
    assert valid(Call("update", "semantic", fact.text, "n99"), instance)  # judged though it fails
    for call in (
        Call("insert", "semantic", filler.text),
        Call("insert", "semantic", f"{fact.text} {fact.text}"),
        Call("insert", "semantic", ""),
        Call("insert", "procedural", fact.text),
        Call("delete", "semantic", id="n1"),
        Call("insert", "core", fact.about),
        Call("update", "core", PLACEHOLDERS[0]),
        Call(""),
    ):
        assert not valid(call, instance), call
    assert valid(Call("update", "core", fact.about), instance)


def test_demonstrations_are_imperfect_and_executed_as_they_are_read():
    worlds, habits = Worlds(Streams(), "train"), Habits()
    made = right = called = failed = 0
    for number in range(60):
        instance = worlds.one("ar", str(number), 3)
        memory = Memory(RULES, words)
        for shown in demonstrated(random.Random(number), instance, RULES, habits, words):
            chunk = shown.prompt[0]["content"].partition(" ; chunk ")[2]
            assert shown.prompt == tuple(DIALECTS["compact"].writer(memory, chunk, RULES.shown))
            for call in compact_parse(shown.answer):
                called += 1
                failed += not memory.apply(call)
                made += call.store in ("semantic", "episodic")
                right += call.store in ("semantic", "episodic") and valid(call, instance)
    assert 0.01 < failed / called < 0.08
    assert 0.4 < right / made < 0.7


def test_a_broken_call_is_one_that_fails():
    text, habits = "insert semantic a b ;", Habits(malformed=1.0)
    for seed in range(8):
        [call] = compact_parse(broken(random.Random(seed), text, habits))
        assert not Memory(RULES, words).apply(call)
    assert broken(random.Random(0), text, Habits(malformed=0.0)) == text


def test_a_flat_memory_is_one_paragraph_that_forgets_the_oldest():
    rules = Rules(stores=["core"], core_tokens=12)
    instance = Worlds(Streams(), "test").one("ar", "s", 9)
    memory = written(random.Random(0), instance, rules, ORACLE, words)
    assert 0 < words(memory.core) <= 12
    last = next(item for item in reversed(instance.items[-1]) if item.kind != "filler")
    assert memory.core.endswith(last.text)
    assert all(call.store == "core" for call in calls(random.Random(0), instance.items[0], memory, ORACLE))


def test_files_of_ones_own(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | {"id": "2"}) + "\n")
    files = read(path)
    assert [one.id for one in files.all(1, "s", 3)] == ["1", "2"]
    assert len(files.draw(5, "s", 3)) == 5 and files.draw(5, "s", 3) == files.draw(5, "s", 3)
    assert files.instances[0].questions[0].golds == (("1",),)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"metric": "f1"}, "metric of"),
        ({"chunks": []}, "must not be empty"),
        ({"chunks": [1]}, "must be text"),
        ({"chunks": "abc"}, "line 1: no instance: TypeError: a list was expected, not 'abc'$"),
        ({"questions": [{"question": "a", "answers": ["Paris"]}]}, "a list was expected, not 'Paris'$"),
        ({"questions": [{"question": "a", "answers": "Paris"}]}, "a list was expected, not 'Paris'$"),
        ({"questions": [{"question": "a"}]}, "KeyError: 'answers'"),
        ({"questions": [{"question": "a", "answers": []}]}, "must not be empty"),
    ],
)
def test_a_broken_file_is_one_line(change, says, tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(ROW | change) + "\n")
    with pytest.raises(UserError, match=says):
        read(path)


def test_lessons_of_the_reader_are_mostly_answerable_and_right():
    settings = Settings(reading=ReaderTraining(80, [1, 3]))
    lessons = reader_lessons(settings, words)
    assert len(lessons) == 80 and lessons == reader_lessons(settings, words)
    assert {shown.source for shown in lessons} == set(FAMILIES)
    unknown = [shown for shown in lessons if shown.answer == "unknown"]
    assert 0 < len(unknown) < 0.35 * len(lessons)
    for shown in lessons:
        if shown.answer != "unknown":
            assert set(shown.answer.split()) <= set(shown.prompt[0]["content"].split())

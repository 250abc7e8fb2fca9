"""The streams: who is in which split, what was updated, spans, real sets and the files that a user brings."""

import random
import re
from dataclasses import replace

import pytest

from common.data import squad, squad_full
from common.data.text_world.names import split_of
from common.experiments.context import VALIDATION_SEED, Context
from common.experiments.errors import UserError
from common.models.microlm.skills import taught_world
from projects.cmt import data as sets
from projects.cmt.data import (
    BROUGHT,
    KNOWN,
    Document,
    Question,
    asked,
    digests,
    known_people,
    load_draw,
    load_streams,
    salient_spans,
)
from projects.cmt.run import streams_of
from projects.cmt.settings import Data

SMALL = Data(documents=60, validation=20, known=10, old=30)
PEOPLE = set(taught_world().entities["person"])


def everyone(documents):
    return {word.strip("?.|") for d in documents for q in d.questions for word in q.text.split()}


@pytest.mark.parametrize("style", ["notes", "prose"])
def test_splits_share_no_entity_and_updates_contradict_what_the_model_knows(style):
    streams = load_streams(Data(**{**vars(SMALL), "name": style}), 0, None)
    drawn = [d for i in range(20) for d in load_draw(Data(train=[style]), None)(random.Random(i), 24)]
    parts = [everyone(part) for part in (drawn, streams.validation, streams.test)]
    for i, split in enumerate(KNOWN):
        known = set(known_people(split))
        assert len(known) == KNOWN[split] and known & parts[i] and not (known & (parts[i - 1] | parts[i - 2]))
    assert len(streams.test) == len({d.text for d in streams.test}) == 60
    updated = [q for d in streams.test for q in d.questions if q.kind == "updated"]
    assert len(updated) >= 10 * 3
    world = taught_world()
    for document in streams.test:
        for question in document.questions:
            assert any(document.text[a:b].lower() == question.answers[0].lower() for a, b in document.spans)
            person = next((p for p in PEOPLE if p in question.text.replace("?", "").split()), None)
            assert (person is not None) == (question.kind == "updated")
            if person:
                [relation] = [
                    name
                    for name in sets.TOLD
                    if any(text.format(s=person) == question.text for text in sets.RELATIONS[name].questions)
                ]
                assert question.answers[0] not in world.current(person, relation)
    assert not everyone([Document("", streams.old)]) & set(known_people("test"))


def test_new_names_are_of_their_split_and_the_same_seed_gives_the_same_stream():
    first, again, other = (load_streams(SMALL, seed, None) for seed in (0, 0, 1))
    assert (first.test, first.validation, first.old) == (again.test, again.validation, again.old)
    assert first.test != other.test
    for part, split in ((first.test, "test"), (first.validation, "validation")):
        heads = {d.text.split(" ", 1)[0] for d in part}
        assert all(split_of(name) == split for name in heads - PEOPLE)


@pytest.mark.parametrize(("documents", "known"), [(60, 10), (60, 20)])
def test_sweeps_read_a_validation_stream_as_long_as_the_test_stream(documents, known, tmp_path):
    swept = Context(seed=VALIDATION_SEED, folder=tmp_path)
    streams = streams_of(replace(SMALL, documents=documents, known=known), swept)
    heads = {d.text.split(" ", 1)[0] for d in streams.test}
    assert len(heads) == len(streams.test) == documents
    assert {split_of(name) for name in heads - PEOPLE} == {"validation"}
    assert heads & PEOPLE <= set(known_people("validation"))
    assert streams_of(SMALL, replace(swept, seed=0)).test == load_streams(SMALL, 0, None).test


def words(text):
    return set(re.findall(r"\w+", text))


@pytest.mark.parametrize("seed", range(4))
def test_no_document_names_the_person_of_another_one(seed):
    stream = load_streams(Data(name="prose", questions=0), seed, None).test
    drawn = load_draw(Data(), None)(random.Random(seed), 128)
    templates = words(" ".join(text for r in sets.RELATIONS.values() for text in r.questions))
    for documents in (stream, drawn):
        people = [words(d.questions[0].text) - templates for d in documents]
        assert len(set.union(*people)) == len(documents) == sum(map(len, people))
        for document, person in zip(documents, people, strict=True):
            assert words(document.text) & set.union(*people) == person


def test_both_styles_are_drawn_in_equal_shares_and_spouses_make_answers_of_several_words():
    documents = load_draw(SMALL, None)(random.Random(0), 24)
    assert sum("|" in d.text for d in documents) == 12
    prose = load_draw(Data(train=["prose"]), None)(random.Random(1), 60)
    assert any(" the " in q.target for d in prose for q in d.questions)


def test_few_questions_are_kept_of_new_documents_and_all_of_updated_ones():
    new = Document("a", tuple(Question(str(i), ("x",)) for i in range(4)))
    old = Document("b", tuple(Question(str(i), ("x",), "updated") for i in range(4)))
    kept = asked(random.Random(0), [new, old], 2)
    assert [len(d.questions) for d in kept] == [2, 4]
    assert [len(d.questions) for d in asked(random.Random(0), [new, old], 0)] == [4, 4]


def test_the_target_is_the_shortest_answer_and_salient_spans_are_names_and_numbers():
    assert Question("q", ("Oslo city", "Oslo", "Rome")).target == "Oslo"
    text = "Then Ada King moved to Oslo. She paid 1,200 crowns in 1850."
    assert [text[a:b] for a, b in salient_spans(text)] == ["Ada King", "Oslo", "1,200", "1850"]


def paragraphs(titles, each):
    return [
        squad.Paragraph(
            f"T{t}",
            f"Text {t} {i} of Oslo.",
            (squad.Question("", f"Q {t} {i}?", (squad.Answer("oslo", 0), squad.Answer("text of oslo", 0))),),
        )
        for t in range(titles)
        for i in range(each)
    ]


def test_the_sample_of_squad_is_divided_by_article(monkeypatch):
    monkeypatch.setattr(squad, "load", lambda folder: paragraphs(48, 5))
    name = Data(name="squad_sample", train=[], documents=0, validation=0, questions=0)
    streams = load_streams(name, 0, None)
    drawn = load_draw(name, None)(random.Random(0), 170)
    parts = [{d.text.split()[1] for d in part} for part in (drawn, streams.validation, streams.test)]
    assert [len(part) for part in parts] == [34, 4, 10] and len(set.union(*parts)) == 48
    assert len(streams.test) == 50 and streams.test != load_streams(name, 1, None).test
    assert {d.text for d in streams.test} == {d.text for d in load_streams(name, 1, None).test}
    assert streams.test[0].questions[0].answers == ("Oslo", "Text of oslo")
    order = [d.text.split()[1] for d in streams.test]
    assert order == sorted(order, key=order.index)  # articles stay together
    with pytest.raises(UserError, match="batch of 171 documents"):
        load_draw(name, None)(random.Random(0), 171)


def test_squad_takes_macs_rows_each_paragraph_once(monkeypatch):
    seen = {}

    class Rows(list):
        def __getitem__(self, index):
            if isinstance(index, slice):
                seen[index.start, index.stop] = True
                return [squad_full.Row(f"t{i // 4}", f"c{i // 2}", f"q{i}", ("a",)) for i in range(8)]
            return super().__getitem__(index)

    rows = [squad_full.Row("t", f"c{i // 2}", f"q{i}", ("b",)) for i in range(6)]
    monkeypatch.setattr(squad_full, "load", lambda folder, split: Rows() if split == "train" else rows)
    streams = load_streams(Data(name="squad", documents=0, validation=0, questions=0), 0, None)
    assert set(seen) == {(42118, 82011), (82011, 87599)}
    assert [len(d.questions) for d in streams.test] == [2, 2, 2] and len(streams.validation) == 4


def test_files_of_the_user_are_read_in_macs_format_or_asked_for_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"data set 'streamingqa': no train\.csv in .* jihoontack/MAC"):
        load_streams(Data(name="streamingqa"), 0, tmp_path)
    for split in ("train", "validation", "test"):
        for name, text in (
            ("streamingqa", "question,answers,text\nWho?,a long one\\Ada,News.\nWhere?,Oslo,News.\n"),
            ("archivalqa", "question,answer,ans_paragraph,doc_id,para_num\nB?,bo,two,d1,10\nA?,ada,one,d1,9\n"),
        ):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{split}.csv").write_text(text)
    whole = {"documents": 0, "validation": 0, "questions": 0}
    [news] = load_streams(Data(name="streamingqa", **whole), 0, tmp_path).test
    assert [q.answers for q in news.questions] == [("a long one", "Ada"), ("Oslo",)]
    first, second = load_streams(Data(name="archivalqa", **whole), 0, tmp_path).test
    assert (first.text, second.text) == ("one", "two")  # in order of paragraphs
    assert first.questions[0].target == "Ada"
    both = Data(name="streamingqa", train=["archivalqa", "notes"])
    before = digests(both, tmp_path)
    assert set(before) == {f"{name}/{split}" for name in BROUGHT for split in ("train", "validation")}
    with (tmp_path / "archivalqa" / "train.csv").open("a") as file:
        file.write("C?,cy,three,d1,11\n")
    assert [name for name, now in digests(both, tmp_path).items() if now != before[name]] == ["archivalqa/train"]
    assert digests(Data(), None) == {}
    (tmp_path / "archivalqa" / "test.csv").write_text("question,answer\n")
    with pytest.raises(UserError, match="has no column 'ans_paragraph'"):
        load_streams(Data(name="archivalqa"), 0, tmp_path)


def test_unknown_sets_and_impossible_numbers_are_one_line():
    with pytest.raises(UserError, match=r"unknown data\.name 'note'; did you mean 'notes'"):
        load_streams(Data(name="note"), 0, None)
    with pytest.raises(UserError, match=r"unknown data\.train 'pros'; did you mean 'prose'"):
        load_draw(Data(train=["pros"]), None)
    with pytest.raises(UserError, match=r"data\.known must be at most 24, not 30"):
        load_streams(Data(known=30), 0, None)

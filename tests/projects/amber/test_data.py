"""Question sets: the evidence is true, worlds do not leak, and retrieval leaves the gap that the collector lives on."""

import random
import re

import pytest

from common.data.text_world.names import split_of
from common.data.text_world.world import short_name
from common.experiments.context import VALIDATION_SEED, Context
from common.experiments.errors import UserError
from projects.amber import data
from projects.amber.answering import question_set
from projects.amber.data import SETS, Asked, Hop, library, load, rivals, text_world_set
from projects.amber.measures import recalls
from projects.amber.settings import SOURCES, Loop, Questions, Settings, TextWorld
from projects.amber.teachers import search_of

DIALS = TextWorld()


@pytest.fixture(scope="module")
def sets():
    return {name: text_world_set(DIALS, name, "test", 0, 20) for name in SETS}


@pytest.mark.parametrize("name", list(SETS))
def test_every_hop_is_stated_where_it_says_and_the_note_holds_the_answer(sets, name):
    one = sets[name]
    assert len({asked.text for asked in one.questions}) == 20
    for asked in one.questions:
        for hop in asked.hops:
            assert hop.places
            assert all(sentence in one.corpus.sentences[passage] for passage, sentence in hop.places)
            subject, _, value = hop.note.split(" | ")
            assert all(subject in text and value.lower() in text.lower() for _, text in hop.places)
        last = [hop.note.split(" | ")[2] for hop in asked.hops]
        if asked.answer not in ("yes", "no") and name != "2wiki":
            assert {accepted[0] for accepted in asked.golds} <= set(last)


def test_chains_link_and_sets_are_what_they_say(sets):
    for asked in sets["hotpotqa"].questions:
        assert 2 <= len(asked.hops) <= 3
        for before, after in zip(asked.hops, asked.hops[1:], strict=False):
            assert after.query.startswith(before.note.split(" | ")[2])
    assert all(len(asked.hops) == 1 for name in ("squad", "nq", "triviaqa") for asked in sets[name].questions)
    assert all(2 <= len(asked.golds) <= 4 for asked in sets["asqa"].questions)
    assert {asked.chain for asked in sets["2wiki"].questions} == {True, False}


def test_squad_shares_words_with_its_evidence_and_nq_does_not(sets):
    def overlap(asked):
        words = set(re.findall(r"\b[a-z]{4,}\b", asked.text)) - {"what", "which", "where", "whom", "does", "most"}
        return any(words & set(re.findall(r"\b[a-z]{4,}\b", text)) for hop in asked.hops for _, text in hop.places)

    assert sum(overlap(asked) for asked in sets["squad"].questions) >= 18  # words of three letters count there too
    assert not any(overlap(asked) for asked in sets["nq"].questions)


def test_equal_arguments_give_equal_sets_and_seeds_differ(sets):
    library.cache_clear()
    assert text_world_set(DIALS, "hotpotqa", "test", 0, 20) == sets["hotpotqa"]
    assert text_world_set(DIALS, "hotpotqa", "test", 1, 20) != sets["hotpotqa"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_worlds_of_the_splits_share_no_name(split):
    world = library(DIALS, split, 0).world
    assert {split_of(short_name(e)) for entities in world.entities.values() for e in entities} == {split}


def test_retrieval_finds_the_first_hop_and_the_second_only_by_the_right_query():
    """Dossier, section 7, with BM25 on validation worlds; bands widened by two standard errors of 3 x 6 x 20."""
    pairs = []
    for seed in range(3):
        for name in SETS:
            one = text_world_set(DIALS, name, "validation", seed, 20)
            pairs.append((one, search_of(one.corpus, Loop())))
    found = recalls(pairs, Loop().k)
    assert 0.80 < found["recall_first"] < 0.98
    assert found["recall_blind"] < 0.3
    assert found["recall_right"] > 0.85


def test_a_memory_learns_a_chain_only_as_far_as_it_reaches():
    hops = tuple(Hop(((f"p{i}", f"Fact {i}."),), "", f"note {i}") for i in range(3))
    chain = Asked("1", "?", (("x",),), hops, True)
    assert chain.learnt([], "Fact 0. Fact 1.") == ["note 0", "note 1"]
    assert chain.learnt([], "Fact 1. Fact 2.") == []
    assert chain.learnt(["note 0"], "Fact 1.") == ["note 1"]
    aside = Asked("1", "?", (("x",),), hops, False)
    assert aside.learnt([], "Fact 1. Fact 2.") == ["note 1", "note 2"]


def test_rivals_are_of_the_same_relation():
    world = library(DIALS, "train", 0).world
    rng = random.Random(3)
    asked = next(a for _ in range(99) if (a := library(DIALS, "train", 0).draw(rng, "squad")))
    note = asked.hops[0].note
    near = rivals(world, note)
    assert near
    assert note not in near
    assert {other.split(" | ")[1] for other in near} == {note.split(" | ")[1]}


def test_mistakes_name_the_nearest():
    with pytest.raises(UserError, match="did you mean 'hotpotqa'"):
        load(Questions(), DIALS, "hotpot", "test", 0, None)
    with pytest.raises(UserError, match="did you mean 'musique'"):
        load(Questions(source="mirror"), DIALS, "musiqu", "test", 0, None)
    with pytest.raises(UserError, match="did you mean 'mirror'"):
        load(Questions(source="miror"), DIALS, "musique", "test", 0, None)
    with pytest.raises(UserError, match="make it larger"):
        text_world_set(TextWorld(people=2, cities=2, companies=2, countries=2), "asqa", "test", 0, 20)


def test_each_source_is_read_by_its_own_loader_and_there_is_no_other(monkeypatch):
    read = []

    def loader(name):
        return lambda *_: read.append(name) or data.QuestionSet(name, (), data.Corpus({}))

    monkeypatch.setattr(data, "text_world_set", loader("text world"))
    monkeypatch.setitem(data.MIRROR, "hotpotqa", loader("mirror"))
    monkeypatch.setattr(data, "_files", loader("files"))
    for source in SOURCES:
        load(Questions(source=source), DIALS, "hotpotqa", "test", 0, None)
    assert dict(zip(SOURCES, read, strict=True)) == {"text_world": "text world", "mirror": "mirror", "jsonl": "files"}
    with pytest.raises(UserError, match=r"questions\.source"):
        Questions(source="another")


def test_a_set_of_files_is_read_from_the_mirror(tmp_path):
    with pytest.raises(UserError, match="REPRO_DATA"):
        load(Questions(source="jsonl"), DIALS, "one", "test", 0, None)
    with pytest.raises(UserError, match=r"questions\.jsonl is missing"):
        load(Questions(source="jsonl", folder="mine"), DIALS, "one", "test", 0, tmp_path)
    folder = tmp_path / "mine"
    (folder / "one").mkdir(parents=True)
    (folder / "one" / "questions.jsonl").write_text('{"id": "1", "question": "Who?", "answers": [["Ada", "A."]]}\n')
    (folder / "passages.jsonl").write_text('{"id": "p", "text": "Ada did. Bo did not."}\n')
    one = load(Questions(source="jsonl", folder="mine"), DIALS, "one", "test", 0, tmp_path)
    assert one.questions[0].golds == (("Ada", "A."),)
    assert one.corpus.sentences["p"] == ("Ada did.", "Bo did not.")
    (folder / "one" / "validation.jsonl").write_text('{"id": "2", "question": "Who not?", "answers": [["Bo"]]}\n')
    held = load(Questions(source="jsonl", folder="mine"), DIALS, "one", "validation", 0, tmp_path)
    assert [question.id for question in held.questions] == ["2"] and held.corpus == one.corpus
    for line, says in (
        ('{"id": "1", "question": "Who?", "answers": "Ada"}', "line 1: answers must be a list of lists"),
        ('{"id": "1", "question": "Who?"}', "line 1: no question: KeyError: 'answers'"),
        ("{", "line 1: no JSON"),
    ):
        (folder / "one" / "questions.jsonl").write_text(line)
        with pytest.raises(UserError, match=says):
            load(Questions(source="jsonl", folder="mine"), DIALS, "one", "test", 0, tmp_path)


def test_sweeps_ask_about_validation_worlds_and_files(tmp_path):
    swept = Context(seed=VALIDATION_SEED, folder=tmp_path, data=tmp_path)
    settings = Settings(questions=Questions(count=5), world=DIALS)
    found = question_set(settings, swept, "nq")
    assert found == load(settings.questions, DIALS, "nq", "validation", swept.seed, None)
    names = {word.strip("?'s.") for one in found.questions for word in one.text.split()[1:] if word[0].isupper()}
    assert names and {split_of(name) for name in names} == {"validation"}
    with pytest.raises(UserError, match=r"one/validation\.jsonl is missing"):
        load(Questions(source="jsonl", folder="mine"), DIALS, "one", "validation", swept.seed, tmp_path)
    with pytest.raises(UserError, match="'musique' of the mirror has no validation questions"):
        load(Questions(source="mirror"), DIALS, "musique", "validation", swept.seed, None)

"""The base skills: gold answers hold by means of their own, and held-out items name nothing of training."""

import json
import random
import re

import pytest

from common.data.text_world.names import TYPES, split_of, type_of
from common.data.text_world.relations import CLOSED, RELATIONS
from common.models.microlm.evaluate import held_out_items
from common.models.microlm.skills import SKILLS, UNKNOWN, Item, Level, draw, draw_world, taught_world

LISTED = {word for words in CLOSED.values() for word in (*words, *map(str.capitalize, words))}
NAME = re.compile(r"\b[A-Z][a-z]{2}(?:[a-z]{2}){0,2}[a-z]{2,6}\b")


def names_in(text: str) -> set[str]:
    found = set()
    for word in set(NAME.findall(text)) - LISTED:
        try:
            type_of(word)
        except ValueError:
            continue
        found.add(word)
    return found


def items(skill: str, count: int = 40, level: Level | None = None) -> list[Item]:
    return held_out_items("tests", "validation", skill, level or Level(), count)


@pytest.mark.parametrize("skill", [skill for skill in SKILLS if skill != "closed_book"])
def test_held_out_items_name_no_entity_of_training(skill: str) -> None:
    entities = dict.fromkeys(TYPES, 0)
    for item in items(skill, 12):
        for name in names_in(" ".join(text for turn in item.turns for text in turn)):
            assert split_of(name) == "validation", name
            entities[type_of(name)] += 1
    assert (sum(entities.values()) == 0) == (skill == "summarise")  # the pattern finds names


@pytest.mark.parametrize("skill", list(SKILLS))
def test_the_same_seed_gives_the_same_items(skill: str) -> None:
    assert items(skill, 6) == items(skill, 6)
    assert items(skill, 6) != held_out_items("other", "validation", skill, Level(), 6)


def passages_of(item: Item) -> str:
    return item.turns[0][0].rsplit("Question:", 1)[0]


def test_answers_that_are_read_stand_in_the_passages() -> None:
    for item in items("read", 60):
        assert item.answer.lower() in passages_of(item).lower()


def test_passages_of_an_unknown_answer_lack_a_link() -> None:
    """Every one-hop `unknown` question asks an attribute that no sentence about its entity states."""
    for item in items("unknown", 60, Level(passages=(4,), hops=(1,))):
        asked = item.turns[0][0].rsplit("Question: ", 1)[1]
        for relation in RELATIONS.values():
            for question in relation.questions:
                match = re.fullmatch(re.escape(question).replace(r"\{s\}", "(.+)"), asked)
                if not match:
                    continue
                for template in (*relation.statements, *relation.changes):
                    pattern = re.escape(template).replace(r"\{s\}", re.escape(match[1])).replace(r"\{d\}", r"\d+")
                    pattern = pattern.replace(r"\{o\}", r"[\w ]+?")
                    assert not re.search(rf"(?:^|[\].] ){pattern}", passages_of(item), re.IGNORECASE), (item, template)


def filled(template: str, **groups: str) -> re.Pattern[str]:
    """Matches what a template may say; `groups`: what may stand in its places."""
    pattern = re.escape(template).replace(r"\{d\}", r"\d+")
    for name, group in groups.items():
        pattern = pattern.replace(rf"\{{{name}\}}", group)
    return re.compile(pattern, re.IGNORECASE)


def stated(text: str) -> dict[tuple[str, str], set[str]]:
    """(subject, relation) -> objects, by the templates of the text world; of two that fit, the longer."""
    found: dict[tuple[str, str], set[str]] = {}
    templates = [(t, r) for r in RELATIONS.values() for t in (*r.statements, *r.changes)]
    templates.sort(key=lambda pair: -len(pair[0]))
    patterns = [(filled(t, s=r"(?P<s>[\w ]+)", o=r"(?P<o>[\w ]+)"), r) for t, r in templates]
    for sentence in re.split(r"(?<=\.)\s+(?:\[\d+\] )?", text.partition("[1] ")[2]):
        for pattern, relation in patterns:
            if match := pattern.fullmatch(sentence):
                found.setdefault((match["s"], relation.name), set()).add(match["o"].lower())
                break
    return found


def test_follow_ups_of_two_hops_are_answered_by_the_text_alone() -> None:
    checked, unknown = 0, 0
    single = [r for r in RELATIONS.values() if not (r.multi or r.symmetric)]
    chains = [
        (filled(question.format(s=phrase), s=r"(?P<s>[\w ]+)"), first.name, then.name)
        for first in single
        for then in single
        if first.object == then.subject
        for phrase in first.phrases
        for question in then.questions
    ]
    for item in items("read", 80, Level(passages=(6,), hops=(1,), turns=12)):
        known = stated(passages_of(item))
        for asked, answer in item.turns[1:]:
            for pattern, first, then in chains:
                match = pattern.fullmatch(asked.removeprefix("Question: "))
                middle = known.get((match["s"], first), set()) if match else set()
                last = {
                    o for (s, relation), os in known.items() if s.lower() in middle and relation == then for o in os
                }
                if match and len(middle) == 1 and len(last) < 2:
                    assert {answer.lower()} == (last or {UNKNOWN}), (asked, answer)
                    checked += 1
                    unknown += not last
    assert checked > 40
    assert 0.05 * checked < unknown < 0.7 * checked


def asked_of(question: str) -> tuple[str, str] | None:
    """(entity, relation) of a question of one hop, unless its relation is symmetric."""
    for relation in RELATIONS.values():
        for template in relation.questions:
            match = filled(template, s=r"(?P<s>[\w ]+)").fullmatch(question)
            if match and not relation.symmetric:
                return match["s"], relation.name
    return None


def test_further_passages_under_one_question_are_judged_by_the_same_fact() -> None:
    checked: dict[str, int] = {}
    for item in (*items("relevance", 40, Level(turns=8, hops=(1,))), *items("extract", 40, Level(turns=8, hops=(1,)))):
        wanted = asked_of(item.turns[0][0].split("Question: ")[1].split("\n")[0])
        for shown, answer in item.turns[1:] if wanted else ():
            passage = shown.removeprefix("Passage: ")
            states = wanted in stated(f"[1] {passage}")
            if item.skill == "relevance":
                assert (answer == "yes") == states, (wanted, passage)
            else:
                assert (answer != "none") == states, (wanted, passage)
                assert not states or wanted in stated(f"[1] {answer}"), (wanted, passage, answer)
            checked[answer] = checked.get(answer, 0) + 1
    assert min(checked["yes"], checked["no"], checked["none"], sum(checked.values()) // 4) > 15


def test_one_turn_asks_once() -> None:
    assert all(
        len(item.turns) == 1 for skill in ("read", "unknown", "relevance", "extract") for item in items(skill, 8)
    )


def test_extracted_sentences_are_copied() -> None:
    found = items("extract", 60)
    for item in found:
        assert item.answer == "none" or item.answer in item.turns[0][0].split("Passage: ")[1]
    assert 0.05 < sum(item.answer == "none" for item in found) / 60 < 0.45


def test_yes_and_no_are_about_as_frequent() -> None:
    for skill in ("relevance", "sufficient"):
        share = sum(item.answer == "yes" for item in items(skill, 120)) / 120
        assert 0.35 < share < 0.65, (skill, share)


def test_tool_calls_are_json_of_known_tools() -> None:
    for item in items("tool_call", 40):
        call = json.loads(item.answer.removeprefix("<tool_call>").removesuffix("</tool_call>"))
        assert call["name"] in item.turns[0][0].splitlines()[0]


def test_a_review_names_a_line_that_the_repair_mends() -> None:
    for item in items("repair", 40):
        prompt = item.turns[0][0]
        draft = prompt.split("Notes:\n")[1].split("\nReview:")[0].splitlines()
        fault, _, line = prompt.rsplit("Review: ", 1)[1].partition(": ")
        gold = item.answer.splitlines()
        expected = {
            "correct": sorted(draft),
            "missing": sorted([*draft, line]) if draft != ["none"] else [line],
        }
        if fault in expected:
            assert sorted(gold) == expected[fault]
        else:
            assert line in draft
            assert line not in gold


def test_update_items_change_or_defend_a_line() -> None:
    changed = 0
    for item in items("update", 40):
        before = item.turns[0][0].split("Notes:\n")[1].split("\nText: ")[0].splitlines()
        after = item.answer.splitlines()
        assert len(after) >= len(before)
        changed += after[: len(before)] != before
    assert 15 < changed < 40  # an old state that comes late changes nothing


def test_a_world_without_such_items_is_said() -> None:
    world = draw_world(random.Random(0), "train", Level())
    still = type(world)(world.split, world.entities, {k: v[:1] for k, v in world.facts.items()})
    with pytest.raises(RuntimeError, match="no item of skill 'update'"):
        draw(random.Random(0), "update", still, Level())


def test_taught_facts_do_not_change_and_unknown_is_no_name() -> None:
    assert all(
        len(facts) == 1 or facts[0].relation in ("friend", "speaks", "makes") for facts in taught_world().facts.values()
    )
    assert UNKNOWN not in taught_world().entities["person"]

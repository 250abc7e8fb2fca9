"""The skill table: what a language model can do of MicroLM's base skills, on worlds that no training saw.

Skills, reading by passages and hops, and three controls: the text withheld, facts of the taught world contradicted by
the text, and unseen facts asked without a text.
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from scipy.stats import binomtest

from common.data.text_world.names import Split
from common.data.text_world.questions import UNKNOWN
from common.data.text_world.world import Fact, World
from common.models.language_model import LanguageModel, Sampling
from common.models.microlm.evaluate import held_out_items
from common.models.microlm.skills import READ, SKILLS, Item, Level, draw, taught_world

WEIGHTS = Path(__file__).parent / "weights"
PASSAGES = (2, 4, 8, 16)
HOPS = (1, 2, 3)
GREEDY = Sampling(max_tokens=160)


@dataclass(frozen=True)
class Row:
    """One line of the table: `right` of `count` items."""

    part: str
    name: str
    right: int
    count: int
    target: float | None = None

    @property
    def share(self) -> float:
        return self.right / self.count

    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the share."""
        found = binomtest(self.right, self.count).proportion_ci(0.95, "wilson")
        return float(found.low), float(found.high)


# Names of the skills in the table, and the share that the shipped weights were made to reach.
TARGETS = {
    "unknown": 0.85,
    "relevance": 0.95,
    "extract": 0.90,
    "update": 0.90,
    "merge": 0.90,
}
READING_TARGETS = {1: 0.95, 2: 0.85}


def is_right(item: Item, text: str) -> bool:
    """Whether a text is the gold answer: exactly, or for a list in any order."""
    if item.either:
        return sorted(part.strip() for part in text.split(";")) == sorted(item.answer.split("; "))
    return text.strip() == item.answer


def count_right(lm: LanguageModel, items: Sequence[Item], purpose: str) -> int:
    """How many items the model answers right, greedily."""
    completions = lm.generate([item.prompt for item in items], GREEDY, purpose)
    return sum(is_right(item, done.text) for item, done in zip(items, completions, strict=True))


def skill_table(
    lm: LanguageModel,
    count: int = 100,
    seed: int | str = "report",
    split: Split = "test",
    say: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Measure every skill on `count` fresh items each, the cells of the reading grid on half as many."""
    rows: list[Row] = []

    def add(part: str, name: str, right: int, of: int, target: float | None = None) -> None:
        rows.append(Row(part, name, right, of, target))
        say(rows[-1])

    for skill in SKILLS:
        items = held_out_items(seed, split, skill, Level(), count)
        add("skills", skill, count_right(lm, items, skill), len(items), TARGETS.get(skill))
    half = max(1, count // 2)
    for hops in HOPS:
        for passages in PASSAGES:
            level = Level(passages=(max(passages, hops),), hops=(hops,))
            items = held_out_items(seed, split, "read", level, half)
            target = READING_TARGETS.get(hops)
            add("reading", f"{hops} hops, {level.passages[0]} passages", count_right(lm, items, "read"), half, target)
    for name, right, of in controls(lm, seed, split, count):
        add("controls", name, right, of)
    return rows


def controls(lm: LanguageModel, seed: int | str, split: Split, count: int) -> Iterable[tuple[str, int, int]]:
    """(what, answers of that kind, questions)."""
    reading = held_out_items(seed, split, "read", Level(hops=(1,)), count)
    withheld = [replace(item, turns=((_without_text(item), item.answer),)) for item in reading]
    yield "passages withheld: right", count_right(lm, withheld, "withheld"), count
    yield "passages withheld: says unknown", _share_of(lm, withheld, lambda item: UNKNOWN), count

    rng = random.Random(f"contradiction/{seed}")
    changed, memorised = contradiction(rng, count)
    yield "taught fact contradicted by the text: follows the text", count_right(lm, changed, "contradicted"), count
    kept = _share_of(lm, changed, lambda item: memorised[item.turns])
    yield "taught fact contradicted by the text: follows memory", kept, count

    unseen = [draw(rng, "closed_book", world, Level()) for world in _test_worlds(seed, split, count)]
    texts = [done.text for done in lm.generate([item.prompt for item in unseen], GREEDY, "unseen")]
    right = sum(is_right(item, text) for item, text in zip(unseen, texts, strict=True))
    shuffled = texts[1:] + texts[:1]  # the answer to another question: what is right by chance
    chance = sum(is_right(item, text) for item, text in zip(unseen, shuffled, strict=True))
    yield "unseen fact without a text: right", right, count
    yield "unseen fact without a text: another question's answer is right", chance, count


def contradiction(rng: random.Random, count: int) -> tuple[list[Item], dict[tuple[tuple[str, str], ...], str]]:
    """Reading items whose text contradicts what was taught, and the taught answer to each."""
    taught = taught_world()
    items: list[Item] = []
    memorised: dict[tuple[tuple[str, str], ...], str] = {}
    while len(items) < count:
        item = draw(rng, "read", shuffled_facts(rng, taught), Level(passages=(2, 4, 8), hops=(1,)))
        answer = _taught_answer(taught, item)
        if answer is not None and answer != item.answer:
            items.append(item)
            memorised[item.turns] = answer
    return items, memorised


def shuffled_facts(rng: random.Random, world: World) -> World:
    """The same entities and relations, with the objects of each functional relation dealt anew among its subjects."""
    facts: dict[tuple[str, str], list[Fact]] = {}
    for relation in dict.fromkeys(relation for _, relation in world.facts):
        subjects = [entity for entity, r in world.facts if r == relation]
        own = [world.facts[entity, relation] for entity in subjects]
        if any(len(stated) > 1 or stated[0].subject != entity for entity, stated in zip(subjects, own, strict=True)):
            continue  # several objects, or symmetric
        objects = [stated[0].object for stated in own]
        rng.shuffle(objects)
        for entity, value in zip(subjects, objects, strict=True):
            facts[entity, relation] = [Fact(entity, relation, value)]
    return World(world.split, world.entities, facts)


def _taught_answer(taught: World, item: Item) -> str | None:
    """What the taught world answers to the one-hop question of an item."""
    from common.data.text_world.relations import BY_SUBJECT
    from common.data.text_world.world import kind_of

    asked = item.turns[-1][0].rsplit("Question: ", 1)[1]
    for entity, relation in taught.facts:
        for known in BY_SUBJECT[kind_of(entity)]:
            if known.name == relation and asked in {q.format(s=entity) for q in known.questions}:
                return taught.current(entity, relation)[0]
    return None


def _without_text(item: Item) -> str:
    return READ.format(passages="", question=item.turns[-1][0].rsplit("Question: ", 1)[1])


def _share_of(lm: LanguageModel, items: Sequence[Item], wanted: Callable[[Item], str]) -> int:
    completions = lm.generate([item.prompt for item in items], GREEDY, "control")
    return sum(done.text.strip() == wanted(item) for item, done in zip(items, completions, strict=True))


def _test_worlds(seed: int | str, split: Split, count: int) -> list[World]:
    from common.models.microlm.skills import draw_world

    rng = random.Random(f"unseen/{seed}")
    return [draw_world(rng, split, Level()) for _ in range(count)]


def markdown(rows: Sequence[Row], title: str, notes: Sequence[str], shipped: Mapping[str, float] | None = None) -> str:
    """The table as a page.

    Args:
        notes: paragraphs above it.
        shipped: row name -> share that the shipped weights reach, for a column beside another model's.
    """
    beside = " shipped |" if shipped else ""
    lines = [f"# {title}", *(line for note in notes for line in ("", note))]
    for part in dict.fromkeys(row.part for row in rows):
        lines += ["", f"## {part.capitalize()}", ""]
        lines += [f"| | right | 95% interval | items | target |{beside}", "|---" * (5 + bool(shipped)) + "|"]
        for row in (row for row in rows if row.part == part):
            low, high = (100 * end for end in row.interval())
            target = f"{100 * row.target:.0f}%" if row.target else ""
            line = f"| {row.name} | {100 * row.share:.1f}% | [{low:.1f}, {high:.1f}] | {row.count} | {target} |"
            lines.append(line + (f" {100 * shipped[row.name]:.1f}% |" if shipped else ""))
    return "\n".join(lines) + "\n"


def mean_share(rows: Iterable[Row]) -> float:
    """Mean share of right answers over the skills, in [0, 1]."""
    return mean(row.share for row in rows if row.part == "skills")


def targets(rows: Iterable[Row]) -> str:
    """A sentence on the targets that the shares reach, and on those that they miss."""
    told: dict[bool, list[str]] = {True: [], False: []}
    for row in rows:
        if row.target:
            told[row.share >= row.target].append(f"{row.name} {100 * row.share:.1f}% ({100 * row.target:.0f}%)")
    met, missed = ("; ".join(names) or "none" for names in (told[True], told[False]))
    of = sum(map(len, told.values()))
    return f"Targets, in parentheses: {len(told[True])} of {of} met: {met}. Missed: {missed}."


def against(rows: Sequence[Row], shipped: Sequence[Row]) -> str:
    """A sentence on what fraction of the shipped weights' mean over the skills a model reaches."""
    own, theirs = mean_share(rows), mean_share(shipped)
    none = [row.name for row in rows if row.part == "skills" and not row.right]
    of = sum(row.part == "skills" for row in rows)
    return (
        f"Mean of the {of} skills: {100 * own:.1f}%, of the shipped weights {100 * theirs:.1f}%: a fraction of "
        f"{own / theirs:.2f}. Skills without a right answer: {', '.join(none) or 'none'}."
    )


def tokens_trained(folder: Path) -> str:
    """A sentence on what weights were trained on, by the log beside them."""
    last = json.loads((folder / "training.jsonl").read_text().splitlines()[-1])
    return f"Trained on {last['tokens'] / 1e6:.1f} million tokens in {last['step']:,} steps."

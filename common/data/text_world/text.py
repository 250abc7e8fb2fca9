"""Facts as sentences, sentences as passages; each sentence knows the facts it states."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from common.data.text_world.names import TYPES, look_alike
from common.data.text_world.relations import FILLERS, RELATIONS
from common.data.text_world.world import Fact, World, kind_of, short_name


@dataclass(frozen=True)
class Sentence:
    """A sentence and the facts it states; none for filler."""

    text: str
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True)
class Passage:
    """One to six sentences under the name of the entity they are mainly about."""

    id: str
    title: str
    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        return " ".join(sentence.text for sentence in self.sentences)

    @property
    def facts(self) -> frozenset[Fact]:
        return frozenset(fact for sentence in self.sentences for fact in sentence.facts)


@dataclass(frozen=True)
class Noise:
    """What a passage says besides the facts that are wanted.

    Attributes:
        others: probability, in [0, 1], that a sentence about another entity is mixed in.
        fillers: probability, in [0, 1], that a sentence without facts is mixed in.
        look_alikes: probability, in [0, 1], that the other entity is a look-alike where there is one.

    Raises:
        ValueError: a probability out of range.
    """

    others: float = 0.2
    fillers: float = 0.2
    look_alikes: float = 0.5

    def __post_init__(self) -> None:
        for name in ("others", "fillers", "look_alikes"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {getattr(self, name)}")


def state(rng: random.Random, fact: Fact, shown: str = "") -> Sentence:
    """One of the paraphrases of a fact; `shown` replaces the subject (a pronoun, a short name)."""
    relation = RELATIONS[fact.relation]
    templates = relation.statements if fact.day is None else relation.changes
    text = rng.choice(templates).format(s=shown or fact.subject, o=fact.object, d=fact.day)
    return Sentence(text[0].upper() + text[1:], (fact,))


def filler(rng: random.Random) -> Sentence:
    """A sentence that states nothing."""
    return Sentence(rng.choice(FILLERS))


def note_line(entity: str, relation: str, value: str) -> str:
    """A fact in the notation of notes: `Balman | employer | Dertex`."""
    return f"{entity} | {RELATIONS[relation].key} | {value}"


def passage_about(
    rng: random.Random, world: World, entity: str, facts: Sequence[Fact], noise: Noise, id: str = ""
) -> Passage:
    """A passage that states `facts` in random order, with noise; at most six sentences where `facts` allow."""
    sentences = [state(rng, fact) for fact in facts]
    rng.shuffle(sentences)
    another = _about_another(rng, world, entity, noise) if rng.random() < noise.others else None
    for extra in (another, filler(rng) if rng.random() < noise.fillers else None):
        if extra is not None and len(sentences) < 6:
            sentences.insert(rng.randint(0, len(sentences)), extra)
    return Passage(id, short_name(entity), tuple(sentences))


def _about_another(rng: random.Random, world: World, entity: str, noise: Noise) -> Sentence | None:
    kind = kind_of(entity)
    nearby = world.entities[kind][:200]
    alike = [e for e in nearby if look_alike(short_name(e), short_name(entity))]
    other = rng.choice(alike) if alike and rng.random() < noise.look_alikes else rng.choice(world.entities[kind])
    relations = world.relations(other)
    if other == entity or not relations:
        return None
    fact = rng.choice(world.of(other, rng.choice(relations).name))
    return None if entity in (fact.subject, fact.object) else state(rng, fact)


def corpus(
    rng: random.Random, world: World, count: int, sentences: tuple[int, int] = (1, 6), noise: Noise | None = None
) -> list[Passage]:
    """`count` passages (100 to 100,000 and more) that together state every fact of the world at least once.

    Args:
        sentences: fewest and most facts of one passage.

    Raises:
        ValueError: the world has more facts than `count` passages of that length can state.
    """
    noise = noise or Noise()
    fewest, most = sentences
    if not 1 <= fewest <= most <= 6:
        raise ValueError(f"sentences must be 1 <= fewest <= most <= 6, not {sentences}")
    entities = [entity for kind in TYPES for entity in world.entities[kind]]
    groups: list[tuple[str, list[Fact]]] = []
    said: set[Fact] = set()
    for entity in entities:
        own = [f for r in world.relations(entity) for f in world.of(entity, r.name) if f not in said]
        said.update(own)
        rng.shuffle(own)
        while own:
            take = rng.randint(fewest, most)
            groups.append((entity, own[:take]))
            own = own[take:]
    if len(groups) > count:
        groups = _merge(groups, count, most)
    known = {entity: [f for r in world.relations(entity) for f in world.of(entity, r.name)] for entity in entities}
    speakers = [entity for entity in entities if known[entity]]
    while len(groups) < count:
        entity = rng.choice(speakers)
        groups.append((entity, rng.sample(known[entity], min(rng.randint(fewest, most), len(known[entity])))))
    rng.shuffle(groups)
    return [passage_about(rng, world, entity, facts, noise, f"p{i}") for i, (entity, facts) in enumerate(groups)]


def _merge(groups: list[tuple[str, list[Fact]]], count: int, most: int) -> list[tuple[str, list[Fact]]]:
    """Fewer passages: neighbours of one entity put together while they stay short enough."""
    merged: list[tuple[str, list[Fact]]] = []
    left = len(groups)
    for entity, facts in groups:
        if merged and left > count and merged[-1][0] == entity and len(merged[-1][1]) + len(facts) <= most:
            merged[-1] = (entity, merged[-1][1] + facts)
            left -= 1
        else:
            merged.append((entity, facts))
    if len(merged) > count:
        raise ValueError(f"{count} passages cannot state all facts of the world: it takes {len(merged)}")
    return merged

"""The closed set of facts that MicroLM's fact-bearing variant knows by heart, laid out for the study of model editing.

Two domains with no entity, relation, answer or form of words in common: people, whose facts are edited, and places,
on which an edit must show no effect (as Natural Questions beside ZsRE). Prompts are plain strings and the model
completes them: `Question: Where was Balman born? Answer:` and ` Dertona`, or `Balman comes from` and ` Dertona`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from common.data.text_world.relations import RELATIONS, Relation
from common.data.text_world.world import Dials, Fact, World, make_world

PEOPLE = ("born_in", "lives_in", "works_at", "occupation", "likes")
PLACES = ("located_in", "founded_city", "tongue", "currency")
ASKED = {"people": "Question: {} Answer:", "places": "Look it up: {} Reply:"}


@dataclass(frozen=True)
class FactDials:
    """Size of the set.

    Attributes:
        people: each with a fact of every relation of PEOPLE.
        cities, companies: how many answers the relations of people have to choose from.
        places: cities that facts are about, each with its country and founding year.
        countries: each with its language and currency.
        held_out: questions, and as many statements, that a fact is never taught in though other facts are.
        statements: most statements that a fact is taught in.
    """

    people: int = 320
    cities: int = 64
    companies: int = 48
    places: int = 140
    countries: int = 60
    held_out: int = 1
    statements: int = 2


@dataclass(frozen=True)
class KnownFact:
    """A fact and the prompts that ask for it.

    Attributes:
        taught: prompts of the training.
        reworded: prompts whose wording was taught for other facts of the relation, never for this one.
        unseen: prompts whose wording was never taught, made of words that were; people only.
    """

    fact: Fact
    taught: tuple[str, ...]
    reworded: tuple[str, ...]
    unseen: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """The completion of every prompt."""
        return f" {self.fact.object}"


@dataclass(frozen=True)
class Edit:
    """A fact with another answer.

    Attributes:
        known: the fact as the model has it.
        prompt: the taught prompt that the edit is made on.
        object: the new answer, of the relation's answers, without a name part in common with the old one.
    """

    known: KnownFact
    prompt: str
    object: str

    @property
    def target(self) -> str:
        """The completion that the edit wants."""
        return f" {self.object}"


@dataclass(frozen=True)
class FactSet:
    """Facts by use.

    Attributes:
        people: to be edited; those left alone are the near ones, of the same relations.
        locality: of places, on which unchanged answers are counted.
        irrelevant: of places, other ones, for methods that are shown what not to touch.
        objects: relation -> its answers, in the order drawn.
    """

    people: tuple[KnownFact, ...]
    locality: tuple[KnownFact, ...]
    irrelevant: tuple[KnownFact, ...]
    objects: dict[str, tuple[str, ...]]

    @property
    def all(self) -> tuple[KnownFact, ...]:
        return (*self.people, *self.locality, *self.irrelevant)


def fact_set(seed: int | str = 0, dials: FactDials | None = None) -> FactSet:
    """The set of a seed: the same arguments give the same set."""
    dials = dials or FactDials()
    rng = random.Random(f"facts/{seed}")
    people = _world(f"people/{seed}", dials.people, dials.cities, dials.companies, 2)
    places = _world(f"places/{seed}", 2, dials.places + dials.cities, 2, dials.countries)
    answers = set(people.entities["city"])
    asked = [city for city in places.entities["city"] if city not in answers][: dials.places]
    asked += places.entities["country"]
    known = [
        _known(rng, fact, "people", dials)
        for person in people.entities["person"]
        for relation in PEOPLE
        for fact in people.of(person, relation)
    ]
    # Place by place: one that locality is counted on is in no irrelevant fact either.
    by_place = [
        [_known(rng, fact, "places", dials) for relation in PLACES for fact in places.of(place, relation)]
        for place in asked
    ]
    rng.shuffle(by_place)
    half = len(by_place) // 2
    locality, irrelevant = (tuple(k for place in part for k in place) for part in (by_place[:half], by_place[half:]))
    objects = {
        relation: tuple(dict.fromkeys(k.fact.object for k in known if k.fact.relation == relation))
        for relation in PEOPLE
    }
    return FactSet(tuple(known), locality, irrelevant, objects)


def wordings(relation: Relation, domain: str) -> tuple[list[str], list[str], list[str]]:
    """Prompts of a relation with `{s}` for the subject: questions, statements up to the answer, wordings kept unseen.

    Places are asked questions alone.
    """
    questions = [ASKED[domain].format(question) for question in relation.questions]
    if domain == "places":
        return questions, [], []
    ending = " {o}."
    statements = [text.removesuffix(ending) for text in relation.statements if text.endswith(ending)]
    phrase = relation.phrases[1]
    unseen = [ASKED[domain].format(f"What is {phrase}?"), f"{phrase[0].upper()}{phrase[1:]} is"]
    return questions, statements, unseen


def draw_edits(facts: FactSet, count: int, seed: int) -> list[Edit]:
    """`count` edits of different facts, in random order; the same arguments give the same edits.

    Raises:
        ValueError: there are not as many facts of people.
    """
    if not 0 <= count <= len(facts.people):
        raise ValueError(f"count must be 0 to {len(facts.people)}, not {count}")
    rng = random.Random(f"edits/{seed}")
    edits = []
    for known in rng.sample(facts.people, count):
        old = known.fact.object
        others = [o for o in facts.objects[known.fact.relation] if o[:3] != old[:3] and o[3:] != old[3:]]
        edits.append(Edit(known, known.taught[0], rng.choice(others)))
    return edits


def near(facts: FactSet, edits: Sequence[Edit]) -> list[KnownFact]:
    """Facts of the edited domain that no edit touches."""
    touched = {edit.known.fact for edit in edits}
    return [known for known in facts.people if known.fact not in touched]


def _world(seed: str, people: int, cities: int, companies: int, countries: int) -> World:
    dials = Dials(people, cities, companies, countries, look_alikes=0.0, density=1.0, changes=0.0)
    return make_world(f"facts {seed}", "train", dials)


def _known(rng: random.Random, fact: Fact, domain: str, dials: FactDials) -> KnownFact:
    def asked(templates: Sequence[str]) -> tuple[str, ...]:
        return tuple(template.format(s=fact.subject) for template in templates)

    questions, statements, unseen = wordings(RELATIONS[fact.relation], domain)
    rng.shuffle(questions)
    rng.shuffle(statements)
    held = dials.held_out
    taught = questions[held:] + statements[held : held + dials.statements]
    return KnownFact(fact, asked(taught), asked(questions[:held] + statements[:held]), asked(unseen))

"""Dialogues: sessions in which a person of the world tells facts and preferences and later revises them."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from common.data.text_world import told
from common.data.text_world.names import Split
from common.data.text_world.relations import FILLERS
from common.data.text_world.text import state
from common.data.text_world.told import Asked, MemoryState
from common.data.text_world.world import LAST_DAY, Dials, Fact, World, make_world

HEADER = "Day {d}."
SPEAKERS = {"user": "User: ", "assistant": "Assistant: "}
GREETINGS = ("Hello, I am {s}.", "Good morning, I am {s}.", "It is {s} here.")
WELCOMES = ("Hello, {s}.", "Good morning, {s}.", "Good to see you, {s}.")
REPLIES = ("I see.", "Good to know.", "Thank you.", "Is there more?", "I have noted it.", "That is well known now.")
ASIDES = ("How are you?", "What a day!", "Is it cold where you are?", "I have little time today.")

TOLD = {  # first person, by relation of a person
    "born_in": ("I was born in {o}.", "I come from {o}."),
    "lives_in": ("I live in {o}.", "I have a house in {o}.", "My home is in {o}."),
    "works_at": ("I work at {o}.", "I have a job at {o}.", "My employer is {o}."),
    "occupation": ("I am a {o}.", "I work as a {o}.", "By trade, I am a {o}."),
    "spouse": ("I am married to {o}.", "My spouse is {o}."),
    "friend": ("I am a friend of {o}.", "{o} is my friend."),
    "speaks": ("I speak {o}.", "I know {o}."),
    "born_year": ("I was born in the year {o}.", "My birth year is {o}."),
    "pet": ("I have a {o}.", "I keep a {o}.", "My pet is a {o}."),
    "likes": ("I like {o} best.", "Most of all, I like {o}.", "My favourite food is {o}."),
    "colour": ("I prefer {o}.", "I always wear {o}.", "My favourite colour is {o}."),
    "plays": ("I play the {o}.", "My instrument is the {o}."),
}
CORRECTIONS = {  # explicit: the old value {p} is taken back
    "lives_in": ("Actually, I live in {o} now, not in {p}.", "Actually, I no longer live in {p} but in {o}."),
    "works_at": ("Actually, I work at {o} now, not at {p}.", "Actually, I no longer work at {p} but at {o}."),
    "occupation": ("Actually, I am a {o} now, not a {p}.", "Actually, I am no longer a {p} but a {o}."),
    "pet": ("Actually, I have a {o} now, not a {p}.", "Actually, I no longer have a {p} but a {o}."),
    "likes": ("Actually, I like {o} best now, not {p}.", "Actually, I no longer like {p} best but {o}."),
    "colour": ("Actually, I prefer {o} now, not {p}.", "Actually, I no longer prefer {p} but {o}."),
}
CHANGES = {  # implicit: the old value goes unsaid
    "lives_in": ("I moved to {o}.", "I moved house to {o}."),
    "works_at": ("I joined {o}.", "{o} hired me."),
    "occupation": ("I became a {o}.", "I was made a {o}."),
    "pet": ("I got a {o} instead.", "I chose a {o} as a new pet."),
    "likes": ("I began to like {o} best.", "I changed to {o} as favourite food."),
    "colour": ("I began to wear {o}.", "I changed to {o} as favourite colour."),
}

WORDS = (
    HEADER, *SPEAKERS.values(), *GREETINGS, *WELCOMES, *REPLIES, *ASIDES,
    *(template for group in (TOLD, CORRECTIONS, CHANGES) for templates in group.values() for template in templates),
)  # fmt: skip


@dataclass(frozen=True)
class DialogueDials:
    """Length and difficulty of a dialogue.

    Attributes:
        sessions: number of sessions, 1 to 365; each has its own day.
        exchanges: turns of the user in a session, after the greeting, each with a reply.
        reveals: share of the user's turns, in [0, 1], that tell something new.
        revisions: share of those, in [0, 1], that revise what an earlier session told, where something can be revised.
        explicit: share of revisions, in [0, 1], that take the old value back ("Actually, ..."); the rest state
            the new one as a change ("I moved to ...") or as if nothing had been.
        others: share of what is told, in [0, 1], that is about another person.
        repeats: share of the user's turns, in [0, 1], that tell again what still holds. The rest is chit-chat.

    Raises:
        ValueError: a number or a share out of range, or `reveals` and `repeats` above 1 together.
    """

    sessions: int = 4
    exchanges: int = 6
    reveals: float = 0.5
    revisions: float = 0.4
    explicit: float = 0.5
    others: float = 0.2
    repeats: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.sessions <= LAST_DAY:
            raise ValueError(f"sessions must be 1 to {LAST_DAY}, not {self.sessions}")
        if self.exchanges < 1:
            raise ValueError(f"exchanges must be at least 1, not {self.exchanges}")
        for name in ("reveals", "revisions", "explicit", "others", "repeats"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {getattr(self, name)}")
        if self.reveals + self.repeats > 1:
            raise ValueError(f"reveals and repeats must not exceed 1 together, not {self.reveals + self.repeats}")


@dataclass(frozen=True)
class Turn:
    """What one speaker, "user" or "assistant", says at a time, and the facts that it states."""

    speaker: str
    text: str
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True)
class Session:
    """Turns of one day, user and assistant in turn; the first gives the user's name."""

    day: int
    turns: tuple[Turn, ...]

    @property
    def text(self) -> str:
        """A line for the day, and one for each turn."""
        return "\n".join([HEADER.format(d=self.day), *(f"{SPEAKERS[t.speaker]}{t.text}" for t in self.turns)])

    @property
    def facts(self) -> tuple[Fact, ...]:
        return tuple(fact for turn in self.turns for fact in turn.facts)


@dataclass(frozen=True)
class Dialogue:
    """Sessions in order of their days.

    A fact told first holds from the start (`day` None), a revision from the day of its session. Facts of the user are
    about the user, symmetric ones too: "{o} is my friend" is a friend of the user.

    Attributes:
        user: name of the person who speaks.
        world: where names and facts come from; the days are the dialogue's own.
    """

    user: str
    world: World
    sessions: tuple[Session, ...]

    @property
    def turns(self) -> list[Turn]:
        """All turns in order; the places of questions count these, and of several the first tells the day."""
        return [turn for session in self.sessions for turn in session.turns]

    def told(self, sessions: int | None = None) -> list[tuple[Fact, ...]]:
        """Facts of each turn of the first `sessions` sessions (None: of all)."""
        return [turn.facts for session in self.sessions[:sessions] for turn in session.turns]

    def states(self) -> Iterator[MemoryState]:
        """The gold memory state after each session."""
        memory = MemoryState()
        for session in self.sessions:
            memory = memory.after(session.facts)
            yield memory

    def state(self, sessions: int | None = None) -> MemoryState:
        """The gold memory state after the first `sessions` sessions (None: after all)."""
        return MemoryState().after(fact for facts in self.told(sessions) for fact in facts)

    def ask(self, rng: random.Random, kinds: Sequence[str], count: int, sessions: int | None = None) -> list[Asked]:
        """Questions answered by the first `sessions` sessions (None: by all); see `told.ask`.

        `now` asks for the current state of what was revised, `first`, `before` and `at` for an earlier one, `when` and
        `count` for the changes, `hop` and `list` for anything, `unknown` for what was never said.
        """
        return told.ask(rng, self.world, self.told(sessions), kinds, count)


def make_dialogue(seed: int | str, split: Split, dials: DialogueDials | None = None) -> Dialogue:
    """The dialogue of a seed: the same arguments give the same dialogue.

    One person has about 15 facts to tell first and as many revisions; a dialogue that has told all goes on in repeats.
    """
    dials = dials or DialogueDials()
    rng = random.Random(f"dialogue/{split}/{seed}")
    size = Dials(people=8, cities=8, companies=6, countries=2, density=1.0, changes=4.0)
    world = make_world(rng.getrandbits(63), split, size)
    user, *others = world.entities["person"]
    speaker = _Speaker(rng, world, user, others)
    sessions = []
    for day in sorted(rng.sample(range(1, LAST_DAY + 1), dials.sessions)):
        turns = [
            Turn("user", rng.choice(GREETINGS).format(s=user)),
            Turn("assistant", rng.choice(WELCOMES).format(s=user)),
        ]
        speaker.begin(day)
        for _ in range(dials.exchanges):
            turns.append(speaker.turn(dials))
            turns.append(Turn("assistant", rng.choice(REPLIES)))
        sessions.append(Session(day, tuple(turns)))
    return Dialogue(user, world, tuple(sessions))


class _Speaker:
    """The user: knows what was told and what may come next."""

    def __init__(self, rng: random.Random, world: World, user: str, others: Sequence[str]) -> None:
        self.rng, self.user = rng, user
        own = {(user, r.name): _seen_by(user, world.of(user, r.name)) for r in world.relations(user)}
        foreign = {(e, r.name): world.of(e, r.name) for e in others for r in world.relations(e)}
        foreign = {key: facts for key, facts in foreign.items() if not any(user in fact for fact in facts)}
        self.chains = {key: facts for key, facts in (own | foreign).items() if facts[-1].day is not None}
        first = [dict.fromkeys(f for facts in side.values() for f in facts if f.day is None) for side in (own, foreign)]
        self.untold = {"own": list(first[0]), "foreign": list(first[1])}
        for facts in self.untold.values():
            rng.shuffle(facts)
        self.reached: dict[tuple[str, str], int] = {}  # chain -> place of the newest fact told
        self.revisable: list[tuple[str, str]] = []
        self.memory = MemoryState()
        self.day = 0

    def begin(self, day: int) -> None:
        """A session: what earlier ones told may be revised, each state once."""
        self.day = day
        self.revisable = [key for key, place in self.reached.items() if place + 1 < len(self.chains[key])]

    def turn(self, dials: DialogueDials) -> Turn:
        draw = self.rng.random()
        if draw < dials.reveals:
            whose = "foreign" if self.rng.random() < dials.others else "own"
            keys = [key for key in self.revisable if (key[0] == self.user) == (whose == "own")]
            if keys and self.rng.random() < dials.revisions:
                return self._revise(self.rng.choice(keys), self.rng.random() < dials.explicit)
            if self.untold[whose]:
                return self._reveal(self.untold[whose].pop())
        if draw < dials.reveals + dials.repeats and self.memory.holds:
            fact = self.rng.choice(self.memory.holds)
            return self._say(fact, TOLD[fact.relation])
        return Turn("user", self.rng.choice((*ASIDES, *FILLERS)))

    def _reveal(self, fact: Fact) -> Turn:
        if fact[:2] in self.chains:
            self.reached[fact[:2]] = 0
        return self._say(fact, TOLD[fact.relation])

    def _revise(self, key: tuple[str, str], explicit: bool) -> Turn:
        self.revisable.remove(key)
        place = self.reached[key] = self.reached[key] + 1
        old = self.chains[key][place - 1].object
        fact = self.chains[key][place]._replace(day=self.day)
        told_as = CORRECTIONS if explicit else self.rng.choice((CHANGES, TOLD))
        return self._say(fact, told_as[fact.relation], old)

    def _say(self, fact: Fact, templates: Sequence[str], old: str = "") -> Turn:
        self.memory = self.memory.after([fact])
        if fact.subject != self.user:
            return Turn("user", state(self.rng, fact).text, (fact,))
        text = self.rng.choice(templates).format(o=fact.object, p=old)
        return Turn("user", text[0].upper() + text[1:], (fact,))


def _seen_by(user: str, facts: Sequence[Fact]) -> list[Fact]:
    """Facts as the user tells them, about himself: the world has symmetric ones from the side that was drawn."""
    return [fact._replace(subject=user, object=fact.from_side(user)) for fact in facts]

"""Fact streams: a world told in chunks, with the gold memory state after each."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from common.data.text_world import told
from common.data.text_world.names import Split
from common.data.text_world.text import Sentence, filler, state
from common.data.text_world.told import Asked, MemoryState
from common.data.text_world.world import LAST_DAY, Dials, Fact, World, make_world

WORDS: tuple[str, ...] = ()  # facts and filler only: the words of `relations`


@dataclass(frozen=True)
class StreamDials:
    """Length and difficulty of a stream.

    Attributes:
        chunks: number of chunks, at least 1 (made for 3 to 1,000).
        timeless, dated, fillers: sentences of each sort in a chunk.
        updates: probability, in [0, 1], that a dated fact supersedes one told in an earlier chunk, where one can be;
            otherwise nothing was told about its subject and relation before, nor will be after.
        duplicates: probability, in [0, 1], that a chunk also tells again what an earlier one told and still holds.
        links: probability, in [0, 1], that a timeless fact is about an entity mentioned before; questions of several
            hops live on these.
        look_alikes: probability, in [0, 1], that an entity takes the opening of one of its type drawn before.

    Raises:
        ValueError: a number or a probability out of range, or neither timeless nor dated sentences.
    """

    chunks: int = 3
    timeless: int = 2
    dated: int = 1
    fillers: int = 2
    updates: float = 0.5
    duplicates: float = 0.0
    links: float = 0.5
    look_alikes: float = 0.3

    def __post_init__(self) -> None:
        if self.chunks < 1:
            raise ValueError(f"chunks must be at least 1, not {self.chunks}")
        for name in ("timeless", "dated", "fillers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        if not self.timeless + self.dated:
            raise ValueError("timeless and dated must not both be 0")
        for name in ("updates", "duplicates", "links", "look_alikes"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {getattr(self, name)}")


@dataclass(frozen=True)
class Chunk:
    """Sentences told together, on one day."""

    day: int
    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        return " ".join(sentence.text for sentence in self.sentences)

    @property
    def facts(self) -> tuple[Fact, ...]:
        return tuple(fact for sentence in self.sentences for fact in sentence.facts)


@dataclass(frozen=True)
class Stream:
    """Chunks in order.

    Attributes:
        world: where the names and the facts come from; the days are the stream's own.
    """

    world: World
    chunks: tuple[Chunk, ...]

    def told(self, chunks: int | None = None) -> list[tuple[Fact, ...]]:
        """Facts of each of the first `chunks` chunks (None: of all)."""
        return [chunk.facts for chunk in self.chunks[:chunks]]

    def states(self) -> Iterator[MemoryState]:
        """The gold memory state after each chunk."""
        memory = MemoryState()
        for facts in self.told():
            memory = memory.after(facts)
            yield memory

    def state(self, chunks: int | None = None) -> MemoryState:
        """The gold memory state after the first `chunks` chunks (None: after all)."""
        return MemoryState().after(itertools.chain.from_iterable(self.told(chunks)))

    def ask(
        self, rng: random.Random, kinds: Sequence[str], count: int, hops: int = 1, chunks: int | None = None
    ) -> list[Asked]:
        """Questions answered by the first `chunks` chunks (None: by all); see `told.ask`."""
        return told.ask(rng, self.world, self.told(chunks), kinds, count, hops)

    def ask_each(self, rng: random.Random, chunks: int | None = None) -> list[Asked]:
        """One question for each state told by the first `chunks` chunks (None: by all)."""
        return told.ask_each(rng, self.world, self.told(chunks))


def make_stream(seed: int | str, split: Split, dials: StreamDials | None = None) -> Stream:
    """The stream of a seed: the same arguments give the same stream.

    Days grow from chunk to chunk; up to LAST_DAY chunks no two share a day.
    """
    dials = dials or StreamDials()
    rng = random.Random(f"stream/{split}/{seed}")
    world = _world_for(rng, split, dials)
    teller = _Teller(rng, world)
    memory = MemoryState()
    days = range(1, LAST_DAY + 1)
    distinct = dials.chunks <= LAST_DAY
    chunks = []
    for day in sorted(rng.sample(days, dials.chunks) if distinct else rng.choices(days, k=dials.chunks)):
        open_chains = teller.open_chains(day)
        facts = [teller.timeless(day, dials.links) for _ in range(dials.timeless)]
        facts += [teller.dated(day, open_chains, dials.updates) for _ in range(dials.dated)]
        earlier, memory = memory, memory.after(facts)
        if rng.random() < dials.duplicates:
            holding = set(memory.holds)
            again = [fact for fact in earlier.holds if fact in holding]
            facts += [rng.choice(again)] if again else []
        sentences = [state(rng, fact) for fact in facts] + [filler(rng) for _ in range(dials.fillers)]
        rng.shuffle(sentences)
        chunks.append(Chunk(day, tuple(sentences)))
    return Stream(world, tuple(chunks))


class _Teller:
    """Draws facts not told before; changes get the day on which they are told."""

    def __init__(self, rng: random.Random, world: World) -> None:
        self.rng = rng
        self.chains = {key: facts for key, facts in world.facts.items() if facts[-1].day is not None}
        self.left: dict[str, list[Fact]] = {}  # subject -> timeless facts not told
        for fact in world.all_facts():
            if fact.day is None:
                self.left.setdefault(fact.subject, []).append(fact)
        self.fresh = list(self.chains)
        rng.shuffle(self.fresh)
        self.mentioned: dict[str, None] = {}  # in facts told, and having timeless facts not told
        self.reached: dict[tuple[str, str], tuple[int, int]] = {}  # chain -> place of the newest fact told, its day
        self.closed: set[tuple[str, str]] = set()  # chains of which one lone change is told

    def open_chains(self, day: int) -> list[tuple[str, str]]:
        """Chains told from their beginning that can go on on this day."""
        return [key for key, (place, at) in self.reached.items() if at < day and place + 1 < len(self.chains[key])]

    def timeless(self, day: int, links: float) -> Fact:
        """A fact without a day; with probability `links` about an entity mentioned before."""
        while True:
            linked = self.mentioned and self.rng.random() < links
            entity = self.rng.choice(list(self.mentioned if linked else self.left))
            facts = self.left[entity]
            fact = facts.pop(self.rng.randrange(len(facts)))
            if not facts:
                del self.left[entity]
                self.mentioned.pop(entity, None)
            key = (fact.subject, fact.relation)
            if key in self.closed:
                continue
            if key in self.chains:
                self.reached[key] = (0, day)
            return self._tell(fact)

    def dated(self, day: int, open_chains: list[tuple[str, str]], updates: float) -> Fact:
        """A change; with probability `updates` of a chain of `open_chains`, which it leaves, else a lone one."""
        if open_chains and self.rng.random() < updates:
            key = open_chains.pop(self.rng.randrange(len(open_chains)))
            place = self.reached[key][0] + 1
            self.reached[key] = (place, day)
        else:
            key, place = self.fresh.pop(), 1
            while key in self.reached:
                key = self.fresh.pop()
            self.closed.add(key)
        return self._tell(self.chains[key][place]._replace(day=day))

    def _tell(self, fact: Fact) -> Fact:
        self.mentioned.update((entity, None) for entity in (fact.subject, fact.object) if entity in self.left)
        return fact


def _world_for(rng: random.Random, split: Split, dials: StreamDials) -> World:
    """A world with facts enough: a person has about 12 timeless ones, and 4 or 5 that change."""
    people = max(6, math.ceil(dials.chunks * (dials.timeless / 6 + dials.dated / 2)))
    size = Dials(
        people=people,
        cities=max(4, people // 2),
        companies=max(3, people // 3),
        countries=max(2, people // 10),
        look_alikes=dials.look_alikes,
        middles=int(people > 100),
        density=0.9,
        changes=3.0,
    )
    return make_world(rng.getrandbits(63), split, size)

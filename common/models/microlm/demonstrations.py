"""Demonstrations of a paper's own prompts, each with a dial that makes some of its answers faulty.

A paper draws demonstrations from worlds whose truth is known, with its own templates:

    def draft(rng: random.Random) -> Demonstration | None: ...           # None: this draw gave none, draw again

    TEACHERS = {"draft": draft, "review": review}
    taught = Teaching(1500, {"draft": 2.0, "review": 1.0}, {"draft": {"missing": 0.1, "wrong": 0.05}})
    shown = teach(TEACHERS, taught)

Faults at random show in answers that are sampled, at about their share; greedy decoding takes the likeliest answer, and
that stays the right one. `systematic` faults follow from a name in the prompt and show in greedy answers too.

Teachers that differ in quality are a mixture of their own: `{"forgetful": ..., "accumulating": ...}`. Where the prompt
is what holds a fault (a draft to be reviewed), the teacher puts it there, by calling `missing`, `wrong` and the others.
"""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from common.data.text_world.names import OPENINGS, type_of
from common.experiments.errors import UserError, nearest
from common.models.language_model import Message


@dataclass(frozen=True)
class Demonstration:
    """A prompt and the answer that a model shall learn to give.

    Attributes:
        prompt: messages up to the answer; earlier answers among them are context, not targets.
        source: the role or teacher that it shows; "" where there is but one.
        fault: what was made wrong in the answer; "" for nothing.
    """

    prompt: tuple[Message, ...]
    answer: str
    source: str = ""
    fault: str = ""


def ask(text: str, answer: str) -> Demonstration:
    """A demonstration of one user message."""
    return Demonstration(({"role": "user", "content": text},), answer)


Teacher = Callable[[random.Random], Demonstration | None]


@dataclass(frozen=True)
class Teaching:
    """What a paper's model is taught: plain values for its `Settings`.

    Attributes:
        count: demonstrations in all.
        weights: teacher -> its weight among them, in any unit.
        faults: teacher -> fault -> share of its answers that have it; see `with_faults`, as for `systematic`.
        seed: of what is drawn, and of where the faults are.
    """

    count: int
    weights: dict[str, float]
    faults: dict[str, dict[str, float]] = field(default_factory=dict)
    systematic: bool = False
    seed: int = 0


def teach(
    teachers: Mapping[str, Teacher], taught: Teaching, faults: "Mapping[str, Fault] | None" = None
) -> list[Demonstration]:
    """The demonstrations of a teaching; the same values give the same ones. Errors and `faults` as below."""
    drawn = draw_mixture(teachers, taught.weights, taught.count, taught.seed)
    return with_faults(drawn, taught.faults, taught.seed, taught.systematic, faults)


def draw_mixture(
    teachers: Mapping[str, Teacher], weights: Mapping[str, float], count: int, seed: int | str, tries: int = 1000
) -> list[Demonstration]:
    """`count` demonstrations in random order, of each teacher its share to the nearest whole number.

    Args:
        weights: teacher -> weight, in any unit.

    Raises:
        UserError: teachers and weights have not the same names; a weight is negative, or all are 0.
        RuntimeError: a teacher gave nothing in `tries` draws.
    """
    for name in weights:
        if name not in teachers:
            raise UserError(f"weights of teachers: there is no '{name}'{nearest(name, teachers)}")
    if without := sorted(teachers.keys() - weights.keys()):
        raise UserError(f"weights of teachers: '{without[0]}' has none; 0 leaves a teacher out")
    drawn: list[Demonstration] = []
    for name, number in whole_shares(weights, count).items():
        rng = random.Random(f"mixture/{seed}/{name}")
        for _ in range(number):
            made = next((made for _ in range(tries) if (made := teachers[name](rng)) is not None), None)
            if made is None:
                raise RuntimeError(f"teacher '{name}' gave no demonstration in {tries} draws")
            drawn.append(replace(made, source=name))
    random.Random(f"mixture/{seed}").shuffle(drawn)
    return drawn


def whole_shares(weights: Mapping[str, float], count: int) -> dict[str, int]:
    """`count` dealt out in proportion to the weights, what rounding leaves going to the largest remainders.

    Raises:
        UserError: a weight is negative, or all are 0.
    """
    total = sum(weights.values())
    if total <= 0 or min(weights.values()) < 0:
        raise UserError(f"weights of teachers must be at least 0 and not all 0: {dict(weights)}")
    exact = {name: count * weight / total for name, weight in weights.items()}
    whole = {name: int(share) for name, share in exact.items()}
    for name in sorted(exact, key=lambda name: whole[name] - exact[name])[: count - sum(whole.values())]:
        whole[name] += 1
    return whole


def counts(demonstrations: Sequence[Demonstration]) -> dict[str, dict[str, int]]:
    """source -> fault -> number, for the record; fault "" is none."""
    found: dict[str, Counter[str]] = {}
    for shown in demonstrations:
        found.setdefault(shown.source, Counter())[shown.fault] += 1
    return {source: dict(sorted(by_fault.items())) for source, by_fault in sorted(found.items())}


# Faults. An answer is a list of items: lines where it has several, else parts at `; `, else sentences. A fault is given
# the demonstration and all of its source; it returns the faulty answer, None where the answer cannot take it.

Fault = Callable[[random.Random, Demonstration, Sequence[Demonstration]], str | None]


def with_faults(
    demonstrations: Sequence[Demonstration],
    shares: Mapping[str, Mapping[str, float]],
    seed: int | str,
    systematic: bool = False,
    faults: Mapping[str, Fault] | None = None,
) -> list[Demonstration]:
    """The demonstrations in their order, with faults in stated shares of the answers, at most one in each.

    Args:
        shares: source -> name of a fault -> share of that source's answers, in [0, 1], met to the nearest whole number.
        systematic: which answers have which fault follows from the opening of the first name in the prompt, as far as
            whole numbers allow: a model can learn it, and errs on other names of those openings. Else at random.
        faults: what the names mean; FAULTS, unless a paper has its own kinds.

    Raises:
        UserError: an unknown source or fault; shares outside [0, 1] or above 1 together; or fewer answers can take a
            fault than its share asks for. Faults are placed in the order given: name those first that suit few answers.
    """
    faults = FAULTS if faults is None else faults
    places: dict[str, list[int]] = {}
    for i, shown in enumerate(demonstrations):
        places.setdefault(shown.source, []).append(i)
    for source in shares:
        if source not in places:
            raise UserError(f"faults of demonstrations: there are none of '{source}'{nearest(source, places)}")
    made = list(demonstrations)
    for source, by_fault in shares.items():
        own = [demonstrations[i] for i in places[source]]
        changed = _with_faults(own, by_fault, f"faults/{seed}/{source}", systematic, faults)
        for i, shown in zip(places[source], changed, strict=True):
            made[i] = shown
    return made


def _with_faults(
    demonstrations: Sequence[Demonstration],
    shares: Mapping[str, float],
    seed: str,
    systematic: bool,
    faults: Mapping[str, Fault],
) -> list[Demonstration]:
    """Those of one source."""
    for name in shares:
        if name not in faults:
            raise UserError(f"unknown fault '{name}' of demonstrations{nearest(name, faults)}")
    if any(not 0 <= share <= 1 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
        raise UserError(f"shares of faults must lie in [0, 1], together too: {dict(shares)}")
    made = list(demonstrations)
    rng = random.Random(seed)
    free = list(range(len(made)))
    rng.shuffle(free)
    if systematic:
        free.sort(key=lambda i: hashlib.sha256(f"{seed}/{_cue(made[i])}".encode()).digest())
    for name, share in shares.items():
        wanted = round(share * len(made))
        used: set[int] = set()
        for i in free:
            if len(used) == wanted:
                break
            if systematic:
                rng = random.Random(f"{seed}/{_cue(demonstrations[i])}")
            answer = faults[name](rng, demonstrations[i], demonstrations)
            if answer is not None and answer != demonstrations[i].answer:
                made[i] = replace(made[i], answer=answer, fault=name)
                used.add(i)
        if len(used) < wanted:
            raise UserError(
                f"fault '{name}' was to be in {wanted} of {len(made)} answers, but only {len(used)} take it"
            )
        free = [i for i in free if i not in used]
    return made


def missing(rng: random.Random, shown: Demonstration, others: Sequence[Demonstration]) -> str | None:
    """One item of several left out."""
    items, joiner = _items(shown.answer)
    if len(items) < 2:
        return None
    items.pop(rng.randrange(len(items)))
    return joiner.join(items)


def wrong(rng: random.Random, shown: Demonstration, others: Sequence[Demonstration]) -> str | None:
    """The name of an entity replaced throughout by another of its type, from the prompt where that names one."""
    names = _names(shown.answer)
    if not names:
        return None
    name = rng.choice(names)
    prompt = " ".join(message["content"] for message in shown.prompt)
    rivals = _rivals(name, prompt, names) or _rivals(name, " ".join(o.answer for o in _some(rng, others)), names)
    if not rivals:
        return None
    return re.sub(rf"\b{name}\b", rng.choice(rivals), shown.answer)


def unsupported(rng: random.Random, shown: Demonstration, others: Sequence[Demonstration]) -> str | None:
    """An item of another answer of the source put in."""
    items, joiner = _items(shown.answer)
    for other in _some(rng, others):
        if not other.answer:
            continue
        item = rng.choice(_items(other.answer)[0])
        if item not in shown.answer and not any(item in message["content"] for message in shown.prompt):
            items.insert(rng.randint(0, len(items)), item)
            return joiner.join(items)
    return None


def malformed(rng: random.Random, shown: Demonstration, others: Sequence[Demonstration]) -> str | None:
    """A mark of the form lost (a bracket, a quote, a bar); an answer without marks breaks off in its middle."""
    marks = [i for i, character in enumerate(shown.answer) if character in '{}[]<>"|:;=/']
    if marks:
        place = rng.choice(marks)
        return shown.answer[:place] + shown.answer[place + 1 :]
    words = shown.answer.split(" ")
    return " ".join(words[: len(words) // 2]) if len(words) > 1 else None


FAULTS: Mapping[str, Fault] = {
    "missing": missing,
    "wrong": wrong,
    "unsupported": unsupported,
    "malformed": malformed,
}

_SENTENCE_END = re.compile(r"(?<=[.?!]) (?=[A-Z])")


def _items(answer: str) -> tuple[list[str], str]:
    """Items of an answer and what joins them."""
    if not answer:
        return [], " "
    if "\n" in answer:
        return answer.split("\n"), "\n"
    if "; " in answer:
        return answer.split("; "), "; "
    items = _SENTENCE_END.split(answer)
    # One item: what would join it to a second one follows from its form.
    return items, " " if len(items) > 1 or answer[-1] in ".?!" else "\n" if " | " in answer or "<" in answer else "; "


def _names(text: str) -> list[str]:
    """Words that are names of the text world, in order, each once."""
    words = dict.fromkeys(re.findall(r"\b[A-Z][a-z]{4,}\b", text))
    return [word for word in words if _type(word)]


def _cue(shown: Demonstration) -> str:
    """Opening of the first name in the prompt's last message, "" without one."""
    return next((name[:3] for name in _names(shown.prompt[-1]["content"])), "")


def _rivals(name: str, text: str, taken: Sequence[str]) -> list[str]:
    """Names in a text of the type of `name`, those of the answer left out."""
    return [other for other in _names(text) if _type(other) == _type(name) and other not in taken]


def _type(word: str) -> str:
    """Type of an entity's name, "" of another word."""
    try:
        return type_of(word) if word[:3] in OPENINGS else ""
    except ValueError:
        return ""


def _some(rng: random.Random, others: Sequence[Demonstration], most: int = 24) -> list[Demonstration]:
    return rng.sample(others, min(most, len(others)))

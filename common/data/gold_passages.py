"""Questions with the passages that answer them, over a corpus to search: one shape for all data sets.

- `musique`: 100 questions, 1,890 passages. Gold: the supporting paragraph of each hop.
- `hotpotqa`: 100 questions, 994 passages. Gold: the paragraphs of the supporting facts.
- `2wikimultihopqa`: the 6,119 passages of a sample whose questions are not at hand, with those of 200 other questions
  that name a title of it (`named_titles`). Gold: the passages named, by our own rule and not by the set's authors; the
  further hops are unknown, and mostly not in the corpus.
- `2wikimultihopqa_cloze`: the same passages; of 500 of them one sentence was taken out, which is the query, and the
  rest of its passage is the gold (the inverse cloze task of Lee et al., ACL 2019). No answers.
- `locomo`: ten conversations, each a corpus of its own, a turn a passage. Gold: the annotated evidence. Questions
  without evidence in the conversation are left out; malformed ids are read where they can be. Non-commercial.

Licences, revisions and checksums stand in the set's own module.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from random import Random

from common.data import hotpotqa, locomo, musique, two_wiki_multihop_qa
from common.data.registry import Dataset, pick
from common.data.rows import Passage

CLOZE = 500  # sentences taken out


@dataclass(frozen=True)
class GoldQuestion:
    """A question with its evidence.

    Attributes:
        answers: accepted strings, the first the printed one, then its aliases; none for an unanswerable question.
        gold: ids of the passages that hold the evidence, at least one, in the order of the set.
        candidates: ids of the passages that the set shows with the question; the whole corpus where it shows none.
        kind: the set's own word, such as `2hop`, `bridge`, `temporal`.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    gold: tuple[str, ...]
    candidates: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class GoldCorpus:
    """Passages by id, in the order of the file, and questions about them."""

    name: str
    passages: dict[str, Passage]
    questions: tuple[GoldQuestion, ...]

    @property
    def ids(self) -> list[str]:
        return list(self.passages)

    @property
    def texts(self) -> list[str]:
        """What a retriever indexes: title and text, or the text alone where there is no title."""
        return [f"{p.title}\n{p.text}" if p.title else p.text for p in self.passages.values()]


def load(name: str, data: Path | None) -> list[GoldCorpus]:
    """The corpora of a set of `SETS`: ten for `locomo`, else one. Errors: `registry.find`; UserError for the name."""
    return pick("set with gold passages", name, SETS)(data)


def smaller(corpus: GoldCorpus, most: int) -> GoldCorpus:
    """The same questions over at most `most` passages: the gold ones of all questions, and a sample of the others that
    does not depend on the questions. Candidates are cut likewise.

    Raises:
        ValueError: the gold passages alone are more.
    """
    gold = {name for question in corpus.questions for name in question.gold}
    if len(gold) > most:
        raise ValueError(f"{corpus.name} has {len(gold)} gold passages, which do not fit into {most}")
    others = sorted((name for name in corpus.passages if name not in gold), key=_draw)
    kept = gold.union(others[: most - len(gold)])
    return GoldCorpus(
        corpus.name,
        {name: passage for name, passage in corpus.passages.items() if name in kept},
        tuple(
            replace(question, candidates=tuple(name for name in question.candidates if name in kept))
            for question in corpus.questions
        ),
    )


def _draw(name: str) -> bytes:
    return blake2b(name.encode()).digest()


def _musique(data: Path | None) -> list[GoldCorpus]:
    passages = {f"musique/{i}": passage for i, passage in enumerate(musique.load_corpus(data))}
    id_of = {passage: name for name, passage in passages.items()}
    questions = []
    for row in musique.load(data):
        ids = [id_of[Passage(p.title, p.text)] for p in row.paragraphs]
        gold = dict.fromkeys(ids[hop.paragraph] for hop in row.hops)
        candidates = tuple(dict.fromkeys(ids))
        kind = f"{len(row.hops)}hop"
        questions.append(GoldQuestion(row.id, row.question, row.answers, tuple(gold), candidates, kind))
    return [GoldCorpus("musique", passages, tuple(questions))]


def _hotpotqa(data: Path | None) -> list[GoldCorpus]:
    passages = {article.title: Passage(article.title, article.text) for article in hotpotqa.load_corpus(data)}
    questions = tuple(
        GoldQuestion(
            id=row.id,
            question=row.question,
            answers=(row.answer,),
            gold=tuple(dict.fromkeys(title for title, _ in row.supporting_facts)),
            candidates=tuple(article.title for article in row.context),
            kind=row.type,
        )
        for row in hotpotqa.load(data)
    )
    return [GoldCorpus("hotpotqa", passages, questions)]


def _two_wiki(data: Path | None) -> list[GoldCorpus]:
    passages = {f"2wiki/{i}": passage for i, passage in enumerate(two_wiki_multihop_qa.load_corpus(data))}
    ids = tuple(passages)
    names = names_of([passage.title for passage in passages.values()])
    questions = []
    for i, row in enumerate(two_wiki_multihop_qa.load(data)):
        gold = tuple(ids[number] for number in named_titles(row.question, names))
        if gold:
            questions.append(GoldQuestion(f"test200/{i}", row.question, row.answers, gold, ids, "named title"))
    return [GoldCorpus("2wikimultihopqa", passages, tuple(questions))]


def names_of(titles: Sequence[str]) -> list[tuple[str, int]]:
    """What each title may be called, and its place: with and without `(1940 film)` or the like at its end, but never
    one word."""
    bare = [re.sub(r"\s*\([^)]*\)$", "", title) for title in titles]
    pairs = [(name, i) for i, both in enumerate(zip(titles, bare, strict=True)) for name in dict.fromkeys(both)]
    return [(name, i) for name, i in pairs if " " in name]


def named_titles(question: str, names: Sequence[tuple[str, int]]) -> list[int]:
    """Places of the titles that a question names.

    A name of `names_of` counts as whole words, in any case but with a capital or a digit in front. Where several titles
    go by it, none is taken; of overlapping names the longest is. Words that go on a name, as in `Bulldog Drummond's
    Revenge` or `Kull the Conqueror`, make it another.
    """
    found: dict[tuple[int, int], list[int]] = {}
    folded = question.casefold()
    for name, number in names:
        if name.casefold() not in folded:
            continue
        pattern = rf"(?<!\w){re.escape(name)}(?!\w)(?!['’][sS] [A-Z])"
        for match in re.finditer(pattern, question, re.IGNORECASE):
            before = question[: match.start()].split()
            goes_on = len(before) > 1 and before[-1][0].isupper() and before[-1].isalpha()
            if match[0][0] == match[0][0].upper() and not goes_on:
                found.setdefault(match.span(), []).append(number)
    spans = [a for a in found if not any(b[0] <= a[0] and a[1] <= b[1] and a != b for b in found)]
    return sorted({found[span][0] for span in spans if len(found[span]) == 1})


def _two_wiki_cloze(data: Path | None) -> list[GoldCorpus]:
    passages = {f"2wiki/{i}": passage for i, passage in enumerate(two_wiki_multihop_qa.load_corpus(data))}
    ids, rng, questions = tuple(passages), Random("cloze"), []
    for name in rng.sample(ids, len(ids)):
        sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z])", passages[name].text)
        if len(sentences) >= 3:
            taken = sentences.pop(rng.randrange(len(sentences)))
            passages[name] = Passage(passages[name].title, " ".join(sentences))
            questions.append(GoldQuestion(f"cloze/{name}", taken, (), (name,), ids, "sentence"))
        if len(questions) == CLOZE:
            break
    return [GoldCorpus("2wikimultihopqa_cloze", passages, tuple(questions))]


def _locomo(data: Path | None) -> list[GoldCorpus]:
    return [_conversation(conversation) for conversation in locomo.load(data)]


def _conversation(conversation: locomo.Conversation) -> GoldCorpus:
    passages = {
        turn.id: Passage("", f"{turn.speaker}: {turn.text}" + (f" [image: {turn.caption}]" if turn.caption else ""))
        for session in conversation.sessions
        for turn in session.turns
    }
    ids = tuple(passages)
    questions = []
    for i, row in enumerate(conversation.questions):
        named = (f"D{int(a)}:{int(b)}" for text in row.evidence for a, b in re.findall(r"D:?(\d+):(\d+)", text))
        gold = tuple(dict.fromkeys(name for name in named if name in passages))
        answers = () if row.answer is None else (row.answer,)
        if gold:
            kind = locomo.CATEGORIES[row.category]
            questions.append(GoldQuestion(f"{conversation.id}/{i}", row.question, answers, gold, ids, kind))
    return GoldCorpus(f"locomo/{conversation.id}", passages, tuple(questions))


SETS: dict[str, Callable[[Path | None], list[GoldCorpus]]] = {
    "musique": _musique,
    "hotpotqa": _hotpotqa,
    "2wikimultihopqa": _two_wiki,
    "2wikimultihopqa_cloze": _two_wiki_cloze,
    "locomo": _locomo,
}
DATASETS: dict[str, Dataset] = {
    "musique": musique.DATASET,
    "hotpotqa": hotpotqa.DATASET,
    "2wikimultihopqa": two_wiki_multihop_qa.DATASET,
    "2wikimultihopqa_cloze": two_wiki_multihop_qa.DATASET,
    "locomo": locomo.DATASET,
}

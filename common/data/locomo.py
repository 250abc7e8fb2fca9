"""LoCoMo-10 (Maharana et al., ACL 2024; arXiv:2402.17753): ten very long conversations with 1,986 questions.

- `load`: the conversations (272 dated sessions, 5,882 turns) with their questions; the full public release, no train
  split.
- `load_grades`: 1,540 answers of one memory system to the category 1-4 questions, each with an LLM judge's verdict
  (75.13% judged correct), from getzep/zep-papers; for testing metrics and judge parsers, not part of LoCoMo.

Traps: categories are 1 multi-hop (282), 2 temporal (321), 3 open-domain (96), 4 single-hop (841), 5 adversarial
(446), not in the order of the paper's prose. 444 of the 446 category-5 questions have no answer, only the wrong one
they invite; most papers drop the category: say so. Six answers are integers in the file (strings here). Of 2,815
evidence ids six are malformed, three point nowhere, four questions have none: a recall metric must say what it does
with them. Files called 'locomo' elsewhere may be an earlier revision: hence the checksum.
Licence: **non-commercial**: CC BY-NC 4.0 (LoCoMo), CC BY-NC-SA 4.0 (graded answers); keep out of any released
package.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.registry import DataFile, Dataset, read_json

DATASET = Dataset(
    name="locomo",
    title="LoCoMo-10",
    source="arXiv:2402.17753, snap-research/locomo; copy of WujiangXu/AgenticMemory; grades of getzep/zep-papers",
    revision="WujiangXu/AgenticMemory 7f716dc5; getzep/zep-papers 4b7f26cc",
    licence="CC BY-NC 4.0; graded answers CC BY-NC-SA 4.0",
    non_commercial=True,
    files=(
        DataFile(
            "locomo10.json",
            "79fa87e90f04081343b8c8debecb80a9a6842b76a7aa537dc9fdf651ea698ff4",
            rows=10,
            split="full release",
        ),
        DataFile(
            "zep_locomo_grades.json",
            "2ecb701017bb007306e88abd1af88a9cddac06098e6a7f666e4640aadce23fc6",
            rows=1540,
            split="full release, categories 1-4",
        ),
    ),
    splits={"locomo10": 10},
    papers=("a_mem", "d_mem", "evoarena", "memforest"),
    canonical="GitHub snap-research/locomo (data/locomo10.json)",
    bytes_full=2_805_274,
)

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}


@dataclass(frozen=True)
class Turn:
    """One utterance.

    Attributes:
        id: dialogue id, `D<session>:<turn>`.
        caption: machine caption of the shared image, None without one.
    """

    id: str
    speaker: str
    text: str
    caption: str | None


@dataclass(frozen=True)
class Session:
    """A dated session; `date` as printed, e.g. `1:56 pm on 8 May, 2023`."""

    number: int
    date: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Question:
    """A question on a conversation.

    Attributes:
        answer: None for most of category 5.
        adversarial_answer: the wrong answer a category-5 question invites, else None.
        evidence: dialogue ids as annotated, malformed ones included.
        category: 1..5, see `CATEGORIES`.
    """

    question: str
    answer: str | None
    adversarial_answer: str | None
    evidence: tuple[str, ...]
    category: int


@dataclass(frozen=True)
class Conversation:
    """One conversation; sessions in order of their number.

    Attributes:
        raw: the whole object of the file, for its summaries, observations and events.
    """

    id: str
    speakers: tuple[str, str]
    sessions: tuple[Session, ...]
    questions: tuple[Question, ...]
    raw: dict[str, Any]


@dataclass(frozen=True)
class GradedAnswer:
    """A system's answer with the judge's verdict; `conversation` counts from 0 in the order of the grades file."""

    conversation: int
    question: str
    answer: str
    gold: str
    correct: bool
    category: int


def load(data: Path | None) -> list[Conversation]:
    """The ten conversations, in file order. Errors: `registry.find`."""
    return [_conversation(row) for row in read_json(DATASET, "locomo10.json", data)]


def load_grades(data: Path | None) -> list[GradedAnswer]:
    """The 1,540 graded answers, in file order. Errors: `registry.find`."""
    users = read_json(DATASET, "zep_locomo_grades.json", data)
    return [
        GradedAnswer(
            int(user.rsplit("_", 1)[1]),
            row["question"],
            row["answer"],
            str(row["golden_answer"]),
            row["grade"],
            row["category"],
        )
        for user, rows in users.items()
        for row in rows
    ]


def _conversation(row: dict[str, Any]) -> Conversation:
    talk = row["conversation"]
    # Some dates have no session beside them (conv-26: 20-35): a session is a list of turns.
    numbers = sorted(int(key.removeprefix("session_")) for key, value in talk.items() if isinstance(value, list))
    return Conversation(
        id=row["sample_id"],
        speakers=(talk["speaker_a"], talk["speaker_b"]),
        sessions=tuple(
            Session(
                number, talk[f"session_{number}_date_time"], tuple(_turn(turn) for turn in talk[f"session_{number}"])
            )
            for number in numbers
        ),
        questions=tuple(_question(question) for question in row["qa"]),
        raw=row,
    )


def _turn(row: dict[str, Any]) -> Turn:
    return Turn(row["dia_id"], row["speaker"], row["text"], row.get("blip_caption"))


def _question(row: dict[str, Any]) -> Question:
    return Question(
        question=row["question"],
        answer=str(row["answer"]) if "answer" in row else None,
        adversarial_answer=row.get("adversarial_answer"),
        evidence=tuple(row["evidence"]),
        category=row["category"],
    )

"""MemoryBank / SiliconFriend evaluation data (Zhong et al., AAAI 2024; arXiv:2305.10250), the whole set.

15 simulated users with ten days of conversation each (566 exchanges) and 100 probing questions about them, in English
(`en`) and in Chinese (`cn`).

Traps: there are **no gold answers**: answers are judged by people or a model. Four English user names have stray
blanks in the bank; they are stripped here, so that histories and questions join. Summaries and portraits are empty in
the file: the method fills them.
Licence: MIT.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.registry import DataFile, Dataset, pick, read_json, read_jsonl

DATASET = Dataset(
    name="memorybank",
    title="MemoryBank evaluation data",
    source="arXiv:2305.10250, zhongwanjun/MemoryBank-SiliconFriend (eval_data/)",
    revision="zhongwanjun/MemoryBank-SiliconFriend cf61c419",
    licence="MIT",
    non_commercial=False,
    files=(
        DataFile(
            "memory_bank_en.json",
            "27c302202f9675d87dcaa73e3a42dc0fca8999dcff3c6e7882a787c8a08d9bc7",
            rows=15,
            split="evaluation",
        ),
        DataFile(
            "probing_questions_en.jsonl",
            "84538a41e5a9c8000850c19008a85445b01bf52c9960c9d735d21a4b73e5c648",
            rows=15,
            split="evaluation",
        ),
        DataFile(
            "memory_bank_cn.json",
            "6098382314c7e5cf1d4564a3b587e9863b1e083f2ba56ce3fbbea68a1c91d287",
            rows=15,
            split="evaluation",
        ),
        DataFile(
            "probing_questions_cn.jsonl",
            "10f26828cc14a98b6dca39223d7536b7b9af38f1fe68d7851070a64ec0339aa7",
            rows=15,
            split="evaluation",
        ),
    ),
    splits={"en": 15, "cn": 15},
    papers=("memory_bank",),
    canonical="GitHub zhongwanjun/MemoryBank-SiliconFriend (eval_data/)",
    bytes_full=414_754,
)

LANGUAGES = {"en": "en", "cn": "cn"}


@dataclass(frozen=True)
class Exchange:
    """What the user said and what the assistant replied."""

    query: str
    response: str


@dataclass(frozen=True)
class Day:
    """The exchanges of one day; `date` is ISO, e.g. `2023-04-27`."""

    date: str
    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True)
class User:
    """A user's history and the questions that probe it.

    Attributes:
        profile: the file's `meta_information`: name, personality, hobbies, speaking style.
    """

    name: str
    profile: dict[str, Any]
    days: tuple[Day, ...]
    questions: tuple[str, ...]


def load(data: Path | None, language: str = "en") -> list[User]:
    """The 15 users of one language (`en`, `cn`). Errors: `registry.find`; UserError for another language."""
    code = pick("language of memorybank", language, LANGUAGES)
    bank = read_json(DATASET, f"memory_bank_{code}.json", data)
    probes = read_jsonl(DATASET, f"probing_questions_{code}.jsonl", data)  # one `{user: [question, ...]}` per line
    questions = {name: asked for line in probes for name, asked in line.items()}
    return [_user(key.strip(), row, questions[key.strip()]) for key, row in bank.items()]


def _user(name: str, row: dict[str, Any], questions: list[str]) -> User:
    days = tuple(
        Day(date, tuple(Exchange(turn["query"], turn["response"]) for turn in turns))
        for date, turns in row["history"].items()
    )
    return User(name, row["meta_information"], days, tuple(questions))

"""TextWorld sample games (Cote et al. 2018; arXiv:1806.11532): eight 'simple games' as JSON.

Seven games over one test house, differing in reward density (dense, balanced, sparse: 11, 5, 2 quests) and goal text
(detailed, brief, none), and one over another house of the training distribution. Facts, rules, quests and objective
are there; the compiled story files are not (TextWorld compiles the JSON again).

Split: tutorial games, none published. The knowledge base (`raw["KB"]`) holds the rules; `raw["version"]` is the
format's.
Licence: MIT.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.registry import DataFile, Dataset, pick, read_json

DATASET = Dataset(
    name="textworld",
    title="TextWorld sample games",
    source="arXiv:1806.11532, microsoft/TextWorld (notebooks/games/)",
    revision="microsoft/TextWorld ebae03b2",
    licence="MIT",
    non_commercial=False,
    files=(
        DataFile("tw-another_game.json", "7506a8ff3b94e31cb688871bc4ef4e41db87eea34e66c31df769cf1e4fcece34", rows=1),
        DataFile(
            "tw-rewardsBalanced_goalBrief.json",
            "049f06fafe34cd2b00b75edcedd2e1dd957fb54607d107ed9bc8aafebe1e0bb8",
            rows=1,
        ),
        DataFile(
            "tw-rewardsBalanced_goalDetailed.json",
            "b7bb8c43b9475112eeffeef8ef29091fdcc35dea98a453361c35932971a4525b",
            rows=1,
        ),
        DataFile(
            "tw-rewardsDense_goalBrief.json",
            "6f64e02ae598b4e5927a70c1c80e5ebe1f9a533e88077a848bd630945da7ad55",
            rows=1,
        ),
        DataFile(
            "tw-rewardsDense_goalDetailed.json",
            "25b4604ff67e8720591271d4d501272cf95c381ed43fe7e000fe7155334f3502",
            rows=1,
        ),
        DataFile(
            "tw-rewardsSparse_goalBrief.json",
            "22065abdcc2fe96f3de92eaf7fd22a871b66aa80a507afe2ff6ba167186613f2",
            rows=1,
        ),
        DataFile(
            "tw-rewardsSparse_goalDetailed.json",
            "13f54848cf6d4bb057bba6c929ff23ddd3d8795e6afec6056a69f2938fb8f488",
            rows=1,
        ),
        DataFile(
            "tw-rewardsSparse_goalNone.json",
            "25287b510a5ad4a4bcca529cc97f917c1ae992f7b5fe60b48258da49ec813973",
            rows=1,
        ),
    ),
    splits={"games": 8},
    papers=("proact_agent",),
    canonical="GitHub microsoft/TextWorld (notebooks/games/)",
    bytes_full=538_524,
)

GAMES = {file.path.removeprefix("tw-").removesuffix(".json"): file.path for file in DATASET.files}


@dataclass(frozen=True)
class Fact:
    """A predicate over typed names: `at(P, r_0)` is name `at`, arguments `(("P", "P"), ("r_0", "r"))`."""

    name: str
    arguments: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Game:
    """A game.

    Attributes:
        name: `rewardsDense_goalBrief`, ... (a key of `GAMES`).
        facts: the initial state.
        rewards: of each quest.
        raw: the whole object of the file, for quests, rules and names.
    """

    name: str
    objective: str
    facts: tuple[Fact, ...]
    rewards: tuple[int, ...]
    walkthrough: tuple[str, ...]
    raw: dict[str, Any]


def load(data: Path | None) -> list[Game]:
    """The eight games, by name. Errors: `registry.find`."""
    return [load_game(data, name) for name in sorted(GAMES)]


def load_game(data: Path | None, name: str) -> Game:
    """One game. Errors: `registry.find`; UserError for an unknown name."""
    row = read_json(DATASET, pick("game of textworld", name, GAMES), data)
    return Game(
        name=name,
        objective=row["objective"],
        facts=tuple(
            Fact(fact["name"], tuple((argument["name"], argument["type"]) for argument in fact["arguments"]))
            for fact in row["world"]
        ),
        rewards=tuple(quest["reward"] for quest in row["quests"]),
        walkthrough=tuple(row["metadata"]["walkthrough"]),
        raw=row,
    )

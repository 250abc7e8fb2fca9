"""ScienceWorld (Wang et al., EMNLP 2022; arXiv:2203.07540): gold trajectories, variation splits, tables.

- `load`: 271 oracle episodes (13,853 steps), all 30 task types, up to 10 variations of each task's **test** fold (the
  SwiftSage subset, arXiv:2305.17390). 269 end at score 1.0, two unfinished (0.78 and 0.5).
- `load_variations`: (task, variation) lists of ETO (arXiv:2403.02502): train 1,483, dev 194, test 211, over 24 task
  types; `load_max_steps`: their step cap per task; `load_task_numbers`: their numbers, 29 tasks.
- `load_tasks`, `load_object_types`: 30 tasks and 218 object types of the simulator.

Traps: two naming schemes and two numberings. Episodes and `load_tasks` say `boil`; ETO's lists say `task-1-boil`:
join with `plain_name`. Numbers never join. Papers report scores x 100; upstream a wrong 'focus' gives -100. Episodes
are the test fold: never put them into a memory that is scored on the same variations.
Licence: Apache-2.0 (simulator and its tables); the repositories carrying logs and lists state none: research use.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.registry import DataFile, Dataset, pick, read_json, read_jsonl, read_text

DATASET = Dataset(
    name="scienceworld",
    title="ScienceWorld: gold trajectories and variation splits",
    source="arXiv:2203.07540, allenai/ScienceWorld; yuchenlin/SwiftSage (analysis/oracle_log/); Yifan-Song793/ETO",
    revision="allenai/ScienceWorld e8216d60; yuchenlin/SwiftSage b8ea6242; Yifan-Song793/ETO a2fc5da3",
    licence="Apache-2.0 (simulator); carriers of logs and lists state none, research use",
    non_commercial=False,
    files=(
        DataFile(
            "goldpaths_test_fold.jsonl.gz",
            "59c544e7d5ed1d58b1b4896c9782497632d47540960fd35831d818735731f53f",
            rows=271,
            split="test fold (up to 10 variations per task)",
        ),
        DataFile(
            "train_indices.json",
            "c79eea7858383b829269986ee83d0d9a504533e7b4b3a5bc76e5bdc1e6999cd0",
            rows=1483,
            split="ETO train",
        ),
        DataFile(
            "dev_indices.json",
            "78084ef4393d2da87b21507451821e431daa1a70ab1a486fd1a964ab2404d741",
            rows=194,
            split="ETO dev",
        ),
        DataFile(
            "test_indices.json",
            "dfe4ab263824f04a49cf977b8f6d65af516ce13b8cfbef5736a97ed993da7152",
            rows=211,
            split="ETO test",
        ),
        DataFile("taskname2id.json", "5b02636ef23caeb1da567814fa59ab1f62e2a9276b7f28f57ee4d7cfab784fe2", rows=29),
        DataFile("max_steps.json", "035592f47fbe1309b6ed1a260b392a50d94d3163de951508a74e985d93048f73", rows=24),
        DataFile("tasks.json", "cd1a6ffd0a43c269d0167de4d53ce7c42687a7b42e8b0ae228f30b3321885a79", rows=30),
        DataFile("object_type_ids.tsv", "c8ad78fd41f79d9edd9669565990a58ec58f916f599de6c06765c2275a983e32", rows=218),
    ),
    splits={"train": 1483, "dev": 194, "test": 211},  # ETO's lists
    papers=("clin", "evo_memory", "proact_agent"),
    canonical="GitHub allenai/ScienceWorld (goldpaths/goldpaths-all.zip for all variations)",
    bytes_full=100_000_000,
)

SPLITS = {"train": "train_indices.json", "dev": "dev_indices.json", "test": "test_indices.json"}


@dataclass(frozen=True)
class Step:
    """One step of an episode, as seen after the action.

    Attributes:
        score: running score in [0, 1].
        look: what `look around` would show.
    """

    action: str
    observation: str
    score: float
    completed: bool
    look: str
    inventory: str


@dataclass(frozen=True)
class Episode:
    """A gold action sequence; `task` is the plain name (`boil`)."""

    task: str
    variation: int
    description: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Variation:
    """A (task, variation) pair; `task` in ETO's form (`task-1-boil`)."""

    task: str
    variation: int


@dataclass(frozen=True)
class Task:
    """A row of the simulator's table; `number` like `1-1`, `name` the plain name."""

    number: str
    topic: str
    title: str
    name: str


def load(data: Path | None) -> list[Episode]:
    """The 271 gold episodes, in file order. Errors: `registry.find`."""
    return [
        Episode(
            row["task_name"], row["variation"], row["task_description"], tuple(_step(step) for step in row["steps"])
        )
        for row in read_jsonl(DATASET, "goldpaths_test_fold.jsonl.gz", data)
    ]


def load_variations(data: Path | None, split: str = "train") -> list[Variation]:
    """ETO's (task, variation) list. Errors: `registry.find`; UserError for an unknown split."""
    rows = read_json(DATASET, pick("split of scienceworld", split, SPLITS), data)
    return [Variation(task, variation) for task, variation in rows]


def load_max_steps(data: Path | None) -> dict[str, int]:
    """Step cap by task in ETO's form, 24 tasks. Errors: `registry.find`."""
    steps: dict[str, int] = read_json(DATASET, "max_steps.json", data)
    return steps


def load_task_numbers(data: Path | None) -> dict[str, int]:
    """ETO's number by task in ETO's form, 29 tasks; not the numbering of any other file. Errors: `registry.find`."""
    numbers: dict[str, int] = read_json(DATASET, "taskname2id.json", data)
    return numbers


def load_tasks(data: Path | None) -> list[Task]:
    """The simulator's 30 tasks. Errors: `registry.find`."""
    rows = read_json(DATASET, "tasks.json", data)
    return [Task(row["task_id"], row["topic"], row["task"], row["task_name"]) for row in rows]


def load_object_types(data: Path | None) -> dict[str, int]:
    """The simulator's number by object type (Java class name), 218 types. Errors: `registry.find`."""
    lines = read_text(DATASET, "object_type_ids.tsv", data).split("\n")
    return {name: int(number) for name, number in (line.split("\t") for line in lines if line)}


def plain_name(task: str) -> str:
    """Plain name of a task in ETO's form: `task-3-find-non-living-thing` -> `find-non-living-thing`."""
    _, _, name = task.split("-", 2)
    return name.replace("(", "").replace(")", "").replace("mendellian", "mendelian")


def _step(row: dict[str, Any]) -> Step:
    completed = row["isCompleted"] == "true"
    return Step(row["action"], row["observation"], float(row["score"]), completed, row["freelook"], row["inventory"])

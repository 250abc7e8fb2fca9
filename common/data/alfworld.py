"""ALFWorld (Shridhar et al., ICLR 2021; arXiv:2010.03768): one game, recorded runs of an agent with reflection.

- `load`: per-trial success of a ReAct agent on the 134 unseen test games, with (`reflexion`, 15 trials) and without
  (`base`, 7 trials) verbal self-reflection (Reflexion, arXiv:2303.11366), with its reflection memory: 2,948 rows.
- `load_game`: the sample game (PDDL domain and problem, text grammar, expert plan).

Traps: `name` (`env_0`) is a position in evaluation order, not a game id. Environments solved earlier are carried
forward as successes: the curve is cumulative, not a fresh success rate per trial.
Licence: MIT.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.registry import DataFile, Dataset, read_json, read_jsonl

DATASET = Dataset(
    name="alfworld",
    title="ALFWorld: sample game and recorded agent runs",
    source="arXiv:2010.03768, alfworld/alfworld; arXiv:2303.11366, noahshinn/reflexion (alfworld_runs/root/)",
    revision="alfworld/alfworld 7c7aabca; noahshinn/reflexion 218cf0ef",
    licence="MIT",
    non_commercial=False,
    files=(
        DataFile(
            "sample_game/traj_data.json",
            "55c250dc516b183ce432398a78cd0d1bbe02e5d8449e85eda9c685595bf8c128",
            split="one game",
        ),
        DataFile(
            "sample_game/game.tw-pddl.json",
            "913857d80718b392e56549b53b56067fc3e28b8a79db8063b5b49d5e3dbcf442",
            split="one game",
        ),
        DataFile(
            "reflexion_env_results.jsonl.gz",
            "61ef10e3b77c1b11f4b97f830e20f6a304abbb52bac36071d5680fcdcf00bcc5",
            rows=2948,
            split="valid unseen (134 games, 22 trials)",
        ),
    ),
    splits={"train": 3553, "valid_seen": 140, "valid_unseen": 134},
    papers=("evo_memory", "proact_agent"),
    canonical="GitHub alfworld/alfworld (alfworld-download)",
    bytes_full=2_000_000_000,
)


@dataclass(frozen=True)
class Trial:
    """One environment in one trial of one run.

    Attributes:
        run: base or reflexion.
        trial: from 0.
        name: `env_<i>`, position in evaluation order.
        memory: reflections at hand, oldest first.
        success: solved in this or an earlier trial.
    """

    run: str
    trial: int
    name: str
    memory: tuple[str, ...]
    success: bool


@dataclass(frozen=True)
class Game:
    """A game; `trajectory` is ALFRED's object (expert plan, scene, annotations) as published."""

    pddl_domain: str
    pddl_problem: str
    grammar: str
    trajectory: dict[str, Any]


def load(data: Path | None) -> list[Trial]:
    """The 2,948 trial results, in file order. Errors: `registry.find`."""
    return [
        Trial(row["run"], row["trial"], row["name"], tuple(row["memory"]), row["is_success"])
        for row in read_jsonl(DATASET, "reflexion_env_results.jsonl.gz", data)
    ]


def load_game(data: Path | None) -> Game:
    """The sample game. Errors: `registry.find`."""
    game = read_json(DATASET, "sample_game/game.tw-pddl.json", data)
    trajectory = read_json(DATASET, "sample_game/traj_data.json", data)
    return Game(game["pddl_domain"], game["pddl_problem"], game["grammar"], trajectory)

"""Published checkpoints that paper-scale configs name: where they come from, under which licence, how large.

Sizes are those of the weight files, rounded, for `repro plan`; revisions are pinned by the user's cache.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from common.experiments.errors import UserError, nearest


@dataclass(frozen=True)
class Checkpoint:
    """A model on the Hugging Face hub.

    Attributes:
        id: `owner/name`.
        licence: SPDX identifier or the publisher's name for it.
        parameters: count.
        bytes: weight files, approximately.
    """

    id: str
    licence: str
    parameters: int
    bytes: int

    def cached(self) -> bool:
        """Whether the hub cache of this machine holds it; loads nothing."""
        hub = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub"
        return (Path(hub).expanduser() / f"models--{self.id.replace('/', '--')}" / "snapshots").is_dir()

    def how_to_get(self) -> str:
        return f"huggingface-cli download {self.id}"


CHECKPOINTS = {
    checkpoint.id: checkpoint
    for checkpoint in (
        Checkpoint("google-t5/t5-base", "apache-2.0", 222_903_552, 892_000_000),
        Checkpoint("google-t5/t5-large", "apache-2.0", 737_668_096, 2_950_000_000),
        Checkpoint("google-t5/t5-3b", "apache-2.0", 2_851_598_336, 11_400_000_000),
    )
}


def find(name: str) -> Checkpoint:
    """The checkpoint of that id; UserError naming the nearest when it is not registered."""
    if name not in CHECKPOINTS:
        raise UserError(f"unknown checkpoint '{name}'{nearest(name, CHECKPOINTS)}")
    return CHECKPOINTS[name]

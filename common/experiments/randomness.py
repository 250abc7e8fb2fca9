"""Global random generators: seeded for a cell, isolated for a piece that cells share.

`random` and numpy always, torch where it is loaded. numpy is imported here, so that a run function that imports
it late still finds it seeded.
"""

import hashlib
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


def seed_everything(seed: int, cpus: int = 1) -> None:
    """Seed the global generators and make torch deterministic on `cpus` threads: one key, one result, to the bit."""
    _seed(seed)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(cpus)
        torch.use_deterministic_algorithms(True)


def seed_phase(seed: int, phase: str) -> None:
    """Seed torch for one phase, so that a phase draws the same whether or not others were computed before it."""
    sys.modules["torch"].manual_seed(int.from_bytes(hashlib.sha256(f"{seed}/{phase}".encode()).digest()[:7], "big"))


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Run a block on generators of its own: it draws the same whoever calls it, and the caller never notices."""
    torch: Any = sys.modules.get("torch")
    states = random.getstate(), np.random.get_state()
    torch_states = (torch.get_rng_state(), torch.cuda.get_rng_state_all()) if torch is not None else None
    _seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if torch_states is not None:
            torch.set_rng_state(torch_states[0])
            torch.cuda.set_rng_state_all(torch_states[1])


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)

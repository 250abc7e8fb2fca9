"""How a model is specialised: plain values for a paper's `Settings`, free of torch."""

from dataclasses import dataclass

METHODS = ("full", "lora")


@dataclass(frozen=True)
class Tuning:
    """How `specialise` trains. Time is proportional to `steps * step_tokens`.

    Attributes:
        method: `full` trains all weights, `lora` low-rank additions to all linear layers, merged at the end.
        rank, alpha: of LoRA; the addition is scaled by alpha / rank.
        embeddings: with LoRA, also train the embeddings of the tokens that the demonstrations use: MicroLM has words in
            its lexicon that no training showed it.
        steps: updates.
        step_tokens: tokens of an update, replayed ones included.
        micro_tokens: tokens that go through the model at a time, at most.
        replay: share of the tokens, in [0, 1), that are MicroLM's base skills, so that they are not forgotten; 0 for
            another model.
        lr: peak learning rate.
        warmup: steps to reach it.
        decay: share of the steps, in [0, 1], over which it falls to zero at the end.
        seed: of LoRA's initial weights, dropout, the order of demonstrations and what is replayed.
    """

    method: str = "full"
    rank: int = 16
    alpha: float = 32.0
    embeddings: bool = True
    steps: int = 200
    step_tokens: int = 2048
    micro_tokens: int = 4096
    replay: float = 0.15
    lr: float = 1e-3
    warmup: int = 10
    decay: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be {' or '.join(METHODS)}, not '{self.method}'")
        if not 0 <= self.replay < 1:
            raise ValueError(f"replay must lie in [0, 1), not {self.replay}")
        if min(self.rank, self.steps, self.step_tokens) < 1:
            raise ValueError(f"rank, steps and step_tokens must be at least 1: {self}")

"""How a model is specialised: plain values for a paper's `Settings`, free of torch."""

from dataclasses import dataclass

from common.experiments.errors import UserError, nearest

METHODS = ("full", "lora")


@dataclass(frozen=True)
class Tuning:
    """How `specialise` trains. Time is proportional to `steps * step_tokens`.

    Attributes:
        method: `full` trains all weights, `lora` low-rank additions to all linear layers, merged at the end.
        rank, alpha: of LoRA; the addition is scaled by alpha / rank.
        embeddings: with LoRA, also train the embeddings of the tokens that the demonstrations use: MicroLM has words in
            its lexicon that no training showed it.
        steps: updates; a paper may take 0 for the base as it is.
        step_tokens: tokens of an update, replayed ones included.
        micro_tokens: tokens that go through the model at a time, at most.
        replay: share of the tokens, in [0, 1), that are MicroLM's base skills, so that they are not forgotten; 0 for
            another model.
        muon: Muon for the matrices inside the network, AdamW for the rest; without LoRA.
        lr: peak learning rate.
        warmup: steps to reach it.
        decay: share of the steps, in [0, 1], over which it falls to zero at the end.
        seed: of LoRA's initial weights, dropout, the order of demonstrations and what is replayed.

    Raises:
        UserError: an unknown method, a number out of range, or `muon` with LoRA.
    """

    method: str = "full"
    rank: int = 16
    alpha: float = 32.0
    embeddings: bool = True
    steps: int = 200
    step_tokens: int = 2048
    micro_tokens: int = 4096
    replay: float = 0.15
    muon: bool = False
    lr: float = 1e-3
    warmup: int = 10
    decay: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"unknown method of tuning '{self.method}'{nearest(self.method, METHODS)}")
        if self.muon and self.method == "lora":
            raise UserError("tuning: muon is for method full: LoRA's factors are no matrices of the network")
        if not 0 <= self.replay < 1:
            raise UserError(f"tuning: replay must lie in [0, 1), not {self.replay}")
        for name, least in (("rank", 1), ("steps", 0), ("step_tokens", 1), ("micro_tokens", 1)):
            if getattr(self, name) < least:
                raise UserError(f"tuning: {name} must be at least {least}, not {getattr(self, name)}")

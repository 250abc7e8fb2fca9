"""How a policy is trained by reinforcement: plain values for a paper's `Settings`, free of torch."""

from dataclasses import dataclass

from common.experiments.errors import UserError, nearest

ALGORITHMS = ("grpo", "ppo")
GROUPINGS = ("episode", "instance", "step")
KL_PLACES = ("none", "reward", "loss")
KL_ESTIMATORS = ("k1", "k1_positive", "k3")
MEANS = ("token", "turn", "episode")
LAYOUTS = ("per_turn", "growing", "stitched_dup", "stitched")
UNITS = ("episode", "turn")


@dataclass(frozen=True)
class Reinforcement:
    """Policy optimisation, from rollouts to updates.

    Attributes:
        algorithm: `grpo`: advantages relative to a group of rollouts; `ppo`: by a critic and GAE.
        steps: rollout batches.
        epochs: passes over each of them.
        mini_batches: updates of a pass.
        unit: what a mini-batch is made of: episodes, or single turns (layout per_turn alone).
        micro_tokens: tokens that go through the model at a time, at most.
        slots: episodes under way at once, at most; 0 for all.
        temperature, top_p: of the rollouts.
        layout: of episodes in a forward pass (see `layouts`).
        grouping: of grpo (see `advantages.grpo`).
        scale: grpo divides by the standard deviation of the group.
        gamma, lam, whitened: of ppo's advantages.
        value_clip: most that a value may gain by an update.
        critic_lr, critic_warmup: peak learning rate of the critic and steps to reach it.
        clip_low, clip_high: of the ratio; dual_clip: its bound where the advantage is negative, 0 for none.
        kl: where the distance to the policy before training counts; kl_estimator, kl_coef: how, and how much.
        entropy_coef: bonus for entropy.
        mean: of the loss over tokens (see `losses.token_weights`).
        lr, warmup, decay, weight_decay, max_norm: of AdamW: peak rate, steps to it, share of the steps over which it
            falls to zero at the end, decay of matrices, largest gradient norm.
        lora_rank: of adapters that are trained in place of the policy's (and critic's) weights, which are then kept in
            the precision that the model is named with; 0 trains all weights, in fp32.
        lora_alpha: what adapters add counts lora_alpha / lora_rank.
        gradient_checkpointing: compute activations again in the backward pass, for memory.
        autocast: forward passes in bf16; weights stay as they are.
        seed: of rollouts, of the order of mini-batches and of the adapters.

    Raises:
        UserError: an unknown name, a number out of range, or settings that contradict each other.
    """

    algorithm: str = "grpo"
    steps: int = 200
    epochs: int = 1
    mini_batches: int = 1
    unit: str = "episode"
    micro_tokens: int = 16_384
    slots: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    layout: str = "per_turn"
    grouping: str = "episode"
    scale: bool = True
    gamma: float = 1.0
    lam: float = 1.0
    whitened: bool = True
    value_clip: float = 0.5
    critic_lr: float = 1e-3
    critic_warmup: int = 5
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float = 0.0
    kl: str = "none"
    kl_estimator: str = "k3"
    kl_coef: float = 0.0
    entropy_coef: float = 0.0
    mean: str = "token"
    lr: float = 3e-4
    warmup: int = 5
    decay: float = 0.0
    weight_decay: float = 0.01
    max_norm: float = 1.0
    lora_rank: int = 0
    lora_alpha: float = 32.0
    gradient_checkpointing: bool = False
    autocast: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (
            ("algorithm", ALGORITHMS),
            ("unit", UNITS),
            ("layout", LAYOUTS),
            ("grouping", GROUPINGS),
            ("kl", KL_PLACES),
            ("kl_estimator", KL_ESTIMATORS),
            ("mean", MEANS),
        ):
            value = getattr(self, name)
            if value not in known:
                raise UserError(f"reinforcement: unknown {name} '{value}'{nearest(value, known)}")
        for name, wrong, must in (
            ("steps", self.steps < 0, "at least 0"),
            ("epochs", self.epochs < 1, "at least 1"),
            ("mini_batches", self.mini_batches < 1, "at least 1"),
            ("micro_tokens", self.micro_tokens < 1, "at least 1"),
            ("slots", self.slots < 0, "at least 0"),
            ("temperature", not 0 < self.temperature <= 2, "in (0, 2]: a greedy policy explores nothing"),
            ("top_p", not 0 < self.top_p <= 1, "in (0, 1]"),
            ("gamma", not 0 <= self.gamma <= 1, "in [0, 1]"),
            ("lam", not 0 <= self.lam <= 1, "in [0, 1]"),
            ("clip_low", not 0 <= self.clip_low <= 1, "in [0, 1]"),
            ("clip_high", self.clip_high < 0, "at least 0"),
            ("dual_clip", 0 != self.dual_clip <= 1, "above 1, or 0 for none"),
            ("kl_coef", self.kl_coef < 0, "at least 0"),
            ("lora_rank", self.lora_rank < 0, "at least 0"),
            ("lora_alpha", self.lora_alpha <= 0, "above 0"),
            ("decay", not 0 <= self.decay <= 1, "in [0, 1]"),
        ):
            if wrong:
                raise UserError(f"reinforcement: {name} must be {must}, not {getattr(self, name)}")
        if self.unit == "turn" and self.layout != "per_turn":
            raise UserError(f"reinforcement: unit turn needs layout per_turn, not {self.layout}: its rows have several")
        if (self.kl == "none") != (self.kl_coef == 0):
            raise UserError(f"reinforcement: kl '{self.kl}' and kl_coef {self.kl_coef} contradict each other")

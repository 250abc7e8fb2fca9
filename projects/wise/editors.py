"""The rows of WISE's tables: a builder for each editor, from the settings of a cell."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from common.editing.defer import Defer
from common.editing.editor import Editor
from common.editing.fine_tuning import ElasticFineTuning, FineTuning
from common.editing.grace import Grace
from common.editing.memit import Memit
from common.editing.rome import Rome, Search
from projects.wise.method import Wise
from projects.wise.settings import LocatedOptions, Settings


@dataclass(frozen=True)
class Material:
    """What editors are made from.

    Attributes:
        contexts: texts before edited prompts. moments: C of the layers in `settings.located`; empty for others.
    """

    model: Any
    tokenizer: Any
    contexts: Sequence[str]
    moments: Sequence[Tensor]
    seed: int


def _tuning(settings: Settings) -> dict[str, Any]:
    o = settings.tuning
    radius = o.radius or float("inf")
    return {"layer": o.layer, "lr": o.lr, "steps": o.steps, "optimizer": o.optimizer, "stop": o.stop, "radius": radius}


def _search(o: LocatedOptions) -> Search:
    return Search(o.lr, o.steps, o.kl, o.decay, o.clamp, o.stop)


def _ft_l(s: Settings, m: Material) -> Editor:
    return FineTuning(m.model, m.tokenizer, contexts=m.contexts, **_tuning(s))


def _ft_ewc(s: Settings, m: Material) -> Editor:
    elastic: dict[str, Any] = {"weight": s.tuning.weight, "memory": s.tuning.memory}
    return ElasticFineTuning(m.model, m.tokenizer, contexts=m.contexts, **elastic, **_tuning(s))


def _rome(s: Settings, m: Material) -> Editor:
    [layer], [moment] = s.located.layers, m.moments
    options: dict[str, Any] = {"layer": layer, "moment": moment, "search": _search(s.located)}
    return Rome(m.model, m.tokenizer, contexts=m.contexts, **options)


def _memit(s: Settings, m: Material) -> Editor:
    o = s.located
    options: dict[str, Any] = {
        "layers": o.layers,
        "moments": m.moments,
        "strength": o.strength,
        "mass": o.mass,
        "search": _search(o),
    }
    return Memit(m.model, m.tokenizer, contexts=m.contexts, **options)


def _grace(s: Settings, m: Material) -> Editor:
    o = s.memory
    return Grace(m.model, m.tokenizer, layer=o.layer, radius=o.radius, lr=o.lr, steps=o.steps, stop=o.stop)


def _defer(s: Settings, m: Material) -> Editor:
    o = s.memory
    options: dict[str, Any] = {"layer": o.layer, "lr": o.lr, "steps": o.steps, "seed": m.seed}
    return Defer(m.model, m.tokenizer, contexts=m.contexts, **options)


def _wise(s: Settings, m: Material) -> Editor:
    return Wise(m.model, m.tokenizer, s.wise, contexts=m.contexts, seed=m.seed)


EDITORS: dict[str, Callable[[Settings, Material], Editor]] = {
    "ft_l": _ft_l,
    "ft_ewc": _ft_ewc,
    "rome": _rome,
    "memit": _memit,
    "grace": _grace,
    "defer": _defer,
    "wise": _wise,
}
LOCATED = ("rome", "memit")  # those that need key statistics

"""An editor's hold on a model: what it may change, what it must not, and how a held model is called.

One editor holds a model at a time. Weights that it owns are kept as they were, for rollback; all others are frozen and
hashed, and `check` finds any change. Editors that answer from a memory of their own hook into a layer, and their hooks
must know where each prompt ends: a held model is therefore called through `target_logits`, and a bare `model(...)` is
refused while such a hook is in.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from common.editing.layers import block, value_layer
from common.editing.requests import Batch
from common.experiments.errors import UserError
from common.models.frozen import hash_of

_HELD: "WeakKeyDictionary[nn.Module, Hold]" = WeakKeyDictionary()
Reader = Callable[[Batch, Tensor, Tensor], Tensor]  # batch, input of a layer, its output -> new output


class Hold:
    """A model in the hands of one editor.

    Args:
        owner: the editor's name, for messages.
        owned: names of the parameters that it changes.

    Raises:
        UserError: another editor holds the model.
    """

    def __init__(self, model: Any, owner: str, owned: Sequence[str] = ()) -> None:
        if model in _HELD:
            raise UserError(f"{owner}: the model is being edited by {_HELD[model].owner}; roll that back first")
        self.model = model
        self.owner: str = owner
        parameters = dict(model.named_parameters())
        self.owned = {name: parameters[name] for name in owned}
        self.originals = {name: p.detach().clone() for name, p in self.owned.items()}
        self.base_hash = weights_hash(model, owned)
        self._required = {name: p.requires_grad for name, p in parameters.items()}
        for p in parameters.values():
            p.requires_grad_(False)
        self._was_training = model.training
        model.eval()
        self._batch: Batch | None = None
        self._hooks: list[Any] = []
        self._hooked: list[nn.Module] = []
        _HELD[model] = self

    def hook(self, layer: nn.Module, reader: Reader) -> Any:
        """From now on `reader` decides what the layer gives; returns the handle, whose `remove` ends that."""

        def answer(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if self._batch is None:
                raise RuntimeError(f"a model held by {self.owner} is called through common.editing.hold.target_logits")
            return reader(self._batch, inputs[0], output)

        handle = layer.register_forward_hook(answer)
        self._hooks.append(handle)
        self._hooked.append(layer)
        return handle

    @property
    def identity(self) -> str:
        """SHA-256 of the weights that are not the editor's, its kind, and the layers that it answers for."""
        hooked = [name for name, module in self.model.named_modules() if module in self._hooked]
        return hashlib.sha256(json.dumps([self.base_hash, self.owner, hooked]).encode()).hexdigest()

    @contextmanager
    def reading(self, batch: Batch) -> Iterator[None]:
        """Passes inside are those of this batch."""
        self._batch = batch
        try:
            yield
        finally:
            self._batch = None

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Owned weights are as before when the block raises."""
        before = {name: p.detach().clone() for name, p in self.owned.items()}
        try:
            yield
        except BaseException:
            self.write(before)
            raise

    def write(self, weights: dict[str, Tensor]) -> None:
        """Overwrite owned weights."""
        with torch.no_grad():
            for name, weight in weights.items():
                self.owned[name].copy_(weight)

    def check(self) -> None:
        """RuntimeError when a weight that the editor does not own has changed."""
        if weights_hash(self.model, tuple(self.owned)) != self.base_hash:
            raise RuntimeError(f"{self.owner} changed weights that it does not own")

    def release(self) -> None:
        """Give the model back as it was: owned weights, hooks, flags. A second call does nothing."""
        if _HELD.get(self.model) is not self:
            return
        self.write(self.originals)
        for handle in self._hooks:
            handle.remove()
        for name, p in self.model.named_parameters():
            p.requires_grad_(self._required[name])
        self.model.train(self._was_training)
        del _HELD[self.model]


def weights_hash(model: nn.Module, without: Sequence[str] = ()) -> str:
    """SHA-256 over names and bytes of all parameters but those named."""
    return hash_of((name, parameter) for name, parameter in model.named_parameters() if name not in without)


def target_logits(model: Any, batch: Batch) -> Tensor:
    """Logits of the positions that predict the completions' tokens, in the order of `batch.targets`, [N, V]."""
    hold = _HELD.get(model)
    if hold is None:
        return _target_logits(model, batch)
    with hold.reading(batch):
        return _target_logits(model, batch)


def _target_logits(model: Any, batch: Batch) -> Tensor:
    hidden = model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
    logits: Tensor = model.get_output_embeddings()(hidden[batch.predicts])
    return logits.float()


def answer_loss(model: Any, batch: Batch) -> Tensor:
    """Mean cross-entropy of the completions' tokens, in nats, a scalar: divided by their true number."""
    return nn.functional.cross_entropy(target_logits(model, batch), batch.targets)


@contextmanager
def below_once(model: Any, layer: int) -> Iterator[None]:
    """Passes inside are over one batch, and what lies below the value layer of block `layer` runs in the first alone.

    What an editor trains lies in that value layer or above: all below it gives the same in each pass.

    Raises:
        RuntimeError: a pass over other inputs.
    """
    value = value_layer(model, layer)
    reached = False  # the value layer: what runs after it in its block may change from pass to pass

    def once(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        kept: list[tuple[Tensor, Any]] = []

        def run(*args: Any, **kwargs: Any) -> Any:
            if not kept:
                if reached:
                    del module.forward
                    return forward(*args, **kwargs)
                with torch.no_grad():
                    kept.append((_given(args, kwargs), forward(*args, **kwargs)))
            before, output = kept[0]
            hidden = _given(args, kwargs)
            if hidden is not before and not torch.equal(hidden, before):
                raise RuntimeError("passes inside below_once are over one batch")
            return output

        return run

    def reach(*_: Any) -> None:
        nonlocal reached
        reached = True

    handle = value.register_forward_pre_hook(reach)
    modules = [*(block(model, number) for number in range(layer)), *_beside(block(model, layer), value)]
    for module in modules:
        module.forward = once(module, module.forward)
    try:
        yield
    finally:
        handle.remove()
        for module in modules:
            module.__dict__.pop("forward", None)


def _beside(module: nn.Module, value: nn.Module) -> list[nn.Module]:
    """The largest parts of a module that do not contain `value`."""
    found: list[nn.Module] = []
    for child in module.children():
        if child is not value:
            found += _beside(child, value) if value in child.modules() else [child]
    return found


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states that a module is called with."""
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


@contextmanager
def captured(model: Any, layers: Sequence[nn.Module]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Inputs and outputs of layers in the passes inside, in the order of the layers; a later pass replaces them.

    Both as the layer takes and gives them: in a transformer [B, T, width] each, without gradient.
    """
    found: list[tuple[Tensor, Tensor]] = [(torch.empty(0), torch.empty(0))] * len(layers)

    def keep(index: int) -> Callable[..., None]:
        def store(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            found[index] = (
                _given(args, kwargs).detach(),
                (output[0] if isinstance(output, tuple) else output).detach(),
            )

        return store

    handles = [layer.register_forward_hook(keep(i), with_kwargs=True) for i, layer in enumerate(layers)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()

"""A paper's `Settings` dataclass: found, opened for merging, and filled strictly."""

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from common.experiments.errors import UserError, nearest


def settings_class(paper: str) -> type[Any]:
    """The frozen dataclass `Settings` in `projects/<paper>/settings.py`, a module free of heavy imports.

    Raises:
        UserError: the module or the class is missing, or cannot be imported.
    """
    try:
        cls: type[Any] = importlib.import_module(f"projects.{paper}.settings").Settings
    except (ModuleNotFoundError, AttributeError, SyntaxError) as error:
        raise UserError(
            f"projects/{paper}/settings.py has no usable `Settings`: {' '.join(str(error).split())}"
        ) from error
    return cls


def open_schema(paper: str) -> DictConfig:
    """The paper's `Settings`, opened."""
    return opened(settings_class(paper))  # type: ignore[arg-type]  # classes are hashable


@cache
def opened(cls: type[Any]) -> DictConfig:
    """A dataclass as a typed config to merge with (which copies it): an unknown key or a wrong type raises."""
    schema: DictConfig = OmegaConf.structured(cls)
    _make_writable(schema)  # frozen dataclasses come read-only
    return schema


def _make_writable(node: DictConfig) -> None:
    OmegaConf.set_readonly(node, False)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig):
            _make_writable(child)


def merge(base: DictConfig, values: Mapping[str, Any], where: str) -> DictConfig:
    """`base` updated by `values`; a UserError names the key, `where` it stands, and the nearest valid key."""
    try:
        merged = OmegaConf.merge(base, dict(values))
    except OmegaConfBaseException as error:
        raise UserError(explain(error, base, where)) from error
    assert isinstance(merged, DictConfig)
    return merged


def explain(error: Exception, known: DictConfig, where: str) -> str:
    """One line for a key or value that the schema refuses."""
    key = str(getattr(error, "full_key", "") or "")
    reason = str(error).splitlines()[0]
    if isinstance(error, ConfigKeyError):
        return f"{where}: unknown key '{key}'{nearest(key, known_keys(known))}"
    inside = [name for name in known_keys(known) if name.startswith(f"{key}.")]
    if isinstance(error, ValidationError) and inside and "is not a subclass" in reason:
        return f"{where}: {key} has settings of its own: {', '.join(inside)}"
    if " to Dict[" in reason:
        return f"{where}: {key} has keys of its own, which are set one by one: {key}.NAME=…"
    return f"{where}: {key}: {reason}"


def known_keys(config: DictConfig, prefix: str = "") -> list[str]:
    """Dotted names of every leaf and mapping of a config: what a user may have meant."""
    keys = []
    for key in config:
        child = config._get_node(key)
        name = prefix + str(key)
        keys += [name, *(known_keys(child, name + ".") if isinstance(child, DictConfig) else [])]
    return keys


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted names: `{"model": {"layers": 2}}` -> `{"model.layers": 2}`; empty mappings stay."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flat


def to_settings(paper: str, values: Mapping[str, Any]) -> Any:
    """An instance of the paper's `Settings`, for example from a frozen `config.yaml`."""
    return OmegaConf.to_object(merge(open_schema(paper), values, f"{paper} settings"))

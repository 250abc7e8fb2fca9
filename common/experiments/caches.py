"""`repro cache`: what is kept on disk of language models and of encoders, and dropping it."""

from dataclasses import dataclass
from pathlib import Path

import click

from common.experiments.errors import UserError
from common.models import embedding_cache, response_cache

KINDS = ("responses", "embeddings")


@dataclass(frozen=True)
class _Entry:
    """What is kept of one model: its name (for --model), what else tells it from others, how much."""

    model: str
    details: str
    count: int
    bytes: int


def show() -> None:
    """Where each cache lies, and entries and bytes of each model in it."""
    for kind in KINDS:
        folder, kept = _folder(kind), _entries(kind)
        click.echo(f"{click.style(kind, bold=True)} in {folder}: {_total(kept, kind)}")
        for entry in kept:
            click.echo(f"  {entry.model:<48} {entry.count:>9,} {_size(entry.bytes):>10}  {entry.details}".rstrip())


def clear(kinds: str, model: str | None) -> None:
    """Drop what is kept of one model or, where `model` is None, of all.

    Args:
        kinds: one of KINDS, or `all` of them.

    Raises:
        UserError: nothing is kept of that model; or a model of `all`, whose caches name models differently.
    """
    if kinds == "all" and model is not None:
        raise UserError(f"--model goes with --clear {' or --clear '.join(KINDS)}, as `repro cache` shows it")
    for kind in KINDS if kinds == "all" else (kinds,):
        module = response_cache if kind == "responses" else embedding_cache
        click.echo(f"dropped {module.clear(_folder(kind), model):,} {kind} from {_folder(kind)}")


def _folder(kind: str) -> Path:
    return response_cache.default_folder() if kind == "responses" else embedding_cache.default_folder()


def _entries(kind: str) -> list[_Entry]:
    if kind == "responses":
        return [_Entry(kept.model, "", kept.responses, kept.bytes) for kept in response_cache.entries(_folder(kind))]
    return [
        _Entry(kept.name, f"revision {kept.revision}, {kept.dimension} dimensions", kept.vectors, kept.bytes)
        for kept in embedding_cache.entries(_folder(kind))
    ]


def _total(kept: list[_Entry], kind: str) -> str:
    if not kept:
        return "nothing"
    return f"{sum(entry.count for entry in kept):,} {kind}, {_size(sum(entry.bytes for entry in kept))}"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"

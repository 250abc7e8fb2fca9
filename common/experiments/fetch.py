"""`repro fetch`: models and data of tables onto this machine, before jobs run on nodes without a network.

The one command that downloads. Models go to the Hugging Face cache, data sets to the user's cache (see `common.data`).
"""

import hashlib
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from common.data.catalogue import dataset
from common.data.registry import DataFile, Dataset, cache_folder, how_to_get, missing
from common.experiments.compose import compose_table
from common.experiments.errors import UserError
from common.files import replacing
from common.models.checkpoints import find
from common.models.hub import hub_folder

UNWANTED = [
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.h5",
    "*.msgpack",
    "*.onnx",
    "*.gguf",
    "*.ot",
]  # weights we never read


def fetch(name: str, scale: str, overrides: Sequence[str]) -> None:
    """Get every model and data set of a table that is not here yet; one line for each.

    Raises:
        UserError: something cannot be had this way; everything else was fetched.
    """
    table = compose_table(name, scale, overrides)
    failures = []
    for what, action in [
        *((f"model {model}", partial(_model, model)) for model in table.needs.models),
        *((f"data set {each}", partial(_data, dataset(each), table.data)) for each in table.needs.data),
    ]:
        try:
            click.echo(f"{what}: {action()}")
        except UserError as error:
            failures.append(f"{what}: {error}")
    if failures:
        raise UserError("; ".join(failures))
    if not (table.needs.models or table.needs.data):
        click.echo(f"{name} at {scale} scale needs no model and no data set")


def _model(name: str) -> str:
    """Download one registered checkpoint at its revision, safetensors and tokenizer."""
    checkpoint = find(name)
    if checkpoint.cached():
        return "already here"
    if checkpoint.pickled:
        raise UserError(f"has pickled weights only, which are never read: {checkpoint.how_to_get()}")
    return f"in {_snapshot(name, 'model', checkpoint.revision, checkpoint.how_to_get(), ignore=UNWANTED)}"


def _data(found: Dataset, mirror: Path | None) -> str:
    """Download what is missing of one data set: files with a public address, checked; parquet files of the hub."""
    absent = missing(found, mirror)
    if not absent:
        return "already here"
    if found.hub:
        patterns = [f"{found.hub.config}/*"]
        return f"in {_snapshot(found.hub.repo, 'dataset', found.hub.revision, how_to_get(found), only=patterns)}"
    files = [found.file(path) for path in absent]
    if any(file.url is None for file in files):
        raise UserError(how_to_get(found))
    for file in files:
        _file(found, file)
    return f"in {cache_folder() / found.name}"


def _file(found: Dataset, file: DataFile) -> None:
    """Download one file under another name, check it, and rename it."""
    try:
        with replacing(cache_folder() / found.name / file.path) as partial:
            with urllib.request.urlopen(str(file.url), timeout=60) as source, open(partial, "wb") as copy:
                shutil.copyfileobj(source, copy)
            with open(partial, "rb") as copy:
                got = hashlib.file_digest(copy, "sha256").hexdigest()
            if got != file.sha256:
                raise UserError(f"{file.url} is not the registered file (sha256 {got[:12]}…, not {file.sha256[:12]}…)")
    except (urllib.error.URLError, TimeoutError) as error:
        raise UserError(f"{file.url} cannot be downloaded: {error}") from error


def _snapshot(
    repo: str,
    kind: str,
    revision: str | None,
    otherwise: str,
    only: list[str] | None = None,
    ignore: list[str] | None = None,
) -> str:
    """Download from the Hugging Face hub into its cache."""
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return snapshot_download(
            repo, repo_type=kind, revision=revision, cache_dir=hub_folder(), allow_patterns=only, ignore_patterns=ignore
        )
    except (HTTPError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot be downloaded ({reason}); by hand: {otherwise}") from error

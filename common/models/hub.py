"""Models on this machine: what its copy of the Hugging Face hub has and where, and revisions. Never the network."""

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.experiments.errors import UserError, nearest


def hub_folder() -> Path:
    """Where downloaded models lie: `$HF_HUB_CACHE`, else `$HF_HOME/hub`, else ~/.cache/huggingface/hub."""
    hub = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub"
    return Path(hub).expanduser()


def cached(name: str) -> bool:
    """Whether a model `owner/name` was downloaded in some revision; loads nothing."""
    return bool(_commits(name))


def how_to_get(name: str, revision: str | None = None) -> str:
    """The command that brings a model onto this machine."""
    return f"hf download {name}" + (f" --revision {revision}" if revision else "")


def snapshot(name: str, revision: str | None = None) -> Path:
    """Folder of a downloaded model; its last part is the commit.

    Args:
        revision: commit, branch or tag; None is `main` as it was downloaded, or else the only revision here.

    Raises:
        UserError: the name is no `owner/name`, or that revision is not here; one line with the way out.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    if revision is None and len(commits := _commits(name)) == 1:
        revision = commits[0]
    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True, cache_dir=hub_folder()))
    except HFValidationError:
        raise UserError(f"model '{name}' is neither a folder nor an id owner/name on the Hugging Face hub") from None
    except LocalEntryNotFoundError:
        at = f" at revision {revision}" if revision else ""
        raise UserError(f"model '{name}'{at} is not on this machine: {how_to_get(name, revision)}") from None


def located(name: str, revision: str | None = None) -> tuple[Path, str, str]:
    """Folder, name and revision of a model: a path, or an id of the hub that this machine has.

    Raises:
        UserError: it is not here, or has no safetensors.
    """
    if os.path.isdir(name):
        folder = Path(name).resolve()
        title, commit = folder.name, folder_revision(folder)
    elif _reads_as_path(name):
        raise UserError(f"no model in {name}: no such folder{nearest(name, folders_beside(name))}")
    else:
        folder = snapshot(name, revision)
        title, commit = name, folder.name
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"model '{title}' has no safetensors in {folder}, and pickled weights are never read")
    return folder, title, commit


def folders_beside(name: str) -> list[str]:
    """Folders with a model in the place that a path names: what may have been meant."""
    parent = Path(name).parent
    return [str(path.parent) for path in parent.glob("*/config.json")] if parent.is_dir() else []


def _reads_as_path(name: str) -> bool:
    """Whether a name that is no folder was meant as one, and not as an id `owner/name`."""
    beside = Path(name).parent.is_dir() and "/" in name and not cached(name)
    return os.path.isabs(name) or name.startswith(".") or beside


def folder_revision(folder: Path) -> str:
    """`sha256:` and 16 digits over the names and bytes of the files that a model folder is loaded from."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".json", ".jinja", ".txt", ".model", ".safetensors") and path.is_file():
            total.update(path.relative_to(folder).as_posix().encode())
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{total.hexdigest()[:16]}"


@contextmanager
def without_bars() -> Iterator[None]:
    """Models are loaded and saved without progress bars of transformers, which then are as they were."""
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()


def mute_kernel_advice() -> None:
    """For models on a CPU: no advice to install CUDA kernels for LFM2's convolutions, from now on in this process."""
    logging.getLogger("transformers.integrations.hub_kernels").addFilter(_no_kernel_advice)


def _no_kernel_advice(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("`causal_conv1d_")


def _commits(name: str) -> list[str]:
    """Downloaded revisions of a model."""
    folder = hub_folder() / f"models--{name.replace('/', '--')}" / "snapshots"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

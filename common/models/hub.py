"""This machine's copy of the Hugging Face hub: what is there and where. Never the network."""

import os
from pathlib import Path

from common.experiments.errors import UserError


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


def _commits(name: str) -> list[str]:
    """Downloaded revisions of a model."""
    folder = hub_folder() / f"models--{name.replace('/', '--')}" / "snapshots"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

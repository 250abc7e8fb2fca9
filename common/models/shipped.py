"""Models that a paper ships: the weights beside its code, with the settings that they were trained with.

A warm start that every table of a paper begins with may take an hour of a core. Whoever leaves its settings as they are
takes what is shipped, whoever changes one trains their own:

    model = shipped(WEIGHTS / "base", REVISION, key) or context.artifact("base", key, make)

Code and machine are not in `key`: what is shipped stays what the reports are of. The revision stands in the paper's
code, so that with other weights its cells are other cells.

| file | |
|---|---|
| `settings.json` | what the weights depend on besides code |
| `measured.json` | what the model could do when it was shipped |
| `training.jsonl` | the log of its last training; of those before, by name |
| others | an ordinary checkpoint of transformers, in bf16 |
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.experiments.errors import UserError
from common.models.hub import folder_revision

SETTINGS = "settings.json"


def shipped(folder: Path, revision: str, settings: Mapping[str, Any]) -> Path | None:
    """The folder, where its weights were trained with these settings; else None, and the cell's log says why.

    Args:
        revision: of the folder, as `ship` gave it.
        settings: JSON-serialisable: all that training depends on besides code.

    Raises:
        UserError: the folder has other files than those that were shipped.
    """
    path = folder / SETTINGS
    if not path.exists():
        return None
    own, theirs = json.loads(json.dumps(settings)), json.loads(path.read_text())
    if differing := sorted(name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name)):
        print(f"the shipped {folder.name} is not taken: it was trained with other settings of {', '.join(differing)}")
        return None
    if (found := folder_revision(folder)) != revision:
        raise UserError(f"{folder} is not what was shipped, {revision}, but {found}: `git checkout` brings it back")
    return folder


def ship(
    model: Path,
    settings: Mapping[str, Any],
    measured: Mapping[Any, Any],
    folder: Path,
    logs: Mapping[str, Path] | None = None,
) -> str:
    """Copy a trained model into `folder`, weights rounded to bf16, in place of what was there; returns the revision.

    Args:
        measured: what the model can do.
        logs: of trainings before the last one: name -> file.
    """
    import torch
    from safetensors.torch import load_file, save_file

    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for path in model.iterdir():
        if path.suffix in (".json", ".jinja", ".jsonl"):
            shutil.copy(path, partial / path.name)
    for name, path in (logs or {}).items():
        shutil.copy(path, partial / f"training.{name}.jsonl")
    weights = load_file(model / "model.safetensors")
    rounded = {name: value.to(torch.bfloat16) for name, value in weights.items()}
    save_file(rounded, partial / "model.safetensors", metadata={"format": "pt"})
    (partial / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")
    (partial / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n")
    for path in partial.iterdir():
        path.chmod(0o644)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder_revision(folder)

"""Models that a paper ships: the weights beside its code, with the settings that they were trained with.

A warm start that every table of a paper begins with may take an hour of a core. Whoever leaves its settings as they are
takes what is shipped, whoever changes one trains their own:

    model = shipped(WEIGHTS, key) or context.artifact("base", key, make)

Code and machine are not in `key`: what is shipped stays what the reports are of.

| file | |
|---|---|
| `settings.json` | what the weights depend on besides code |
| `training.jsonl` | the log of the training |
| others | an ordinary checkpoint of transformers, in bf16 |
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.files import write_atomically

SETTINGS = "settings.json"


def shipped(folder: Path, settings: Mapping[str, Any]) -> Path | None:
    """The folder, where its weights were trained with these settings; else None.

    The cell's log says so where weights ship that were trained with others.

    Args:
        settings: JSON-serialisable: all that training depends on besides code.
    """
    path = folder / SETTINGS
    if not path.exists():
        return None
    if json.loads(path.read_text()) == json.loads(json.dumps(settings)):
        return folder
    print(f"{folder.name}: trained here or by another cell; what ships was trained with other settings")
    return None


def ship(model: Path, settings: Mapping[str, Any], folder: Path) -> None:
    """Copy a trained model into `folder`, weights rounded to bf16, with the settings that it was trained with.

    Raises:
        FileExistsError: `folder` is there.
    """
    import torch
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True)
    for path in model.iterdir():
        if path.suffix in (".json", ".jinja", ".jsonl"):
            shutil.copy(path, folder / path.name)
    weights = load_file(model / "model.safetensors")
    rounded = {name: value.to(torch.bfloat16) for name, value in weights.items()}
    save_file(rounded, folder / "model.safetensors", metadata={"format": "pt"})
    write_atomically(folder / SETTINGS, json.dumps(settings, indent=1) + "\n")

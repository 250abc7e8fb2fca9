"""Stage 1 of the tiny tables, as it is shipped: `weights/model.safetensors`, its recipe and its log.

    python -m projects.cmt.shipped OUT        # stage 1 of the same recipe, trained anew; a GPU makes it minutes

Made on a GPU for 165 seconds, from batches that several processes drew ahead: the command makes a compressor of this
kind, not these bytes. `common.models.shipped` is not the form: the compressor is no checkpoint of transformers, and it
fits one language model alone, whose hash its key holds.
"""

import json
import sys
from pathlib import Path
from typing import Any

from common.data.own_files import sha256
from common.experiments.errors import UserError

FOLDER = Path(__file__).parent / "weights"
SHA256 = (
    "51bfebcc852fca8678d4449a806b81ef99ce5ace3936c7244b10c33eeb364f59"  # of the weights: a cell's key changes with them
)


def fits(key: dict[str, Any], base: str) -> bool:
    """Whether the shipped weights were trained with the settings `key` around the language model of hash `base`.

    The name of the language model, a place on somebody's disk perhaps, does not count.

    Raises:
        UserError: they were, and the file has other weights than those that were shipped.
    """
    recipe = json.loads((FOLDER / "recipe.json").read_text())
    own = {**key, "base": {name: value for name, value in key["base"].items() if name != "model"}}
    if recipe["settings"] != own or recipe["base_sha256"] != base:
        return False
    if sha256(path := FOLDER / "model.safetensors") != SHA256:
        raise UserError(f"{path} is not what was shipped: `git checkout` brings it back")
    return True


def main(out: Path) -> None:
    """Stage 1 with the default settings, those of the tiny tables, into `out`."""
    import torch
    from safetensors.torch import load_file, save_file

    from common.experiments.context import Context
    from common.experiments.randomness import seed_phase
    from projects.cmt import run
    from projects.cmt.method import CMT
    from projects.cmt.prompts import Prompting
    from projects.cmt.settings import Objective, Settings

    settings, context = Settings(), Context(seed=Settings().training.first_seed, folder=out)
    lm = run.base_model(settings, context)
    seed_phase(context.seed, "initial")
    prompting = Prompting(lm.tokenizer, settings.base.prompt, settings.data.question_tokens)
    cmt = CMT(lm, prompting, settings.memory, settings.data.document_tokens, settings.objective.temperature)
    run.train(settings, context, cmt, Objective(kind="nll"), context.seed, out, first=True)
    weights = load_file(out / "model.safetensors")
    save_file({name: value.to(torch.bfloat16) for name, value in weights.items()}, out / "model.safetensors")
    key = run.shared_key(settings)
    key["base"].pop("model")
    recipe = {"settings": key, "base_sha256": lm.hash, "device": str(lm.device), "torch": torch.__version__}
    (out / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n")
    print(f"{out}: to ship it, SHA256 must be {sha256(out / 'model.safetensors')}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Toy checkpoints that know something: sure of a few answers, so that backends must agree token by token.

Random weights are poor witnesses of agreement: their likeliest tokens are near ties, and rounding decides. These are
trained for seconds until every answer stands out, and kept under `build/` by the hash of what makes them.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from common.models import toy
from common.models.toy import byte_tokenizer, toy_checkpoint

ANSWERS = {
    "Where does Ada live?": " In Oslo, by the fjord.",
    "Where does Bo live?": " In Lima, near the sea.",
    "What does Bo drink?": " Café crème ☕ only.",
    "Count to five.": " 1, 2, 3, 4, 5",
    "Write JSON.": ' {"a": 1, "b": "x"}',
    "今日は？": " 雪が降る。",
}
STEPS, RATE = 250, 5e-3
KEPT = Path(__file__).resolve().parents[3] / "build" / "trained"


def question(text: str) -> list[dict[str, str]]:
    """A chat that asks it."""
    return [{"role": "user", "content": text}]


def trained_checkpoint(family: str) -> Path:
    """Folder of a toy of that family that answers the questions of `ANSWERS`, as plain text and as chat."""
    sources = b"".join(Path(path).read_bytes() for path in (__file__, toy.__file__))
    folder = KEPT / f"{family}-{hashlib.sha256(sources).hexdigest()[:12]}"
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}")
        _train(family, partial)
        try:
            partial.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(partial)
    return folder


def _train(family: str, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    toy_checkpoint(family, folder)
    tokenizer = byte_tokenizer()
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for parameter in model.parameters():  # the spread of toys is too wide to train from
        if parameter.dim() > 1:
            parameter.data *= 0.3
    texts = []
    for asked, answer in ANSWERS.items():
        texts.append(f"{asked}{answer}<|end|>")
        chat = [*question(asked), {"role": "assistant", "content": answer.strip()}]
        texts.append(tokenizer.apply_chat_template(chat, tokenize=False))
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # steps are too small to share
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    model.train()
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 20, 2 * (STEPS - step) / STEPS)
        model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    torch.set_num_threads(threads)
    model.eval().save_pretrained(folder)

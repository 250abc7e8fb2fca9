"""WikiText-2, validation and test (Merity et al., ICLR 2017; arXiv:1609.07843): word-level text with `<unk>`.

`load` gives lines as token lists; with one end-of-line token per line the counts are the published 217,646 and
245,569.

Traps: training on validation is for offline smoke tables only, never WikiText-2 perplexity. `wikitext-2-raw-v1` is
another tokenisation. Headings are lines like `= Title =`; blank lines are empty lists.
Licence: CC BY-SA 3.0 (text from Wikipedia).
"""

from dataclasses import dataclass
from pathlib import Path

from common.data.registry import DataFile, Dataset, pick, read_text

DATASET = Dataset(
    name="wikitext2",
    title="WikiText-2 (validation and test)",
    source="arXiv:1609.07843, Salesforce/wikitext; copy of pytorch/examples (word_language_model/data/wikitext-2/)",
    revision="pytorch/examples 77f55b91",
    licence="CC BY-SA 3.0",
    non_commercial=False,
    files=(
        DataFile(
            "valid.txt",
            "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
            rows=3760,
            split="validation",
        ),
        DataFile(
            "test.txt",
            "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
            rows=4358,
            split="test",
        ),
    ),
    splits={"train": 36718, "validation": 3760, "test": 4358},  # lines
    papers=("gka",),
    canonical="Hugging Face Salesforce/wikitext (wikitext-2-v1)",
    bytes_full=13_000_000,
)

SPLITS = {"validation": "valid.txt", "test": "test.txt"}


@dataclass(frozen=True)
class Line:
    """One paragraph, heading or blank line as tokens, without the end-of-line token."""

    tokens: tuple[str, ...]


def load(data: Path | None, split: str = "validation") -> list[Line]:
    """Lines of `validation` or `test`, blank ones included. Errors: `registry.find`; UserError for another split."""
    text = read_text(DATASET, pick("split of wikitext2", split, SPLITS), data)
    return [Line(tuple(line.split())) for line in text.removesuffix("\n").split("\n")]

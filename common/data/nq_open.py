"""NQ-open (Kwiatkowski et al., TACL 2019; Lee et al., ACL 2019): short-answer questions, no passages.

- `dev`: 3,610 questions, the published dev split, which papers report as the NQ-open *test* set.
- `efficientqa_dev`, `efficientqa_test` (arXiv:2101.00133): 1,800 and 1,769 questions, splits of their own.
- `train_heldout`: 8,757 questions held out of train (the 'dev' questions of DPR); none is in `dev`: a small training
  set. `load_judged` gives the EfficientQA test set with system predictions that people judged.

Traps: answers of `train_heldout` are tokenised (`581 ( second edition )`): normalise before exact match. In the
judged file `answers` is the original annotation, `answers_enlarged` the longer reference list.
Licence: CC BY-SA 3.0.
"""

from dataclasses import dataclass
from pathlib import Path

from common.data.registry import DataFile, Dataset, pick, read_jsonl
from common.data.rows import OpenQuestion, read_open_questions

DATASET = Dataset(
    name="nq_open",
    title="NQ-open",
    source="TACL 2019, google-research-datasets/natural-questions (nq_open/); castorini/anserini-tools",
    revision="google-research-datasets/natural-questions fb26a307; castorini/anserini-tools 5b819c1a",
    licence="CC BY-SA 3.0",
    non_commercial=False,
    files=(
        DataFile(
            "NQ-open.dev.jsonl",
            "f15567f38099f3615f5b8a685c0aef449c11ad90d3da3735e8d1b98115b40616",
            rows=3610,
            split="dev",
        ),
        DataFile(
            "NQ-open.efficientqa.dev.1.1.jsonl",
            "0ad45e2fa9fd32d10b3cf08c63e6d22f97ba1a0ce44ea98040f4c18bce7e268d",
            rows=1800,
            split="EfficientQA dev",
        ),
        DataFile(
            "NQ-open.efficientqa.test.1.1.jsonl",
            "c37b3cb2069632dfef219fa770d7910ac77ff6d12a08e8f3d5f058b388aca8a6",
            rows=1769,
            split="EfficientQA test",
        ),
        DataFile(
            "NQ-open.train_heldout_dpr_dev.jsonl",
            "3f76b6b648873aa1f08ac7eaaf36ec38c14848f7c50781740db9dfd7bd857316",
            rows=8757,
            split="train (DPR's held-out part)",
        ),
    ),
    splits={"train": 87925, "dev": 3610, "efficientqa_dev": 1800, "efficientqa_test": 1769},
    papers=("amber", "dsi_pp", "mem1"),
    canonical="Hugging Face google-research-datasets/nq_open",
    bytes_full=9_000_000,
)

SPLITS = {
    "dev": "NQ-open.dev.jsonl",
    "efficientqa_dev": "NQ-open.efficientqa.dev.1.1.jsonl",
    "efficientqa_test": "NQ-open.efficientqa.test.1.1.jsonl",
    "train_heldout": "NQ-open.train_heldout_dpr_dev.jsonl",
}


@dataclass(frozen=True)
class JudgedQuestion:
    """An EfficientQA test question with predictions of the competition's systems as people judged them."""

    question: str
    answers: tuple[str, ...]
    answers_enlarged: tuple[str, ...]
    definitely_correct: tuple[str, ...]
    possibly_correct: tuple[str, ...]
    definitely_incorrect: tuple[str, ...]


def load(data: Path | None, split: str = "dev") -> list[OpenQuestion]:
    """Questions of one of `SPLITS`, in file order. Errors: `registry.find`; UserError for an unknown split."""
    return read_open_questions(DATASET, pick("split of nq_open", split, SPLITS), data)


def load_judged(data: Path | None) -> list[JudgedQuestion]:
    """The 1,769 EfficientQA test questions with judged predictions. Errors: `registry.find`."""
    return [
        JudgedQuestion(
            question=row["question"],
            answers=tuple(row["answer"]),
            answers_enlarged=tuple(row["answer_and_def_correct_predictions"]),
            definitely_correct=tuple(row["def_correct_predictions"]),
            possibly_correct=tuple(row["poss_correct_predictions"]),
            definitely_incorrect=tuple(row["def_incorrect_predictions"]),
        )
        for row in read_jsonl(DATASET, SPLITS["efficientqa_test"], data)
    ]

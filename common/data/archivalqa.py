"""ArchivalQA, question quality set (Wang et al., SIGIR 2022; arXiv:2109.03438): questions over news, no articles.

10,000 questions over 4,646 New York Times paragraphs (1987-2007), labelled to train the authors' filter: 9,000 train,
1,000 test. A sample of style and format, **not** the ArchivalQA benchmark (532,444 pairs).

Traps: the label's meaning is inferred from reading samples: `Y` acceptable (5,699), `X` to be filtered out (4,301).
Ten answers do not occur in their paragraph. Online-adaptation papers use their own subset of the licensed corpus.
Licence: Apache-2.0 for questions, answers, labels; the paragraphs (LDC2008T19) are not redistributable and not
included.
"""

from dataclasses import dataclass
from pathlib import Path

from common.data.registry import DataFile, Dataset, read_jsonl

DATASET = Dataset(
    name="archivalqa",
    title="ArchivalQA (question quality set)",
    source="arXiv:2109.03438, WangJiexin/ArchivalQA (Other_Data/triple-based_filtering), paragraph text dropped",
    revision="WangJiexin/ArchivalQA 00e18c4d",
    licence="Apache-2.0 (questions, answers, labels); article text LDC2008T19, not included",
    non_commercial=False,
    files=(
        DataFile(
            "triple_filtering_qa.jsonl.gz",
            "7ce471814a36c6128db2134490df50b9fd3ea98ee6e932b39ed3f5f804ea1f5a",
            rows=10000,
            split="filter data (train 9,000, test 1,000)",
        ),
    ),
    splits={"train": 425956, "dev": 53244, "test": 53244},
    papers=("cmt",),
    canonical="GitHub WangJiexin/ArchivalQA (linked download); article text: LDC2008T19",
    bytes_full=100_000_000,
)


@dataclass(frozen=True)
class FilterQuestion:
    """A generated question.

    Attributes:
        para_id: `<NYT document id>_<paragraph>`.
        acceptable: label `Y` (see the module's traps).
        split: train or test of the filter data.
    """

    id: str
    question: str
    answer: str
    para_id: str
    acceptable: bool
    split: str


def load(data: Path | None) -> list[FilterQuestion]:
    """All 10,000 questions, in file order. Errors: `registry.find`."""
    return [
        FilterQuestion(row["id"], row["question"], row["answer"], row["para_id"], row["label"] == "Y", row["split"])
        for row in read_jsonl(DATASET, "triple_filtering_qa.jsonl.gz", data)
    ]

"""ZsRE for model editing (Levy et al., CoNLL 2017; MEND form, arXiv:2110.11309): 1,000 training records.

Split: a sample of MEND's **train** split (163,196), not of the 19,086-row eval split that papers report.
Traps: `alt` is the edit target in MEND's setting, `answers[0]` in ROME's: state which. `pred` is a base model's own
answer (equal to `answers[0]` in 571 of 1,000 rows). The file prefixes every locality question with 'nq question: ';
it is kept, as models of this setting were trained with it.
Licence: zsRE (Levy et al.) states none: research use; MEND form MIT, carrying repository Apache-2.0.
"""

from dataclasses import dataclass
from pathlib import Path

from common.data.registry import DataFile, Dataset, read_json

DATASET = Dataset(
    name="zsre",
    title="ZsRE (editing sample)",
    source="CoNLL 2017; arXiv:2110.11309, eric-mitchell/mend; copy of Jometeorie/KnowledgeSpread",
    revision="Jometeorie/KnowledgeSpread 51d74026",
    licence="research use (zsRE states no licence); carriers MIT, Apache-2.0",
    non_commercial=False,
    files=(
        DataFile(
            "zsre_mend_train-1k.json",
            "e62596101d8ed551889c26c0d2a5277f92eaef3b14416d8eaee39b04a244ab60",
            rows=1000,
            split="train (sample)",
        ),
    ),
    splits={"train": 163196, "eval": 19086},
    papers=("wise",),
    canonical="https://rome.baulab.info/data/dsets/ (zsre_mend_eval.json, zsre_mend_train.json)",
    bytes_full=100_000_000,
)


@dataclass(frozen=True)
class Edit:
    """One record.

    Attributes:
        question, rephrase: the edited question and a paraphrase.
        pred: a base model's answer before the edit.
        alt: the new answer to write.
        answers: the true answers.
        locality_question, locality_answer: an unrelated Natural Questions probe (prefix 'nq question: ' kept).
        condition: `old >> new || question`, MEND's conditioning string.
    """

    subject: str
    question: str
    rephrase: str
    pred: str
    alt: str
    answers: tuple[str, ...]
    locality_question: str
    locality_answer: str
    condition: str


def load(data: Path | None) -> list[Edit]:
    """The 1,000 records, in file order. Errors: `registry.find`."""
    return [
        Edit(
            subject=row["subject"],
            question=row["src"],
            rephrase=row["rephrase"],
            pred=row["pred"],
            alt=row["alt"],
            answers=tuple(row["answers"]),
            locality_question=row["loc"],
            locality_answer=row["loc_ans"],
            condition=row["cond"],
        )
        for row in read_json(DATASET, "zsre_mend_train-1k.json", data)
    ]

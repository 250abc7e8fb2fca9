"""What the shipped stage 1 of CMT answers on validation streams: `python -m tests.benchmarks.cmt_stage1`.

Streams as those of the tiny tables, of 192 documents, but of the validation split and of seeds that no table has. With
`--write` the table goes to reports/cmt/stage1.md.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.experiments.context import VALIDATION_SEED, Context
from common.experiments.records import now
from common.experiments.worker import hardware, versions
from common.files import write_atomically
from common.memory.dense_bank import DenseBank
from projects.cmt import run, shipped
from projects.cmt.baselines import ClosedBook
from projects.cmt.data import STYLES, Question, load_streams
from projects.cmt.method import CMT, Online
from projects.cmt.prompts import Prompting
from projects.cmt.settings import Settings
from tests.conftest import ROOT

PAGE = ROOT / "reports" / "cmt" / "stage1.md"
SEEDS = (VALIDATION_SEED, VALIDATION_SEED + 1, VALIDATION_SEED + 2)
DOCUMENTS = 192
CHOSEN = {"k = 1": 1, "k = 4": 4, "whole bank": 0}  # documents that are aggregated
MEASURES = ("EM", "F1", "F1, two tokens and more", "F1, updated", "gold among the top k")
HEAD = (
    "# Stage 1 of CMT, as it is shipped\n\n"
    f"Greedy answers on the validation streams of seeds {', '.join(map(str, SEEDS))}, {DOCUMENTS} documents each, "
    "without stage 2 and without contrast; `closed book` is MicroLM alone. Mean over the seeds, lowest and highest "
    "in brackets. Two tokens and more: answers that MicroLM does not write in one token, names above all. "
    "Updated: questions about people whom MicroLM was taught, with new facts. Gold: the document asked about.\n"
)
Figures = dict[str, float]


def figures(prompting: Prompting, questions: Sequence[Question], answers: Sequence[str]) -> Figures:
    """Scores of a stream's answers, and F1 of two parts of them; an answer has its end as one more token."""
    parts = {
        "F1, two tokens and more": [len(prompting.answer(question.target)) > 2 for question in questions],
        "F1, updated": [question.kind == "updated" for question in questions],
    }
    scores = run.mean_scores(questions, answers)
    found = {"EM": scores["em"], "F1": scores["f1"]}
    for name, chosen in parts.items():
        part = [pair for pair, inside in zip(zip(questions, answers, strict=True), chosen, strict=True) if inside]
        found[name] = run.mean_scores(*zip(*part, strict=True))["f1"]
    return found


def of_stream(settings: Settings, cmt: CMT, closed: ClosedBook, prompting: Prompting, seed: int) -> dict[str, Figures]:
    """Figures of the stream of one seed, by what the answers were given."""
    stream = load_streams(settings.data, seed, None).validation
    questions = [question for document in stream for question in document.questions]
    gold = [row for row, document in enumerate(stream) for _ in document.questions]
    found = {"closed book": figures(prompting, questions, closed.answer(questions))}
    online = Online(cmt, DenseBank(), encode=settings.encode, ask=settings.ask, tokens=settings.tokens, alpha=0.0)
    online.read([document.text for document in stream])
    for name, k in CHOSEN.items():
        cmt.memory = replace(cmt.memory, k=k)
        answers, given = online.answer([question.text for question in questions])
        found[name] = figures(prompting, questions, answers)
        if k:
            hits = [row in rows for row, rows in zip(gold, given, strict=True)]
            found[name]["gold among the top k"] = statistics.fmean(hits)
    return found


def table(found: Sequence[dict[str, Figures]]) -> list[str]:
    """Rows of a style: what was given, and each measure over the seeds."""
    lines = [f"| | {' | '.join(MEASURES)} |", "|---|" + "---|" * len(MEASURES)]
    for name in found[0]:
        cells = []
        for measure in MEASURES:
            values = [one[name][measure] for one in found if measure in one[name]]
            cells.append(f"{statistics.fmean(values):.2f} [{min(values):.2f}, {max(values):.2f}]" if values else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def page() -> str:
    """The whole page."""
    settings = Settings()
    lm = run.base_model(settings, Context(seed=0, folder=Path()))
    if not shipped.fits(run.shared_key(settings), lm.hash):
        sys.exit("the shipped stage 1 was not trained with these settings around this MicroLM")
    prompting = Prompting(lm.tokenizer, settings.base.prompt, settings.data.question_tokens)
    cmt = CMT(lm, prompting, settings.memory, settings.data.document_tokens)
    run.load(cmt, shipped.FOLDER)
    closed = ClosedBook(lm, prompting, settings.tokens, settings.ask)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    lines = [
        HEAD,
        f"`python -m tests.benchmarks.cmt_stage1 --write`, {now()}, commit {commit[:12]}. Stage 1 "
        f"`sha256:{shipped.SHA256[:16]}`, MicroLM `sha256:{lm.hash[:16]}`, τ = {cmt.temperature.item():.3f}.",
        f"\n{json.dumps(hardware())}\n\n{json.dumps(versions())}",
    ]
    for style in STYLES:
        own = replace(settings, data=replace(settings.data, name=style, validation=DOCUMENTS))
        found = [of_stream(own, cmt, closed, prompting, seed) for seed in SEEDS]
        lines += [f"\n## {style}\n", *table(found)]
    return "\n".join(lines) + "\n"


def main() -> None:
    text = page()
    print(text)
    if "--write" in sys.argv:
        write_atomically(PAGE, text)


if __name__ == "__main__":
    main()

"""Body of `repro recall`: how much of the evidence the retrievers find, on real corpora with gold passages."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from common.experiments.errors import UserError
from common.experiments.worker import hardware, versions
from common.files import write_atomically

if TYPE_CHECKING:
    from common.data.gold_passages import GoldCorpus
    from common.models.encoders import Encoder
    from common.retrievers.retriever import Retriever

CUTS = (1, 2, 5, 10, 20)
COMPARED = 5  # the cut at which hybrid is compared with its parts
TITLES = {
    "musique": "MuSiQue",
    "hotpotqa": "HotpotQA",
    "2wikimultihopqa": "2WikiMultihopQA, passages that questions name",
    "2wikimultihopqa_cloze": "2WikiMultihopQA, sentences taken out",
    "locomo": "LoCoMo",
}


@dataclass(frozen=True)
class Row:
    """Recall of one retriever on one set, by the mean over questions.

    Attributes:
        recall: cut -> (mean, low, high), fractions; the bounds are those of a 95% interval, None for chance.
        complete: cut -> share of questions all of whose gold passages were found.
    """

    set: str
    retriever: str
    questions: int
    passages: int
    recall: dict[int, tuple[float, float | None, float | None]]
    complete: dict[int, float]


@dataclass(frozen=True)
class Difference:
    """Recall@`COMPARED` of hybrid minus that of another, paired by question; `p_value` is adjusted over all (Holm)."""

    set: str
    other: str
    mean: float
    low: float | None
    high: float | None
    p_value: float | None


def show_recall(names: Sequence[str], most: int | None, page: Path | None) -> None:
    """Print recall@k of all retrievers on the sets named, all by default.

    Args:
        most: passages of a corpus; None: all (`gold_passages.smaller`).
        page: a Markdown file to write; its figures go beside it as JSON.

    Raises:
        UserError: an unknown set, data that is not here, a page that is no Markdown file.
    """
    from common.data.gold_passages import SETS, load, smaller
    from common.models.embedding_cache import CachedEncoder, default_folder
    from common.models.encoders import build

    if page is not None and page.suffix != ".md":
        raise UserError(f"--write takes a Markdown file, such as {page.with_suffix('.md')}")
    data = Path(os.environ["REPRO_DATA"]) if os.environ.get("REPRO_DATA") else None
    corpora = {name: load(name, data) for name in names or SETS}
    whole = {name: sum(len(corpus.passages) for corpus in parts) for name, parts in corpora.items()}
    if most is not None:
        corpora = {name: [smaller(corpus, most) for corpus in parts] for name, parts in corpora.items()}
    encoder = CachedEncoder(build("minilm"), default_folder())
    console, start = Console(), time.monotonic()
    rows: list[Row] = []
    differences: list[Difference] = []
    for name, parts in corpora.items():
        console.print(f"\n[bold]{TITLES[name]}[/bold]")
        found, compared = measure(name, parts, contenders(encoder))
        for row in found:
            shares = "".join(f"{100 * row.recall[k][0]:8.1f}" for k in CUTS)
            console.print(f"  {row.retriever:<28}{shares}", highlight=False)
        rows += found
        differences += compared
    differences = adjusted(differences)
    seconds = time.monotonic() - start
    console.print(f"\nrecall@{', '.join(map(str, CUTS))} in %; {seconds:.0f} s", highlight=False)
    if page is not None:
        limit = [] if most is None else [f"--passages {most}"]
        command = " ".join(["repro recall", *names, *limit, f"--write {page}"])
        page.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(page, markdown(rows, differences, whole, command, seconds, encoder))
        figures = {"rows": [asdict(row) for row in rows], "differences": [asdict(d) for d in differences]}
        write_atomically(page.with_suffix(".json"), json.dumps(figures, indent=1) + "\n")
        console.print(f"report: {page}")


def contenders(encoder: "Encoder") -> dict[str, Callable[[], "Retriever"]]:
    """The retrievers that are compared, by the name in the table; `hybrid` is the last but those of approximation."""
    from common.retrievers.build import build

    return {
        "BM25": lambda: build("bm25"),
        "BM25, English stems": lambda: build("bm25_english"),
        "MiniLM, exact": lambda: build("dense", encoder),
        "hybrid of the two above": lambda: build("hybrid_english", encoder),
        "MiniLM, IVF": lambda: build("ivf", encoder),
        "MiniLM, HNSW": lambda: build("hnsw", encoder),
        "MiniLM, LSH": lambda: build("lsh", encoder),
    }


HYBRID = "hybrid of the two above"
PARTS = ("BM25, English stems", "MiniLM, exact")


def measure(
    name: str, corpora: Sequence["GoldCorpus"], retrievers: dict[str, Callable[[], "Retriever"]]
) -> tuple[list[Row], list[Difference]]:
    """Recall of each retriever over the questions of all corpora, and of hybrid against its parts."""
    from common.evaluators.ranking import recall_at_k
    from common.evaluators.statistics import bootstrap_interval, paired_items

    gold = [question.gold for corpus in corpora for question in corpus.questions]
    passages = sum(len(corpus.passages) for corpus in corpora)
    rows, recalls = [chance(name, corpora)], {}
    for title, make in retrievers.items():
        rankings: list[list[str]] = []
        for corpus in corpora:
            retriever = make()
            retriever.build(corpus.ids, corpus.texts)
            rankings += retriever.search([question.question for question in corpus.questions], max(CUTS)).rankings()
        shares = {k: recall_at_k(rankings, gold, k) for k in CUTS}
        estimates = {k: bootstrap_interval(shares[k]) for k in CUTS}
        recall = {k: (estimate.mean, estimate.low, estimate.high) for k, estimate in estimates.items()}
        complete = {k: sum(share == 1 for share in shares[k]) / len(gold) for k in CUTS}
        rows.append(Row(name, title, len(gold), passages, recall, complete))
        recalls[title] = shares[COMPARED]
    differences = []
    for other in PARTS:
        found = paired_items(recalls[HYBRID], recalls[other])
        differences.append(Difference(name, other, found.mean, found.low, found.high, found.p_value))
    return rows, differences


def chance(name: str, corpora: Sequence["GoldCorpus"]) -> Row:
    """What passages in random order would give: for k up to N, the expected recall is k / N, and all of G gold
    passages are found with probability C(N - G, k - G) / C(N, k)."""
    from math import comb

    recall, complete = dict.fromkeys(CUTS, 0.0), dict.fromkeys(CUTS, 0.0)
    count = sum(len(corpus.questions) for corpus in corpora)
    for corpus in corpora:
        n = len(corpus.passages)
        for question in corpus.questions:
            g = len(question.gold)
            for k in CUTS:
                shown = min(k, n)
                recall[k] += shown / n / count
                complete[k] += (comb(n - g, shown - g) / comb(n, shown) if g <= shown else 0.0) / count
    passages = sum(len(corpus.passages) for corpus in corpora)
    return Row(name, "random order", count, passages, {k: (recall[k], None, None) for k in CUTS}, complete)


def adjusted(differences: Sequence[Difference]) -> list[Difference]:
    """The same with p-values adjusted for their number."""
    from dataclasses import replace

    from common.evaluators.statistics import holm

    values = holm([d.p_value if d.p_value is not None else 1.0 for d in differences])
    return [replace(d, p_value=value) for d, value in zip(differences, values, strict=True)]


def markdown(
    rows: Sequence[Row],
    differences: Sequence[Difference],
    whole: Mapping[str, int],
    command: str,
    seconds: float,
    encoder: "Encoder",
) -> str:
    """The page: a table of recall for each set, and the comparison of hybrid with its parts.

    Args:
        whole: set -> passages that it has, where fewer may have been searched.
    """
    import bm25s
    import faiss

    from common.data.gold_passages import DATASETS

    machine = hardware()
    lines = [
        "# Recall of the retrievers on real corpora",
        "",
        f"Generated by `{command}`: share of a question's gold passages among the first k, mean over questions, in %, "
        "with a 95% interval (BCa bootstrap over questions; those of one LoCoMo conversation share a corpus, which it "
        "does not know). Gold passages: `common/data/gold_passages.py`. All questions of the mirror but LoCoMo's four "
        "without readable evidence; of passages those of the mirror or, where it says so, the gold ones and a sample "
        "of the others, which makes the search easier. These are parts of the published sets: no figure is comparable "
        "with a published one.",
        "",
        f"Encoder: {encoder.name}, revision `{encoder.revision}`. {seconds:.0f} s, vectors from the cache where they "
        f"were there, on {machine['cpu']}, {machine['cores']} cores; torch {versions()['torch']}, "
        f"bm25s {bm25s.__version__}, faiss {faiss.__version__}.",
    ]
    for name, group in groupby(rows, key=lambda row: row.set):
        own = list(group)
        dataset = DATASETS[name]
        lines += [
            "",
            f"## {TITLES[name]}",
            "",
            f"{own[0].questions:,} questions, {own[0].passages:,} passages"
            + (f" of {whole[name]:,}" if whole[name] > own[0].passages else "")
            + (", ten corpora" if name == "locomo" else "")
            + f". {dataset.title}, {dataset.licence}; {dataset.revision}.",
            "",
            "| retriever | " + " | ".join(f"recall@{k}" for k in CUTS) + f" | all gold @{CUTS[-1]} |",
            "|---" * (len(CUTS) + 2) + "|",
        ]
        for row in own:
            cells = [_share(*row.recall[k]) for k in CUTS]
            lines.append(f"| {row.retriever} | {' | '.join(cells)} | {100 * row.complete[CUTS[-1]]:.1f} |")
    lines += [
        "",
        f"## Hybrid against its parts, recall@{COMPARED}",
        "",
        "Difference in points, paired by question; p of a sign-flip test, adjusted over the rows (Holm).",
        "",
        "| set | against | difference | p |",
        "|---|---|---|---|",
    ]
    for d in differences:
        p = "" if d.p_value is None else f"{d.p_value:.3f}" if d.p_value >= 0.001 else "< 0.001"
        lines.append(f"| {TITLES[d.set]} | {d.other} | {_share(d.mean, d.low, d.high, sign='+')} | {p} |")
    return "\n".join(lines) + "\n"


def _share(mean: float, low: float | None, high: float | None, sign: str = "") -> str:
    bounds = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * mean:{sign}.1f}{bounds}"

"""All data sets by name, for plan, doctor and tests. A run function imports the loader it needs, never this list."""

from common.data import (
    alfworld,
    arc_agi_1,
    archivalqa,
    bamboogle,
    counterfact,
    hotpotqa,
    locomo,
    longmemeval,
    lost_in_the_middle,
    memorybank,
    ms_marco,
    musique,
    natural_questions,
    nq_open,
    scienceworld,
    squad,
    squad_full,
    textworld,
    two_wiki_multihop_qa,
    wikitext2,
    zsre,
)
from common.data.registry import Dataset, pick

DATASETS: dict[str, Dataset] = {
    "2wikimultihopqa": two_wiki_multihop_qa.DATASET,
    "alfworld": alfworld.DATASET,
    "arc_agi_1": arc_agi_1.DATASET,
    "archivalqa": archivalqa.DATASET,
    "bamboogle": bamboogle.DATASET,
    "counterfact": counterfact.DATASET,
    "hotpotqa": hotpotqa.DATASET,
    "locomo": locomo.DATASET,
    "longmemeval": longmemeval.DATASET,
    "lost_in_the_middle": lost_in_the_middle.DATASET,
    "memorybank": memorybank.DATASET,
    "ms_marco": ms_marco.DATASET,
    "musique": musique.DATASET,
    "natural_questions": natural_questions.DATASET,
    "nq_open": nq_open.DATASET,
    "scienceworld": scienceworld.DATASET,
    "squad": squad.DATASET,
    "squad_full": squad_full.DATASET,
    "textworld": textworld.DATASET,
    "wikitext2": wikitext2.DATASET,
    "zsre": zsre.DATASET,
}


def all_datasets() -> dict[str, Dataset]:
    """Every registered set, by name."""
    return dict(DATASETS)


def dataset(name: str) -> Dataset:
    """The set of that name; UserError naming the nearest one when there is none."""
    return pick("data set", name, DATASETS)

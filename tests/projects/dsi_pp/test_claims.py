"""Planted faults flip the claims: the predicates of `expected.yaml` on measured figures, healthy and faulty.

The figures are the committed runs of the tiny tables. The faults are rows of those runs: `genmem_shuffled` is the
generative memory fed with the queries of other documents, and SAM with rho = 0 is the plain optimizer to the bit
(`test_run.test_sam_without_radius_changes_nothing_to_the_bit`).
"""

import json

import pytest

from common.experiments.claims import Scores, evaluate
from common.experiments.compose import compose_table
from common.experiments.fingerprint import ROOT
from common.experiments.report import expected_of


def measured(table: str) -> dict[tuple[str, str, str], dict[int, float]]:
    report = json.loads((ROOT / "reports" / "dsi_pp" / f"{table}.tiny.json").read_text())
    return {
        (cell["row"], cell["column"], cell["metric"]): dict(zip(cell["seeds"], cell["values"], strict=True))
        for cell in report["cells"]
    }


def status(table: str, claim_id: str, scores: Scores) -> str:
    (claim,) = [claim for claim in expected_of(compose_table(f"dsi_pp/{table}")).claims if claim.id == claim_id]
    return evaluate(claim.test, scores).status


def planted(scores: Scores, row: str, faulty: Scores, source: str) -> Scores:
    """`scores` with the figures of `row` replaced by those of `source`."""
    return {
        place: faulty[source, *place[1:]] if place[0] == row and (source, *place[1:]) in faulty else values
        for place, values in scores.items()
    }


@pytest.mark.parametrize(("table", "claim"), [("continual", "C1"), ("rehearsal", "C3")])
def test_wrong_pairs_in_the_generative_memory_flip_the_claim(table, claim):
    scores = measured(table)
    assert status(table, claim, scores) == "holds"
    faulty = planted(scores, "genmem_all", measured("rehearsal"), "genmem_shuffled")
    assert status(table, claim, faulty) == "fails"


def test_sam_without_radius_flips_its_claim():
    scores = measured("memorise")
    assert status("memorise", "C4", scores) != "fails"
    assert status("memorise", "C4", planted(scores, "sam", scores, "adafactor")) == "fails"

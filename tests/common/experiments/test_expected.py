"""expected.yaml: what is read, every way to get it wrong, and the verdicts on what was read."""

import textwrap
from dataclasses import replace

import pytest

from common.experiments.claims import AllOf, AtLeast, EqualWithin, Greater, Monotone, NotWorse, Operand, Order
from common.experiments.errors import UserError
from common.experiments.expected import Figure, TableNames, load_expected, parse_predicate
from common.experiments.verdicts import compare

NAMES = TableNames(
    rows=["genmem_all", "cl_all", "cl_new"], columns=["corpus"], metrics={"a_hits10": "higher", "f_hits10": "lower"}
)
WIDE = replace(NAMES, columns=["nq", "msmarco"])
TABLES = {"continual": NAMES, "docids": WIDE}
GOOD = """
    paper: {title: DSI++, authors: Mehta et al., venue: EMNLP 2023, arxiv: "2212.09744", version: v3}
    figures:
      - {id: gain, table: continual, row: genmem_all, over: cl_all, metric: a_hits10, value: 0.211, where: Abstract,
         provenance: verified}
      - {id: drop, table: docids, row: cl_new, column: nq, metric: f_hits10, value: 0.75, where: Table 2,
         provenance: reconstructed, tolerance: 0.02}
    claims:
      - id: C1
        table: continual
        text: generative memory beats plain continual indexing
        where: Abstract
        provenance: verified
        published: "+21.1 points"
        test: {kind: order, metric: a_hits10, rows: [genmem_all, cl_all, cl_new]}
"""


@pytest.fixture
def load(tmp_path):
    def read(text, **options):
        path = tmp_path / "expected.yaml"
        path.write_text(textwrap.dedent(text))
        return load_expected(path, TABLES, **options)

    return read


def test_a_good_file(load):
    expected = load(GOOD)
    assert (expected.paper.venue, expected.paper.arxiv) == ("EMNLP 2023", "2212.09744")
    gain, drop = expected.figures
    assert (gain.value, gain.over, gain.column, gain.tolerance) == (0.211, "cl_all", "corpus", None)
    assert (drop.column, drop.tolerance, drop.provenance) == ("nq", 0.02, "reconstructed")
    (claim,) = expected.claims
    assert claim.published == "+21.1 points"
    assert claim.test == Order(tuple(Operand(row, "corpus", "a_hits10") for row in NAMES.rows))


def test_only_one_table_is_read_and_looked_up(load):
    expected = load(GOOD, only="continual")
    assert [figure.id for figure in expected.figures] == ["gain"]
    assert load(GOOD.replace("column: nq", "column: typo"), only="continual") == expected


def test_a_claim_of_other_scales_is_left_out_unread(load):
    text = GOOD.replace('published: "+21.1 points"', "scales: [small, paper]")
    assert [load(text, scale=scale).claims != () for scale in ("tiny", "small", None)] == [False, True, True]
    other = text.replace("metric: a_hits10, rows", "metric: of_small_alone, rows")
    assert load(other, scale="tiny").claims == ()
    with pytest.raises(UserError, match="unknown metric 'of_small_alone'"):
        load(other, scale="small")
    with pytest.raises(UserError, match="unknown scale 'smal'; did you mean 'small'"):
        load(text.replace("[small,", "[smal,"), scale="tiny")
    with pytest.raises(UserError, match="'scales' must list names of scales"):
        load(text.replace("[small, paper]", "small"))


def test_figures_and_claims_may_be_absent(load):
    expected = load("paper: {title: Toy}\nfigures:\n")
    assert (expected.paper.authors, expected.figures, expected.claims) == ("", (), ())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            ", where: Abstract,\n         provenance: verified",
            ", where: Abstract",
            "figure 'gain': misses 'provenance'",
        ),
        ("where: Table 2", "where: ''", "figure 'drop': 'where' is empty"),
        ("where: Table 2,", "", "figure 'drop': misses 'where'"),
        ("        provenance: verified\n        pub", "        pub", "claim 'C1': misses 'provenance'"),
        ("        where: Abstract\n", "", "claim 'C1': misses 'where'"),
        ("reconstructed", "reconstrcted", "unknown provenance 'reconstrcted'; did you mean 'reconstructed'?"),
        ("row: genmem_all", "row: genmem_al", "unknown row 'genmem_al'; did you mean 'genmem_all'?"),
        ("over: cl_all", "over: cl_al", "unknown row 'cl_al' in 'over'; did you mean 'cl_all'?"),
        ("over: cl_all", "over: genmem_all", "'over' is the row itself"),
        ("metric: a_hits10, value", "metric: a_hit10, value", "unknown metric 'a_hit10'; did you mean 'a_hits10'?"),
        ("column: nq", "column: nqq", "unknown column 'nqq'; did you mean 'nq'?"),
        ("column: nq, ", "", "misses 'column', and the table has several: nq, msmarco"),
        ("table: docids", "table: docid", "unknown table 'docid'; did you mean 'docids'?"),
        ("tolerance: 0.02", "tolerence: 0.02", "unknown key 'tolerence'; did you mean 'tolerance'?"),
        ("tolerance: 0.02", "tolerance: -1", "'tolerance' must be at least 0"),
        ("value: 0.211", "value: true", "'value' must be a finite number, got bool True"),
        ("value: 0.211", "value: .nan", "'value' must be a finite number"),
        ("value: 0.211", "value: 2e-1", "YAML wants 1.0e-3"),
        ("value: 0.211", "value: 0.211, value: 0.3", "line 4: the key 'value' stands twice"),
        ("id: drop", "id: gain", "figure 'gain': this id is used twice"),
        ("id: drop", "id: 7", "'id' must be text, got int 7"),
        ('"2212.09744"', "2212.09744", "paper: 'arxiv' must be text, got float 2212.09744"),
        ("title: DSI++, ", "", "paper: misses 'title'"),
        ("figures:", "figure:", "unknown key 'figure'; did you mean 'figures'?"),
        ("kind: order", "kind: oder", "claim 'C1': unknown kind of test 'oder'; did you mean 'order'?"),
        ("cl_all, cl_new]", "cl_all, cl_neu]", "claim 'C1': order: unknown row 'cl_neu'; did you mean 'cl_new'?"),
        ("cl_all, cl_new]", "cl_all, cl_all]", "a row is listed twice"),
        ("[genmem_all, cl_all, cl_new]", "[genmem_all]", "'rows' must list at least two rows"),
        ("paper: {", "paper: {{", "expected.yaml: line"),
        ("DSI++", "\x00", "expected.yaml: is no valid YAML: unacceptable character"),
    ],
)
def test_mistakes_are_one_line_with_the_file(load, old, new, message):
    assert old in GOOD
    with pytest.raises(UserError) as error:
        load(GOOD.replace(old, new, 1))
    assert message in str(error.value)
    assert "expected.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_claims_and_figures_that_repeat_are_refused(load):
    claims = GOOD + textwrap.indent(textwrap.dedent(GOOD).split("claims:\n")[1], "    ")
    with pytest.raises(UserError, match="claim 'C1': this id is used twice"):
        load(claims)
    twin = GOOD.replace(
        "figures:",
        "figures:\n      - {id: again, table: continual, row: genmem_all, over: cl_all,\n"
        "         metric: a_hits10, value: 0.2, where: p. 3, provenance: secondary}",
    )
    with pytest.raises(UserError, match="gives the same quantity as figure 'again'"):
        load(twin)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load_expected(tmp_path / "expected.yaml", TABLES)


def parse(raw, names=NAMES):
    return parse_predicate(raw, names, "expected.yaml: claim 'C'")


GEN, ALL, NEW = (Operand(row, "corpus", "a_hits10") for row in NAMES.rows)
PAIR = {"row": "genmem_all", "metric": "a_hits10", "over": {"row": "cl_all"}}


def test_predicates():
    assert parse({"kind": "greater", **PAIR}) == Greater(GEN, ALL, 0.0)
    assert parse({"kind": "greater", **PAIR, "margin": 0.1}) == Greater(GEN, ALL, 0.1)
    over = {"metric": "f_hits10"}
    assert parse({"kind": "greater", **PAIR, "over": over}).over == Operand("genmem_all", "corpus", "f_hits10")
    wide = parse({"kind": "greater", **PAIR, "column": "nq", "over": {"column": "msmarco"}}, WIDE)
    assert (wide.left.column, wide.over.column, wide.over.row) == ("nq", "msmarco", "genmem_all")
    assert parse({"kind": "equal_within", **PAIR, "margin": 0.05}) == EqualWithin(GEN, ALL, 0.05)
    assert parse({"kind": "ratio_at_most", **PAIR, "ratio": 0.5}).ratio == 0.5
    assert parse({"kind": "ratio_at_least", **PAIR, "ratio": 3}).ratio == 3
    assert parse({"kind": "at_most", "row": "cl_all", "metric": "a_hits10", "value": 0.3}).value == 0.3
    rows = ["cl_all", "cl_new"]
    monotone = parse({"kind": "monotone", "metric": "a_hits10", "rows": rows, "direction": "decreasing"})
    assert monotone == Monotone((ALL, NEW), "decreasing")
    at_least = {"kind": "at_least", "row": "cl_new", "metric": "a_hits10", "value": 0.3}
    assert parse({"kind": "all_of", "tests": [at_least]}) == AllOf((AtLeast(NEW, 0.3),))


def test_best_first_and_not_worse_follow_the_table():
    order = parse({"kind": "order", "metric": "f_hits10", "rows": ["genmem_all", "cl_new"]})
    assert order.better == "lower"
    assert parse({"kind": "not_worse", **PAIR, "metric": "f_hits10", "margin": 0.1}).better == "lower"
    assert parse({"kind": "not_worse", **PAIR, "margin": 0.1}) == NotWorse(GEN, ALL, 0.1, "higher")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("greater", "test must be a mapping with a 'kind'"),
        ({"kind": "greater", **PAIR, "over": "cl_all"}, "over: must be a mapping, got str 'cl_all'"),
        ({"kind": "greater", **PAIR, "over": {"row": "cl_nwe"}}, "over: unknown row 'cl_nwe'; did you mean 'cl_new'?"),
        ({"kind": "greater", **PAIR, "over": {"rwo": "cl_new"}}, "over: unknown key 'rwo'; did you mean 'row'?"),
        ({"kind": "greater", **PAIR, "over": {}}, "is the same quantity again, a_hits10(genmem_all, corpus)"),
        ({"kind": "greater", **PAIR, "ratio": 2}, "greater: unknown key 'ratio'"),
        ({"kind": "greater", **PAIR, "margin": -0.1}, "'margin' must be at least 0"),
        ({"kind": "equal_within", **PAIR}, "equal_within: misses 'margin'"),
        ({"kind": "ratio_at_least", **PAIR, "ratio": "3"}, "'ratio' must be a finite number, got str '3'"),
        ({"kind": "monotone", "metric": "a_hits10", "rows": ["cl_all", "cl_new"], "direction": "increase"},
         "unknown direction 'increase'; did you mean 'increasing'?"),
        ({"kind": ["greater"]}, "unknown kind of test '['greater']'"),
        ({"kind": "order", "metric": "a_hits10", "rows": [["cl_all"], "cl_new"]}, "unknown row '['cl_all']'"),
        ({"kind": "all_of", "tests": []}, "'tests' must list at least one test"),
        ({"kind": "all_of", "tests": [{"kind": "at_lest"}]}, "kind of test 'at_lest'; did you mean 'at_least'?"),
    ],
)  # fmt: skip
def test_predicates_with_mistakes(raw, message):
    with pytest.raises(UserError) as error:
        parse(raw)
    assert message in str(error.value)


FIGURE = Figure("gain", "continual", "a", "corpus", "hits", 0.2, "Abstract", "verified")
LEAD = replace(FIGURE, over="b")
A, B = {0: 0.50, 1: 0.52, 2: 0.49}, {0: 0.29, 1: 0.33, 2: 0.28}  # lead .2033, interval about [.179, .228]


def verdict(figure, scale, a=A, b=B):
    return compare(figure, {("a", "corpus", "hits"): a, ("b", "corpus", "hits"): b}, scale).verdict


@pytest.mark.parametrize(
    ("figure", "scale", "expected"),
    [
        (FIGURE, "tiny", "not comparable"),
        (FIGURE, "small", "not comparable"),
        (LEAD, "tiny", "direction only"),  # never more, however close
        (replace(LEAD, value=0.9), "small", "direction only"),
        (replace(LEAD, value=-0.2), "tiny", "not reproduced"),
        (replace(LEAD, value=0.0), "tiny", "not comparable"),
        (LEAD, "paper", "reproduced"),
        (replace(LEAD, value=0.3), "paper", "direction only"),
        (replace(LEAD, value=0.3, tolerance=0.1), "paper", "reproduced"),
        (replace(LEAD, value=-0.3), "paper", "not reproduced"),
        (replace(FIGURE, value=0.5), "paper", "reproduced"),
        (FIGURE, "paper", "not reproduced"),
        (replace(FIGURE, tolerance=0.31), "paper", "reproduced"),
    ],
)
def test_verdicts(figure, scale, expected):
    assert verdict(figure, scale) == expected


def test_verdicts_without_enough_values():
    assert verdict(FIGURE, "paper", a={}) == "not run"
    assert verdict(LEAD, "tiny", b={}) == "not run"
    assert verdict(LEAD, "tiny", b={7: 0.1}) == "not run"  # no common seed
    assert verdict(LEAD, "tiny", a={0: 0.5}) == "not comparable"
    assert verdict(LEAD, "paper", a={0: 0.5}) == "not comparable"
    assert verdict(replace(LEAD, tolerance=0.05), "paper", a={0: 0.5}) == "reproduced"
    assert verdict(replace(LEAD, tolerance=0.001), "paper", a={0: 0.5}) == "not reproduced"


@pytest.mark.parametrize("value", [0.2, -0.2])
def test_a_lead_within_noise_is_underpowered_and_no_refutation(value):
    lead, noise = replace(LEAD, value=value), {0: 0.52, 1: 0.47, 2: 0.49}  # interval of the lead on both sides of 0
    assert verdict(lead, "tiny", b=noise) == verdict(lead, "small", b=noise) == "underpowered"
    assert verdict(lead, "paper", b=noise) == "not reproduced"  # the published value is outside our interval
    assert verdict(lead, "tiny", b=dict(A)) == "underpowered"  # no difference at all
    assert verdict(replace(LEAD, value=-0.2), "tiny") == "not reproduced"


def test_our_side_is_the_paired_difference():
    ours = compare(LEAD, {("a", "corpus", "hits"): {**A, 9: 5.0}, ("b", "corpus", "hits"): B}, "tiny")
    assert ours.n == 3
    assert ours.ours == pytest.approx((0.21 + 0.19 + 0.21) / 3)
    assert ours.ci_low < ours.ours < ours.ci_high


def test_equal_seeds_reproduce_their_own_figure():
    assert verdict(replace(FIGURE, value=0.1), "paper", a={0: 0.1, 1: 0.1, 2: 0.1}) == "reproduced"

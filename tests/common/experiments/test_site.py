"""The report site: well-formed, self-contained, escaped, and true to the files; `integration/` has it in a browser."""

import json
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest

from common.experiments import catalogue
from common.experiments.fingerprint import ROOT
from common.experiments.render import STATUSES, VERDICTS
from common.experiments.site import changes
from common.experiments.site.build import EXPLAINED, counted, environment, meanings
from common.experiments.site.build import build as build_site
from common.experiments.site.charts import Axis, Strip, frontier
from common.experiments.site.views import Entry

VOID = {"meta", "br", "img", "hr", "link", "input"}
SELF_CLOSED = {"line", "circle", "rect", "polygon", "polyline"}  # of SVG
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&\x1b[31m\u202e\n{{ 7 * 7 }}"


class Page(HTMLParser):
    """Collects tags, links and text; fails on tags that do not nest."""

    def __init__(self, path: Path):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        values = dict(attrs)
        self.ids += [str(values["id"])] if "id" in values else []
        self.links += [str(values[name]) for name in ("href", "src") if name in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SELF_CLOSED
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += " " + data


def report(**changes: Any) -> dict[str, Any]:
    """A report of two rows on one column at two seeds, with a claim of each kind."""
    cells = [
        {"row": row, "column": "corpus", "metric": metric, "mean": mean, "ci_low": mean - 0.1, "ci_high": mean + 0.1,
         "n_seeds": 2, "seeds": [0, 1], "values": [mean - 0.01, mean + 0.01], "published": 0.4 if row == "b" else None,
         "provenance": "verified", "where": "Table 2", "verdict": "not comparable"}
        for row, metric, mean in [("a", "hits", 0.2), ("a", "tokens", 900.0), ("b", "hits", 0.5), ("b", "tokens", 1e3)]
    ]  # fmt: skip
    claims = [
        {"id": f"C{i}", "text": f"claim {i}", "where": "Table 1", "provenance": "verified", "published": "more",
         "unit": "fraction", "status": status, "effect": effect, "ci_low": low, "ci_high": high, "p_value": 0.01,
         "n": 0 if effect is None else 2, "detail": "part one\npart two"}
        for i, (status, effect, low, high) in enumerate(
            [("holds", 0.3, 0.2, 0.4), ("holds", 0.1, None, 0.2), ("fails", -0.1, -0.2, 0), ("not tested", *[None] * 3)]
        )
    ]  # fmt: skip
    conditions = [
        {"row": row, "column": "corpus", "config_hash": f"hash{row}", "settings": {"lr": 0.1, "model": {"row": row}}}
        for row in ("a", "b")
    ]
    figure = {"id": "gain", "row": "b", "over": "a", "column": "corpus", "metric": "hits", "where": "Abstract",
              "provenance": "verified", "published": 0.211, "ours": 0.3, "ci_low": 0.2, "ci_high": 0.4, "n": 2,
              "verdict": "direction only"}  # fmt: skip
    return {
        "paper": "dsi_pp", "table": "continual", "scale": "tiny", "name": "continual.tiny", "title": "Indexing",
        "commit": "0123456789abcdef", "dirty": False, "generated_at": "2026-07-01T10:00:00Z", "overrides": [],
        "seeds": [0, 1], "rows": [{"id": "a", "label": "plain"}, {"id": "b", "label": "replay"}],
        "columns": [{"id": "corpus", "label": "corpus"}],
        "metrics": [{"id": "hits", "label": "Hits", "unit": "fraction", "better": "higher"},
                    {"id": "tokens", "label": "tokens", "unit": "count", "better": "lower"}],
        "cells": cells, "claims": claims, "figures": [figure],
        "failures": [{"row": "a", "column": "corpus", "seed": 1, "error": "boom"}], "conditions": conditions,
        "code": {}, "stale": 0, "versions": {"python": "3.11"},
        "cost": {"wall_seconds": 60.0, "cpu_seconds": 30.0, "peak_mb": 100, "cpu": "EPYC", "cells": 4}, **changes,
    }  # fmt: skip


def kept(**changes: Any) -> dict[str, Any]:
    entry = {
        "row": "a", "column": "corpus", "seed": 0, "keys": {"0": "abc-0", "1": "def-0"},
        "commits": [{"commit": "fedcba9876543210", "dirty": False, "seeds": [0, 1]}], "resources": {"cpus": 1.0},
        "cpu_seconds": {"0": 5.0, "1": 6.0}, "seconds": {"0": 3.0, "1": 4.0}, "tokens": {"0": 1000, "1": 2000},
        "log": ["epoch 1", "done"], "items": {"answers": [{"question": "who?", "prediction": "Ada"}]},
    }  # fmt: skip
    return entry | changes


def curve(metric: str, *rows: str, column: str = "corpus", low: float = 0.0) -> dict[str, Any]:
    """A curve of two seeds: 0, 1, 2 at steps 10, 20 and 40."""
    return {
        "conditions": [[row, column] for row in rows], "metric": metric, "seeds": 2, "steps": [10, 20, 40],
        "mean": [0.0, 1.0, 2.0], "low": [low, 1.0, 2.0], "high": [0.0, 1.0, 2.0],
    }  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with DSI++ implemented, its report written, and a package of the user's own."""
    write(
        tmp_path / "projects/dsi_pp/run.py",
        "from common.retrievers.bm25 import BM25\nfrom common.models import nothing\n",
    )
    for name in ("projects/toy/run.py", "configs/table/dsi_pp/continual.yaml", "common/retrievers/bm25.py"):
        write(tmp_path / name)
    for scale in ("tiny", "paper"):
        write(tmp_path / "configs" / "table" / "dsi_pp" / f"continual_{scale}.yaml")
    folder = tmp_path / "reports" / "dsi_pp"
    write(folder / "continual.tiny.json", json.dumps(report()))
    write(folder / "continual.tiny.md")
    write(folder / "continual.tiny.metric-hits.svg")
    return tmp_path


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def build(repository: Path) -> Page:
    path = build_site(repository / "reports", catalogue.load(), repository)
    assert path == repository / "reports" / "index.html"
    return Page(path)


def pages(repository: Path) -> dict[str, Page]:
    build(repository)
    reports = repository / "reports"
    return {str(path.relative_to(reports)): Page(path) for path in sorted(reports.rglob("*.html"))}


def line(repository: Path, slug: str) -> str:
    """HTML of one paper's row in the index."""
    html = (repository / "reports" / "index.html").read_text(encoding="utf-8")
    return html.split(f'<tr id="{slug}"')[1].split("</tr>")[0]


def test_all_papers_with_their_state(repository: Path) -> None:
    page = build(repository)
    rest = [slug for slug in catalogue.load() if slug != "dsi_pp"]
    assert [name for name in page.ids if name != "main"] == ["dsi_pp", "toy", *rest]  # not as in the catalogue
    assert "1 of 50" in page.text
    assert '<abbr title="Knowledge in parameters and retrieval">A</abbr>' in line(repository, "dsi_pp")
    assert 'data-state="reported"' in line(repository, "dsi_pp")
    assert 'data-state="not implemented"' in line(repository, "wise") and "href" not in line(repository, "wise")
    assert "Outside the catalogue" in page.text and 'data-state="implemented"' in line(repository, "toy")


def test_scales_counts_and_cost_of_a_paper(repository: Path) -> None:
    build(repository)
    html = line(repository, "dsi_pp")
    shown = " ".join(re.sub("<.*?>", "", html.split("<code>")[1].split("</td>")[0]).split())
    assert shown == "continual tiny (run), paper" and "<b>tiny" in html and "<b>paper" not in html
    assert ">1 of 1 table</span>" in html
    assert "2 holds" in html and "1 fails" in html and "1 direction only" in html and ">0.5</td>" in html
    assert 'data-verdict="holds|fails|not tested|direction only"' in html


def test_tables_without_figures_count_as_open(repository: Path) -> None:
    for table in ("docids", "memorise"):
        write(repository / f"configs/table/dsi_pp/{table}.yaml")
    empty = report(name="docids.tiny", table="docids", cells=[], cost={**report()["cost"], "cells": 0})
    write(repository / "reports/dsi_pp/docids.tiny.json", json.dumps(empty))
    text = " ".join(pages(repository)["dsi_pp/index.html"].text.split())
    assert ">1 of 3 tables</span>" in line(repository, "dsi_pp") and "state reported: 1 of 3 tables" in text


def badges(html: str, term: str) -> str:
    """What stands beside a term at the head of a page."""
    return " ".join(re.sub("<.*?>", "", html.split(f"<dt>{term}</dt>")[1].split("</dd>")[0]).split())


def test_a_claim_and_a_figure_count_once_and_controls_apart(repository: Path) -> None:
    """At the largest scale that was run."""
    tiny, small = report(), report(scale="small", name="continual.small")
    tiny["claims"].append({**tiny["claims"][0], "id": "K1", "status": "underpowered"})
    small["claims"][0]["status"] = "fails"  # holds at tiny scale
    small["claims"][2] |= {"status": "not tested", "n": 0}  # fails at tiny scale
    small["figures"][0]["verdict"] = "not reproduced"
    for each in (tiny, small):
        write(repository / f"reports/dsi_pp/{each['name']}.json", json.dumps(each))
    pages(repository)
    for page in ("index.html", "dsi_pp/index.html"):
        html = (repository / "reports" / page).read_text(encoding="utf-8")
        paper = "claims of the papers" if page == "index.html" else "claims of the paper"
        assert badges(html, paper) == "1 holds 2 fails 1 not tested"
        assert badges(html, "our own controls") == "1 underpowered"
        assert badges(html, "published figures") == "1 not reproduced"
    assert 'data-verdict="fails|holds|not tested|underpowered|not reproduced"' in line(repository, "dsi_pp")
    index = (repository / "reports/index.html").read_text(encoding="utf-8")
    assert index.count("<option>underpowered<") == 1


@pytest.mark.parametrize(
    ("small", "large", "word"),
    [
        (3, 2, "large"),
        (3, 1, "small"),
        (3, 0, "small"),
        (1, 1, "large"),
        (1, 0, "small"),
        (0, 1, "large"),
        (0, 0, "large"),
    ],
)
def test_a_larger_scale_replaces_a_smaller_one_of_two_seeds_only_with_two(small: int, large: int, word: str) -> None:
    of_small, of_large = (Entry("C1", name, n, "") for name, n in (("small", small), ("large", large)))
    assert [entry.word for entry in counted([("main", [of_small]), ("main", [of_large])])] == [word]
    assert len(counted([("main", [of_small]), ("other", [of_large])])) == 2  # of tables of their own


def test_one_seed_at_a_larger_scale_does_not_count_against_several(repository: Path) -> None:
    one = report(scale="small", name="continual.small", seeds=[0])
    for entry in (*one["claims"], *one["figures"]):
        entry |= {"n": min(entry["n"], 1)}
        entry |= {"status": "underpowered"} if "status" in entry else {"verdict": "not comparable"}
    write(repository / "reports/dsi_pp/continual.small.json", json.dumps(one))
    found = pages(repository)
    for page, of in (("index.html", "papers"), ("dsi_pp/index.html", "paper")):
        html = (repository / "reports" / page).read_text(encoding="utf-8")
        assert badges(html, f"claims of the {of}") == "2 holds 1 fails 1 underpowered"  # C3 was run there alone
        assert badges(html, "published figures") == "1 direction only"
        assert "with at least two seeds" in found[page].text
    assert "with at least two seeds" not in found["toy/index.html"].text  # nothing to count


EXPECTED = """
figures: [{id: gain, table: continual}, {id: other, table: rare}, {id: third, table: rare}]
claims:
  - {id: C0, table: continual, text: reported, where: Table 1}
  - {id: C7, table: rare, text: "of <b>rare</b> pages", where: Table 9}
  - {id: C8, table: continual, text: large alone, where: Table 8, scales: [paper]}
"""


def test_what_no_report_has_counts_as_not_tested(repository: Path) -> None:
    write(repository / "projects/dsi_pp/expected.yaml", EXPECTED)
    for name in ("rare", "rare_small", "rare_paper"):
        write(repository / f"configs/table/dsi_pp/{name}.yaml")
    found = pages(repository)
    for page, of in (("index.html", "papers"), ("dsi_pp/index.html", "paper")):
        html = (repository / "reports" / page).read_text(encoding="utf-8")
        assert badges(html, f"claims of the {of}") == "2 holds 1 fails 3 not tested"
        assert badges(html, "published figures") == "1 direction only 2 not run"
    shown = html.split('<section id="untested">')[1].split("</section>")[0]
    assert re.findall('<li id="(.*?)"', shown) == ["rare/claim-C7", "continual/claim-C8"]
    assert [" ".join(re.sub("<.*?>", "", each).split()) for each in re.findall("(<li.*?)</li>", shown)] == [
        "not tested C7 of &lt;b&gt;rare&lt;/b&gt; pages Table 9; would be tested in rare at small, paper scale",
        "not tested C8 large alone Table 8; would be tested in continual at paper scale",
        "not run 2 published figures of rare",
    ]
    assert 'data-verdict="holds|fails|not tested|direction only|not run"' in line(repository, "dsi_pp")
    assert "dsi_pp/index.html#rare/claim-C7" in found["index.html"].links
    assert "3 more are not tested" in opening(repository)
    assert check_links(repository / "reports", found) > 40


@pytest.mark.parametrize("text", ["[", "[1]", "claims: 3", "claims: [{id: C1}]", "- '<b>\n- [*x"])
def test_an_expected_file_that_is_none_is_named_on_its_page_and_all_else_is_built(
    text: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = pages(repository)
    for slug in ("dsi_pp", "toy"):
        write(repository / f"projects/{slug}/expected.yaml", text)
    found = pages(repository)
    assert found.keys() == before.keys()
    for slug in ("dsi_pp", "toy"):
        assert f"unreadable  projects/{slug}/expected.yaml cannot be understood: " in found[f"{slug}/index.html"].text
    assert {name for name in found if "unreadable" in found[name].text} == {"dsi_pp/index.html", "toy/index.html"}
    assert found["dsi_pp/index.html"].ids == before["dsi_pp/index.html"].ids  # its reports
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" cannot be understood: ")[0] for line in said] == [
        f"projects/{slug}/expected.yaml" for slug in ("dsi_pp", "toy")
    ]


def opening(repository: Path) -> str:
    """The first sentences of the index."""
    build(repository)
    html = (repository / "reports" / "index.html").read_text(encoding="utf-8")
    return re.sub(r" \([^)]*\)", "", html.split("</h1>\n<p>")[1].split("</p>")[0])


def test_the_index_opens_with_what_was_run_and_what_came_of_it(repository: Path) -> None:
    assert opening(repository) == (
        "Run so far: 1 of the 50 papers; 1 at tiny scale, none at small scale and none at paper scale, so no published "
        "figure is confirmed or refuted yet. Of the 3 claims tested in small models, 2 hold, 1 fails and none stays "
        "undecided; 1 more is not tested."
    )
    own, small = report(paper="toy"), report(scale="small", name="continual.small")
    own["claims"] = [{**own["claims"][0], "status": "underpowered"}]
    small["claims"] = []
    write(repository / "reports/toy/main.tiny.json", json.dumps(own))
    write(repository / "reports/wise/continual.small.json", json.dumps(small))
    assert opening(repository) == (
        "Run so far: 2 of the 50 papers, and 1 outside the catalogue; 2 at tiny scale, 1 at small scale and none at "
        "paper scale, so no published figure is confirmed or refuted yet. Of the 4 claims tested in small models, "
        "2 hold, 1 fails and 1 stays undecided; 1 more is not tested."
    )
    small |= {"scale": "paper", "name": "continual.paper"}
    write(repository / "reports/wise/continual.paper.json", json.dumps(small))
    assert "1 at paper scale. Only at paper scale can a published" in opening(repository)
    assert "Of the 4 claims tested, 2 hold" in opening(repository)


def test_the_index_opens_without_claims_and_without_runs(repository: Path) -> None:
    empty = report(claims=[])
    write(repository / "reports/dsi_pp/continual.tiny.json", json.dumps(empty))
    assert opening(repository).endswith("refuted yet. No claim of a paper has been tested yet.")
    (repository / "reports/dsi_pp/continual.tiny.json").unlink()
    assert opening(repository) == "Run so far: none of the 50 papers."


def test_the_index_says_what_the_paper_claims_and_which_claims_fail(repository: Path) -> None:
    tiny, small = report(), report(scale="small", name="continual.small")
    for name, status in (("C10", "underpowered"), ("K1", "fails")):
        tiny["claims"].append({**tiny["claims"][0], "id": name, "status": status})
    small["claims"] = [{**small["claims"][0], "status": "not tested", "n": 0}, small["claims"][1]]
    for each in (tiny, small):
        write(repository / f"reports/dsi_pp/{each['name']}.json", json.dumps(each))
    found = pages(repository)
    html = line(repository, "dsi_pp")
    text = " ".join(re.sub("<.*?>", "", html).split())
    assert catalogue.load()["dsi_pp"].claim in text and catalogue.load()["wise"].claim in found["index.html"].text
    assert "fails: C2 · underpowered: C10 · holds: C0, C1 · not tested: C3" in text
    links = re.findall('<a href="([^"]*)">C', html)
    at = {name: f"dsi_pp/index.html#continual.{scale}/claim-{name}" for name, scale in
          (("C2", "tiny"), ("C10", "tiny"), ("C0", "tiny"), ("C1", "small"), ("C3", "tiny"))}  # fmt: skip
    assert links == list(at.values())
    assert check_links(repository / "reports", found) > 40


def test_the_headline_comes_first_and_the_papers_words_are_marked_as_such(repository: Path) -> None:
    write(repository / "configs/table/dsi_pp/headline.yaml")
    write(repository / "reports/dsi_pp/headline.tiny.json", json.dumps(report(table="headline", name="headline.tiny")))
    page = pages(repository)["dsi_pp/index.html"]
    assert page.ids.index("headline.tiny") < page.ids.index("continual.tiny")
    assert re.findall("headline|continual", " ".join(page.text.split()))[:2] == ["headline", "continual"]
    assert f"The paper claims: {catalogue.load()['dsi_pp'].claim}" in " ".join(page.text.split())


def test_marks_are_explained_where_published_figures_stand(repository: Path) -> None:
    made = report()
    made["claims"][0]["published"] = long = "words " * 30 + "end"
    made["figures"].append({**made["figures"][0], "id": "open", "ours": None, "ci_low": None, "ci_high": None, "n": 0})
    write(repository / "reports/dsi_pp/continual.tiny.json", json.dumps(made))
    page = pages(repository)["dsi_pp/index.html"]
    html = (repository / "reports/dsi_pp/index.html").read_text(encoding="utf-8")
    results = html.split("<h3>Results</h3>")[1].split("<h3>")[0]
    assert "not whether ours agrees: ✓ verified in the paper" in results.split("</table>")[1]
    assert f"Table 1; paper: {long} ✓" in html and "… ✓</summary>" in html
    a, b = (re.findall(r"<td>([^<]*)</td></tr>", condition(html, row)) for row in "ab")
    assert a == ["—", "—"] and b == ["not comparable", "not comparable"]  # only b has published figures
    assert page.links.count("#continual.tiny/b/corpus") == 3  # none for the figure that was not run
    for cell in made["cells"]:
        cell["published"] = None
    write(repository / "reports/dsi_pp/continual.tiny.json", json.dumps(made))
    assert "not whether ours agrees" not in pages(repository)["dsi_pp/index.html"].text


def test_a_paper_page_shows_claims_figures_results_and_what_stands_behind_a_cell(repository: Path) -> None:
    write(repository / "reports/dsi_pp/continual.tiny.json", json.dumps(report(evidence=[kept()])))
    page = pages(repository)["dsi_pp/index.html"]
    text = " ".join(page.text.split())
    for shown in (
        "30.0 [20.0, 40.0] points", "1 failed cell", "boom", "50.0", "[40.0, 60.0]", "paper 40.0 ✓", "part two",
        "replay − plain: Hits (%)", "+21.1 ✓", "repro table dsi_pp/continual --scale tiny --seeds 2 --rows b",
        "repro explain dsi_pp/continual/b/corpus/0", "0123456789", "hasha", "lr = 0.1", "model.row = b", "51.0", "49.0",
        "7 s over all seeds", "3,000 tokens", "epoch 1", "question who? prediction Ada",
        "Run before logs and items were kept",
    ):  # fmt: skip
        assert shown in text, shown
    assert "abcdef" not in text
    assert {"continual.tiny", "continual.tiny/a/corpus", "continual.tiny/b/corpus"} <= set(page.ids)
    assert page.links.count("#continual.tiny/b/corpus") == 3  # two figures, and the gain over a


def test_a_claim_leads_to_the_cells_that_it_is_computed_from(repository: Path) -> None:
    made = report()
    made["rows"].append({"id": "c", "label": "no cell"})
    made["claims"][0]["detail"] = (
        "holds: hits(b, corpus) = 0.5 > hits(a, corpus) = 0.2 + 0.1: effect +0.3 [+0.2, +0.4]\n"
        "holds: tokens(b, corpus) = 900 <= 0.5 * hits(c, corpus): effect (a, corpus), hits(a,corpus)"
    )
    made["claims"] = made["claims"][:1]
    write(repository / "reports/dsi_pp/continual.tiny.json", json.dumps(made))
    pages(repository)
    html = (repository / "reports/dsi_pp/index.html").read_text().split('<div class="claim" ')[1].split("<h3>")[0]
    links = re.findall(r'<a class="cell" href="#(.*?)">(.*?)</a>', html)
    a, b = "continual.tiny/a/corpus", "continual.tiny/b/corpus"
    assert links == [
        (b, "replay"), (a, "plain"), (b, "hits(b, corpus)"), (a, "hits(a, corpus)"), (b, "tokens(b, corpus)")
    ]  # fmt: skip
    text = re.sub("<.*?>", "", html)
    assert "holds: hits(b, corpus) = 0.5 &gt; hits(a, corpus) = 0.2 + 0.1: effect" in text
    assert "tokens(b, corpus) = 900 &lt;= 0.5 * hits(c, corpus): effect (a, corpus), hits(a,corpus)" in text


def test_only_claims_of_one_unit_share_an_axis(repository: Path) -> None:
    """A claim of an older report, whose unit is not known, stands alone, and so do counts of different things."""
    made = report()
    units = {"C0": "fraction", "C1": None, "C2": None, "C3": "count", "C4": "count", "C5": "fraction", "C6": "ratio"}
    metrics = {"C3": "tokens", "C4": "hits", "C5": "hits"}
    base = made["claims"][0]
    made["claims"] = [
        {**base, "id": name, "unit": unit} | ({"metric": metrics[name]} if name in metrics else {})
        for name, unit in units.items()
    ]
    write(repository / "reports/dsi_pp/continual.tiny.json", json.dumps(made))
    pages(repository)
    html = (repository / "reports/dsi_pp/index.html").read_text(encoding="utf-8")
    axes = [
        (re.findall("<b>(C.)</b>", part), re.findall('<span class="quiet">(.*?)</span></div>', part))
        for part in html.split('<div class="claims">')[1:]
    ]
    assert axes == [
        (["C0", "C5"], ["percentage points"]), (["C1"], [""]), (["C2"], [""]), (["C3"], ["tokens"]), (["C4"], ["Hits"]),
        (["C6"], ["ratio"]),
    ]  # fmt: skip


def test_many_cells_of_a_claim_are_folded_up(repository: Path) -> None:
    made = report(rows=[{"id": f"r{i}", "label": f"row {i}"} for i in range(7)])
    made["conditions"] = [{**made["conditions"][0], "row": f"r{i}"} for i in range(7)]
    made["claims"][0]["detail"] = "\n".join(f"holds: hits(r{i}, corpus) > hits(r{i + 1}, corpus)" for i in range(6))
    write(repository / "reports/dsi_pp/continual.tiny.json", json.dumps(made))
    assert "and 3 more cells" in pages(repository)["dsi_pp/index.html"].text


def condition(html: str, row: str) -> str:
    """What a click on a cell of the row shows."""
    return html.split(f'<details id="continual.tiny/{row}/corpus">')[1].split('<details id="continual')[0]


def test_a_cell_shows_the_commit_that_it_was_computed_at(repository: Path) -> None:
    mixed = [
        {"commit": "1111111111aa", "dirty": False, "seeds": [0, 2]},
        {"commit": "2222222222bb", "dirty": True, "seeds": [1]},
    ]
    third = report()["conditions"][0] | {"row": "c"}
    made = report(evidence=[kept(), kept(row="b", commits=mixed)], rows=[{"id": row, "label": row} for row in "abc"])
    made["conditions"].append(third)
    write(repository / "reports/dsi_pp/continual.tiny.json", json.dumps(made))
    pages(repository)
    html = (repository / "reports/dsi_pp/index.html").read_text(encoding="utf-8")
    a, b, c = (" ".join(condition(html, row).split()) for row in "abc")
    assert "commit <code>fedcba9876</code> · config" in a and "0123456789" not in a
    assert "cells of 2 commits: <code>1111111111</code> (seed 0, 2), " in b
    assert "<code>2222222222 with uncommitted changes</code> (seed 1) · config" in b
    assert "commit <code>0123456789</code> of the newest cell of this report; that of each was not kept" in c
    assert "of the newest cell; 3 in all" in html


def test_a_cell_leads_to_all_of_its_config(repository: Path) -> None:
    write(repository / "reports/dsi_pp/continual.tiny.json", json.dumps(report(evidence=[kept(), kept(row="b")])))
    page = pages(repository)["dsi_pp/index.html"]
    html = (repository / "reports/dsi_pp/index.html").read_text(encoding="utf-8")
    shared = html.split('<details class="shared" id="continual.tiny/shared">')[1].split("</details>")[0]
    assert re.findall("<code>(.*?)</code>", shared) == ["lr = 0.1", "resources.cpus = 1.0"]
    assert page.links.count("#continual.tiny/shared") == 2
    a = condition(html, "a")
    assert "settings: 1 of its own" in a and "model.row = a" in a and "lr = 0.1" not in a
    assert a.index("1 of its own") < a.index("model.row = a") < a.index("#continual.tiny/shared")
    assert "seed 1: <code>runs/dsi_pp/cells/def-0/config.yaml</code>" in a


def test_items_of_any_fields_are_lists_of_definitions(repository: Path) -> None:
    item = {
        "turns": ["<search> Oslo </search>", "found:\nAda"], "hits": [1, 2],
        "scores": {"em": 0.512345678}, "calls": [{"k": 1}],
        "said": [{"prompt": "who?\nnow", "hits": [1]}, {"completion": "Ada"}], "note": "", "ok": None,
    }  # fmt: skip
    entries = [
        kept(items={"episodes": [item, "bare"]}, log=["x" * 1000]),
        kept(row="b", items={}, log=[], withheld=["squad"]),
    ]
    write(repository / "reports/dsi_pp/continual.tiny.json", json.dumps(report(evidence=entries)))
    pages(repository)
    html = (repository / "reports/dsi_pp/index.html").read_text(encoding="utf-8")
    found = dict(re.findall(r"<dt>(\w+)</dt><dd>(.*?)</dd>", html.split('<dl class="item">', 1)[1]))
    assert found == {
        "turns": "&lt;search&gt; Oslo &lt;/search&gt;<br>found:<br>Ada", "hits": "[1, 2]",
        "scores": "{&#34;em&#34;: 0.5123}",
        "calls": "{&#34;k&#34;: 1}", "said": "prompt: who?<br>now<br>hits: [1]<br>completion: Ada",
        "note": "", "ok": "null", "item": "bare",
    }  # fmt: skip
    assert "not copied, as the texts of squad have a licence of their own" in html and html.count("<dl class=") == 4
    assert "the run wrote nothing" in html and "x" * 1000 in html and "Run before" not in html


def test_learning_curves_are_drawn(repository: Path) -> None:
    curves = [curve("reward", "a", low=-2.0), curve("reward", "b"), curve("approx_kl", "a", "b")]
    write(repository / "reports/dsi_pp/continual.tiny.json", json.dumps(report(curves=curves)))
    pages(repository)
    html = (repository / "reports/dsi_pp/index.html").read_text(encoding="utf-8")
    drawn = html.split("<h3>Curves</h3>")[1].split("<h3>")[0]
    assert "edit sequences" in drawn and "Rows with equal values are drawn as one line." in drawn
    key = re.findall(r"</svg>([^<]+)</li>", drawn)
    assert key == ["plain", "replay"]
    assert (
        "<b>approximate KL of an update</b> · as one line: plain, replay<" in drawn and drawn.count("as one line:") == 1
    )
    assert re.findall("<figcaption><b>(.*?)</b>", drawn) == ["reward", "approximate KL of an update"]
    assert drawn.count(">step</text>") == 2
    assert 'aria-label="reward: plain from 0 to 2; replay from 0 to 2"' in drawn and drawn.count("<polyline") == 3
    # steps 10 to 40 from 4 to 96 percent, values -2 to 2 from 96 down to 4
    assert '<polyline points="4.0,50.0 34.7,27.0 96.0,4.0"/>' in drawn
    assert drawn.count("<polygon") == 1 and "4.0,4.0 4.0,96.0" not in drawn
    assert '<polygon points="4.0,50.0 34.7,27.0 96.0,4.0 96.0,4.0 34.7,27.0 4.0,96.0"/>' in drawn
    assert re.findall(r'<g class="(s\d)"><title>([^<]+)', drawn) == [
        ("s0", "plain"), ("s1", "replay"), ("s0", "plain, replay")
    ]  # fmt: skip


def test_a_curve_is_titled_as_its_metric(repository: Path) -> None:
    logged = ("hits", "val_hits", "val_loss_first", "lr", "reward.a_b")
    metrics = [*report()["metrics"], {"id": "lr", "label": "another rate", "unit": "", "better": "lower"}]
    made = report(curves=[curve(name, "a") for name in logged], metrics=metrics)
    write(repository / "reports/dsi_pp/continual.tiny.json", json.dumps(made))
    pages(repository)
    html = (repository / "reports/dsi_pp/index.html").read_text(encoding="utf-8")
    assert re.findall("<figcaption><b>(.*?)</b>", html.split("<h3>Curves</h3>")[1]) == [
        "Hits", "Hits, on validation data", "val loss first", "learning rate", "reward, a b"
    ]  # fmt: skip


def test_a_row_keeps_its_colour_and_a_key_names_what_is_drawn(repository: Path) -> None:
    """Rows that never part share an entry; one that is drawn only in a chart folded away stands in the key there."""
    rows = [{"id": row, "label": f"row {row}"} for row in "abcd"]
    columns = [{"id": name, "label": name} for name in ("one", "two")]
    curves = [curve(f"m{i}", *together, column="one") for i in range(6) for together in ("bc", "d")]
    curves += [curve("last", row, column="one") for row in "abcd"] + [curve("m0", "c", column="two")]
    write(
        repository / "reports/dsi_pp/continual.tiny.json", json.dumps(report(rows=rows, columns=columns, curves=curves))
    )
    pages(repository)
    html = (repository / "reports/dsi_pp/index.html").read_text(encoding="utf-8")
    drawn = html.split("<h3>Curves</h3>")[1].split("<h3>")[0]
    keys = [
        re.findall(r'class="swatch (s\d)".*?</svg>([^<]+)</li>', part) for part in drawn.split('<ul class="key">')[1:]
    ]
    assert keys == [
        [("s1", "row b, row c"), ("s3", "row d")],
        [("s0", "row a"), ("s1", "row b"), ("s2", "row c"), ("s3", "row d")],
        [("s2", "row c")],
    ]
    assert set(re.findall(r'<g class="(s\d)"><title>([^<]+)', drawn)) == {pair for key in keys for pair in key}
    assert "as one line:" not in drawn


def test_columns_on_one_training_share_charts(repository: Path) -> None:
    columns = [{"id": name, "label": f"n = {name}"} for name in ("2", "8", "16")]
    shared = {**curve("reward", "a"), "conditions": [["a", "2"], ["a", "8"]]}
    made = report(columns=columns, curves=[shared, curve("reward", "a", column="16")])
    write(repository / "reports/dsi_pp/continual.tiny.json", json.dumps(made))
    pages(repository)
    html = (repository / "reports/dsi_pp/index.html").read_text(encoding="utf-8")
    drawn = html.split("<h3>Curves</h3>")[1].split("<h3>")[0]
    assert re.findall(r"<summary>([^<]+)", drawn) == ["n = 2, n = 8", "n = 16"] and drawn.count("<polyline") == 2


def test_many_columns_give_a_table_for_each_metric(repository: Path) -> None:
    wide = report(columns=[{"id": "corpus", "label": "one"}, {"id": "other", "label": "two"}])
    wide["cells"] += [{**cell, "column": "other", "mean": 0.7} for cell in wide["cells"] if cell["metric"] == "hits"]
    write(repository / "reports/dsi_pp/continual.tiny.json", json.dumps(wide))
    page = pages(repository)["dsi_pp/index.html"]
    html = (repository / "reports/dsi_pp/index.html").read_text(encoding="utf-8")
    hits = html.split("<summary>Hits (%) ↑</summary>")[1].split("</table>")[0]
    assert hits.count("<tr>") == 3 and "one" in hits and "two" in hits and "70.0" in hits
    tokens = html.split("<summary>tokens ↓</summary>")[1].split("</table>")[0]
    assert "two" not in tokens  # no value of it there
    assert "continual.tiny/a/corpus" in page.ids


def test_every_link_leads_to_a_file_and_every_fragment_to_an_id(repository: Path) -> None:
    write(repository / "reports" / "odd name#1" / "a b?.tiny.json", json.dumps(report(table="a b?", name="a b?.tiny")))
    write(repository / "reports" / "performance.md")
    found = pages(repository)
    assert "odd name#1/index.html" in found and "odd%20name%231/index.html" in found["index.html"].links
    assert check_links(repository / "reports", found) > 40


def test_pages_lead_to_the_guide_where_there_is_one(repository: Path) -> None:
    assert not any("guide" in link for page in pages(repository).values() for link in page.links)
    write(repository / "common/guide/index.md", "# Guide\n\n```{toctree}\nconcepts\n```\n")
    found = pages(repository)
    assert {name: [link for link in page.links if "guide" in link] for name, page in found.items()} == {
        name: ["../" * name.count("/") + "guide.html"] for name in found
    }
    assert "toctree" not in found["guide.html"].text


def test_every_status_and_verdict_is_explained(repository: Path) -> None:
    says = meanings((ROOT / EXPLAINED).read_text(encoding="utf-8"))
    assert set(says) == {*STATUSES, *VERDICTS}
    write(repository / "common/guide/index.md", "# Guide\n")
    write(repository / "common/guide/verdicts.md", "# How verdicts are computed\n")
    found = pages(repository)
    assert "guide-verdicts.html" in found["index.html"].links
    assert found["dsi_pp/index.html"].links.count("../guide-verdicts.html") == 3  # at the head, the claims, the figures
    assert "../guide-verdicts.html" not in found["toy/index.html"].links
    for name in ("index.html", "dsi_pp/index.html"):
        html = (repository / "reports" / name).read_text(encoding="utf-8")
        shown = re.findall(r'<span class="badge [a-z-]+" title="([^"]*)">(?:\d+ )?([a-z ]+)</span>', html)
        assert {word for _, word in shown} == {"holds", "fails", "not tested", "direction only"}
        assert all(says[word] == title for title, word in shown)


def test_a_meaning_is_what_the_tables_of_the_guide_say_of_a_status_and_of_a_verdict() -> None:
    rows = "| holds | when so |\n| `holds` | code |\n| underpowered | of a claim |\n| when | what |\n\n"
    assert meanings(f"{rows}| underpowered | of a lead |\n") == {
        "holds": "When so.",
        "underpowered": "Of a claim. Of a lead.",
    }


def test_a_readme_is_a_page_whose_links_lead_to_pages(repository: Path) -> None:
    write(
        repository / "projects/dsi_pp/README.md",
        """# Indexing & more

[table](../../reports/dsi_pp/continual.tiny.md), [words](../../common/guide/concepts.md#two-words), [start](#two-words),
[code](run.py#L3), [folder](../../common/memory), [bare folder](../../configs), [lost](gone.md), [out](../../../x.md),
[note](../../reports/dsi_pp/data.md), [web](https://arxiv.org/abs/2212.09744)

## Two words

| name | F1 |
|---|---:|
| `a_b` | 0.5 |
""",
    )
    write(repository / "common/guide/concepts.md", "# Concepts\n\n## Two *words*\n\n## Two words\n")
    write(repository / "common/memory/README.md", "no heading")
    write(repository / "reports/dsi_pp/data.md", "# Of the data\n\n[README](../../projects/dsi_pp/README.md)\n")
    write(repository / "reports/dsi_pp/readme.md", "would be where the README is\n")
    found = pages(repository)
    page = found["dsi_pp/readme.html"]
    assert page.links == [
        "#main", "../index.html", "../matrix.html", "../costs.html", "../changes.html", "../dsi_pp/index.html",
        "../dsi_pp/index.html#continual.tiny", "../guide-concepts.html#two-words", "#two-words",
        "../../projects/dsi_pp/run.py", "../guide-common-memory-readme.html", "../dsi_pp/data.html",
        "https://arxiv.org/abs/2212.09744",
    ]  # fmt: skip
    assert page.ids == ["main", "indexing--more", "two-words"]
    assert found["guide-concepts.html"].ids == ["main", "concepts", "two-words", "two-words-1"]
    assert ("scope", "col") in page.attributes and ("class", "num") in page.attributes
    html = (repository / "reports/dsi_pp/readme.html").read_text()
    assert "<title>Indexing &amp; more</title>" in html and "lost, out" in html and "<code>a_b</code>" in html
    assert "<h1>common/memory/README.md</h1>" in (repository / "reports/guide-common-memory-readme.html").read_text()
    assert "readme.html" in found["dsi_pp/index.html"].links and "dsi_pp/readme.html" in found["index.html"].links
    assert "../dsi_pp/data.html" in found["dsi_pp/index.html"].links
    assert check_links(repository / "reports", found) > 40


ADDRESSES = [
    "javascript:alert(1)", "JaVaScRiPt:alert(1)", "java&#x0a;script:alert(1)", "data:text/html,<b>x</b>",
    "file:///etc/passwd", "//evil.example/x", "vbscript:x", "/etc/passwd", "../../../../../etc/passwd", "blob:x",
]  # fmt: skip


def test_a_page_goes_with_its_readme_and_takes_no_other_file_along(repository: Path) -> None:
    readme, page = repository / "projects" / "dsi_pp" / "README.md", repository / "reports" / "dsi_pp" / "readme.html"
    write(readme, "# DSI++\n")
    write(repository / "reports" / "dsi_pp" / "own.html", "<p>somebody's</p>")
    build(repository)
    assert page.exists()
    readme.unlink()
    found = pages(repository)
    assert not page.exists() and (repository / "reports" / "dsi_pp" / "own.html").exists()
    assert {"index.html", "matrix.html", "costs.html", "changes.html", "dsi_pp/index.html"} <= found.keys()


def test_a_hostile_readme_is_only_text(repository: Path) -> None:
    links = "\n".join(f"[to](<{address}>) ![of]({address}) <{address}> [{address}]" for address in ADDRESSES)
    refer = "\n".join(f"[{address}]: {address} '{HOSTILE}'" for address in ADDRESSES)
    text = f"""# {HOSTILE}

{HOSTILE} &#x202e; &#27; `{HOSTILE}` ![x](https://evil.example/x.png)

<script>alert(3)</script>

<img src="x" onerror="alert(4)">

- <b onclick="alert(5)">{HOSTILE}</b>

```js" onload="alert(6)
{HOSTILE}
```

| <script>alert(7)</script> |
|---|
| {HOSTILE} |

[a](run.py "{HOSTILE}") [b](run.py?"><script>alert(8)</script>)
{links}

{refer}
"""
    write(repository / "projects/dsi_pp/README.md", "# Plain\n\n- `x`\n\n```sh\nx\n```\n\n|a|\n|--:|\n")
    clean = {attribute for attribute, _ in pages(repository)["dsi_pp/readme.html"].attributes}
    write(repository / "projects/dsi_pp/README.md", text)
    page = pages(repository)["dsi_pp/readme.html"]
    assert page.tags.count("script") == 1 and not {"img", "b", "iframe"} & set(page.tags)
    assert {attribute for attribute, _ in page.attributes} <= clean
    web = [link for link in page.links if not link.startswith("../") and not link.startswith("#")]
    assert web == ["https://evil.example/x.png"]  # an image is a link, which loads nothing by itself
    html = (repository / "reports/dsi_pp/readme.html").read_text(encoding="utf-8")
    assert "\x1b" not in html and "\u202e" not in html and "<script>alert" not in html
    assert "<script>alert(3)</script>" in page.text and "{{ 7 * 7 }}" in page.text


def check_links(reports: Path, found: dict[str, Page]) -> int:
    """How many links were followed, each to a file, and where it has a fragment to an id of that page."""
    count = 0
    for name, page in found.items():
        for link in page.links:
            if link.startswith("https:"):
                continue
            path, fragment = urldefrag(link)
            target = (reports / name).parent / unquote(path) if path else reports / name
            assert target.is_file(), f"{name}: {link}"
            if fragment:
                ids = found[target.resolve().relative_to(reports.resolve()).as_posix()].ids
                assert unquote(fragment) in ids, f"{name}: {link}"
            count += 1
    return count


def test_nothing_is_loaded_from_outside_and_no_id_comes_twice(repository: Path) -> None:
    for name, page in pages(repository).items():
        assert not {"link", "iframe", "object", "embed"} & set(page.tags)
        assert not any(
            attribute in ("style", "srcset") or attribute.startswith("on") for attribute, _ in page.attributes
        )
        html = (repository / "reports" / name).read_text(encoding="utf-8")
        assert not re.search(r"https?:|url\(|@import", html)
        assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html
        assert len(page.ids) == len(set(page.ids)), name


def poison(value: Any) -> Any:
    """The report with every text hostile, but for the words that choose how something is shown."""
    if isinstance(value, dict):
        return {key: value[key] if key in ("unit", "better", "provenance") else poison(value[key]) for key in value}
    return [poison(each) for each in value] if isinstance(value, list) else HOSTILE if isinstance(value, str) else value


def test_hostile_text_is_escaped(repository: Path) -> None:
    whole = report(evidence=[kept()], judges=[], curves=[curve("reward", "a", low=-1.0)])
    whole["conditions"][0]["settings"] = {"prompt": "x"}
    write(repository / "reports" / "dsi_pp" / "wild.tiny.json", json.dumps(whole))
    clean = {attribute for page in pages(repository).values() for attribute, _ in page.attributes}
    write(repository / "reports" / "dsi_pp" / "wild.tiny.json", json.dumps(poison(whole)))
    folder = "\"<b>'x"
    write(repository / "reports" / folder / "t.tiny.json", json.dumps(poison(whole)))
    found = pages(repository)
    assert f"{folder}/index.html" in found and folder in found["index.html"].ids
    for name, page in found.items():
        assert page.tags.count("script") == 1 and "b" not in page.tags[: page.tags.index("main")]
        assert all(value != "x" for attribute, value in page.attributes if attribute == "src")
        assert {attribute for attribute, _ in page.attributes} <= clean
        html = (repository / "reports" / name).read_text(encoding="utf-8")
        assert (
            "\x1b" not in html
            and "\u202e" not in html
            and "<script>alert" not in html
            and "onerror=alert(2)>" not in html
        )
    assert "<script>alert(1)</script>" in found["dsi_pp/index.html"].text
    assert "{{ 7 * 7 }}" in found["dsi_pp/index.html"].text


def test_a_page_runs_no_script_but_its_own(repository: Path) -> None:
    build(repository)
    html = (repository / "reports" / "index.html").read_text(encoding="utf-8")
    style, script = (environment().globals[f"{name}_hash"] for name in ("style", "script"))
    assert f"default-src 'none'; img-src 'self' file:; style-src '{style}'; script-src '{script}'" in html
    assert "unsafe" not in html


NO_POINTS = curve("reward", "a") | {name: [] for name in ("steps", "mean", "low", "high")}
HUGE = {**report()["cost"], "cpu_seconds": 10**400}


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", "{}", "null", '{"claims": 3}', "\udcff",
        pytest.param(json.dumps(report(curves=[NO_POINTS])), id="a curve without points"),
        pytest.param(json.dumps(report(cost=HUGE)), id="a number that is no float"),
        pytest.param("[" * 100_000, id="deep"),
    ],
)  # fmt: skip
def test_an_unreadable_report_is_shown_as_such(repository: Path, text: str) -> None:
    path = repository / "reports" / "wise" / "main.tiny.json"
    path.parent.mkdir()
    path.write_bytes(text.encode(errors="surrogateescape"))
    found = pages(repository)
    assert "unreadable report" in found["wise/index.html"].text
    assert "2 holds" in found["index.html"].text


def test_scales_in_order_and_same_input_same_bytes(repository: Path) -> None:
    for scale in ("small", "paper"):
        other = report(scale=scale, name=f"continual.{scale}")
        write(repository / "reports" / "dsi_pp" / f"continual.{scale}.json", json.dumps(other))
    page = pages(repository)["dsi_pp/index.html"]
    contents = [link for link in page.links if link.startswith("#continual.") and "/" not in link]
    assert contents == ["#continual.tiny", "#continual.small", "#continual.paper"]
    path = repository / "reports" / "dsi_pp" / "index.html"
    before, time = path.read_bytes(), path.stat().st_mtime_ns
    build(repository)
    assert path.stat().st_mtime_ns == time  # left alone
    path.unlink()
    build(repository)
    assert path.read_bytes() == before


def test_without_any_report(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    found = pages(tmp_path)
    assert set(found) == {"index.html", "matrix.html", "costs.html", "changes.html"}
    page = found["index.html"]
    assert len(page.ids) == 51 and "0 of 50" in page.text and "No report yet" in found["costs.html"].text


def test_matrix_and_costs(repository: Path) -> None:
    found = pages(repository)
    text = " ".join(found["matrix.html"].text.split())
    assert "common/retrievers bm25 ● 1" in text and "nothing" not in text
    assert "common/models" not in text  # only a package was imported, no module of it
    for name in ("common/editing/rank_one.py", "common/experiments/context.py"):
        write(repository / name)
    code = "from common.editing.rank_one import edit\nfrom common.experiments.context import Context\n"
    write(repository / "projects/dsi_pp/run.py", code)
    text = " ".join(pages(repository)["matrix.html"].text.split())
    assert "common/editing rank_one ● 1" in text and "common/experiments" not in text  # any folder but the engine's
    cost = " ".join(found["costs.html"].text.split())
    assert "DSI++ continual.tiny 4 1.0 0.5 15.0 100 — EPYC" in cost


def test_changes_since_a_release(repository: Path) -> None:
    reports = repository / "reports"
    assert "every table is new" in " ".join(pages(repository)["changes.html"].text.split())
    changes.record(reports, "v1")
    assert "Nothing differs" in pages(repository)["changes.html"].text
    now = report(commit="fedcba9876543210")
    now["cells"][0]["mean"] = 0.25
    now["claims"][2]["status"] = "holds"
    write(reports / "dsi_pp" / "continual.tiny.json", json.dumps(now))
    write(reports / "dsi_pp" / "continual.small.json", json.dumps(report(scale="small", name="continual.small")))
    text = " ".join(pages(repository)["changes.html"].text.split())
    assert "since v1" in text and "C2 claim 2: fails → holds" in text and "0123456789 → fedcba9876" in text
    assert "plain · Hits (%) ↑ 20.0 (n=2) 25.0 (n=2)" in text and "3 figures unchanged, 1 changed" in text
    assert "dsi_pp/continual.small new" in text
    now["cells"] = [cell for cell in now["cells"] if cell["row"] == "a"]
    now["rows"] = now["rows"][:1]
    now["figures"][0]["verdict"] = "not reproduced"
    write(reports / "dsi_pp" / "continual.tiny.json", json.dumps(now))
    now["claims"] = now["claims"][:3]
    write(reports / "dsi_pp" / "continual.tiny.json", json.dumps(now))
    found = pages(repository)
    text = " ".join(found["changes.html"].text.split())
    assert "gain b − plain: Hits (%): direction only → not reproduced" in text  # its row is gone
    assert "C3: not tested → none" in text
    assert {f"dsi_pp/index.html#continual.tiny/{each}" for each in ("claim-C2", "figure-gain")} <= {
        *found["changes.html"].links
    }
    assert check_links(reports, found) > 40
    assert "b · Hits (%) ↑ 50.0 (n=2) —" in text and "1 figure unchanged, 3 changed" in text
    (reports / "dsi_pp" / "continual.tiny.json").unlink()
    assert "dsi_pp/continual.tiny removed" in " ".join(pages(repository)["changes.html"].text.split())


def test_an_axis_maps_values_and_marks_round_ones() -> None:
    axis = Axis.around([-10.0, 30.0, None, float("inf")])
    assert (axis.place(-10), axis.place(10), axis.place(30)) == (4.0, 50.0, 96.0)
    assert (axis.place(-float("inf")), axis.place(float("inf"))) == (0.0, 100.0)
    assert [value for value, _ in axis.ticks()] == [-10, 0, 10, 20, 30]
    decades = Axis.around([10.0, 1000.0], log=True)
    assert decades.place(100.0) == 50.0
    assert [value for value, _ in decades.ticks(3)] == [10, 100, 1000]
    assert Axis.around([5.0]).place(5.0) == 50.0 and Axis.around([]).place(0.0) == 50.0
    assert Strip.of(axis, 10, None, 30) == Strip(50.0, 0.0, 96.0) and Strip.of(axis, 10, None, None).low is None


def test_sums_of_costs_count_a_shared_cell_once(repository: Path) -> None:
    """continual is 4 cells of half a minute in all; another table has 2 of them, and 2 of its own."""
    other = report(name="other.tiny", table="other")
    other["conditions"][1]["config_hash"] = "of its own"
    write(repository / "reports/dsi_pp/other.tiny.json", json.dumps(other))
    build(repository)
    assert ">0.8</td>" in line(repository, "dsi_pp")  # 0.5 + 0.5 / 2
    costs = (repository / "reports/costs.html").read_text(encoding="utf-8")
    assert badges(costs, "cells") == "6" and badges(costs, "reports") == "2"
    other["code"] = {"file": "changed"}  # other code, other cells
    write(repository / "reports/dsi_pp/other.tiny.json", json.dumps(other))
    build(repository)
    assert ">1.0</td>" in line(repository, "dsi_pp")
    times = {"cpu_seconds": {"0": 60.0, "1": 180.0}, "seconds": {"0": 3600.0, "1": 7200.0}}
    shared = {"keys": {"0": "abc-0", "1": "own-0"}, **times}
    for name, entries in {"continual": [kept()], "other": [kept(**shared)]}.items():
        made = report(evidence=entries, name=f"{name}.tiny", table=name)
        write(repository / f"reports/dsi_pp/{name}.tiny.json", json.dumps(made))
    build(repository)
    assert ">4.1</td>" in line(repository, "dsi_pp")  # 6 s + 60 s + 180 s; abc-0 is that of the later report
    assert "0.1 hours" in pages(repository)["index.html"].text
    costs = (repository / "reports/costs.html").read_text(encoding="utf-8")
    assert badges(costs, "cells") == "3" and badges(costs, "wall time") == "3.0 hours"  # 1 h + 2 h + 4 s


def test_the_frontier_is_what_nothing_beats() -> None:
    assert frontier([(1, 1), (2, 0), (2, 3), (3, 3), (4, 5), (1, 2)]) == [5, 2, 4]


def test_committed_pages_are_those_of_the_committed_reports(tmp_path: Path) -> None:
    """After new reports, or new imports of a paper: `repro report` writes the pages anew."""
    shutil.copytree(ROOT / "reports", tmp_path / "reports", ignore=shutil.ignore_patterns("*.html"))
    build_site(tmp_path / "reports", catalogue.load())
    made = {path.relative_to(tmp_path / "reports"): path for path in tmp_path.rglob("*.html")}
    committed = {path.relative_to(ROOT / "reports") for path in (ROOT / "reports").rglob("*.html")}
    assert set(made) == committed
    for name, path in made.items():
        assert path.read_bytes() == (ROOT / "reports" / name).read_bytes(), f"{name}: run `repro report`"


def test_committed_links_lead_somewhere() -> None:
    reports = ROOT / "reports"
    found = {str(path.relative_to(reports)): Page(path) for path in sorted(reports.rglob("*.html"))}
    assert check_links(reports, found) > 1000


def test_fifty_papers_are_built_in_less_than_thirty_seconds(tmp_path: Path) -> None:
    """A third of the tables to be expected in a third of the time; of the CPU, as other work shares the cores."""
    rows, columns = [f"r{i}" for i in range(10)], [f"c{i}" for i in range(3)]
    metrics = [{"id": f"m{i}", "label": f"M{i}", "unit": "fraction", "better": "higher"} for i in range(7)]
    base = report(evidence=[])
    cell, condition = base["cells"][0], base["conditions"][0]
    settings = {f"group{i}": {f"key{j}": i + j for j in range(10)} for i in range(8)}
    base |= {
        "rows": [{"id": row, "label": row} for row in rows],
        "columns": [{"id": column, "label": column} for column in columns],
        "metrics": metrics,
        "cells": [
            {**cell, "row": row, "column": column, "metric": metric["id"]}
            for row in rows
            for column in columns
            for metric in metrics
        ],
        "conditions": [
            {**condition, "row": row, "column": column, "settings": settings | {"row": row}}
            for row in rows
            for column in columns
        ],
        "figures": base["figures"] * 20,
    }
    for slug in catalogue.load():
        write(tmp_path / "projects" / slug / "run.py")
        write(tmp_path / "reports" / slug / "continual.tiny.json", json.dumps(base))
    start = time.process_time()
    build_site(tmp_path / "reports", catalogue.load(), tmp_path)
    assert time.process_time() - start < 10
    assert len(list(tmp_path.rglob("index.html"))) == 51

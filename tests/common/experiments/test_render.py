"""Markdown and terminal renderings: figures as printed, and hostile text that stays text."""

import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from common.experiments import render

HOSTILE = "<script>alert(1)</script> | `code` [red]loud[/red] [x](http://evil) **b** $x$"
HOSTILE += "\n# head \x1b[31m\u202e\ud800 :smile:"


def example_report() -> dict[str, Any]:
    """A tiny-scale report with a failed cell, a method without a metric, one row at one seed, two data sets."""

    def cell(
        row: str, column: str, metric: str, values: list[float], half: float | None, **extra: Any
    ) -> dict[str, Any]:
        mean = sum(values) / len(values) if values else None
        interval = (None, None) if mean is None or half is None else (mean - half, mean + half)
        fields = {"mean": mean, "ci_low": interval[0], "ci_high": interval[1], "values": values}
        fields |= {"n_seeds": len(values), "seeds": list(range(len(values)))}
        fields |= {"published": None, "provenance": None, "where": None, "verdict": None}
        return {"row": row, "column": column, "metric": metric, **fields, **extra}

    published = {"published": 0.45, "provenance": "verified", "where": "Table 2", "verdict": "not comparable"}
    cells = [
        cell("new", "text", "hits", [0.20, 0.18, 0.22], 0.05),
        cell("new", "text", "updates", [900, 900, 900], 0.0),
        cell("full", "text", "hits", [0.412, 0.432, 0.452], 0.031, **published),
        cell("full", "text", "updates", [12345, 12345, 12345], 0.0),
        cell("retrain", "text", "hits", [0.61], None),
        cell("retrain", "text", "updates", [], None),
        cell("new", "squad", "hits", [0.1, 0.2, 0.3], 0.25),
        cell("full", "squad", "hits", [0.3, 0.3], 0.0),
    ]
    figures = [
        {"id": "gain", "row": "full", "over": "new", "column": "text", "metric": "hits", "published": 0.211,
         "where": "Abstract", "provenance": "verified", "ours": 0.232, "ci_low": 0.15, "ci_high": 0.314, "n": 3,
         "verdict": "direction only"},
        {"id": "plain", "row": "full", "over": None, "column": "text", "metric": "hits", "published": 0.45,
         "where": "Table 2", "provenance": "secondary", "ours": 0.432, "ci_low": 0.401, "ci_high": 0.463, "n": 3,
         "verdict": "not comparable"},
        {"id": "none", "row": "retrain", "over": None, "column": "text", "metric": "updates", "published": 1000000,
         "where": "§4", "provenance": "reconstructed", "ours": None, "ci_low": None, "ci_high": None, "n": 0,
         "verdict": "not run"},
    ]  # fmt: skip
    claims = [
        {"id": "C1", "text": "the full method beats new documents only", "where": "Abstract", "provenance": "verified",
         "published": "+21.1 points", "unit": "fraction", "status": "holds", "effect": 0.232, "ci_low": 0.15,
         "ci_high": 0.314, "p_value": 0.0004, "n": 3, "detail": ["full > new: holds"]},
        {"id": "C2", "text": "six times fewer updates", "where": "§4", "provenance": "verified", "published": "6x",
         "status": "underpowered", "effect": 5.2, "ci_low": None, "ci_high": None, "p_value": None, "n": 1,
         "detail": ["a: holds", "b: underpowered"]},
        {"id": "C3", "text": "never measured", "where": "App. B", "provenance": "verified", "published": None,
         "status": "not tested", "effect": None, "ci_low": None, "ci_high": None, "p_value": None, "n": 0,
         "detail": ["retrain has no values"]},
    ]  # fmt: skip
    shares = {"right": (0.9, 0.8, 0.95), "wrong": (1.0, 0.9, 1.0), "vague": (0.2, 0.1, 0.35)}
    agreement = {
        "by_kind": {kind: dict(zip(("mean", "low", "high"), share, strict=True)) for kind, share in shares.items()},
        "overall": {"mean": 0.7, "low": 0.6, "high": 0.8, "n": 120},
        "unreadable": 4,
    }
    judges = [
        {"metric": "hits", "prompt": "strict", "version": 2, "prompt_hash": "55f4df9e6616", "model": "org/judge",
         "revision": "r1", "backend": "served", "agreement": agreement},
    ]  # fmt: skip
    conditions = [
        {"row": row, "column": column, "config_hash": f"{row}{column}", "settings": {"lr": 0.001, "memory": memory}}
        for row, memory in (("new", {"source": "none"}), ("full", {"source": "all", "size": 64}), ("retrain", {}))
        for column in ("text", "squad")
    ]
    return {
        "paper": "dsi_pp", "table": "continual", "scale": "tiny", "title": "Continual indexing", "commit": "0123abcd",
        "dirty": True, "generated_at": "2026-07-01T10:00:00Z", "overrides": ["settings.lr=0.001"], "seeds": [0, 1, 2],
        "rows": [{"id": "new", "label": "cl(D_n)"}, {"id": "full", "label": "genmem(U_n)"},
                 {"id": "retrain", "label": "retrain"}],
        "columns": [{"id": "text", "label": "synthetic"}, {"id": "squad", "label": "SQuAD"}],
        "metrics": [{"id": "hits", "label": "A_5 Hits@10", "unit": "fraction", "better": "higher"},
                    {"id": "updates", "label": "updates", "unit": "count", "better": "lower"}],
        "cells": cells, "figures": figures, "claims": claims,
        "failures": [{"row": "retrain", "column": "squad", "seed": 2, "error": "FloatingPointError: loss=nan"}],
        "judges": judges, "conditions": conditions, "code": {"common/a.py": "0" * 12},
        "cost": {"wall_seconds": 192.0, "cpu_seconds": 366.0, "peak_mb": 1536.4, "cpu": "Some CPU", "cells": 15},
        "versions": {"torch": "2.13.0", "numpy": "2.4"},
    }  # fmt: skip


def hostile_report() -> dict[str, Any]:
    """The example with every text replaced: labels, messages, ids of claims, settings, versions, words of statuses."""
    report = example_report()

    def poison(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: poison(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [poison(item, key) for item in value]
        keep = {"row", "over", "column", "metric", "unit", "better", "provenance", "scale"}
        return value if not isinstance(value, str) or key in keep else f"{value} {HOSTILE}"

    poisoned: dict[str, Any] = poison(report)
    for part in ("rows", "columns", "metrics"):
        for entry, original in zip(poisoned[part], report[part], strict=True):
            entry["id"] = original["id"]
    poisoned["versions"][HOSTILE] = HOSTILE
    return poisoned


def shown(report: dict[str, Any], width: int = 80, color: bool = False) -> str:
    """What the terminal shows; no colour codes unless asked for."""
    file = io.StringIO()
    system = "truecolor" if color else None
    render.terminal(report, Console(file=file, width=width, force_terminal=color, color_system=system))  # type: ignore[arg-type]
    return file.getvalue()


def rows_under(text: str, heading: str) -> list[list[str]]:
    """Cells of the Markdown table under a heading, without the ruler."""
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return rows[:1] + rows[2:]


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ((0.432, 0.401, 0.463), "fraction", "43.2 [40.1, 46.3]"),
        ((0.432, None, None), "fraction", "43.2"),
        ((None, None, None), "fraction", "—"),
        ((float("nan"), None, None), "fraction", "—"),
        ((-0.0001, -0.02, 0.02), "fraction", "0.0 [-2.0, 2.0]"),
        ((0.1, None, 0.2), "fraction", "10.0 [-∞, 20.0]"),
        ((0.03, -0.04, 0.1), "fraction", "3.0 [-4.0, 10.0]"),  # not cut: a unit does not tell what a metric can reach
        ((12345, 12000, 12690), "count", "12,345 [12,000, 12,690]"),
        ((12.5, None, None), "count", "12.5"),
        ((7, None, None), "count", "7"),
        ((9.87654, 9.1, 10.6), "seconds", "9.88 [9.10, 10.60]"),
        ((1234.5, None, None), "seconds", "1,234"),
        ((0.00012, None, None), "", "0.0001200"),
        ((0, None, None), "", "0"),
    ],
)
def test_values(value: tuple[float, float, float], unit: str, expected: str) -> None:
    assert render.format_value(*value, unit) == expected


@pytest.mark.parametrize(
    ("means", "unit", "expected"),
    [
        ((0.007222, 0.0104, 0.0171), "seconds", ["0.0072", "0.0104", "0.0171"]),
        ((150.26, 0.314), "ratio", ["150.26", "0.31"]),
        ((1234.5, 52.31), "tokens", ["1,234", "52"]),
        ((1234.5, 0.0123), "tokens", ["1,234", "0.012"]),  # too far apart for one number of decimals
        ((0.0, 0.5), "nats", ["0.000", "0.500"]),
        ((12.5, 7), "count", ["12.5", "7.0"]),
        ((1234.5, 7), "count", ["1,234", "7"]),
        ((900, 7), "count", ["900", "7"]),
        ((0.5, None, float("nan")), "fraction", ["50.0", "—", "—"]),
        ((None,), "seconds", ["—"]),
    ],
)
def test_a_column_shares_its_decimals(means: tuple[float | None, ...], unit: str, expected: list[str]) -> None:
    cells = [{"mean": mean, "ci_low": None, "ci_high": None} for mean in means]
    shared = render.column_decimals(cells, unit)
    assert [render.format_value(mean, None, None, unit, decimals=shared) for mean in means] == expected


@pytest.mark.parametrize(
    ("wall", "cpu", "expected"),
    [
        (0.44, 0.3, "0.4 seconds (0.3 of CPU time)"),
        (59.9, 60.0, "1.0 minutes (1.0 of CPU time)"),
        (7200.0, None, "120.0 minutes (— of CPU time)"),
    ],
)
def test_costs_are_in_seconds_below_a_minute(wall: float, cpu: float | None, expected: str) -> None:
    cost = {"wall_seconds": wall, "cpu_seconds": cpu, "peak_mb": 1, "cpu": "", "cells": 2}
    assert render.cost_text(cost).startswith(f"{expected} over 2 cells")


def test_signed_values() -> None:
    assert render.format_value(0.211, 0.1, -0.05, "fraction", signed=True) == "+21.1 [+10.0, -5.0]"
    assert render.format_value(0.0, None, None, "fraction", signed=True) == "0.0"


def test_markdown_says_what_was_found() -> None:
    text = render.markdown(example_report())
    lines = text.splitlines()
    assert lines[0] == r"# dsi\_pp / continual: Continual indexing"
    assert lines[2] == (
        "tiny scale · 3 seeds · claims: 1 holds, 1 underpowered, 1 not tested · "
        "published figures: 1 direction only, 1 not run, 1 not comparable · 1 failed cell"
    )
    assert "```\nrepro table dsi_pp/continual --scale tiny --seeds 3 settings.lr=0.001\n```" in text
    assert "- Cost: 3.2 minutes (6.1 of CPU time) over 15 cells, peak 1,536 MB, on Some CPU" in text
    assert "- Commit: 0123abcd with uncommitted changes" in text
    assert "- Versions: numpy 2.4, torch 2.13.0" in text


def test_stale_cells_are_named() -> None:
    assert "2 cells computed by older code" in render.markdown(example_report() | {"stale": 2})
    assert "older code" not in render.markdown(example_report() | {"stale": 0})


def test_main_table_shows_mean_interval_published_and_missing() -> None:
    header, new, full, retrain = rows_under(render.markdown(example_report()), "Results")
    assert header[1:] == [
        r"synthetic: A\_5 Hits@10 (%) ↑",
        "synthetic: updates ↓",
        r"SQuAD: A\_5 Hits@10 (%) ↑",
        "SQuAD: updates ↓",
    ]
    assert new == [r"cl(D\_n)", r"20.0 \[15.0, 25.0\]", "900", r"20.0 \[-5.0, 45.0\]", "—"]
    assert full[1] == r"43.2 \[40.1, 46.3\] (paper: 45.0 ✓)"
    assert full[3] == r"30.0 \[30.0, 30.0\] (n=2)"
    assert retrain == ["retrain", "61.0 (n=1)", "—", "—", "—"]


def test_figures_beside_ours() -> None:
    _, gain, plain, none = rows_under(render.markdown(example_report()), "Published figures beside ours")
    name = r"genmem(U\_n) − cl(D\_n), synthetic: A\_5 Hits@10 (%)"
    assert gain == [name, "+21.1 ✓", "+23.2", r"\[+15.0, +31.4\]", "3", "direction only", "Abstract"]
    assert plain[1:4] == ["45.0 †", "43.2", r"\[40.1, 46.3\]"]
    assert none[1:6] == ["1,000,000 ‡", "—", "—", "0", "not run"]


def test_claims_in_their_units() -> None:
    text = render.markdown(example_report())
    _, first, second, third = rows_under(text, "Claims")
    assert first[2:7] == ["+21.1 points ✓", r"23.2 \[15.0, 31.4\] points", "3", "&lt;0.001", "holds"]
    assert second[2:7] == ["6x ✓", "5.200", "1", "—", "underpowered"]
    assert third[2:7] == ["—", "—", "0", "—", "not tested"]
    assert "- C1: full &gt; new: holds\n- C2: a: holds\n- C2: b: underpowered\n- C3: retrain has no values" in text


def claim(**changes: Any) -> dict[str, Any]:
    return {**example_report()["claims"][0], "unit": None, **changes}


def test_an_effect_has_its_unit_and_of_a_count_what_is_counted() -> None:
    made = example_report()
    assert render.effect_text(claim(unit="fraction", metric="hits"), made) == "23.2 [15.0, 31.4] points"
    counted = claim(unit="count", metric="updates", effect=11.0, ci_low=10.0, ci_high=12.0)
    assert render.effect_text(counted, made) == "11 [10, 12] updates"
    assert render.effect_text(claim(unit="fraction", ci_low=None, ci_high=None), made) == "23.2 points"


def test_an_equality_at_every_seed_is_exact() -> None:
    made = example_report()
    equal = claim(unit="fraction", effect=0.0, ci_low=0.0, ci_high=0.0, p_value=1.0)
    assert (render.effect_text(equal, made), render.claim_p(equal)) == ("0, exact", "—")
    near = claim(unit="fraction", effect=0.0, ci_low=-0.1, ci_high=0.1, p_value=1.0)
    assert (render.effect_text(near, made), render.claim_p(near)) == ("0.0 [-10.0, 10.0] points", "1.000")


@pytest.mark.parametrize("provenance", [None, "hearsay"])
def test_a_figure_without_provenance_is_not_shown_as_published(provenance: str | None) -> None:
    report = example_report()
    for entry in (*report["figures"], *report["claims"], *report["cells"]):
        entry["provenance"] = provenance
    for text in (render.markdown(report), shown(report)):
        assert "21.1" not in text and "45.0" not in text.replace("45.0\\]", "").replace("45.0]", "")
        assert "43.2" in text


def test_a_judged_metric_is_shown_with_its_judge_and_how_far_to_trust_it() -> None:
    report = example_report()
    _, line = rows_under(render.markdown(report), "Judges")
    shares = ["90.0 [80.0, 95.0]", "100.0 [90.0, 100.0]", "20.0 [10.0, 35.0]", "70.0 [60.0, 80.0]"]
    agrees = [share.replace("[", r"\[").replace("]", r"\]") for share in shares]
    assert line == [r"A\_5 Hits@10", "strict v2 55f4df9e6616", "org/judge@r1 (served)", *agrees, "4 of 120"]
    said = " ".join(shown(report).split())
    assert "Hits@10: judge strict v2 55f4df9e6616 on org/judge@r1 (served); agrees with planted answers:" in said
    assert "right 90.0 [80.0, 95.0], wrong 100.0 [90.0, 100.0], vague 20.0 [10.0, 35.0]" in said
    del report["judges"]  # as in a table without a judge
    assert "## Judges" not in render.markdown(report) and "judge" not in shown(report)


def test_settings_that_differ_only() -> None:
    header, new, full, retrain = rows_under(render.markdown(example_report()), "Settings in which the rows differ")
    assert header == ["row", "column", "memory.source", "memory.size", "memory", "config"]
    assert new == [r"cl(D\_n)", "synthetic, SQuAD", "none", "—", "—", "newtext, newsquad"]
    assert full[2:5] == ["all", "64", "—"] and retrain[2:5] == ["—", "—", "{}"]
    report = example_report()
    report["conditions"] = [{**condition, "settings": {"lr": 1}} for condition in report["conditions"]]
    assert "All rows share the same settings." in render.markdown(report)


def test_plots_are_linked_by_safe_names() -> None:
    report = example_report()
    assert render.plot_names(report) == {
        "continual.tiny.claims.svg": (),
        "continual.tiny.metric-hits.svg": ("hits",),
        "continual.tiny.metric-updates.svg": ("updates",),
    }
    assert r"![A\_5 Hits@10](continual.tiny.metric-hits.svg)" in render.markdown(report)
    report["name"] = "../../etc/x"
    names = list(render.plot_names(report))
    assert all(re.fullmatch(r"[A-Za-z0-9_.+-]+", name) and not name.startswith("../") for name in names)
    assert render.stem({**report, "name": "a/b"}) != render.stem({**report, "name": "a_b"})


def test_hostile_text_stays_text_in_markdown() -> None:
    text = render.markdown(hostile_report())
    text.encode()
    assert "\x1b" not in text and "\u202e" not in text
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    leaves = [child for token in tokens for child in (token.children or [token])]
    kinds = {leaf.type for leaf in leaves}
    assert not kinds & {"html_inline", "html_block", "link_open", "strong_open", "em_open", "code_inline", "hardbreak"}
    headings = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    assert len(headings) == 9  # none planted by a newline
    images = [leaf.attrGet("src") for leaf in leaves if leaf.type == "image"]
    assert [str(name).split("/")[-1] for name in images] == list(render.plot_names(hostile_report()))
    assert any(
        "<script>alert(1)</script> | `code` [red]loud[/red] [x](http://evil) **b**" in leaf.content for leaf in leaves
    )


def test_hostile_text_keeps_the_shape_of_tables() -> None:
    tidy, wild = render.markdown(example_report()), render.markdown(hostile_report())
    for heading in ("Claims", "Published figures beside ours", "Results", "Judges", "Failures"):
        shapes = [[len(row) for row in rows_under(text, heading)] for text in (tidy, wild)]
        assert shapes[0] == shapes[1]


def test_hostile_text_stays_text_in_html_made_from_markdown() -> None:
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(render.markdown(hostile_report())))
    assert "table" in tags and not {"script", "a", "strong"} & set(tags)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("make", [example_report, hostile_report])
def test_terminal_fits_the_width(make: Any, width: int) -> None:
    text = shown(make(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "\x1b" not in text and "\u202e" not in text
    text.encode()


def test_terminal_shows_values_whole() -> None:
    text = shown(example_report())
    for value in ("20.0 [15.0, 25.0]", "43.2 [40.1, 46.3]", " 900", "30.0 [30.0, 30.0] (n=2)", "61.0 (n=1)"):
        assert value in text
    assert "+23.2 [+15.0, +31.4]" in text and "+21.1 ✓" in text and "direction only" in text
    assert "C1 holds  23.2 [15.0, 31.4] points  p <0.001  n 3  paper +21.1 points ✓" in text
    assert "failed retrain · SQuAD · seed 2: FloatingPointError: loss=nan" in text


def test_terminal_shows_markup_as_text_and_colours_statuses() -> None:
    report = example_report()
    report["failures"][0]["error"] = "[red]loud[/red] :smile: [/nope]"
    report["rows"][0]["label"] = report["metrics"][0]["label"] = "[red]bare[/red]"
    text = shown(report, 120)
    assert "[red]loud[/red] :smile: [/nope]" in text
    # Table: 1 row, 2 columns; figures: the row once, the metric twice; judges: the metric once.
    assert text.count("[red]bare[/red]") == 7
    assert "\x1b[32mholds\x1b[0m" in shown(example_report(), color=True)


def test_a_report_without_anything_to_show() -> None:
    report = example_report()
    for part in ("cells", "figures", "claims", "failures", "conditions", "overrides", "seeds"):
        report[part] = []
    report |= {"commit": None, "versions": {}, "dirty": False, "cost": dict.fromkeys(report["cost"])}
    assert render.plot_names(report) == {}
    text = render.markdown(report)
    assert "No claims are written down" in text and "## Plots" not in text and "## Failures" not in text
    assert "claims: none" in shown(report)


def test_rendering_needs_nothing_that_json_does_not_carry() -> None:
    report = example_report()
    again = json.loads(json.dumps(report))
    assert render.markdown(again) == render.markdown(report) and shown(again) == shown(report)

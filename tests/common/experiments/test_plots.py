"""Plots: the same report gives the same bytes, small files, and text that stays text."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from common.experiments import plots

HOSTILE = "<script>alert(1)</script> & $\\frac{1}{0$ \x00\x1b[31m 記憶\n"


def report(columns: int = 2, label: str = "") -> dict[str, Any]:
    """Three rows, two metrics of which one has no values, three claims; every label ends in `label`."""
    cells = []
    for column in range(columns):
        for i, row in enumerate(["none", "episodic", "generative"]):
            mean = None if row == "episodic" and column else 0.2 + 0.1 * i
            interval = (None, None) if mean is None or i == 0 else (mean - 0.05, mean + 0.05)
            cells.append(
                {"row": row, "column": f"c{column}", "metric": "hits", "mean": mean, "ci_low": interval[0],
                 "ci_high": interval[1], "n_seeds": 2, "seeds": [0, 1], "published": 0.77, "where": "Table 2",
                 "values": [] if mean is None else [mean - 0.01, mean + 0.01],
                 "provenance": "verified", "verdict": "reproduced" if i == 2 else "not comparable"}
            )  # fmt: skip
    claims = [
        {"id": name, "text": f"claim {name}{label}", "status": status, "effect": effect, "ci_low": low, "ci_high": high}
        for name, status, effect, low, high in [
            ("C1", "holds", 0.2, 0.1, 0.3),
            ("C2", "underpowered", 0.1, None, None),
            ("C3", "not tested", None, None, None),
        ]
    ]
    claims.append({**claims[0], "id": "C4", "unit": "ratio", "effect": 6.0, "ci_low": 5.5, "ci_high": 6.5})
    return {
        "table": "t", "scale": "tiny", "cells": cells, "claims": claims,
        "rows": [{"id": row, "label": row + label} for row in ("none", "episodic", "generative")],
        "columns": [{"id": f"c{i}", "label": f"set {i}{label}"} for i in range(columns)],
        "metrics": [{"id": "hits", "label": f"Hits@10{label}", "unit": "fraction", "better": "higher"},
                    {"id": "absent", "label": f"absent{label}", "unit": "count", "better": "lower"}],
    }  # fmt: skip


def texts(path: Path) -> list[str]:
    """Every text that the plot shows; fails unless the file is well-formed XML."""
    return ["".join(node.itertext()).strip() for node in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_one_plot_of_claims_and_one_per_metric_with_values(tmp_path: Path) -> None:
    paths = plots.draw(report(), tmp_path)
    assert [path.name for path in paths] == ["t.tiny.claims.svg", "t.tiny.metric-hits.svg"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    claims, metric = (texts(path) for path in paths)
    assert {"C1 claim C1", "C3 claim C3", "holds", "underpowered", "effect (ratio)"} <= set(claims)
    assert {"none", "episodic", "generative", "set 0", "set 1", "Hits@10 (%) ↑"} <= set(metric)


def test_claims_whose_unit_is_not_known_share_no_axis(tmp_path: Path) -> None:
    assert texts(plots.draw(report(), tmp_path)[0]).count("effect") == 3
    told = report()
    for claim in told["claims"][:3]:
        claim["unit"] = "fraction"
    shown = texts(plots.draw(told, tmp_path)[0])
    assert [text for text in shown if text.startswith("effect")] == ["effect (percentage points)", "effect (ratio)"]


def test_same_report_same_bytes(tmp_path: Path) -> None:
    first, second = plots.draw(report(), tmp_path / "a"), plots.draw(report(), tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert b"<dc:date>" not in first[0].read_bytes()


def test_user_settings_do_not_reach_the_plots(tmp_path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "svg.fonttype": "path"}):
        first = plots.draw(report(), tmp_path / "a")
        assert matplotlib.rcParams["font.size"] == 20
    second = plots.draw(report(), tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_plot_is_drawn_again_only_when_what_it_shows_changed(tmp_path: Path) -> None:
    first = report()
    paths = plots.draw(first, tmp_path)
    before = [path.stat().st_mtime_ns for path in paths]
    plots.draw({**first, "generated_at": "later"}, tmp_path)
    assert [path.stat().st_mtime_ns for path in paths] == before
    first["cells"][0]["mean"] = 0.25
    plots.draw(first, tmp_path)
    assert paths[0].stat().st_mtime_ns == before[0]
    assert paths[1].stat().st_mtime_ns != before[1]


@pytest.mark.parametrize("columns", [1, 5])
def test_files_are_small(tmp_path: Path, columns: int) -> None:
    assert all(path.stat().st_size < 100_000 for path in plots.draw(report(columns), tmp_path))


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    for path in plots.draw(report(label=HOSTILE), tmp_path):
        tags = {node.tag.split("}")[-1] for node in ET.parse(path).iter()}
        assert "script" not in tags
        assert any("<script>alert(1)</scr" in text for text in texts(path))


def test_points_stand_where_the_values_are(tmp_path: Path) -> None:
    """Marker positions are an affine map of the means, so equal steps in the mean are equal steps on paper."""
    path = plots.draw(report(columns=1), tmp_path)[1]
    uses = [
        node
        for node in ET.parse(path).iter("{http://www.w3.org/2000/svg}use")
        if "fill: #0072b2" in node.get("style", "")
    ]
    means = [float(node.get("x", "")) for node in uses if "fill-opacity" not in node.get("style", "")]
    assert len(means) == 4  # three rows and the legend
    assert means[1] - means[0] == pytest.approx(means[2] - means[1], abs=1e-3)
    assert means[2] > means[0]


def test_published_figures_are_drawn_only_where_they_compare(tmp_path: Path) -> None:
    def diamonds(values: dict[str, Any]) -> int:
        path = plots.draw(values, tmp_path)[1]
        marks = ET.parse(path).iter("{http://www.w3.org/2000/svg}use")
        return sum("stroke: #d55e00" in mark.get("style", "") for mark in marks)

    assert diamonds(report(columns=1)) == 1 + 1  # and the legend
    hearsay = report(columns=1)
    for cell in hearsay["cells"]:
        cell["provenance"] = "hearsay"
    assert diamonds(hearsay) == 0
    assert "paper" not in texts(plots.draw(hearsay, tmp_path)[1])


@pytest.mark.parametrize("curves", [False, True])
def test_an_axis_ends_where_a_fraction_does(tmp_path: Path, curves: bool) -> None:
    """Two seeds give intervals far beyond 0 and 100 %; a difference of fractions reaches as low as its seeds."""
    values = report(columns=2)
    if curves:
        values["columns"] = [{**column, "at": 10.0**i} for i, column in enumerate(values["columns"])]
    for cell in values["cells"]:
        cell["ci_low"], cell["ci_high"] = -1.5, 2.5

    def ticks(values: dict[str, Any]) -> set[float]:
        shown = texts(plots.draw(values, tmp_path)[1])
        return {float(text.replace("−", "-")) for text in shown if text.replace("−", "").replace(".", "").isdigit()}

    assert min(ticks(values)) == 0 and max(ticks(values)) == 100
    values["cells"][0]["values"] = [-0.4, 0.8]
    assert min(ticks(values)) < -20 and max(ticks(values)) == 100


def test_metrics_of_a_panel_share_a_plot_with_a_colour_each(tmp_path: Path) -> None:
    values = report(columns=2)
    values["metrics"] = [{**metric, "panel": "both kinds"} for metric in values["metrics"]]
    values["cells"] += [{**cell, "metric": "absent"} for cell in values["cells"]]
    paths = plots.draw(values, tmp_path)
    assert [path.name for path in paths] == ["t.tiny.claims.svg", "t.tiny.panel-hits.svg"]
    assert {"both kinds", "Hits@10 (%)", "absent", "set 0", "set 1"} <= set(texts(paths[1]))
    uses = [node.get("style", "") for node in ET.parse(paths[1]).iter("{http://www.w3.org/2000/svg}use")]
    counts = [sum(f"fill: {color.lower()}" in style for style in uses) for color in plots.SERIES[:2]]
    assert counts == [5 + 1, 5 + 1]  # rows and columns with a mean, and the legend


def test_columns_on_a_scale_give_curves(tmp_path: Path) -> None:
    values = report(columns=3)
    values["columns"] = [{**column, "at": 10.0**i} for i, column in enumerate(values["columns"])]
    path = plots.draw(values, tmp_path)[1]
    assert {"none", "generative", "set 0", "set 1", "set 2", "Hits@10 (%) ↑"} <= set(texts(path))
    uses = [
        node
        for node in ET.parse(path).iter("{http://www.w3.org/2000/svg}use")
        if f"fill: {plots.SERIES[0].lower()}" in node.get("style", "")
    ]
    at = [float(node.get("x", "")) for node in uses][:3]
    assert at[1] - at[0] == pytest.approx(at[2] - at[1], abs=1e-3) and at[1] > at[0]  # decades are equal steps

"""The index page: well-formed, self-contained, escaped, and true to the files."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from common.experiments import catalogue, site

KNOWN = {"lang", "charset", "name", "content", "http-equiv", "id", "class", "href"}
VOID = {"meta", "br", "img", "hr", "link", "input"}


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
        self.links += [str(values["href"])] if "href" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += " " + data


def report(**changes: Any) -> dict[str, Any]:
    """As much of a report as the index reads."""
    claims = [{"id": f"C{i}", "status": status, "effect": 0.1} for i, status in enumerate(["holds", "holds", "fails"])]
    return {
        "table": "continual", "scale": "tiny", "seeds": [0, 1], "commit": "0123456789abcdef", "dirty": False,
        "generated_at": "2026-07-01T10:00:00Z", "claims": claims, "figures": [{"verdict": "direction only"}],
        "failures": [{"row": "a"}], "cells": [{"metric": "hits", "mean": 0.5}], "metrics": [{"id": "hits"}], **changes,
    }  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with DSI++ implemented, its report written, and a package of the user's own."""
    for name in ("projects/dsi_pp/run.py", "projects/toy/run.py", "configs/table/dsi_pp/continual.yaml"):
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
    path = site.build(repository / "reports", catalogue.load(), repository)
    assert path == repository / "reports" / "index.html"
    return Page(path)


def card(repository: Path, slug: str) -> str:
    """HTML of one paper's card."""
    html = (repository / "reports" / "index.html").read_text(encoding="utf-8")
    return html.split(f'<article id="{slug}"')[1].split("</article>")[0]


def test_all_papers_with_their_state(repository: Path) -> None:
    page = build(repository)
    assert page.ids == [*catalogue.load(), "toy"]
    assert "1 of 50" in page.text
    assert "not implemented" not in card(repository, "dsi_pp")
    assert "not implemented" in card(repository, "wise")
    assert "Outside the catalogue" in page.text and "not implemented" not in card(repository, "toy")


def test_tables_scales_counts_and_links_of_a_report(repository: Path) -> None:
    page = build(repository)
    html = card(repository, "dsi_pp")
    assert "<code>continual</code>: tiny, paper" in html
    assert "2 holds" in html and "1 fails" in html and "1 direction only" in html and "Failed cells: 1" in html
    assert "2 seeds" in html and "0123456789 " not in html.replace("0123456789<", "") and "abcdef" not in html
    assert page.links == [  # no link to the plot of the claims: there is no such file
        "dsi_pp/continual.tiny.md",
        "dsi_pp/continual.tiny.metric-hits.svg",
        "dsi_pp/continual.tiny.json",
    ]


def test_every_link_leads_to_a_file(repository: Path) -> None:
    write(repository / "reports" / "odd name#1" / "a b?.tiny.json", json.dumps(report()))
    page = build(repository)
    assert "odd%20name%231/a%20b%3F.tiny.json" in page.links
    assert all((repository / "reports" / unquote(link)).is_file() for link in page.links)


def test_nothing_is_loaded_from_outside(repository: Path) -> None:
    page = build(repository)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not any(name in ("src", "style", "srcset") or name.startswith("on") for name, _ in page.attributes)
    html = (repository / "reports" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import", html)
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html


def test_hostile_text_is_escaped(repository: Path) -> None:
    hostile = "\"'><script>alert(1)</script>&\x1b[31m\u202e\n"
    poisoned = report(table=hostile, commit=hostile, generated_at=hostile, metrics=[{"id": hostile}])
    poisoned["cells"] = [{"metric": hostile, "mean": 1.0}]
    poisoned["claims"].append({"id": "C9", "status": hostile, "effect": None})
    poisoned["figures"] = [{"verdict": hostile}]
    write(repository / "reports" / "dsi_pp" / "wild.tiny.json", json.dumps(poisoned))
    folder = "\"<b>'x"
    write(repository / "reports" / folder / "t.tiny.json", json.dumps(poisoned))
    page = build(repository)
    assert "script" not in page.tags and "b" not in page.tags
    assert folder in page.ids and all(name in KNOWN for name, _ in page.attributes)
    assert "<script>alert(1)</script>" in page.text
    html = (repository / "reports" / "index.html").read_text(encoding="utf-8")
    assert "\x1b" not in html and "\u202e" not in html


@pytest.mark.parametrize("text", ["{", "[]", "{}", "null", '{"claims": 3}', "\udcff"])
def test_an_unreadable_report_is_shown_as_such(repository: Path, text: str) -> None:
    path = repository / "reports" / "wise" / "main.tiny.json"
    path.parent.mkdir()
    path.write_bytes(text.encode(errors="surrogateescape"))
    page = build(repository)
    assert "unreadable report" in card(repository, "wise")
    assert "wise/main.tiny.json" in page.links and "2 holds" in page.text


def test_scales_in_order_and_same_input_same_bytes(repository: Path) -> None:
    for scale in ("small", "paper"):
        write(repository / "reports" / "dsi_pp" / f"continual.{scale}.json", json.dumps(report(scale=scale)))
    page = build(repository)
    data = [link for link in page.links if link.endswith(".json")]
    assert [link.split(".")[1] for link in data] == ["tiny", "small", "paper"]
    path = repository / "reports" / "index.html"
    before, time = path.read_bytes(), path.stat().st_mtime_ns
    build(repository)
    assert path.stat().st_mtime_ns == time  # left alone
    path.unlink()
    build(repository)
    assert path.read_bytes() == before


def test_without_any_report(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    page = build(tmp_path)
    assert len(page.ids) == 50 and "0 of 50" in page.text and page.links == []

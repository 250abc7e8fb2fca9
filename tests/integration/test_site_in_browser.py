"""The report site in headless Chromium, over WebDriver: links, sort, filter, cells, keyboard, two widths, dark.

Pages are opened as files, as a reader of a checkout does. No library: a session of WebDriver is a few JSON requests.
"""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.experiments import catalogue
from common.experiments.site.build import build
from tests.common.experiments.test_site import HOSTILE, curve, kept, poison, report, write

PROGRAMS = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
ABSENT = [name for name, path in PROGRAMS.items() if path is None]
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(ABSENT), reason=f"no browser here: {', '.join(ABSENT)} missing"),
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's id, by the standard
KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Tab": "\ue004"}
VISIBLE = (
    "return [...document.querySelectorAll('table.papers tbody tr')].filter(r => r.checkVisibility()).map(r => r.id)"
)


README = f"""# Indexing

[figures](../../reports/dsi_pp/continual.tiny.md) [no](javascript:alert(1))

{HOSTILE}

| a column of some width | {" | ".join(f"another of them {i}" for i in range(9))} |
|---|{"---|" * 9}
| a{" | x" * 9} |

    a line of code that is so long that it does not fit a narrow window, and must not push the page apart by its width
"""


class Browser:
    """A session: pages below `root` by name; a window of `width` CSS pixels."""

    def __init__(self, driver: str, root: Path):
        self.root = root
        options = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu"], "binary": PROGRAMS["chromium"]}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        self.address = driver
        made = self.ask("POST", "", {"capabilities": wanted})
        self.address = f"{driver}/{made['sessionId']}"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def open(self, page: str, width: int = 1280) -> None:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", **metrics)
        self.ask("POST", "/url", {"url": "about:blank"})  # a new fragment alone would not load the page again
        self.ask("POST", "/url", {"url": f"{self.root.as_uri()}/{page}"})

    def run(self, script: str) -> Any:
        return self.ask("POST", "/execute/sync", {"script": script, "args": []})

    def click(self, css: str) -> None:
        element = self.ask("POST", "/element", {"using": "css selector", "value": css})[ELEMENT]
        self.ask("POST", f"/element/{element}/click")

    def type(self, *keys: str) -> None:
        """Press keys, by name or as text, where the focus is."""
        pressed = [key for word in keys for key in ([KEYS[word]] if word in KEYS else word)]
        steps = [{"type": kind, "value": key} for key in pressed for kind in ("keyDown", "keyUp")]
        self.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": steps}]})

    def devtools(self, command: str, **values: Any) -> Any:
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": values})

    def complaints(self) -> list[str]:
        """Messages of the console since the last call: errors, and what the Content-Security-Policy refused."""
        return [entry["message"] for entry in self.ask("POST", "/se/log", {"type": "browser"})]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with an ordinary report, a wide one with items, and one in which every text is hostile."""
    root = tmp_path_factory.mktemp("site")
    write(root / "projects/dsi_pp/run.py", "from common.retrievers.bm25 import BM25\n")
    write(root / "common/retrievers/bm25.py")
    for name in ("continual", "continual_tiny"):
        write(root / "configs/table/dsi_pp" / f"{name}.yaml")
    write(root / "projects/dsi_pp/README.md", README)
    write(root / "common/guide/index.md", "# Guide\n\n[DSI++](../../projects/dsi_pp/README.md)\n")
    reports = root / "reports"
    curves = [curve(f"reward.{i}", row, low=-1.0) for i in range(7) for row in "ab"]
    plain = report(evidence=[kept()], curves=curves)
    plain["claims"][0]["detail"] = "holds: hits(b, corpus) = 0.5 > hits(a, corpus) = 0.2: effect +0.3"
    write(reports / "dsi_pp" / "continual.tiny.json", json.dumps(plain))
    columns = [{"id": f"c{i}", "label": f"a column of some width {i}"} for i in range(12)]
    cell = report()["cells"][0]
    wide = report(name="wide.tiny", columns=columns, cells=[{**cell, "column": column["id"]} for column in columns])
    wide["conditions"] = [{**wide["conditions"][0], "column": column["id"]} for column in columns]
    write(reports / "wise" / "wide.tiny.json", json.dumps(wide))
    hostile = report(evidence=[kept(cpu_seconds={"0": 6000.0, "1": 6000.0})], curves=curves)
    write(reports / "cmt" / "wild.tiny.json", json.dumps(poison(hostile)))
    build(reports, catalogue.load(), root)
    return reports


@pytest.fixture(scope="module")
def driver() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([str(PROGRAMS["chromedriver"]), f"--port={port}"], stdout=subprocess.DEVNULL) as process:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/session"
        process.terminate()


@pytest.fixture(scope="module")
def session(driver: str, root: Path) -> Iterator[Browser]:
    browser = Browser(driver, root)
    yield browser
    browser.ask("DELETE", "")


@pytest.fixture
def browser(session: Browser) -> Iterator[Browser]:
    """Whatever a test does, no page may complain: no error, nothing refused, nothing missing."""
    yield session
    assert session.complaints() == []


def names(root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in sorted(root.rglob("*.html"))]


@pytest.mark.parametrize("width", [390, 1280])
def test_search_and_filter(browser: Browser, width: int) -> None:
    browser.open("index.html", width)
    assert len(browser.run(VISIBLE)) == 50
    browser.type("/", "model edit")
    assert browser.run("return document.activeElement.name") == "q"
    assert browser.run(VISIBLE) == ["wise"]
    assert browser.run("return document.querySelector('output').value") == "1 of 50 papers"
    browser.open("index.html" + browser.run("return location.hash"), width)  # the address keeps what was asked
    assert browser.run(VISIBLE) == ["wise"]
    browser.click("button[type=reset]")
    assert len(browser.run(VISIBLE)) == 50
    browser.type("/", "sharding")  # of the paper's claim
    assert browser.run(VISIBLE) == ["wise"]
    browser.click("button[type=reset]")
    choose = (
        "const choice = document.querySelector('[name={}]'); choice.value = '{}';"
        "choice.dispatchEvent(new Event('input', {{bubbles: true}}))"
    )
    browser.run(choose.format("state", "reported"))
    assert browser.run(VISIBLE) == ["dsi_pp", "cmt", "wise"]
    browser.run(choose.format("verdict", "holds"))
    assert browser.run(VISIBLE) == ["dsi_pp", "wise"]  # the hostile statuses are none of ours


def test_sort_by_mouse_and_keyboard(browser: Browser) -> None:
    browser.open("index.html")
    browser.click("th:last-child button")
    assert browser.run(VISIBLE)[:3] == ["dsi_pp", "wise", "cmt"]
    assert browser.run("return document.querySelector('th:last-child').ariaSort") == "ascending"
    browser.type("Enter")  # the focus is on the button
    assert browser.run(VISIBLE)[0] == "cmt"  # papers without a figure stay behind
    assert browser.run("return document.querySelector('th:last-child').ariaSort") == "descending"
    browser.click("th:first-child button")
    sorted_by_name = browser.run("return [...document.querySelectorAll('.papers tbody th')].map(t => t.dataset.sort)")
    assert sorted_by_name == browser.run("return " + json.dumps(sorted_by_name) + ".sort((a, b) => a.localeCompare(b))")


def test_sort_in_a_narrow_window(browser: Browser) -> None:
    browser.open("index.html", 390)
    shown = "return [...document.querySelectorAll('.papers thead, [name=sort]')].map(e => e.checkVisibility())"
    assert browser.run(shown) == [True, False]  # the choice stands for the headers
    as_listed = browser.run(VISIBLE)
    choose = (
        "const choice = document.querySelector('[name=sort]');"
        "choice.value = [...choice.options].find(o => o.text === '{}').value;"
        "choice.dispatchEvent(new Event('input', {{bubbles: true}}))"
    )
    browser.run(choose.format("CPU minutes ↓"))
    assert browser.run(VISIBLE)[0] == "cmt"
    browser.run(choose.format("CPU minutes ↑"))
    assert browser.run(VISIBLE)[:3] == ["dsi_pp", "wise", "cmt"]
    browser.run(choose.format("as listed"))
    assert browser.run(VISIBLE) == as_listed
    browser.open("index.html")
    assert browser.run(shown) == [False, True]


def test_a_cell_opens_by_mouse_and_keyboard_and_closes(browser: Browser) -> None:
    browser.open("dsi_pp/index.html")
    shown = "return document.querySelector('dialog').open && document.querySelector('dialog').innerText"
    browser.click("td a.cell[href$='/a/corpus']")
    text = browser.run(shown)
    assert "plain" in text and "--rows a" in text and "epoch 1" in text and "prediction\nAda" in text
    assert "seed 0" in text and "19.0" in text and "model.row = a" in text
    settings = browser.run("return [...document.querySelectorAll('dialog details.shared li')].map(e => e.textContent)")
    assert settings == ["lr = 0.1"] and browser.run("return document.querySelectorAll('dialog [id]').length") == 1
    browser.click("dialog details.shared summary")
    assert "lr = 0.1" in browser.run(shown)
    browser.type("Escape")
    assert browser.run(shown) is False
    assert browser.run("return document.activeElement.className") == "cell"  # back where it came from
    browser.type("Enter")
    assert "--rows a" in browser.run(shown)
    browser.click("dialog header button")
    assert browser.run(shown) is False


def test_a_claim_opens_the_cells_behind_it_by_mouse_and_keyboard(browser: Browser) -> None:
    browser.open("dsi_pp/index.html")
    shown = "return document.querySelector('dialog').open && document.querySelector('dialog h2').innerText"
    browser.click(".claim a.cell[href$='/a/corpus']")
    assert browser.run(shown) == "plain"
    browser.type("Escape")
    assert browser.run(shown) is False
    browser.run("document.querySelector('.claim a.cell[href$=\"/a/corpus\"]').focus()")
    browser.type("Tab")
    assert browser.run("return document.activeElement.tagName") == "SUMMARY"  # what the claim says part by part
    browser.type("Enter", "Tab")
    assert browser.run("return document.activeElement.innerText") == "hits(b, corpus)"
    browser.type("Enter")
    assert browser.run(shown) == "replay"


def test_a_readme_is_read_on_the_site(browser: Browser) -> None:
    browser.open("index.html")
    browser.click("#dsi_pp a[href='dsi_pp/readme.html']")
    assert browser.run("return document.querySelector('h1').innerText") == "Indexing"
    assert browser.run("return [...document.querySelectorAll('article a')].map(a => a.innerText)") == ["figures"]
    browser.click("article a")
    assert browser.run("return location.pathname + location.hash").endswith("dsi_pp/index.html#continual.tiny")
    browser.click("nav a[href$='guide.html']")
    browser.click("article a")
    assert browser.run("return document.querySelector('h1').innerText") == "Indexing"


def test_a_curve_fills_its_chart(browser: Browser) -> None:
    """As long as steps and values are, in pixels: from 4% to 96% of the chart."""
    browser.open("dsi_pp/index.html")
    chart, line = browser.run(
        "const line = document.querySelector('.plot polyline');"
        "return [line.farthestViewportElement, line].map(e => e.getBoundingClientRect().toJSON())"
    )
    assert abs(line["width"] - 0.92 * chart["width"]) < 3 and line["left"] >= chart["left"]
    assert abs(line["height"] - 0.92 * chart["height"] * 2 / 3) < 3  # 0 to 2 on an axis from -1 to 2


def test_a_link_to_a_cell_opens_what_it_lies_in(browser: Browser) -> None:
    browser.open("dsi_pp/index.html#continual.tiny/b/corpus")
    assert browser.run("return document.getElementById('continual.tiny/b/corpus').open")
    assert browser.run("return document.getElementById('continual.tiny/b/corpus').checkVisibility()")


@pytest.mark.parametrize("place", ["b/corpus", "figure-gain"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_a_link_marks_is_marked_in_the_first_column_too(browser: Browser, scheme: str, place: str) -> None:
    browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(f"dsi_pp/index.html#continual.tiny/{place}")
    page, mark, *cells = browser.run(
        "const place = document.querySelector(':target');"
        "return [document.body, place, ...place.querySelectorAll('th:first-child')]"
        ".map(e => getComputedStyle(e).backgroundColor)"
    )
    assert mark != page and cells and set(cells) <= {mark, "rgba(0, 0, 0, 0)"}
    assert mark in cells


def test_the_keyboard_reaches_everything_in_order(browser: Browser) -> None:
    browser.open("index.html")
    browser.type("Tab")
    assert browser.run("return document.activeElement.className") == "skip"
    seen = []
    for _ in range(12):
        browser.type("Tab")
        seen.append(browser.run("return document.activeElement.name || document.activeElement.innerText"))
    assert seen[:10] == [
        "Papers", "Components", "Costs", "Changes", "Guide", "q", "group", "state", "verdict", "Clear"
    ]  # fmt: skip


def test_links_lead_to_pages(browser: Browser) -> None:
    browser.open("index.html")
    for page in ("matrix.html", "costs.html", "changes.html", "index.html"):
        browser.click(f"nav a[href='{page}']")
        assert browser.run("return location.pathname").endswith(f"/{page}")
        assert browser.run("return document.querySelector('nav [aria-current]').getAttribute('href')") == page
    browser.click("#dsi_pp th a")
    assert browser.run("return document.querySelector('h1').innerText") == "DSI++"
    browser.click("nav a")
    assert browser.run("return location.pathname").endswith("/reports/index.html")


@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_the_window(browser: Browser, root: Path, width: int) -> None:
    for page in names(root):
        browser.open(page, width)
        assert browser.run("return innerWidth") == width
        assert browser.run("return document.documentElement.scrollWidth") <= width, page


def test_where_a_figure_stands_is_readable_on_a_phone(browser: Browser) -> None:
    browser.open("dsi_pp/index.html", 390)
    where = "document.querySelector('table.figures td:last-child')"
    assert browser.run(f"return {where}.getBoundingClientRect().width") > 160


def test_the_name_of_a_group_is_printed_on_a_phone(browser: Browser) -> None:
    shown = "return getComputedStyle(document.querySelector('#dsi_pp abbr'), '::after').content"
    browser.open("index.html", 390)
    assert browser.run(shown) == '". Knowledge in parameters and retrieval"'
    browser.open("index.html")  # a wide window has it above the letter
    assert browser.run(shown) == "none"


def test_the_line_below_a_link_keeps_off_its_text(browser: Browser) -> None:
    browser.open("dsi_pp/index.html")
    size, offset = browser.run(
        "const style = getComputedStyle(document.querySelector('.top ~ main a.cell'));"
        "return [style.fontSize, style.textUnderlineOffset].map(parseFloat)"
    )
    assert offset >= 0.25 * size - 0.01


def test_scales_that_were_run_are_told_apart_to_a_screen_reader_too(browser: Browser) -> None:
    browser.open("wise/index.html")
    shown = "const e = document.querySelector('.unseen'); return e && e.getBoundingClientRect().width"
    assert browser.run(shown) is None  # no such scale in the configs
    browser.open("dsi_pp/index.html")
    assert browser.run(shown) == 1


def test_hostile_text_does_nothing(browser: Browser, root: Path) -> None:
    """No script of it runs, no image of it loads; it is shown as it was written, in a dialog as well."""
    for page in names(root):
        browser.open(page)
        assert browser.run("return document.scripts.length") == 1
        assert browser.run("return [...document.images].filter(i => i.getAttribute('src') === 'x').length") == 0
    browser.open("cmt/index.html")
    browser.click("td a.cell")
    assert "<script>alert(1)</script>" in HOSTILE and "<script>alert(1)</script>" in browser.run(
        "return document.querySelector('dialog').innerText"
    )


def test_without_scripts_all_is_there(browser: Browser) -> None:
    browser.devtools("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open("index.html")
        source = browser.ask("GET", "/source")
        assert '<form class="filter" hidden' in source and source.count("<tr id=") == 50
    finally:
        browser.devtools("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(browser: Browser, scheme: str) -> None:
    """Contrast of every colour of text with the page, at least 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open("dsi_pp/index.html")
    page = browser.run("return getComputedStyle(document.body).backgroundColor")
    colors = browser.run(
        "return [...new Set([...document.querySelectorAll('main *')].filter(e => e.checkVisibility())"
        ".map(e => getComputedStyle(e).color))]"
    )
    assert (luminance(page) < 0.2) == (scheme == "dark")
    for color in colors:
        dark, light = sorted([luminance(page), luminance(color)])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{color} on {page}"


def luminance(color: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, by the definition of WCAG."""
    parts = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

"""What a paper published: `projects/<slug>/expected.yaml`, read strictly.

    paper: {title: ..., authors: ..., venue: EMNLP 2023, arxiv: "2212.09744", version: v3}
    figures:
      - {id: gain, table: continual, row: genmem_all, over: cl_all, metric: a_hits10, value: 0.211,
         where: Abstract, provenance: verified}
    claims:
      - id: C1
        table: continual
        text: generative memory beats plain continual indexing
        where: Abstract
        provenance: verified
        published: "+21.1 points"
        test: {kind: order, metric: a_hits10, rows: [genmem_all, cl_all, cl_new]}

Nothing is shown as published without its place in the paper (`where`) and how sure we are of it (`provenance`). Every
mistake is a `UserError` of one line that names the file, the entry and the nearest valid choice. A missing `column`
is the table's only one; a claim about metrics that only some scales report lists these as `scales`. The kinds of test
are those of `claims`; `order` and `not_worse` follow the table's `better`.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.experiments.catalogue import SCALES
from common.experiments.claims import (
    AllOf,
    AtLeast,
    AtMost,
    EqualWithin,
    Greater,
    Monotone,
    NotWorse,
    Operand,
    Order,
    Predicate,
    RatioAtLeast,
    RatioAtMost,
)
from common.experiments.errors import UserError, nearest

PROVENANCES = ("verified", "secondary", "reconstructed")  # in the paper itself; in another source; derived by us


@dataclass(frozen=True)
class TableNames:
    """What may be named of a table: its rows, its columns, and its metrics with `higher` or `lower` as the better."""

    rows: Collection[str]
    columns: Collection[str]
    metrics: Mapping[str, str]


@dataclass(frozen=True)
class Paper:
    """Bibliographic record; unknown parts are empty."""

    title: str
    authors: str = ""
    venue: str = ""
    arxiv: str = ""
    version: str = ""


@dataclass(frozen=True)
class Figure:
    """A published number: the value of a row, or its lead over the row `over`, in units of the metric.

    `tolerance` is the absolute deviation that still counts as reproduced at paper scale, None when not set.
    """

    id: str
    table: str
    row: str
    column: str
    metric: str
    value: float
    where: str
    provenance: str
    over: str | None = None
    tolerance: float | None = None


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper and the predicate that tests it; `published` is the paper's effect in its own words.

    `scales` are those whose cells report what the test compares; empty: all.
    """

    id: str
    table: str
    text: str
    where: str
    provenance: str
    test: Predicate
    published: str | None = None
    scales: tuple[str, ...] = ()


@dataclass(frozen=True)
class Expected:
    """The whole file."""

    paper: Paper
    figures: tuple[Figure, ...]
    claims: tuple[Claim, ...]


def load_expected(
    path: Path, tables: Mapping[str, TableNames], only: str | None = None, scale: str | None = None
) -> Expected:
    """Read and check an `expected.yaml`.

    Args:
        tables: the paper's tables; one is looked up only when an entry of it is read, so the mapping may be lazy.
        only: keep (and check in full) the entries of this table alone; ids and table names are checked in any case.
        scale: leave out (unread, but for ids and names of tables and scales) the claims of other scales.

    Raises:
        UserError: anything missing, unknown, misspelt, of the wrong type or twice.
    """
    top = _Entry(_read(path), str(path), ("paper",), ("figures", "claims"))
    paper = _Entry(top.raw["paper"], f"{path}: paper", ("title",), ("authors", "venue", "arxiv", "version"))
    figures = [_figure(*found) for found in _entries(top, "figures", _FIGURE_FIELDS, tables, only)]
    entries = _entries(top, "claims", _CLAIM_FIELDS, tables, only)
    asked = [(entry, names) for entry, names in entries if not scale or scale in (_scales(entry) or (scale,))]
    claims = [_claim(entry, names) for entry, names in asked]
    seen: dict[tuple[str, ...], str] = {}
    for figure in figures:
        about = (figure.table, figure.row, figure.column, figure.metric, figure.over or "")
        if about in seen:
            raise UserError(f"{path}: figure '{figure.id}': gives the same quantity as figure '{seen[about]}'")
        seen[about] = figure.id
    return Expected(Paper(**{key: paper.text(key) for key in paper.raw}), tuple(figures), tuple(claims))


def parse_predicate(raw: Any, names: TableNames, place: str) -> Predicate:
    """A `test:` mapping as a predicate, its names checked against the table; `place` opens the error messages.

    Raises:
        UserError: no mapping with a known kind, or names that the table lacks.
    """
    if not isinstance(raw, dict) or "kind" not in raw:
        raise UserError(f"{place}: test must be a mapping with a 'kind', such as {{kind: greater, ...}}")
    kind = raw["kind"]
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UserError(f"{place}: unknown kind of test '{kind}'{nearest(str(kind), _KINDS)}")
    required, optional, build = _KINDS[kind]
    return build(_Entry(raw, f"{place}: {kind}", ("kind", *required), optional), names)


class _Entry:
    """One mapping of the file with its place: required and known keys are checked at once, types when read."""

    def __init__(self, raw: Any, place: str, required: tuple[str, ...], optional: tuple[str, ...] = ()):
        self.raw, self.place = raw, place
        if not isinstance(raw, dict):
            raise UserError(f"{place}: must be a mapping, got {_kind_of(raw)}")
        for key in raw:
            if key not in required and key not in optional:
                raise UserError(f"{place}: unknown key '{key}'{nearest(str(key), (*required, *optional))}")
        for key in required:
            if raw.get(key) is None:
                raise UserError(f"{place}: misses '{key}'{_HINTS.get(key, '')}")

    def text(self, key: str) -> str:
        value = self.raw[key]
        if not isinstance(value, str):
            raise UserError(f"{self.place}: '{key}' must be text, got {_kind_of(value)}; put it in quotes")
        if not value.strip():
            raise UserError(f"{self.place}: '{key}' is empty{_HINTS.get(key, '')}")
        return value

    def choice(self, key: str, choices: Collection[str]) -> str:
        value = self.text(key)
        if value not in choices:
            raise UserError(f"{self.place}: unknown {key} '{value}'{nearest(value, choices)}")
        return value

    def number(self, key: str, least: float = -math.inf) -> float:
        value = self.raw[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            hint = "; YAML wants 1.0e-3, not 1e-3" if isinstance(value, str) and "e" in value.lower() else ""
            raise UserError(f"{self.place}: '{key}' must be a finite number, got {_kind_of(value)}{hint}")
        if value < least:
            raise UserError(f"{self.place}: '{key}' must be at least {least:g}, got {value:g}")
        return float(value)

    def column(self, names: TableNames) -> str:
        if "column" in self.raw:
            return self.choice("column", names.columns)
        if len(names.columns) != 1:
            raise UserError(f"{self.place}: misses 'column', and the table has several: {', '.join(names.columns)}")
        return next(iter(names.columns))

    def operand(self, names: TableNames) -> Operand:
        return Operand(self.choice("row", names.rows), self.column(names), self.choice("metric", names.metrics))

    def pair(self, names: TableNames) -> tuple[Operand, Operand]:
        """The operand and the one it is held against: `over`, which inherits what it does not name."""
        left = self.operand(names)
        changes = _Entry(self.raw["over"], f"{self.place}: over", (), ("row", "column", "metric"))
        inherited = {"row": left.row, "column": left.column, "metric": left.metric}
        over = _Entry({**inherited, **changes.raw}, changes.place, ("row", "column", "metric")).operand(names)
        if over == left:
            raise UserError(f"{changes.place}: is the same quantity again, {left}")
        return left, over

    def row_operands(self, names: TableNames) -> tuple[Operand, ...]:
        rows = self.raw["rows"]
        if not isinstance(rows, list) or len(rows) < 2:
            raise UserError(f"{self.place}: 'rows' must list at least two rows")
        column, metric = self.column(names), self.choice("metric", names.metrics)
        operands = []
        for row in rows:
            if not isinstance(row, str) or row not in names.rows:
                raise UserError(f"{self.place}: unknown row '{row}'{nearest(str(row), names.rows)}")
            operands.append(Operand(row, column, metric))
        if len(set(operands)) < len(operands):
            raise UserError(f"{self.place}: a row is listed twice")
        return tuple(operands)


_HINTS = {
    "provenance": f" ({', '.join(PROVENANCES)}): nothing is shown as published without it",
    "where": " (its place in the paper): nothing is shown as published without it",
}
_FIGURE_FIELDS = ("id", "table", "row", "metric", "value", "where", "provenance"), ("column", "over", "tolerance")
_CLAIM_FIELDS = ("id", "table", "text", "where", "provenance", "test"), ("published", "scales")


def _entries(
    top: _Entry,
    section: str,
    fields: tuple[tuple[str, ...], tuple[str, ...]],
    tables: Mapping[str, TableNames],
    only: str | None,
) -> list[tuple[_Entry, TableNames]]:
    """Entries of `figures` or `claims` with their tables: fields, ids, places and table names are checked."""
    raws = top.raw.get(section) or []
    if not isinstance(raws, list):
        raise UserError(f"{top.place}: '{section}' must be a list, got {_kind_of(raws)}")
    found, ids = [], set()
    for number, raw in enumerate(raws, start=1):
        name = raw.get("id", f"number {number}") if isinstance(raw, dict) else f"number {number}"
        entry = _Entry(raw, f"{top.place}: {section[:-1]} '{name}'", *fields)
        if entry.text("id") in ids:
            raise UserError(f"{entry.place}: this id is used twice")
        ids.add(name)
        entry.text("where")
        entry.choice("provenance", PROVENANCES)
        table = entry.choice("table", list(tables))
        if only is None or table == only:
            found.append((entry, tables[table]))
    return found


def _figure(entry: _Entry, names: TableNames) -> Figure:
    operand = entry.operand(names)
    over = None
    if "over" in entry.raw:
        over = entry.text("over")
        if over not in names.rows:
            raise UserError(f"{entry.place}: unknown row '{over}' in 'over'{nearest(over, names.rows)}")
        if over == operand.row:
            raise UserError(f"{entry.place}: 'over' is the row itself")
    return Figure(
        id=entry.text("id"),
        table=entry.text("table"),
        row=operand.row,
        column=operand.column,
        metric=operand.metric,
        value=entry.number("value"),
        where=entry.text("where"),
        provenance=entry.text("provenance"),
        over=over,
        tolerance=entry.number("tolerance", least=0) if "tolerance" in entry.raw else None,
    )


def _claim(entry: _Entry, names: TableNames) -> Claim:
    return Claim(
        id=entry.text("id"),
        table=entry.text("table"),
        text=entry.text("text"),
        where=entry.text("where"),
        provenance=entry.text("provenance"),
        test=parse_predicate(entry.raw["test"], names, entry.place),
        published=entry.text("published") if "published" in entry.raw else None,
        scales=_scales(entry),
    )


def _scales(entry: _Entry) -> tuple[str, ...]:
    """Scales of a claim, all of them known."""
    found = entry.raw.get("scales", [])
    if not isinstance(found, list) or not all(isinstance(scale, str) for scale in found):
        raise UserError(f"{entry.place}: 'scales' must list names of scales, got {_kind_of(found)}")
    for scale in found:
        if scale not in SCALES:
            raise UserError(f"{entry.place}: unknown scale '{scale}'{nearest(scale, SCALES)}")
    return tuple(found)


def _greater(entry: _Entry, names: TableNames) -> Predicate:
    return Greater(*entry.pair(names), margin=entry.number("margin", least=0) if "margin" in entry.raw else 0.0)


def _not_worse(entry: _Entry, names: TableNames) -> Predicate:
    left, over = entry.pair(names)
    return NotWorse(left, over, entry.number("margin", least=0), names.metrics[left.metric])


def _order(entry: _Entry, names: TableNames) -> Predicate:
    operands = entry.row_operands(names)
    return Order(operands, names.metrics[operands[0].metric])


def _monotone(entry: _Entry, names: TableNames) -> Predicate:
    return Monotone(entry.row_operands(names), entry.choice("direction", ("increasing", "decreasing")))


def _all_of(entry: _Entry, names: TableNames) -> Predicate:
    tests = entry.raw["tests"]
    if not isinstance(tests, list) or not tests:
        raise UserError(f"{entry.place}: 'tests' must list at least one test")
    return AllOf(tuple(parse_predicate(test, names, entry.place) for test in tests))


_PAIR = ("row", "metric", "over")
_KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[[_Entry, TableNames], Predicate]]] = {
    "greater": (_PAIR, ("column", "margin"), _greater),
    "at_least": (("row", "metric", "value"), ("column",), lambda e, n: AtLeast(e.operand(n), e.number("value"))),
    "at_most": (("row", "metric", "value"), ("column",), lambda e, n: AtMost(e.operand(n), e.number("value"))),
    "ratio_at_least": ((*_PAIR, "ratio"), ("column",), lambda e, n: RatioAtLeast(*e.pair(n), e.number("ratio", 0))),
    "ratio_at_most": ((*_PAIR, "ratio"), ("column",), lambda e, n: RatioAtMost(*e.pair(n), e.number("ratio", 0))),
    "order": (("metric", "rows"), ("column",), _order),
    "monotone": (("metric", "rows", "direction"), ("column",), _monotone),
    "equal_within": ((*_PAIR, "margin"), ("column",), lambda e, n: EqualWithin(*e.pair(n), e.number("margin", 0))),
    "not_worse": ((*_PAIR, "margin"), ("column",), _not_worse),
    "all_of": (("tests",), (), _all_of),
}


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping; plain YAML would keep the last silently."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                line = node.value[index][0].start_mark.line + 1
                raise UserError(f"line {line}: the key '{key}' stands twice")
        return super().construct_mapping(node, deep)


def _read(path: Path) -> Any:
    """The file's content; a missing or broken file is a `UserError`."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(
            f"{path}: {line}is no valid YAML: {getattr(error, 'problem', None) or str(error).splitlines()[0]}"
        ) from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _kind_of(value: Any) -> str:
    words = {dict: "a mapping", list: "a list", type(None): "nothing"}
    return words.get(type(value), f"{type(value).__name__} {value!r}")

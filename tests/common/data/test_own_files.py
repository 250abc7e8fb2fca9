"""Files that a user brings: found in the mirror, read line by line, and every mistake told in one line."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from common.data.own_files import own_file, read_lines, sha256
from common.experiments.errors import UserError


def doubled(value: Any) -> int:
    if not isinstance(value, int):
        raise ValueError("must be a whole number")
    return 2 * value


def text(value: Any) -> str:
    return str(value)


def test_a_file_that_is_not_there_is_told_with_who_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"own/a.jsonl is missing: the README of er .* \(REPRO_DATA names no mirror\)"):
        own_file(None, "own", "a.jsonl", "er")
    with pytest.raises(UserError, match=rf"{tmp_path}/own/a.jsonl is missing: .* names the mirror"):
        own_file(tmp_path, "own", "a.jsonl", "er")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.jsonl").write_text("1\n")
    assert own_file(tmp_path, "own", "a.jsonl", "er") == tmp_path / "own" / "a.jsonl"


def test_lines_end_at_line_feeds_alone_and_empty_ones_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    line = '"one\u2028two\x85three"'
    path.write_bytes(f"\n{line}\r\n  \n{line}".encode())
    assert read_lines(path, text) == ["one\u2028two\x85three"] * 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "no JSON: Expecting"),
        (b'"\xff"', "no JSON: 'utf-8' codec can't decode"),
        (b'"a"', "must be a whole number"),
    ],
)
def test_a_wrong_line_is_told_with_its_file_and_number(tmp_path: Path, line: bytes, says: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1\n\n" + line)
    with pytest.raises(UserError, match=rf"a.jsonl, line 3: {says}"):
        read_lines(path, doubled)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"a.jsonl holds no rows"):
        read_lines(tmp_path / "a.jsonl", doubled)


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"1\n")
    assert sha256(tmp_path / "a.jsonl") == hashlib.sha256(b"1\n").hexdigest()

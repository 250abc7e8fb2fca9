"""Paper-scale sets: tiny parquet files of the Hub's layout in the mirror, the cache and the Hugging Face cache."""

from pathlib import Path

import pytest

from common.data import ms_marco, natural_questions
from common.data.registry import hub_files, missing, require
from common.experiments.errors import UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NQ = natural_questions.DATASET


def page(number: int) -> dict:
    """A page `<p> w0 w1 ... </p>` with one annotator who marked the paragraph and one who found nothing."""
    tokens = ["<P>", *(f"w{i}" for i in range(5)), "</P>"]
    return {
        "id": str(number),
        "question": {"text": f"question {number}", "tokens": ["question", str(number)]},
        "document": {
            "title": "Page",
            "url": "http://page",
            "html": "<P>",
            "tokens": {"token": tokens, "is_html": [token.startswith("<") for token in tokens]},
        },
        "annotations": {
            "id": ["1", "2"],
            "long_answer": [{"start_token": 0, "end_token": 7}, {"start_token": -1, "end_token": -1}],
            "short_answers": [{"text": ["w1 w2"], "start_token": [2]}, {"text": [], "start_token": []}],
        },
    }


def query(number: int) -> dict:
    return {
        "query_id": number,
        "query": f"query {number}",
        "query_type": "NUMERIC",
        "answers": ["4"],
        "passages": {"is_selected": [0, 1], "passage_text": ["no", "yes"], "url": ["u0", "u1"]},
        "wellFormedAnswers": [],
    }


def write(folder: Path, split: str, parts: list[list[dict]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, rows in enumerate(parts):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-{i:05d}-of-{len(parts):05d}.parquet")


def line_of(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_natural_questions_from_a_mirror(tmp_path):
    write(tmp_path / "natural_questions" / "default", "train", [[page(0), page(1)], [page(2)]])
    rows = natural_questions.load(tmp_path)
    assert [row.id for row in rows] == ["0", "1", "2"]
    assert rows[1] == natural_questions.Example(
        "1", "question 1", "Page", "http://page", "w0 w1 w2 w3 w4", ("w0 w1 w2 w3 w4",), ("w1 w2",)
    )
    assert [row.text for row in natural_questions.load(tmp_path, rows=1, words=2)] == ["w0 w1"]


def test_ms_marco_from_the_cache(tmp_path):
    write(tmp_path / "cache" / "data" / "ms_marco" / "v2.1", "validation", [[query(7)]])
    passages = (ms_marco.Passage("no", "u0", False), ms_marco.Passage("yes", "u1", True))
    assert ms_marco.load(None, "validation") == [ms_marco.Example(7, "query 7", "NUMERIC", ("4",), passages)]


def test_the_hugging_face_cache_is_found_by_revision(tmp_path):
    snapshot = tmp_path / "hub" / "datasets--microsoft--ms_marco" / "snapshots" / ms_marco.REVISION
    for split in ms_marco.DATASET.splits:
        write(snapshot / "v2.1", split, [[query(1)], [query(2)]])
    assert [row.id for row in ms_marco.load(None)] == [1, 2]
    assert missing(ms_marco.DATASET) == []
    require(ms_marco.DATASET)


def test_missing_split_says_how_to_get_it(tmp_path):
    message = line_of(lambda: natural_questions.load(None))
    assert "hf download google-research-datasets/natural_questions --repo-type dataset" in message
    assert "non-commercial" in line_of(lambda: ms_marco.load(None))
    assert missing(NQ) == ["train", "validation"]
    assert "train" in line_of(lambda: require(NQ))


def test_an_interrupted_download_is_not_a_split(tmp_path):
    folder = tmp_path / "natural_questions" / "default"
    write(folder, "train", [[page(0)], [page(1)], [page(2)]])
    assert len(hub_files(NQ, "train", tmp_path)) == 3
    (folder / "train-00001-of-00003.parquet").unlink()
    assert "incomplete" in line_of(lambda: natural_questions.load(tmp_path))


def test_broken_file_and_unknown_split_are_one_line(tmp_path):
    folder = tmp_path / "natural_questions" / "default"
    folder.mkdir(parents=True)
    (folder / "train-00000-of-00001.parquet").write_text("not parquet")
    assert "is broken" in line_of(lambda: natural_questions.load(tmp_path))
    assert "did you mean 'train'?" in line_of(lambda: natural_questions.load(tmp_path, "trian"))


def test_without_pyarrow_it_is_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "pip install pyarrow" in line_of(lambda: natural_questions.load(None))

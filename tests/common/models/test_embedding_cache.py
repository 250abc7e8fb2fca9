"""The embedding cache: what is encoded again, what survives, and many processes at once."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from common.experiments.errors import UserError
from common.models import embedding_cache
from common.models.embedding_cache import CachedEncoder, clear, default_folder, entries
from common.models.encoders import HashedWords


class Counting(HashedWords):
    """Remembers what it was asked to encode; a query is the negative of a passage."""

    def __init__(self, revision="1", fail_at=None):
        super().__init__(dimension=16)
        self.revision, self.asked, self.fail_at = revision, [], fail_at

    def encode(self, texts, role="passage"):
        self.asked.append(list(texts))
        if self.fail_at is not None and len(self.asked) > self.fail_at:
            raise KeyboardInterrupt
        return super().encode(texts) * (-1 if role == "query" else 1)


def texts(first, last):
    return [f"text number {i}" for i in range(first, last)]


def half_written(folder):
    return [path.name for path in folder.rglob(".*") if path.name != ".lock"]


def test_only_what_is_missing_is_encoded(tmp_path):
    encoder = Counting()
    cache = CachedEncoder(encoder, tmp_path)
    assert np.array_equal(cache.encode(["a", "b", "a"]), HashedWords(16).encode(["a", "b", "a"]))
    assert sorted(encoder.asked[0]) == ["a", "b"]
    assert np.array_equal(cache.encode(["c", "b", "", "a"]), HashedWords(16).encode(["c", "b", "", "a"]))
    assert sorted(encoder.asked[1]) == ["", "c"]
    assert (cache.encoded, cache.found) == (4, 2)

    again = Counting()
    other = CachedEncoder(again, tmp_path)
    assert np.array_equal(other.encode(["a", "", "b", "c"]), HashedWords(16).encode(["a", "", "b", "c"]))
    assert again.asked == [] and other.encode([]).shape == (0, 16)


def test_role_model_revision_and_settings_are_part_of_the_key(tmp_path):
    CachedEncoder(Counting(), tmp_path).encode(["a"])
    query = Counting()
    assert np.array_equal(CachedEncoder(query, tmp_path).encode(["a"], "query"), -HashedWords(16).encode(["a"]))
    revised = Counting(revision="2")
    CachedEncoder(revised, tmp_path).encode(["a"])
    named, set_up = Counting(), Counting()
    named.name, set_up.settings = "another", {"normalised": False}
    CachedEncoder(named, tmp_path).encode(["a"])
    CachedEncoder(set_up, tmp_path).encode(["a"])
    assert all(encoder.asked == [["a"]] for encoder in (query, revised, named, set_up))
    assert len(entries(tmp_path)) == 4


def test_an_interrupted_call_keeps_what_it_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_cache, "CHUNK", 10)
    with pytest.raises(KeyboardInterrupt):
        CachedEncoder(Counting(fail_at=2), tmp_path).encode(texts(0, 35))
    encoder = Counting()
    vectors = CachedEncoder(encoder, tmp_path).encode(texts(0, 35))
    assert sum(map(len, encoder.asked)) == 15
    assert np.array_equal(vectors, HashedWords(16).encode(texts(0, 35)))


def test_a_file_that_a_dead_process_left_half_written_is_not_read(tmp_path):
    cache = CachedEncoder(Counting(), tmp_path)
    cache.encode(["a"])
    (entries(tmp_path)[0].folder / ".0123.npy.host.1.2").write_bytes(b"\x93NUMPY half")
    encoder = Counting()
    CachedEncoder(encoder, tmp_path).encode(["a"])
    assert encoder.asked == []


def test_many_small_writes_are_merged_and_nothing_is_lost(tmp_path):
    cache = CachedEncoder(Counting(), tmp_path)
    for text in texts(0, 300):
        cache.encode([text])
    assert len(list(tmp_path.glob("*/*.npy"))) <= embedding_cache.CROWD + 1
    assert entries(tmp_path)[0].vectors == 300
    encoder = Counting()
    vectors = CachedEncoder(encoder, tmp_path).encode(texts(0, 300))
    assert encoder.asked == [] and np.array_equal(vectors, HashedWords(16).encode(texts(0, 300)))
    assert np.array_equal(cache.encode(texts(0, 300)), vectors)


def test_a_reader_goes_on_while_another_merges_and_clears(tmp_path):
    reader, writer = CachedEncoder(Counting(), tmp_path), CachedEncoder(Counting(), tmp_path)
    expected = HashedWords(16)
    for i, text in enumerate(texts(0, 200)):
        writer.encode([text])
        if i % 7 == 0:
            assert np.array_equal(reader.encode(texts(0, i + 2)), expected.encode(texts(0, i + 2)))
    clear(tmp_path)
    assert np.array_equal(reader.encode(texts(0, 260)), expected.encode(texts(0, 260)))
    for text in texts(300, 400):  # as many writes as call for a merge, with segments in memory that are gone
        assert np.array_equal(reader.encode([text]), expected.encode([text]))
    fresh = Counting()
    CachedEncoder(fresh, tmp_path).encode(texts(300, 400))
    assert fresh.asked == []


def test_a_segment_merged_between_listing_and_opening_is_looked_for_again(tmp_path, monkeypatch):
    CachedEncoder(Counting(), tmp_path).encode(["a"])
    real, listings = embedding_cache._segments, []

    def listing(folder):
        listings.append(real(folder))
        return {"merged-away.npy"} if len(listings) == 1 else listings[-1]

    monkeypatch.setattr(embedding_cache, "_segments", listing)
    encoder = Counting()
    CachedEncoder(encoder, tmp_path).encode(["a"])
    assert encoder.asked == [] and len(listings) == 2


def test_segments_that_were_cleared_are_not_merged(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_cache, "CROWD", 1000)
    cache = CachedEncoder(Counting(), tmp_path)
    for text in texts(0, 20):
        cache.encode([text])
    clear(tmp_path)
    monkeypatch.setattr(embedding_cache, "CROWD", 10)
    assert np.array_equal(cache.encode(texts(10, 1100)), HashedWords(16).encode(texts(10, 1100)))
    assert entries(tmp_path)[0].vectors == 1080


def _work(folder: str, start: int) -> bool:
    """Encodes 150 of 250 texts one by one, the last 100 at once."""
    cache = CachedEncoder(Counting(), Path(folder))
    wanted = [f"text number {(start + i) % 250}" for i in range(250)]
    vectors = [cache.encode([text])[0] for text in wanted[:150]]
    vectors += list(cache.encode(wanted[150:]))
    return np.array_equal(np.stack(vectors), HashedWords(16).encode(wanted))


def test_processes_share_a_folder(tmp_path):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.starmap(_work, [(str(tmp_path), 60 * i) for i in range(4)]) == [True] * 4
    encoder = Counting()
    vectors = CachedEncoder(encoder, tmp_path).encode(texts(0, 250))
    assert encoder.asked == [] and np.array_equal(vectors, HashedWords(16).encode(texts(0, 250)))
    assert half_written(tmp_path) == []


def test_damaged_and_pickled_files_are_named_and_never_read(tmp_path):
    CachedEncoder(Counting(), tmp_path).encode(["a"])
    (path,) = tmp_path.glob("*/*.npy")
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    with pytest.raises(UserError, match=f"{path.name} is damaged"):
        CachedEncoder(Counting(), tmp_path).encode(["a"])
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=f"{path.name} is damaged"):
        CachedEncoder(Counting(), tmp_path).encode(["a"])
    np.save(path, np.zeros((2, 3)))
    with pytest.raises(UserError, match=f"{path.name} holds float64"):
        CachedEncoder(Counting(), tmp_path).encode(["a"])


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"embedding cache: cannot read .* Not a directory"):
        CachedEncoder(Counting(), tmp_path / "file" / "cache").encode(["a"])


def test_a_home_that_cannot_be_written_is_one_line_with_the_way_out(tmp_path, monkeypatch):
    home, mkdir = tmp_path / "home", Path.mkdir

    def read_only(path, *options, **more):
        if path.is_relative_to(home):
            raise OSError(30, "Read-only file system", str(path))
        mkdir(path, *options, **more)

    monkeypatch.setattr(Path, "mkdir", read_only)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("REPRO_CACHE", raising=False)
    with pytest.raises(UserError) as error:
        CachedEncoder(Counting(), default_folder()).encode(["a"])
    folder = home / ".cache" / "repro" / "embeddings"
    way_out = "set REPRO_CACHE to a folder that can be written"
    assert str(error.value) == f"embedding cache: cannot write {folder}: Read-only file system; {way_out}"
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    assert CachedEncoder(Counting(), default_folder()).encode(["a"]).shape == (1, 16)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path, monkeypatch):
    real = Path.open

    def full(path, mode="r", *options, **more):
        path.touch()
        return real(Path("/dev/full"), "wb" if "b" in mode else "w")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match=r"cannot write .* No space left on device"):
        CachedEncoder(Counting(), tmp_path).encode(["a"])
    monkeypatch.undo()
    assert entries(tmp_path) == [] and half_written(tmp_path) == []


def test_it_can_be_shown_and_cleared(tmp_path, monkeypatch):
    assert entries(tmp_path / "none") == [] and clear(tmp_path / "none") == 0
    CachedEncoder(Counting(revision="r"), tmp_path).encode(texts(0, 5))
    another = Counting()
    another.name = "another"
    CachedEncoder(another, tmp_path).encode(texts(0, 3))
    first, entry = entries(tmp_path)
    assert (first.name, first.vectors) == ("another", 3)
    assert (entry.name, entry.revision, entry.dimension, entry.vectors) == (HashedWords.name, "r", 16, 5)
    assert entry.bytes == sum(path.stat().st_size for path in entry.folder.glob("*.npy")) >= 5 * (16 + 4 * 16)
    with pytest.raises(UserError, match=r"no vectors of 'anther' are kept in .*; did you mean 'another'\?"):
        clear(tmp_path, "anther")
    assert clear(tmp_path, "another") == 3 and [kept.name for kept in entries(tmp_path)] == [HashedWords.name]
    assert clear(tmp_path) == 5 and entries(tmp_path) == []
    monkeypatch.setenv("REPRO_CACHE", os.fspath(tmp_path))
    assert default_folder() == tmp_path / "embeddings"


def test_one_string_is_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="not one string"):
        CachedEncoder(Counting(), tmp_path).encode("a cat")

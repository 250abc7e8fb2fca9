"""The bank of dense memories against a plain search; deduplication, growth, a file that is mapped, damage."""

import json
import tracemalloc

import numpy as np
import pytest

from common.experiments.errors import UserError
from common.memory.dense_bank import FILE, DenseBank
from common.retrievers.vector_index import IVF


def drawn(count, seed=0, width=8):
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(count, width)).astype(np.float32)
    return [f"text {seed} {i}" for i in range(count)], keys, rng.normal(size=(count, 2, 3)).astype(np.float32)


def filled(count=50, **options):
    bank = DenseBank(**options)
    bank.append(*drawn(count))
    return bank


@pytest.mark.parametrize("k", [1, 4, 50, 80])
def test_it_finds_what_a_plain_sort_finds(k):
    bank, (_, keys, memories) = filled(), drawn(50)
    queries = np.random.default_rng(1).normal(size=(7, 8)).astype(np.float32)
    scores, rows = bank.search(queries, k)
    expected = np.argsort(-(queries @ keys.T), axis=1, kind="stable")[:, :k]
    assert rows.tolist() == expected.tolist()
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ keys.T, expected, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(bank.memories(rows), memories.astype(np.float16)[expected])


def test_equal_scores_stand_in_the_order_of_arrival():
    bank = DenseBank()
    bank.append(list("abcde"), np.ones((5, 4)), np.zeros((5, 1, 1)))
    assert bank.search(np.ones((1, 4)), 3)[1].tolist() == [[0, 1, 2]]


def test_a_known_text_is_left_out_within_a_call_and_between_calls():
    bank = DenseBank()
    assert bank.append(["a", "b", "a"], np.eye(3), np.arange(3.0).reshape(3, 1, 1)) == 2
    assert bank.append(["b", "c"], np.eye(3)[:2], np.array([[[8.0]], [[9.0]]])) == 1
    assert bank.append(["a"], np.eye(3)[:1], np.zeros((1, 1, 1))) == 0
    assert bank.memories(slice(None)).ravel().tolist() == [0, 1, 9]
    assert "c" in bank and "d" not in bank
    copies = DenseBank(dedup=False)
    assert copies.append(["a", "b", "a"], np.eye(3), np.zeros((3, 1, 1))) == 3


def test_a_bank_filled_one_by_one_is_the_bank_filled_at_once():
    texts, keys, memories = drawn(50)
    slowly = DenseBank()
    for i in range(50):
        slowly.append(texts[i : i + 1], keys[i : i + 1], memories[i : i + 1])
    queries = drawn(5, seed=2)[1]
    assert slowly.search(queries, 9)[1].tolist() == filled().search(queries, 9)[1].tolist()
    assert slowly.bytes == filled().bytes == 50 * (16 + 8 * 4 + 2 * 3 * 2)


@pytest.mark.parametrize("index", [None, IVF(lists=4, probes=4)], ids=["exact", "ivf"])
def test_saved_and_loaded_it_is_equal_and_grows_further(tmp_path, index):
    bank, queries = filled(), drawn(5, seed=2)[1]
    bank.save(tmp_path)
    again = DenseBank.load(tmp_path, index)
    assert len(again) == 50 and again.dedup
    assert again.search(queries, 6)[1].tolist() == bank.search(queries, 6)[1].tolist()
    np.testing.assert_array_equal(again.memories(slice(None)), bank.memories(slice(None)))
    assert again.append(*drawn(50)) == 0  # it knows its texts
    assert again.append(*drawn(3, seed=3)) == bank.append(*drawn(3, seed=3)) == 3
    assert again.search(queries, 6)[1].tolist() == bank.search(queries, 6)[1].tolist()
    assert len(DenseBank.load(tmp_path)) == 50  # the file is as it was saved


def test_a_loaded_bank_is_mapped_and_is_a_plain_safetensors_file(tmp_path):
    from safetensors.numpy import load_file

    count = 20_000
    bank = DenseBank()
    rng = np.random.default_rng(0)
    bank.append([str(i) for i in range(count)], rng.normal(size=(count, 4)), rng.normal(size=(count, 8, 32)))
    bank.save(tmp_path)
    np.testing.assert_array_equal(load_file(tmp_path / FILE)["memories"], bank.memories(slice(None)))
    tracemalloc.start()
    again = DenseBank.load(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < bank.bytes / 2  # 10 MB of memories stay on disk; digests are held to know texts
    assert isinstance(again.memories(slice(None)), np.memmap)


def test_what_cannot_be_kept_is_refused_and_changes_nothing():
    bank, (texts, keys, memories) = filled(), drawn(2, seed=5)
    with pytest.raises(ValueError, match="2 texts, 1 keys"):
        bank.append(texts, keys[:1], memories)
    with pytest.raises(ValueError, match=r"shape \(2, 4\) is not"):
        bank.append(texts, keys, np.zeros((2, 2, 4)))
    with pytest.raises(ValueError, match="not finite"):
        bank.append(texts, keys, memories * 1e6)
    with pytest.raises(ValueError, match="not 1 of 0"):
        DenseBank().search(keys, 1)
    with pytest.raises(ValueError, match="empty bank"):
        DenseBank().save(None)
    assert len(bank) == 50 and bank.append(texts, keys, memories) == 2


@pytest.mark.parametrize("content", [None, b"", b"\x05\0\0\0\0\0\0\0{}", b"\xff" * 64])
def test_a_missing_or_damaged_file_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match="no bank of memories") as told:
        DenseBank.load(tmp_path)
    assert "\n" not in str(told.value)


def test_a_truncated_file_is_one_line(tmp_path):
    filled().save(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="no bank of memories"):
        DenseBank.load(tmp_path)
    head = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    assert head["memories"]["dtype"] == "F16" and head["keys"]["dtype"] == "F32"

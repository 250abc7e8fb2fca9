"""Dense search against brute force in float64; indexes, devices, hashing, and what does not fit."""

import numpy as np
import pytest

from common.experiments.errors import UserError
from common.models.encoders import HashedWords
from common.retrievers import vector_index
from common.retrievers.build import load
from common.retrievers.dense import DenseRetriever, pair_scores
from common.retrievers.lsh import LSH
from common.retrievers.vector_index import HNSW, IVF, Exact, on_gpu

DIMENSION = 48


class Given:
    """An encoder that was told its vectors: text `12` is row 12; a query likewise, of other rows."""

    name, revision, dimension = "given", "1", DIMENSION

    def __init__(self, count, seed=0, unit=True):
        rng = np.random.default_rng(seed)
        self.settings = {"unit": unit}
        centres = rng.standard_normal((12, DIMENSION))
        self.vectors = self._near(rng, centres, count, unit)
        self.queries = self._near(rng, centres, 200, unit)

    @staticmethod
    def _near(rng, centres, count, unit):
        found = centres[rng.integers(0, len(centres), count)] + rng.standard_normal((count, DIMENSION))
        return (found / np.linalg.norm(found, axis=1, keepdims=True) if unit else found).astype(np.float32)

    def encode(self, texts, role="passage"):
        rows = [int(text) for text in texts]
        return (self.queries if role == "query" else self.vectors)[rows].reshape(len(rows), DIMENSION)


def built(encoder, index=None):
    retriever = DenseRetriever(encoder, index)
    names = [str(i) for i in range(len(encoder.vectors))]
    retriever.build(names, names)
    return retriever


def brute_force(encoder, k):
    scores = encoder.queries.astype(np.float64) @ encoder.vectors.astype(np.float64).T
    return np.argsort(-scores, axis=1, kind="stable")[:, :k], scores


QUERIES = [str(i) for i in range(200)]


@pytest.fixture(params=["faiss", "torch"])
def library(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(vector_index, "has_faiss", lambda: False)
        monkeypatch.setattr(vector_index, "BLOCK", 700)


@pytest.mark.parametrize("unit", [True, False])
def test_exact_search_is_brute_force(library, unit):
    encoder = Given(3000, unit=unit)
    rows, scores = brute_force(encoder, 20)
    hits = built(encoder).search(QUERIES, 20)
    assert hits.ids.tolist() == [[str(row) for row in ranking] for ranking in rows.tolist()]
    assert np.allclose(hits.scores, np.take_along_axis(scores, rows, 1), rtol=1e-5, atol=1e-6)


def test_with_and_without_faiss_the_bits_are_the_same(monkeypatch):
    encoder = Given(3000)
    encoder.vectors[1000:2000] = encoder.vectors[:1000]  # many ties
    with_faiss = built(encoder).search(QUERIES, 7)
    monkeypatch.setattr(vector_index, "has_faiss", lambda: False)
    without = built(encoder).search(QUERIES, 7)
    assert with_faiss.ids.tolist() == without.ids.tolist() and np.array_equal(with_faiss.scores, without.scores)


@pytest.mark.parametrize("unit", [True, False])
def test_rounding_of_the_index_does_not_decide_among_equal_vectors(library, unit):
    encoder = Given(900, unit=unit)
    encoder.vectors[:] = np.repeat(encoder.vectors[:3], 300, axis=0)
    names = [str(i) for i in range(900)]
    retriever = DenseRetriever(encoder)
    retriever.add(names[:1], names[:1])
    retriever.add(names[1:], names[1:])
    best = np.argmax(encoder.queries @ encoder.vectors[[0, 300, 600]].T, axis=1)
    expected = [[str(300 * i + j) for j in range(7)] for i in best]
    assert retriever.search(QUERIES, 7).rankings() == expected
    assert [retriever.search([query], 7).rankings()[0] for query in QUERIES[:30]] == expected[:30]


def test_a_score_depends_on_its_pair_alone():
    """Whatever the place in memory, the batch and the other candidates."""
    rng = np.random.default_rng(0)
    for dimension in (3, 48, 384, 769):
        vectors = rng.standard_normal((500, dimension)).astype(np.float32)
        queries = rng.standard_normal((40, dimension)).astype(np.float32)
        whole = pair_scores(queries, vectors, np.tile(np.arange(500), (40, 1)))
        shifted = np.empty(vectors.size + 1, np.float32)[1:].reshape(vectors.shape)
        shifted[:] = vectors
        for i, j in rng.integers(0, 40, (50, 2)):
            assert pair_scores(queries[i : i + 1], shifted, np.array([[j]]))[0, 0] == whole[i, j]
        assert np.allclose(whole, queries.astype(np.float64) @ vectors.T.astype(np.float64), rtol=1e-4, atol=1e-4)


def test_deleted_passages_in_front_do_not_hide_the_rest():
    encoder = Given(1000)
    rows, _ = brute_force(encoder, 450)
    retriever = built(encoder)
    retriever.delete([str(row) for row in rows[0, :400]])
    assert retriever.search(["0"], 50).ids[0].tolist() == [str(row) for row in rows[0, 400:450]]


class Rounding(Exact):
    """Sees the best passage as much too low as rounding may make it among vectors of length 1024."""

    def search(self, queries, vectors, k):
        seen = queries.astype(np.float64) @ vectors.T
        seen[np.arange(len(seen)), seen.argmax(axis=1)] -= 0.9 * DIMENSION * 2.0**-23 * 1024
        rows = np.argsort(-seen, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(seen, rows, 1).astype(np.float32), rows


@pytest.mark.parametrize("how", ["built", "grown", "shrunk", "loaded"])
def test_the_longest_vector_says_how_far_rounding_may_hide_the_best(how, tmp_path):
    """Passage i scores 1024 - i ulp, hence the last of 11 candidates lies less below the third than rounding moves."""
    encoder = Given(900)
    encoder.queries[:], encoder.vectors[:] = 0, 0
    encoder.queries[0, 0] = 1
    encoder.vectors[:300, 0] = 1024 - np.arange(300) * 2.0**-14
    long, short = [str(i) for i in range(300)], [str(i) for i in range(300, 900)]
    retriever = DenseRetriever(encoder, Rounding())
    if how == "grown":
        for names in (short[:300], long, short[300:]):
            retriever.add(names, names)
    else:
        retriever.build(long + short, long + short)
    if how == "shrunk":
        retriever.delete(short)
    if how == "loaded":
        retriever.save(tmp_path / "index")
        retriever = DenseRetriever.load(tmp_path / "index", encoder, Rounding())
    assert retriever.search(["0"], 3).rankings() == [["0", "1", "2"]]


def recall(index, k=10):
    encoder = Given(4000)
    rows, _ = brute_force(encoder, k)
    hits = built(encoder, index).search(QUERIES, k)
    return np.mean([len(set(map(str, r)) & set(h)) / k for r, h in zip(rows.tolist(), hits.rankings(), strict=True)])


def test_inverted_lists_find_more_with_more_probes_and_all_with_all():
    few, many = recall(IVF(40, 1)), recall(IVF(40, 3))
    assert 0.2 < few < many < 1
    assert recall(IVF(40, 40)) == 1


def test_the_graph_finds_nearly_all():
    assert recall(HNSW()) > 0.97
    assert recall(HNSW(neighbours=2, build_effort=4, effort=1)) < 0.9


@pytest.mark.parametrize("index", [HNSW, lambda: IVF(30, 4), lambda: LSH(6, 8)], ids=["hnsw", "ivf", "lsh"])
def test_approximate_indexes_are_made_alike_twice(index):
    encoder = Given(3000)
    first, second = (built(encoder, index()).search(QUERIES, 10) for _ in range(2))
    assert first.ids.tolist() == second.ids.tolist() and np.array_equal(first.scores, second.scores)


def test_vectors_meet_in_a_bucket_as_often_as_the_angle_says():
    """P = 1 - (1 - (1 - θ/π)^b)^T over draws of the hyperplanes, at four standard errors."""
    bits, tables, draws = 3, 2, 1000
    for angle in (0.2, 1.2, 2.5):
        pair = np.array([[1, 0], [np.cos(angle), np.sin(angle)]], np.float32)
        met = [np.any(np.equal(*LSH(bits, tables, seed).buckets(pair))) for seed in range(draws)]
        expected = 1 - (1 - (1 - angle / np.pi) ** bits) ** tables
        assert np.mean(met) == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / draws))


def test_hashing_finds_more_with_more_tables_and_only_what_meets():
    few, many = recall(LSH(8, 2)), recall(LSH(8, 48))
    assert few < many - 0.2 and many > 0.9
    encoder = Given(500)
    index = LSH(8, 4)
    hits = built(encoder, index).search(QUERIES, 500)
    meets = (index.buckets(encoder.queries)[:, None] == index.buckets(encoder.vectors)[None]).any(axis=2)
    assert [set(map(int, row)) for row in hits.rankings()] == [set(np.flatnonzero(row).tolist()) for row in meets]


def test_another_encoder_is_refused_by_name(tmp_path):
    retriever = DenseRetriever(HashedWords(64))
    retriever.build(["a"], ["ada"])
    retriever.save(tmp_path / "index")
    with pytest.raises(UserError, match=r"made with encoder 'hashed-words-for-tests-only', dimension 64; this one is"):
        load(tmp_path / "index", HashedWords(32))
    with pytest.raises(UserError, match="needs its encoder"):
        load(tmp_path / "index")


def test_vectors_are_mapped_from_disk(tmp_path):
    encoder = Given(300)
    built(encoder).save(tmp_path / "index")
    opened = load(tmp_path / "index", encoder)
    assert isinstance(opened._vectors.array, np.memmap)
    assert opened.search(["3"], 5).rankings() == built(encoder).search(["3"], 5).rankings()


@pytest.mark.parametrize("index", [None, IVF, HNSW], ids=["exact", "ivf", "hnsw"])
def test_damaged_files_are_named(tmp_path, index):
    encoder = Given(100)
    built(encoder, index and index()).save(tmp_path / "index")
    path = tmp_path / "index" / ("index.faiss" if index else "vectors.npy")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=f"{path.name} is .*damaged"):
        load(tmp_path / "index", encoder)
    np.save(tmp_path / "index" / "vectors.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(UserError, match=r"vectors\.npy is missing or damaged"):
        load(tmp_path / "index", encoder)


def test_vectors_that_are_no_numbers_are_refused():
    encoder = Given(10)
    retriever = built(encoder)
    encoder.vectors[3, 0] = np.nan
    encoder.queries[5] = np.inf
    with pytest.raises(ValueError, match="encoder 'given' gave a vector that is not finite"):
        retriever.build(["x"], ["3"])
    with pytest.raises(ValueError, match="not finite"):
        retriever.search(["5"], 1)
    assert len(retriever) == 10


def test_what_is_missing_is_said(monkeypatch):
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no GPU here"):
            built(Given(10), Exact("cuda")).search(["1"], 1)
    monkeypatch.setattr(vector_index, "has_faiss", lambda: False)
    for index in (IVF, HNSW):
        with pytest.raises(UserError, match="needs faiss: pip install faiss-cpu"):
            index()


@pytest.mark.parametrize("index", [Exact, lambda device: IVF(30, 30, device)], ids=["exact", "ivf"])
def test_a_gpu_gives_the_bits_of_the_cpu(index):
    import torch

    if not torch.cuda.is_available() or (index is not Exact and not on_gpu("cuda")):
        pytest.skip("needs a GPU (and faiss-gpu for IVF)")
    encoder = Given(3000)
    cpu, gpu = (built(encoder, index(device)).search(QUERIES, 10) for device in ("cpu", "cuda"))
    assert cpu.ids.tolist() == gpu.ids.tolist() and np.array_equal(cpu.scores, gpu.scores)

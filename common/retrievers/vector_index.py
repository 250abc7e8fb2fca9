"""Finding the nearest of many vectors by inner product: exactly, or approximately with faiss (Douze et al. 2024;
arXiv:2401.08281).

An index proposes candidates; `DenseRetriever`, which owns the vectors, computes the scores that a user sees and the
order, the same for all indexes and devices. faiss and torch are imported when first needed.
"""

import importlib.util
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from common.experiments.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
Device = Literal["cpu", "cuda"]
GPU_K = 2048  # the largest k of faiss on a GPU
BLOCK = 2**16  # vectors at a time without faiss


class VectorIndex(Protocol):
    """Proposes rows of an array of vectors, which grows at its end, for query vectors.

    Attributes:
        kind: name in `build.INDEXES`.
        settings: arguments that make an empty index like this one.
    """

    @property
    def kind(self) -> str: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...

    def fit(self, vectors: Vectors) -> None:
        """Index these vectors, [N, D], and no others."""
        ...

    def add(self, vectors: Vectors) -> None:
        """Index these [n, D] too, in the rows that follow."""
        ...

    def search(self, queries: Vectors, vectors: Vectors, k: int) -> tuple[Vectors, Rows]:
        """Inner products (to rounding) and rows of up to `k` near vectors for each query, [Q, k] both, best first.

        Args:
            queries: [Q, D].
            vectors: [N, D], all that were indexed; N >= 1.
            k: at most N. A row of -1 says that the search found no more.
        """
        ...

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None:
        """Take what `save` wrote, mapped from disk; the index was made with the same settings."""
        ...


class Exact:
    """All inner products: faiss's flat search; without faiss the same by torch, candidate for candidate.

    Args:
        device: `cuda` for a GPU, by faiss where it is faiss-gpu, else by torch; None: a GPU where faiss has one.

    Raises:
        UserError: `cuda` without a GPU.
    """

    kind = "exact"
    settings: Mapping[str, Any] = {}

    def __init__(self, device: Device | None = None) -> None:
        self._device = device
        self._on_gpu: Any = None  # faiss's copy of the vectors there

    def fit(self, vectors: Vectors) -> None:
        self._on_gpu = None

    def add(self, vectors: Vectors) -> None:
        if self._on_gpu is not None:
            self._on_gpu.add(vectors)

    def search(self, queries: Vectors, vectors: Vectors, k: int) -> tuple[Vectors, Rows]:
        if not has_faiss():
            return torch_search(queries, vectors, k, self._device)
        import faiss

        if on_gpu(self._device):
            if k <= GPU_K:
                if self._on_gpu is None:
                    self._on_gpu = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), vectors.shape[1])
                    self._on_gpu.add(vectors)
                scores, rows = self._on_gpu.search(queries, k)
                return scores, rows
        elif self._device == "cuda":
            return torch_search(queries, vectors, k, "cuda")
        scores, rows = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
        return scores, rows

    def save(self, folder: Path) -> None:
        """Nothing: the vectors are all there is."""

    def load(self, folder: Path) -> None:
        self._on_gpu = None


class IVF:
    """Inverted lists around k-means centroids: a query looks into the lists nearest to it.

    The centroids are trained when the index is built and stay until it is built again. Vectors are kept a second time.

    Args:
        lists: number of centroids; 0: the square root of the number of vectors, rounded.
        probes: lists that a query looks into, >= 1; as many as there are lists make the search exact.
        device: as `Exact`, for the search; without faiss there is no IVF.

    Raises:
        UserError: faiss is not installed, or `cuda` without a GPU that faiss can use.
        ValueError: `lists` below 0 or `probes` below 1.
    """

    kind = "ivf"

    def __init__(self, lists: int = 0, probes: int = 16, device: Device | None = None) -> None:
        require_faiss(self.kind)
        if device == "cuda" and not on_gpu(device):
            raise UserError("IVF on a GPU needs faiss-gpu: pip install -e '.[gpu]', or leave the device out")
        if lists < 0 or probes < 1:
            raise ValueError(f"lists must be at least 0 and probes at least 1, not {lists} and {probes}")
        self.settings: Mapping[str, Any] = {"lists": lists, "probes": probes}
        self._lists, self._probes, self._device = lists, probes, device
        self._index: Any = None
        self._mapped = False
        self._on_gpu: Any = None

    def fit(self, vectors: Vectors) -> None:
        import faiss

        self._index, self._on_gpu, self._mapped = None, None, False
        if len(vectors) == 0:
            return
        dimension = vectors.shape[1]
        lists = min(self._lists or max(1, round(len(vectors) ** 0.5)), len(vectors))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1  # no warning for small corpora
        index.train(vectors)
        index.add(vectors)
        self._index = index

    def add(self, vectors: Vectors) -> None:
        if self._index is None:
            self.fit(vectors)
            return
        if self._mapped:
            self._index, self._mapped = in_memory(self._index), False
        self._index.add(vectors)
        self._on_gpu = None

    def search(self, queries: Vectors, vectors: Vectors, k: int) -> tuple[Vectors, Rows]:
        import faiss

        index = self._index
        if on_gpu(self._device) and k <= GPU_K:
            if self._on_gpu is None:
                owned = in_memory(index) if self._mapped else index
                self._on_gpu = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, owned)
            index = self._on_gpu
        index.nprobe = self._probes
        scores, rows = index.search(queries, k)
        return scores, rows

    def save(self, folder: Path) -> None:
        save_faiss(self._index, folder)

    def load(self, folder: Path) -> None:
        self._index, self._mapped, self._on_gpu = load_faiss(folder), True, None


class HNSW:
    """A graph of near neighbours in layers (Malkov & Yashunin 2018; arXiv:1603.09320), searched greedily.

    Built by one thread, since with several the graph depends on their race. Vectors are kept a second time. CPU only.
    Among many equal vectors the graph falls apart and some are not found.

    Args:
        neighbours: M, links of a vector in a layer.
        build_effort: efConstruction, candidates while building.
        effort: efSearch, candidates while searching (at least k).

    Raises:
        UserError: faiss is not installed.
        ValueError: `neighbours` below 2, or an effort below 1.
    """

    kind = "hnsw"

    def __init__(self, neighbours: int = 32, build_effort: int = 100, effort: int = 64) -> None:
        require_faiss(self.kind)
        if min(neighbours - 1, build_effort, effort) < 1:
            raise ValueError("neighbours must be at least 2, build_effort and effort at least 1")
        self.settings: Mapping[str, Any] = {"neighbours": neighbours, "build_effort": build_effort, "effort": effort}
        self._neighbours, self._build_effort, self._effort = neighbours, build_effort, effort
        self._index: Any = None
        self._mapped = False

    def fit(self, vectors: Vectors) -> None:
        self._index, self._mapped = None, False
        if len(vectors):
            self.add(vectors)

    def add(self, vectors: Vectors) -> None:
        import faiss

        if self._index is None:
            self._index = faiss.IndexHNSWFlat(vectors.shape[1], self._neighbours, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction = self._build_effort
        elif self._mapped:
            self._index, self._mapped = in_memory(self._index), False
        with one_thread():
            self._index.add(vectors)

    def search(self, queries: Vectors, vectors: Vectors, k: int) -> tuple[Vectors, Rows]:
        self._index.hnsw.efSearch = max(self._effort, k)
        scores, rows = self._index.search(queries, k)
        return scores, rows

    def save(self, folder: Path) -> None:
        save_faiss(self._index, folder)

    def load(self, folder: Path) -> None:
        self._index, self._mapped = load_faiss(folder), True


def torch_search(queries: Vectors, vectors: Vectors, k: int, device: Device | None = None) -> tuple[Vectors, Rows]:
    """`VectorIndex.search` by torch over all vectors, block by block. UserError: `cuda` without a GPU."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("no GPU here: leave the device out, or run on a machine that has one")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    asked = torch.from_numpy(queries).to(place)
    scores = torch.empty(len(queries), 0, device=place)
    rows = torch.empty(len(queries), 0, dtype=torch.long, device=place)
    for start in range(0, len(vectors), BLOCK):
        block = torch.from_numpy(np.array(vectors[start : start + BLOCK])).to(place)
        found, places = (asked @ block.T).topk(min(k, len(block)))
        scores, rows = torch.cat([scores, found], 1), torch.cat([rows, places + start], 1)
        scores, order = scores.topk(min(k, scores.shape[1]))
        rows = rows.gather(1, order)
    return scores.cpu().numpy(), rows.cpu().numpy()


def has_faiss() -> bool:
    """Whether faiss is installed; it is not loaded."""
    return importlib.util.find_spec("faiss") is not None


def require_faiss(kind: str) -> None:
    """UserError when faiss is not installed: another search would find other passages."""
    if not has_faiss():
        raise UserError(f"index '{kind}' needs faiss: pip install faiss-cpu==1.15.1, or take index 'exact'")


def on_gpu(device: Device | None) -> bool:
    """Whether faiss is to use a GPU: it was built for them and there is one."""
    import faiss

    return device != "cpu" and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


@contextmanager
def one_thread() -> "Iterator[None]":
    """faiss computes with one thread."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def in_memory(index: Any) -> Any:
    """A copy of a mapped index that can be changed."""
    import faiss

    return faiss.deserialize_index(faiss.serialize_index(index))


def save_faiss(index: Any, folder: Path) -> None:
    """faiss's own file; none for an index without vectors. OSError: it cannot be written to its end.

    By Python's file: faiss's own hides the reason in a RuntimeError, and ends short of the last bytes without an error.
    """
    import faiss

    if index is not None:
        with open(folder / "index.faiss", "wb") as file:
            faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]  # not in its stubs


def load_faiss(folder: Path) -> Any:
    """What `save_faiss` wrote, mapped from disk.

    Raises:
        UserError: the file is damaged.
    """
    import faiss

    path = folder / "index.faiss"
    if not path.exists():
        return None
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise UserError(f"retriever in {folder}: {path.name} is damaged ({str(error).splitlines()[0]})") from None

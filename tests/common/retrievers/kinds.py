"""One of each kind of retriever, as small as tests want them."""

from common.models.encoders import HashedWords
from common.retrievers.analysis import ENGLISH
from common.retrievers.bm25 import BM25
from common.retrievers.dense import DenseRetriever
from common.retrievers.hybrid import HybridRetriever
from common.retrievers.lsh import LSH
from common.retrievers.rerank import RerankedRetriever
from common.retrievers.vector_index import HNSW, IVF

ENCODER = HashedWords(64)


def shared_letters(query, passages):
    """A judge with many ties: how many of the query's letters each passage has."""
    return [len(set(query) & set(passage)) for passage in passages]


KINDS = {
    "bm25": BM25,
    "bm25_english": lambda: BM25(analyser=ENGLISH),
    "dense": lambda: DenseRetriever(ENCODER),
    "ivf": lambda: DenseRetriever(ENCODER, IVF(lists=3, probes=3)),
    "hnsw": lambda: DenseRetriever(ENCODER, HNSW(neighbours=8)),
    "lsh": lambda: DenseRetriever(ENCODER, LSH(bits=3, tables=6)),
    "hybrid": lambda: HybridRetriever([BM25(), DenseRetriever(ENCODER)]),
    "reranked": lambda: RerankedRetriever(BM25(), shared_letters),
    "reranked_hybrid": lambda: RerankedRetriever(KINDS["hybrid"](), shared_letters, depth=5),
}

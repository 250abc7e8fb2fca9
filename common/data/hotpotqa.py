"""HotpotQA (Yang et al., EMNLP 2018; arXiv:1809.09600): two-hop questions over Wikipedia; subsets.

- `load`: questions with their distractor contexts and supporting facts; `train` has 100, the `demo_*` subsets 10
  each.
- `load_corpus`: the 994 articles that the 100 training questions' contexts unite to; every supporting fact points
  into it.
- `load_dev_questions`: all 7,405 dev questions (5,918 bridge, 1,487 comparison) without contexts.
- `load_test200`: 200 of them with answer lists.

Split: `train`, `demo_easy`, `demo_medium`, `demo_train` are rows of published train; `demo_hard` and the question
lists are dev.
Traps: join the sentences of an article without adding a space. Dev is all level 'hard', train mixes levels: not
comparable. One training row has 4 paragraphs instead of 10. The contexts of `demo_hard` are retrieved (fullwiki): 9
of its 10 questions miss supporting paragraphs.
Licence: CC BY-SA 4.0.
"""

from dataclasses import dataclass
from pathlib import Path

from common.data.registry import DataFile, Dataset, pick, read_json
from common.data.rows import OpenQuestion, read_open_questions

DATASET = Dataset(
    name="hotpotqa",
    title="HotpotQA (subsets)",
    source=(
        "arXiv:1809.09600, hotpotqa/hotpot; copies of ysymyth/ReAct, OSU-NLP-Group/HippoRAG (legacy), "
        "nuster1128/learn_to_memorize, dongguanting/Tool-Star"
    ),
    revision=(
        "ysymyth/ReAct 6bdb3a1f; OSU-NLP-Group/HippoRAG b144c46d; nuster1128/learn_to_memorize 0d508cb3; "
        "dongguanting/Tool-Star d12222c7"
    ),
    licence="CC BY-SA 4.0",
    non_commercial=False,
    files=(
        DataFile(
            "hotpot_dev_v1_simplified.json",
            "05001dcdeb2b2b2243a88f23daaf8de9237494cd387e13bc25854d3e031101d3",
            rows=7405,
            split="dev",
        ),
        DataFile(
            "hotpotqa_train.json",
            "6c0e2689d03c94b3bb4d5f94ed806ea4f4eb4f46c12132f8e91df774ad5c5a22",
            rows=100,
            split="train (sample)",
        ),
        DataFile(
            "hotpotqa_train_corpus.json",
            "2671af600095eabc5b3f3bc3728861682f14fcced84ef1386509a8ae92647f88",
            rows=994,
            split="train (paragraphs of the sample)",
        ),
        DataFile(
            "demo_hotpot_test_v1_easy.json",
            "cc965d47a50ace73f185d8d41110342b18021d13fab4ab5d566005d58cf71854",
            rows=10,
            split="train (sample)",
        ),
        DataFile(
            "demo_hotpot_test_v1_medium.json",
            "1bba34d7b05b1f1477dd8a896ce18531697a7f9bc0e937e1e3d0ab7d573e37ff",
            rows=10,
            split="train (sample)",
        ),
        DataFile(
            "demo_hotpot_test_v1_hard.json",
            "be3642121ef3d2eb0939a119c37a43d92d241c82fe1ad97407cc61fecae51882",
            rows=10,
            split="dev (sample)",
        ),
        DataFile(
            "demo_hotpot_train_v1.1_10000.json",
            "4151ff7fbcb6ac49bbd34450c7ed5b38323c38fbc963c424edb836d12a05493a",
            rows=10,
            split="train (sample)",
        ),
        DataFile(
            "test200.jsonl",
            "072c04637a2736f355e92ee77649d1de89112f873b21b97e50171ac33497ad98",
            rows=200,
            split="dev (sample)",
        ),
    ),
    splits={"train": 90447, "dev": 7405, "test": 7405},
    papers=("amber", "mem1", "mem_alpha"),
    canonical="Hugging Face hotpotqa/hotpot_qa (distractor, fullwiki)",
    bytes_full=660_000_000,
)

SUBSETS = {
    "train": "hotpotqa_train.json",
    "demo_easy": "demo_hotpot_test_v1_easy.json",
    "demo_medium": "demo_hotpot_test_v1_medium.json",
    "demo_hard": "demo_hotpot_test_v1_hard.json",
    "demo_train": "demo_hotpot_train_v1.1_10000.json",
}


@dataclass(frozen=True)
class Article:
    """An introductory paragraph by sentences; all but the first bring their leading space."""

    title: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """The paragraph as printed."""
        return "".join(self.sentences)


@dataclass(frozen=True)
class Example:
    """A question with its distractor context.

    Attributes:
        type: bridge or comparison.
        level: easy, medium or hard.
        supporting_facts: (title, index of the sentence) pairs into `context`.
        context: gold and distractor paragraphs, mixed.
    """

    id: str
    question: str
    answer: str
    type: str
    level: str
    supporting_facts: tuple[tuple[str, int], ...]
    context: tuple[Article, ...]


@dataclass(frozen=True)
class DevQuestion:
    """A dev question without context; `type` is bridge or comparison."""

    question: str
    answer: str
    type: str


def load(data: Path | None, subset: str = "train") -> list[Example]:
    """Questions with contexts of one of `SUBSETS`. Errors: `registry.find`; UserError for an unknown subset."""
    return [
        Example(
            id=row["_id"],
            question=row["question"],
            answer=row["answer"],
            type=row["type"],
            level=row["level"],
            supporting_facts=tuple((title, sentence) for title, sentence in row["supporting_facts"]),
            context=tuple(Article(title, tuple(sentences)) for title, sentences in row["context"]),
        )
        for row in read_json(DATASET, pick("subset of hotpotqa", subset, SUBSETS), data)
    ]


def load_corpus(data: Path | None) -> list[Article]:
    """The 994 articles behind `load(data, "train")`, titles distinct. Errors: `registry.find`."""
    corpus = read_json(DATASET, "hotpotqa_train_corpus.json", data)
    return [Article(title, tuple(sentences)) for title, sentences in corpus.items()]


def load_dev_questions(data: Path | None) -> list[DevQuestion]:
    """All 7,405 dev questions. Errors: `registry.find`."""
    rows = read_json(DATASET, "hotpot_dev_v1_simplified.json", data)
    return [DevQuestion(row["question"], row["answer"], row["type"]) for row in rows]


def load_test200(data: Path | None) -> list[OpenQuestion]:
    """200 dev questions as search-agent evaluations sample them. Errors: `registry.find`."""
    return read_open_questions(DATASET, "test200.jsonl", data)

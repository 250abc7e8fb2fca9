"""2WikiMultihopQA (Ho et al., COLING 2020; arXiv:2011.01060): a corpus and a question sample that do not match.

- `load_corpus`: 6,119 passages, the corpus of the 1,000-question sample of the HippoRAG papers (its questions are not
  here).
- `load`: 200 dev questions with answer aliases.

Traps: only about 20 of the 200 questions name a title of the corpus: use the corpus as distractors and for index
tests, the questions for answer matching. Alias lists differ much in length; EM is the maximum over them.
Licence: Apache-2.0; text from Wikipedia, CC BY-SA.
"""

from pathlib import Path

from common.data.registry import DataFile, Dataset, read_json
from common.data.rows import OpenQuestion, Passage, read_open_questions

DATASET = Dataset(
    name="2wikimultihopqa",
    title="2WikiMultihopQA (corpus and question sample)",
    source="arXiv:2011.01060, Alab-NII/2wikimultihop; copies of OSU-NLP-Group/HippoRAG, dongguanting/Tool-Star",
    revision="OSU-NLP-Group/HippoRAG b144c46d; dongguanting/Tool-Star d12222c7",
    licence="Apache-2.0; text from Wikipedia, CC BY-SA",
    non_commercial=False,
    files=(
        DataFile(
            "2wikimultihopqa_corpus.json.gz",
            "6488233e8882b926097e55d1d1f23cbe6cf28eb0393ad39cb0c1d6189e2e5cdd",
            rows=6119,
            split="dev (paragraphs of a 1,000-question sample)",
        ),
        DataFile(
            "test200.jsonl",
            "f92e028caf038c0fd861111ce811f12a50fc17324933b9b723d169913dfa9884",
            rows=200,
            split="dev (another sample)",
        ),
    ),
    splits={"train": 167454, "dev": 12576, "test": 12576},
    papers=("amber", "mem1"),
    canonical="GitHub Alab-NII/2wikimultihop; 1,000-question sample: Hugging Face osunlp/HippoRAG_2",
    bytes_full=660_000_000,
)


def load(data: Path | None) -> list[OpenQuestion]:
    """The 200 dev questions, in file order. Errors: `registry.find`."""
    return read_open_questions(DATASET, "test200.jsonl", data)


def load_corpus(data: Path | None) -> list[Passage]:
    """The 6,119 passages, in file order. Errors: `registry.find`."""
    return [Passage(row["title"], row["text"]) for row in read_json(DATASET, "2wikimultihopqa_corpus.json.gz", data)]

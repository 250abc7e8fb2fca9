"""The page of rows: counts and percentiles by hand, and the committed page against the files."""

import os
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from common.models.toy import byte_tokenizer
from tests.benchmarks.edit_rows import PAGE, TOKENIZERS, counts, lengths, page, summary


def test_counts_of_four_records():
    found = counts(
        {
            "prompt": ["a", "b", "b", "c"],
            "target": ["x", " y", " ", "z"],
            "locality prompt": ["d", "b", "e", "e"],
            "true": ["w\nx", "y", "v", "u"],
        }
    )
    assert list(found.values()) == [4, 3, 1, 2, 1, 3, 1]


def test_lengths_have_the_space_before_a_target_and_percentiles_are_lengths_that_occur():
    assert lengths(byte_tokenizer(), "target", ["ab", ""]) == [3, 1]
    assert lengths(byte_tokenizer(), "prompt", ["ab"]) == [2]
    assert summary([1] * 10 + [2] * 9 + [7]) == ["1", "2", "7", "50.0"]
    assert summary([*range(1, 101)]) == ["50", "95", "100", "1.0"]


@pytest.mark.skipif(not os.environ.get("REPRO_DATA"), reason="REPRO_DATA names no data mirror")
def test_the_committed_page_is_that_of_the_files():
    tokenizers = {name: AutoTokenizer.from_pretrained(at) for name, at in TOKENIZERS.items()}
    assert PAGE.read_text() == page(Path(os.environ["REPRO_DATA"]), tokenizers)

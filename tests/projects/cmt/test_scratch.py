"""The base of the small scale: whose vectors words start from, what is shown with a question, a training cut down."""

import random
from dataclasses import replace

import pytest
import torch

from common.data.lost_in_the_middle import NQOracle
from common.models.settings import place
from common.models.transformers_lm import TransformersLM
from projects.cmt import scratch
from projects.cmt.prompts import Prompting
from projects.cmt.settings import Scratch

pytestmark = pytest.mark.usefixtures("one_thread")
PASSAGE = " ".join(
    [*(f"word{i}" for i in range(100)), "the novelist Ada Brontosaurus", *(f"end{i}" for i in range(99))]
)
ROW = NQOracle("who wrote it", ("Brontosaurus", "Ada Brontosaurus"), "t", PASSAGE, "t", "", ())


def test_known_words_keep_their_vectors_and_new_ones_lie_among_them():
    shipped = TransformersLM.load(place("microlm"), dtype="float32")
    model, tokenizer = scratch.with_words(["Brontosaurus", "zygote", "lives"])
    old, new = (one.get_input_embeddings().weight.detach() for one in (shipped.model, model))
    had, has = shipped.tokenizer.get_vocab(), tokenizer.get_vocab()
    assert len(tokenizer("Brontosaurus lives").input_ids) == 2
    assert torch.equal(new[has["Ġlives"]], old[had["Ġlives"]])
    spaced, bare, other = (new[has[piece]] for piece in ("Ġzygote", "zygote", "ĠBrontosaurus"))
    assert float((spaced - bare).norm()) < 0.8 * float((spaced - other).norm())
    assert 0.5 < float((spaced - old.mean(0)).norm() / (old - old.mean(0)).norm(dim=1).mean()) < 2
    ids = torch.tensor([shipped.tokenizer("Where does she live?").input_ids])
    pieces = shipped.tokenizer.convert_ids_to_tokens(ids[0])
    again = torch.tensor([[has[piece] for piece in pieces]])
    torch.testing.assert_close(model.base_model(again)[0], shipped.model.base_model(ids)[0])  # the body is MicroLM's


def test_the_answer_is_in_the_window_that_is_shown_and_a_cloze_leaves_it_out():
    kinds = set()
    for seed in range(200):
        question, answer, passage = scratch.drawn(random.Random(seed), ROW)
        kind = "closed" if passage is None else "asked" if question == ROW.question else "cloze"
        kinds.add(kind)
        if kind != "cloze":
            assert (question, answer) == (ROW.question, "Brontosaurus")
        else:
            assert answer not in question and " what " in f" {question} "
        if passage is not None:
            assert answer in passage and passage in PASSAGE
            assert len(passage.split()) <= scratch.WINDOW[1]
    assert kinds == {"closed", "asked", "cloze"}


@pytest.mark.parametrize("answer", ["Ada Brontosaurus", "the novelist Ada Brontosaurus end0 end1"])
def test_all_words_of_an_answer_are_shown(answer):
    for seed in range(200):
        _, said, passage = scratch.drawn(random.Random(seed), replace(ROW, answers=(answer,)))
        assert passage is None or said in passage


def test_an_answer_that_the_passage_lacks_is_asked_without_it():
    absent = replace(ROW, answers=("nobody", "Ada Brontosaurus"))
    assert {scratch.drawn(random.Random(seed), replace(ROW, answers=("nobody",)))[2] for seed in range(50)} == {None}
    asked = [scratch.drawn(random.Random(seed), absent) for seed in range(50)]
    assert {answer for question, answer, passage in asked if question == ROW.question} == {"Ada Brontosaurus"}


def test_a_model_is_trained_into_a_folder_and_only_answers_are_learned(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "load_nq_oracle", lambda data: [ROW])
    scratch.trained_on_the_spot(Scratch(words=20, steps=2, step_tokens=200), None, tmp_path)
    lm = TransformersLM.load(str(tmp_path), dtype="float32")
    prompting = Prompting(lm.tokenizer, "read")
    example = scratch.example(prompting, "who", "Ada", "It is Ada.")
    assert lm.tokenizer.decode(example.ids[example.weights > 0]) == "Ada<|end|>"
    start, _ = scratch.with_words([])
    name = "layers.1.self_attn.q_proj.weight"
    moved = dict(lm.model.base_model.named_parameters())[name], dict(start.base_model.named_parameters())[name]
    assert not torch.equal(*moved)

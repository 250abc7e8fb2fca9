"""SAM against its closed form, sequence loss against a loop, rehearsal sources, the generative memory's tensors."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from common.experiments.errors import UserError
from common.models.toy import toy_checkpoint
from projects.dsi_pp.data import Benchmark, Document
from projects.dsi_pp.method import REHEARSAL, plain_step, sam_step, sequence_loss
from projects.dsi_pp.seq2seq import IGNORED, add_docid_tokens, build_model, build_tokenizer, join, pack, text_vocabulary
from projects.dsi_pp.settings import Model

TINY = Model(d_model=16, d_kv=8, d_ff=16, heads=2, dropout=0.0)


def quadratic(w, A):
    """f(w) = 1/2 w' A w, whose gradient is A w."""
    return 0.5 * w @ A @ w


def test_sam_on_a_quadratic_has_a_closed_form():
    A = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    start, rho, lr = torch.tensor([3.0, -1.0], dtype=torch.float64), 0.5, 0.1
    w = start.clone().requires_grad_()
    value = sam_step(partial(quadratic, w, A), [w], torch.optim.SGD([w], lr=lr), rho)
    g = A @ start
    assert_close(w.detach(), start - lr * A @ (start + rho * g / g.norm()))
    assert value == quadratic(start, A)


def test_the_norm_is_one_over_all_parameters():
    first, second = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (3.0, 4.0))
    loss = lambda: 0.5 * (first**2 + second**2).sum()  # noqa: E731  gradient (3, 4), norm 5
    sam_step(loss, [first, second], torch.optim.SGD([first, second], lr=1.0), rho=1.0)
    assert_close(torch.cat([first, second]).detach(), torch.tensor([-0.6, -0.8], dtype=torch.float64))


def test_weights_come_back_exactly_before_the_update():
    w = torch.randn(1000, generator=torch.Generator().manual_seed(0), requires_grad=True)
    before = w.detach().clone()
    sam_step(lambda: (w**4).sum(), [w], torch.optim.SGD([w], lr=0.0), rho=0.15)
    assert torch.equal(w, before)


def test_the_same_batch_is_used_twice_and_the_perturbed_gradient_steps():
    w, seen = torch.tensor([1.0], requires_grad=True), []

    def loss():
        seen.append(w.item())
        return (w**2).sum()

    sam_step(loss, [w], torch.optim.SGD([w], lr=0.25), rho=0.5)
    assert seen == [1.0, 1.5]
    assert w.item() == 1.0 - 0.25 * 2 * 1.5


def model_and_batch(optimizer):
    torch.manual_seed(0)
    model = build_model(TINY, 30)
    inputs, labels = torch.randint(3, 30, (8, 5)), torch.randint(3, 30, (8, 1))
    return model, optimizer(model.parameters()), partial(sequence_loss, model, inputs, labels, torch.arange(0))


@pytest.mark.parametrize("optimizer", [torch.optim.Adafactor, torch.optim.Adam])
def test_rho_zero_is_the_plain_optimizer_to_the_bit(optimizer):
    weights = []
    for update in (plain_step, partial(sam_step, rho=0.0)):
        model, base, loss = model_and_batch(optimizer)
        for _ in range(5):
            update(loss, list(model.parameters()), base)
        weights.append(torch.cat([w.flatten() for w in model.parameters()]))
    assert torch.equal(*weights)


def test_rho_above_zero_is_not():
    weights = []
    for rho in (0.0, 0.15):
        model, base, loss = model_and_batch(torch.optim.Adafactor)
        sam_step(loss, list(model.parameters()), base, rho)
        weights.append(torch.cat([w.flatten() for w in model.parameters()]))
    assert not torch.equal(*weights)


def test_loss_equals_a_loop_over_targets_and_leaves_padding_and_unissued_tokens_out():
    model, _, _ = model_and_batch(torch.optim.Adam)
    inputs = torch.tensor([[5, 6, 1], [7, 1, 0]])
    labels = torch.tensor([[8, 9], [10, IGNORED]])
    unissued = torch.tensor([20, 21])
    loss = sequence_loss(model, inputs, labels, unissued)
    total = []
    for row, width in ((0, 2), (1, 1)):
        length = int(inputs[row].ne(0).sum())
        decoder = torch.cat([torch.tensor([0]), labels[row, : width - 1]])[None]
        logits = model(input_ids=inputs[row : row + 1, :length], decoder_input_ids=decoder).logits[0]
        kept = torch.tensor([token for token in range(30) if token not in (20, 21)])
        for position in range(width):
            chosen = logits[position, labels[row, position]]
            total.append(torch.logsumexp(logits[position, kept], 0) - chosen)
    assert_close(loss, torch.stack(total).mean())


def test_rows_of_documents_to_come_get_no_gradient():
    model, _, _ = model_and_batch(torch.optim.Adam)
    sequence_loss(model, torch.tensor([[5, 1]]), torch.tensor([[8]]), torch.tensor([20, 21])).backward()
    gradient = model.get_input_embeddings().weight.grad
    assert not gradient[20:22].any()
    assert gradient[19].any()


def test_indexing_takes_the_first_tokens_after_the_prefix():
    tokenizer = build_tokenizer(TINY, ["a b c d e"])
    packed = pack(tokenizer, "index:", ["a b c d e", "a"], length=3)
    assert tokenizer.batch_decode(packed) == ["index: a b c </s>", "index: a </s> <pad> <pad>"]
    assert pack(tokenizer, "index:", ["a b c d", "a b c e"], length=3).unique(dim=0).shape[0] == 1
    assert join(torch.ones(1, 2), torch.ones(2, 3), fill=0).tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 1]]


def test_pieces_decode_to_the_text_they_came_from():
    """Pseudo-queries are decoded, compared with test queries and encoded again: the round trip must be exact."""
    texts = ["who won the cup in 1998?", "the cup was won twice"]
    tokenizer = build_tokenizer(Model(vocabulary=60), texts)
    assert tokenizer.batch_decode(pack(tokenizer, "", texts, 40), skip_special_tokens=True) == texts


def test_docid_tokens_are_new_rows_of_the_tied_embedding():
    model = build_model(TINY, 30)
    before = model.get_input_embeddings().weight.detach().clone()
    add_docid_tokens(model, 4)
    after = model.get_input_embeddings().weight
    assert after.shape[0] == model.lm_head.out_features == model.config.vocab_size == 34
    assert torch.equal(after[:30], before)
    assert model.lm_head.weight is after


BENCHMARK = Benchmark(
    corpora=(
        (Document("a", train=("qa",)), Document("b", train=("qb",))),
        (Document("c", withheld=("qc",)),),
        (Document("d", withheld=("qd",)),),
    ),
    outside=(),
)
PSEUDO = [["pa"], ["pb"], ["pc"], ["pd"]]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("none", {}),
        ("stored", {0: "qa", 1: "qb"}),
        ("gen_first", {0: "pa", 1: "pb"}),
        ("gen_new", {2: "pc"}),
        ("gen_all", {0: "pa", 1: "pb", 2: "pc"}),
        ("gen_shuffled", {0: "pb", 1: "pc", 2: "pa"}),
        ("stored_and_gen", {0: "qa", 1: "qb", 2: "pc"}),
        ("oracle", {0: "qa", 1: "qb", 2: "qc"}),
    ],
)
def test_what_each_source_rehearses_after_the_first_increment(source, expected):
    rehearsed = REHEARSAL[source](BENCHMARK, 1, PSEUDO)
    assert {number: query for number, (query,) in rehearsed.items()} == expected


def test_a_checkpoint_is_read_from_the_hub_cache_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    settings = Model(checkpoint="someone/toy-t5")
    with pytest.raises(UserError, match=r"'someone/toy-t5' is not on this machine: hf download someone/toy-t5"):
        build_tokenizer(settings, [])
    folder = tmp_path / "models--someone--toy-t5" / "snapshots" / ("1" * 40)
    folder.mkdir(parents=True)
    toy_checkpoint("t5", folder)
    tokenizer, model = build_tokenizer(settings, []), build_model(settings, 0)
    assert text_vocabulary(settings, tokenizer) == model.config.vocab_size >= len(tokenizer)
    assert pack(tokenizer, "", ["a word"], 8).max() < model.config.vocab_size

"""CMT's equations in closed form, its limits, what padding and order must not change, where gradients go."""

import math

import pytest
import torch
from torch.testing import assert_close

from common.memory.dense_bank import DenseBank
from common.models.frozen import FrozenLM
from projects.cmt.method import (
    CMT,
    Aggregator,
    CrossAttention,
    Online,
    Triple,
    answer_loss,
    batch_of,
    contrast,
    match,
    match_loss,
    top_k,
)
from projects.cmt.prompts import Prompting
from projects.cmt.settings import Memory, Objective

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = [
    "Ada lives in Oslo.",
    "Bo | job | baker",
    "Cy has a very long way to go until the end of his story.",
    "Di.",
    "Ed",
]
QUESTIONS = ["Where does Ada live?", "What is Bo?", "And Cy, who has so far to go?", "Di?", "Is it Ed?"]
TRIPLES = [Triple(text, question, f"a{i}") for i, (text, question) in enumerate(zip(TEXTS, QUESTIONS, strict=True))]
SMALL = Memory(soft=2, rank=2, blocks=2, heads=2, head=8, k=2)


def made(toy, family="llama", seed=0, prompt="plain", **options):
    torch.manual_seed(seed)
    lm = FrozenLM(*toy(family))
    memory = Memory(**{**vars(SMALL), **options})
    cmt = CMT(lm, Prompting(lm.tokenizer, prompt), memory, document_tokens=64)
    with torch.no_grad():
        for parameter in lm.adapter_parameters:
            parameter.normal_(std=0.05)
    return lm, cmt


def online(cmt, texts=TEXTS, **options):
    settings = {"encode": 2, "ask": 2, "tokens": 4, "alpha": 0.0}
    reader = Online(cmt, DenseBank(), **(settings | options))
    reader.read(texts)
    return reader


# --- worked numbers -----------------------------------------------------------------------------------------------


def test_matching_is_the_cosine():
    assert_close(
        match(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0], [3.0, 0.0]])), torch.tensor([[0.5**0.5, 1]])
    )


def test_the_two_best_of_four_weigh_as_their_softmax():
    rows, log_weights = top_k(torch.tensor([[0.9, 0.1, 0.5, -0.2]]), k=2, temperature=0.1)
    assert rows.tolist() == [[0, 2]]
    first = 1 / (1 + math.exp(-4))  # .9820
    assert_close(log_weights.exp(), torch.tensor([[first, 1 - first]]))


def test_k_of_one_is_a_hard_choice_k_of_all_or_more_takes_all_and_equal_scores_stand_in_order():
    scores = torch.tensor([[0.3, 0.7, 0.7]])
    rows, log_weights = top_k(scores, 1, 0.1)
    assert rows.tolist() == [[1]] and log_weights.tolist() == [[0.0]]
    everything = [top_k(scores, k, 0.1) for k in (0, 3, 9)]
    assert all(rows.tolist() == [[1, 2, 0]] for rows, _ in everything)
    assert_close(everything[0][1].exp()[0], torch.softmax(torch.tensor([7.0, 7.0, 3.0]), 0))


def test_the_contrast_of_the_worked_example():
    z_mem, z_0, target = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.0, 2.0, 0.0]]), torch.tensor([0])
    assert_close(contrast(z_mem, z_0, 0.5), torch.tensor([[3.0, 0.5, 0.0]]))
    loss = {kind: float(answer_loss(Objective(kind=kind), z_mem, z_0, target)) for kind in ("nll", "contrast")}
    assert loss["contrast"] == pytest.approx(math.log(1 + math.exp(-2.5) + math.exp(-3)))  # .1239
    assert loss["nll"] == pytest.approx(math.log(1 + math.exp(-1) + math.exp(-2)))  # .4076
    assert [round(value, 4) for value in loss.values()] == [0.4076, 0.1239]
    without = float(answer_loss(Objective(kind="contrast", alpha=0.0), z_mem, z_0, target))
    assert without == pytest.approx(loss["nll"])


def test_the_margin_is_nothing_once_the_memory_helps_by_delta():
    target = torch.tensor([0])
    z_0 = torch.tensor([[0.0, 0.0]])  # NLL_0 = log 2
    helped, not_helped = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    objective = Objective(kind="margin", mu=2.0, delta=0.5)
    assert float(answer_loss(objective, helped, z_0, target)) == pytest.approx(math.log(1 + math.exp(-9)), rel=1e-2)
    assert float(answer_loss(objective, not_helped, z_0, target)) == pytest.approx(math.log(2) + 2 * 0.5)


def test_the_alignment_loss_is_minus_the_log_of_the_gold_documents_share():
    scores = torch.tensor([[1.0, 0.0], [0.0, 0.5]])
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    assert float(match_loss(scores, torch.tensor([0, 1]), 0.5)) == pytest.approx(expected)


# --- aggregation --------------------------------------------------------------------------------------------------


def aggregated(seed=0, documents=5):
    torch.manual_seed(seed)
    aggregator = Aggregator(16, 2, 2, 8)
    return aggregator, torch.randn(3, 2, 16), torch.randn(1, documents, 2, 16)


def test_a_log_weight_of_minus_infinity_leaves_a_document_out_and_order_does_not_matter():
    aggregator, states, memories = aggregated()
    log_weights = torch.randn(3, 5)
    found, attention = aggregator(states, memories, log_weights)
    order = torch.tensor([3, 0, 4, 1, 2])
    again, permuted = aggregator(states, memories[:, order], log_weights[:, order])
    assert_close(again, found)
    assert_close(permuted, attention[:, order])
    assert_close(attention.sum(-1), torch.ones(3))
    masked = log_weights.clone()
    masked[:, [1, 3]] = -torch.inf
    assert_close(
        aggregator(states, memories, masked)[0], aggregator(states, memories[:, [0, 2, 4]], masked[:, [0, 2, 4]])[0]
    )


def test_the_attention_is_that_of_torch_with_the_weights_in_its_mask():
    aggregator, states, memories = aggregated()
    block, log_weights = aggregator.blocks[0], torch.randn(3, 5)
    flat, bias = memories.flatten(1, 2), log_weights.repeat_interleave(2, -1)
    found, _ = block(states, flat, bias)
    split = [
        part.unflatten(-1, (2, 8)).transpose(1, 2)
        for part in (
            block.query(block.norm(states)),
            block.key(block.norm_memory(flat)).expand(3, -1, -1),
            block.value(block.norm_memory(flat)).expand(3, -1, -1),
        )
    ]
    attended = torch.nn.functional.scaled_dot_product_attention(*split, attn_mask=bias[:, None, None])
    inner = states + block.out(attended.transpose(1, 2).flatten(2))
    expected = inner + block.down(torch.nn.functional.gelu(block.up(block.norm_inner(inner))))
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_aligned_attention_starts_from_the_bilinear_score_as_far_as_a_head_has_rank():
    torch.manual_seed(0)
    scores, states, memories = torch.randn(12, 12), torch.randn(1, 3, 12), torch.randn(1, 5, 12)
    for head in (12, 4):
        block = CrossAttention(12, heads=2, head=head)
        torch.nn.init.uniform_(block.norm.weight, 0.5, 2.0)
        torch.nn.init.uniform_(block.norm_memory.weight, 0.5, 2.0)
        block.align(scores, 2.0)
        left, values, right = torch.linalg.svd(scores)
        values[head:] = 0.0
        plain = torch.nn.functional.layer_norm(states, (12,)), torch.nn.functional.layer_norm(memories, (12,))
        expected = 2.0 * plain[0] @ left @ values.diag() @ right @ plain[1].transpose(1, 2) / math.sqrt(12)
        queries = block.query(block.norm(states)).unflatten(-1, (2, head))
        keys = block.key(block.norm_memory(memories)).unflatten(-1, (2, head))
        for number in range(2):
            found = queries[:, :, number] @ keys[:, :, number].transpose(1, 2) / math.sqrt(head)
            assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_rows_that_match_nothing_attend_to_what_the_matching_would_choose(toy):
    lm, cmt = made(toy, k=0, matching="none", head=16)
    seen = []
    cmt.aggregator.blocks[0].align = lambda scores, sharpness: seen.append(scores)
    cmt.align()
    queries, keys = torch.randn(3, lm.width), torch.randn(4, lm.width)
    expected = queries @ cmt.W_q.weight.T @ (keys @ cmt.W_k.weight.T).T
    assert_close(queries @ seen[0] @ keys.T, expected, rtol=1e-4, atol=1e-4)


def test_windows_are_applied_until_one_is_left_and_reach_every_document():
    aggregator, states, memories = aggregated(documents=7)
    zero = torch.zeros(3, 2)
    pairs = [aggregator(states, memories[:, i : i + 2], zero[:, : min(2, 7 - i)])[0] for i in range(0, 7, 2)]
    second = [aggregator(states, torch.stack(pairs[i : i + 2], 1), zero)[0] for i in (0, 2)]
    expected = aggregator(states, torch.stack(second, 1), zero)[0]
    assert_close(aggregator.in_windows(states, memories, 2), expected)
    assert_close(aggregator.in_windows(states, memories, 7), aggregator(states, memories, torch.zeros(3, 7))[0])
    for document in range(7):  # MAC's own loop ends early
        changed = memories.clone()
        changed[:, document] = torch.randn(1, 2, 16)
        assert not torch.allclose(aggregator.in_windows(states, changed, 2), expected)
    with pytest.raises(ValueError, match="at least 2"):
        aggregator.in_windows(states, memories, 1)


# --- the model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "compressor"), [("gpt2", "lora_lm"), ("lfm2", "lora_lm"), ("lfm2", "encdec")])
def test_a_document_is_encoded_alike_whatever_stands_beside_it(toy, family, compressor):
    _, cmt = made(toy, family, compressor=compressor)
    keys, memories = cmt.encode(TEXTS)
    for i, text in enumerate(TEXTS):
        key, memory = cmt.encode([text])
        assert_close(key[0], keys[i], rtol=1e-4, atol=1e-5)
        assert_close(memory[0], memories[i], rtol=1e-4, atol=1e-4)
    assert_close(keys.norm(dim=-1), torch.ones(5))


@pytest.mark.parametrize("inject", ["embed_prefix", "kv_prefix"])
@pytest.mark.parametrize(("family", "prompt"), [("lfm2", "read"), ("llama", "plain")])
def test_the_loss_is_that_of_each_question_alone_over_the_same_bank(toy, inject, family, prompt):
    lm, cmt = made(toy, family, prompt=prompt, inject=inject)
    loss, _ = cmt.loss(TRIPLES, Objective(kind="contrast", match="none"))
    keys, memories = cmt.encode(TEXTS)
    total, tokens = 0.0, 0
    for triple in TRIPLES:
        queries, states = cmt.ask([triple.question])
        rows, log_weights = top_k(match(queries, keys), 2, cmt.temperature)
        vectors, pairs = cmt.prefix(cmt.aggregator(states, memories[rows], log_weights)[0])
        head, tail = cmt._prompting.around(triple.question)
        answer = cmt._prompting.answer(triple.answer)
        memory = [vectors[0]] if vectors is not None else []
        inputs = torch.cat([cmt._embedded(head), *memory, cmt._embedded([*tail, *answer])])[None]
        closed = cmt._embedded([*cmt._prompting.closed(triple.question), *answer])[None]
        z_mem = lm.logits(inputs, prefix=pairs)[0, -1 - len(answer) : -1]
        z_0 = lm.logits(closed)[0, -1 - len(answer) : -1]
        logits = 1.5 * z_mem - 0.5 * z_0
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum").item()
        tokens += len(answer)
    assert loss.item() == pytest.approx(total / tokens, rel=1e-3)


@torch.no_grad()
def test_where_training_multiplies_in_bfloat16_keys_and_logits_keep_the_precision_of_the_states(toy, monkeypatch):
    lm, cmt = made(toy)
    bf16 = torch.autocast("cpu", torch.bfloat16)
    vectors = lm.embed(lm.ids([[5, 6, 7, 8]]))
    exact = lm.states(vectors)
    with bf16:
        assert not torch.equal(lm.states(vectors), exact)  # the language model's own products are rounded
    for step in (lambda: cmt.encode(TEXTS), lambda: cmt.ask(QUESTIONS), lambda: (lm.logits(vectors),)):
        with monkeypatch.context() as patch:
            states = torch.randn(len(TEXTS), 2, lm.width)
            patch.setattr(cmt.compressor, "forward", lambda rows, role, states=states: states)
            patch.setattr(lm, "states", lambda vectors, prefix=None: exact)
            expected = step()
            with bf16:
                found = step()
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("compressor", ["lora_lm", "encdec"])
def test_gradients_reach_all_that_is_trained_and_nothing_else(toy, compressor):
    lm, cmt = made(toy, "lfm2", prompt="read", compressor=compressor)
    loss, figures = cmt.loss(TRIPLES, Objective())
    loss.backward()
    untouched = [name for name, p in cmt.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert untouched == []
    assert all(p.grad is None for name, p in lm.model.named_parameters() if "lora_" not in name)
    assert set(figures) == {"answer", "token_accuracy", "hit"}
    lm.check()


def test_the_gold_document_enters_the_loss_through_the_alignment_alone(toy):
    """Documents dealt to other questions: what is answered stays, the alignment moves."""
    _, cmt = made(toy)

    def value(triples, objective):
        return cmt.loss(triples, objective)[0].item()

    plain = Objective(kind="nll", match="none")
    dealt = [Triple(TEXTS[(i + 1) % 5], t.question, t.answer) for i, t in enumerate(TRIPLES)]
    assert value(TRIPLES, plain) == pytest.approx(value(dealt, plain), rel=1e-4)
    aligned = Objective(kind="nll", match_weight=1.0)
    assert value(TRIPLES, aligned) != pytest.approx(value(dealt, aligned), rel=1e-4)


def test_questions_about_one_document_share_its_memory(toy):
    """Two questions about each of two documents: the bank holds two, and the loss is that of four triples over it."""
    _, cmt = made(toy, k=1)
    triples = [Triple(TEXTS[i // 2], QUESTIONS[i], f"a{i}") for i in range(4)]
    batch = batch_of(cmt._prompting, triples, 64)
    assert (len(batch.documents), batch.gold) == (2, [0, 0, 1, 1])
    keys, memories = cmt.encode(TEXTS[:2])
    queries, _ = cmt.ask(QUESTIONS[:4])
    scores = match(queries, keys)
    expected = match_loss(scores, torch.tensor([0, 0, 1, 1]), cmt.temperature)
    plain, aligned = (
        cmt.loss(triples, Objective(kind="nll", match=m, match_weight=1.0))[0] for m in ("none", "infonce")
    )
    assert_close(aligned - plain, expected, rtol=1e-4, atol=1e-5)
    assert memories.shape[0] == 2


def test_the_attentions_own_loss_is_minus_the_log_of_its_share_on_the_gold_document(toy):
    _, cmt = made(toy, k=0, matching="none")
    plain, figures = cmt.loss(TRIPLES, Objective(kind="nll"))
    attending, shown = cmt.loss(TRIPLES, Objective(kind="nll", attend=2.0))
    assert "hit" not in figures and 0 < shown["attention"] < 1
    assert float(attending.detach() - plain.detach()) >= -2 * math.log(shown["attention"]) - 1e-4  # Jensen


def test_told_questions_are_answered_from_their_own_documents(toy):
    """Dealt to other questions the answers' loss moves, and it is that of the gold document alone, at k = 4, τ = 1."""
    _, cmt = made(toy, k=4)
    with torch.no_grad():
        cmt.log_temperature.zero_()
    plain = Objective(kind="nll", match="none")
    dealt = [Triple(TEXTS[i - 1], t.question, t.answer) for i, t in enumerate(TRIPLES)]
    own, other = (cmt.loss(triples, plain, told=True)[0] for triples in (TRIPLES, dealt))
    assert own.item() != pytest.approx(other.item(), rel=1e-4)
    _, memories = cmt.encode(TEXTS)
    _, states = cmt.ask(QUESTIONS)
    aggregated, _ = cmt.aggregator(states, memories[:, None], torch.zeros(5, 1))
    batch = batch_of(cmt._prompting, TRIPLES, 64)
    logits, targets = cmt._answer_logits(batch, *cmt.prefix(aggregated))
    assert own.item() == pytest.approx(answer_loss(plain, logits, None, targets).item(), rel=1e-5)
    cmt.loss(TRIPLES, Objective(kind="nll"), told=True)[0].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in cmt.parameters())
    assert cmt.log_temperature.grad is not None  # of the alignment loss


def test_the_residual_adds_the_mean_of_the_memories_by_their_weights_or_by_the_attention():
    torch.manual_seed(0)
    plain, residual = Aggregator(8, 1, 2, 4), Aggregator(8, 1, 2, 4, residual=True)
    residual.load_state_dict(plain.state_dict())
    states, memories = torch.randn(2, 3, 8), torch.randn(2, 2, 3, 8)
    log_weights = torch.tensor([[0.75, 0.25], [0.5, 0.5]]).log()
    mean = 0.75 * memories[0, 0] + 0.25 * memories[0, 1]
    added = residual(states, memories, log_weights)[0] - plain(states, memories, log_weights)[0]
    assert_close(added[0], mean)
    added, shares = (
        residual(states, memories, None)[0] - plain(states, memories, None)[0],
        plain(states, memories, None)[1],
    )
    assert_close(shares.sum(-1), torch.ones(2))
    assert_close(added[1], shares[1, 0] * memories[1, 0] + shares[1, 1] * memories[1, 1])


@torch.no_grad()
def test_windows_are_for_reading_alone(toy):
    """A bank of five in windows of two: in training every document is attended to at once."""
    _, cmt = made(toy, k=0, window=2, matching="none")
    figures = cmt.train().loss(TRIPLES, Objective(kind="nll", attend=0.5))[1]
    assert 0 < figures["attention"] < 1
    queries, states = cmt.ask(QUESTIONS)
    keys, memories = cmt.encode(TEXTS)
    whole, attention = cmt.aggregate(states, memories, match(queries, keys))
    assert_close(attention.sum(-1), torch.ones(5))
    windows, none = cmt.eval().aggregate(states, memories, match(queries, keys))
    assert none is None
    assert not torch.allclose(windows, whole, atol=1e-3)


# --- online -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"k": 2}, {"k": 0}, {"k": 9}, {"k": 0, "window": 2, "matching": "none"}, {"k": 2, "matching": "frozen"}],
)
@torch.no_grad()
def test_reading_from_the_bank_is_the_aggregation_of_training(toy, options):
    _, cmt = made(toy, **options)
    reader = online(cmt)
    queries, states = cmt.ask(QUESTIONS)
    keys, memories = cmt.encode(TEXTS)
    expected, _ = cmt.aggregate(states, memories, match(queries, keys))
    found, rows = reader._aggregate(queries, states)
    assert_close(found, expected, rtol=1e-2, atol=1e-2)  # the bank is in fp16
    assert [len(row) for row in rows] == [2 if options["k"] == 2 else 0] * 5


def test_all_documents_in_top_k_are_the_whole_bank_with_the_same_weights(toy):
    _, cmt = made(toy)
    queries, states = cmt.ask(QUESTIONS)
    keys, memories = cmt.encode(TEXTS)
    scores = match(queries, keys)
    rows, log_weights = top_k(scores, 5, cmt.temperature)
    gathered = cmt.aggregator(states, memories[rows], log_weights)[0]
    cmt.memory = Memory(**{**vars(cmt.memory), "k": 0})
    assert_close(cmt.aggregate(states, memories, scores)[0], gathered, rtol=1e-4, atol=1e-5)


def test_answers_do_not_depend_on_the_order_of_documents_or_the_size_of_batches(toy):
    _, cmt = made(toy, "lfm2", prompt="read")
    answers, given = online(cmt).answer(QUESTIONS)
    reordered, others = online(cmt, TEXTS[::-1], encode=5, ask=5).answer(QUESTIONS)
    assert answers == reordered
    assert [[4 - row for row in rows] for rows in others] == given
    assert online(cmt, alpha=0.5).answer(QUESTIONS)[0] != answers


def test_equal_documents_are_encoded_once(toy, monkeypatch):
    _, cmt = made(toy)
    seen = []
    original = cmt.encode
    monkeypatch.setattr(cmt, "encode", lambda texts: (seen.extend(texts), original(texts))[1])
    reader = online(cmt, [*TEXTS, TEXTS[0]])
    reader.read(TEXTS)
    assert len(reader.bank) == 5 and sorted(set(seen)) == sorted(TEXTS) and len(seen) <= 6


def test_prompts_stand_around_the_memory_as_the_chat_template_has_them(toy):
    _, tokenizer = toy("lfm2")
    for kind in ("read", "recall"):
        prompting = Prompting(tokenizer, kind)
        before, after = prompting.around("Who is Ada?")
        whole = tokenizer.decode([*before, *prompting.text("TEXT", 9), *after])
        assert whole.startswith("<|user|>") and whole.endswith("Question: Who is Ada?<|end|><|assistant|>")
        assert "TEXT" in whole and "\ue000" not in whole
    plain = Prompting(tokenizer, "plain", question_tokens=4)
    assert tokenizer.decode(plain.closed("Who is Ada?")) == "Ada?"
    assert tokenizer.decode(plain.answer("Oslo")) == " Oslo<|end|>"

"""The frozen model: weights that do not move, gradients that do, prefixes and padding against the plain model."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close
from transformers import Qwen3Config
from transformers.generation.logits_process import UnbatchedClassifierFreeGuidanceLogitsProcessor

from common.models.frozen import Beams, FrozenLM, beam_search, complete
from common.models.kv_cache import attending_layers, bytes_per_token, key_shape

pytestmark = pytest.mark.usefixtures("one_thread")
FAMILIES = ["gpt2", "lfm2", "llama", "qwen3"]
TEXTS = ["Ada lives in Oslo.", "Bo", "Who keeps bees in Rome?"]


def frozen(toy, family="lfm2"):
    return FrozenLM(*toy(family))


def rows_of(lm, texts=TEXTS):
    return [lm.tokenizer(text).input_ids for text in texts]


def stirred(lm):
    """The model with adapters that do something."""
    lm.add_adapters(4, 8.0)
    with torch.no_grad():
        for parameter in lm.adapter_parameters:
            parameter.normal_(std=0.1)
    return lm


@pytest.mark.parametrize("family", FAMILIES)
def test_with_adapters_off_it_is_the_plain_model_to_the_bit(toy, family):
    plain, tokenizer = toy(family)
    lm = stirred(FrozenLM(*toy(family)))
    ids = lm.ids(rows_of(lm))
    expected = plain(ids).logits
    assert torch.equal(lm.logits(lm.embed(ids)), expected)
    with lm.adapters():
        assert not torch.allclose(lm.logits(lm.embed(ids)), expected, atol=1e-3)
    assert torch.equal(lm.logits(lm.embed(ids)), expected)
    assert lm.weights_hash() == lm.hash == FrozenLM(plain, tokenizer).hash


def test_a_step_trains_adapters_alone_even_when_they_were_switched_off_before_the_backward_pass(toy):
    lm = stirred(frozen(toy))
    before = [p.detach().clone() for p in lm.adapter_parameters]
    optimizer = torch.optim.SGD(lm.adapter_parameters, lr=1.0)
    ids = lm.ids(rows_of(lm))
    with lm.adapters():
        states = lm.states(lm.embed(ids))
    (states[..., 0].sum() + lm.logits(lm.embed(ids)).mean()).backward()
    optimizer.step()
    assert all(not torch.equal(p, old) for p, old in zip(lm.adapter_parameters, before, strict=True))
    assert all(p.grad is None for name, p in lm.model.named_parameters() if "lora_" not in name)
    lm.check()
    with torch.no_grad():
        next(p for name, p in lm.model.named_parameters() if "lora_" not in name).view(-1)[0] += 1e-3
    with pytest.raises(RuntimeError, match="have changed"):
        lm.check()


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_flow_through_the_frozen_model_to_a_soft_prompt_and_to_keys_and_values(toy, family):
    lm = frozen(toy, family)
    ids = lm.ids([[5, 6, 7]])
    soft = torch.randn(1, 2, lm.width, requires_grad=True)
    lm.logits(torch.cat([soft, lm.embed(ids)], 1))[0, -1, 3].backward()
    assert bool((soft.grad.abs().sum(-1) > 0).all())
    heads, size = key_shape(lm.model.config)
    pairs = [
        tuple(torch.randn(1, heads, 2, size, requires_grad=True) for _ in "kv")
        for _ in attending_layers(lm.model.config)
    ]
    lm.logits(lm.embed(ids), prefix=pairs)[0, -1, 3].backward()
    assert all(bool((part.grad.abs() > 0).any()) for pair in pairs for part in pair)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_the_keys_and_values_of_a_text_as_prefix_are_the_text_before(toy, family):
    lm = frozen(toy, family)
    whole = lm.ids([[5, 6, 7, 8, 9]])
    cache = lm.model(whole[:, :3], use_cache=True).past_key_values
    prefix = [(cache.layers[i].keys, cache.layers[i].values) for i in attending_layers(lm.model.config)]
    assert_close(lm.logits(lm.embed(whole[:, 3:]), prefix=prefix), lm.model(whole).logits[:, 3:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_completions_are_those_of_generate_for_each_prompt_alone(toy, family):
    lm = frozen(toy, family)
    prompts = [lm.embed(torch.tensor(row)) for row in rows_of(lm)]
    expected = []
    for row in rows_of(lm):
        out = lm.model.generate(torch.tensor([row]), max_new_tokens=6, do_sample=False, eos_token_id=lm.ends)
        expected.append(lm.tokenizer.decode(out[0, len(row) :], skip_special_tokens=True).strip())
    assert complete(lm, prompts, 6) == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("family", ["gpt2", "lfm2"])
def test_decoding_with_a_prefix_and_padding_equals_one_by_one(toy, family):
    lm = frozen(toy, family)
    heads, size = key_shape(lm.model.config)
    torch.manual_seed(0)
    pairs = [
        (9 * torch.randn(3, heads, 2, size), 9 * torch.randn(3, heads, 2, size))
        for _ in attending_layers(lm.model.config)
    ]
    prompts = [lm.embed(torch.tensor(row)) for row in rows_of(lm)]
    alone = [complete(lm, [prompts[i]], 5, [(k[[i]], v[[i]]) for k, v in pairs])[0] for i in range(3)]
    assert complete(lm, prompts, 5, pairs) == alone
    assert alone != complete(lm, prompts, 5)


def test_contrast_is_the_guidance_of_transformers(toy):
    """(1 + α) z - α z' is classifier-free guidance of scale 1 + α, whose log-softmax shifts each side by a constant."""
    lm = frozen(toy, "llama")
    rows, others = rows_of(lm), rows_of(lm, ["Ada", "Where does Bo live?", "Bees"])
    expected = []
    for row, other in zip(rows, others, strict=True):
        guidance = UnbatchedClassifierFreeGuidanceLogitsProcessor(1.5, lm.model, torch.tensor([other]), use_cache=False)
        ids = torch.tensor([row])
        for step in range(5):
            seen = ids if step else ids[:, -1:]
            token = guidance(seen, lm.model(ids).logits[:, -1].float()).argmax(-1)
            if int(token) in lm.ends:
                break
            ids = torch.cat([ids, token[:, None]], 1)
        expected.append(lm.tokenizer.decode(ids[0, len(row) :], skip_special_tokens=True).strip())
    vectors, against = ([lm.embed(torch.tensor(row)) for row in part] for part in (rows, others))
    assert complete(lm, vectors, 5, against=against, alpha=0.5) == expected
    assert complete(lm, vectors, 5, against=against, alpha=0.0) != expected
    with pytest.raises(ValueError, match="0 prompts against 3"):
        complete(lm, vectors, 5, alpha=0.5)


# --- diverse beam search ------------------------------------------------------------------------------------------


class Spoken:
    """Decoding of a model that is a table: logits of the next word [V] are a function of the prompt and the words so
    far."""

    def __init__(self, prompts, words, seed=0):
        self.words, self.seed = words, seed
        self.rows = [(prompt,) for prompt in prompts]

    def log_probs(self, row):
        generator = torch.Generator().manual_seed(hash((self.seed, *row)) % 2**31)
        return (2 * torch.randn(self.words, generator=generator)).log_softmax(-1)

    def next_logits(self):
        return torch.stack([self.log_probs(row) for row in self.rows])

    def keep(self, rows):
        self.rows = [self.rows[row] for row in rows.tolist()]

    def take(self, tokens):
        self.rows = [(*row, token) for row, token in zip(self.rows, tokens.tolist(), strict=True)]


END = 3


def naive(table, prompt, tokens, count, groups, diversity):
    """Vijayakumar et al., Alg. 1, with lists: groups in turn, each one's candidates sorted."""
    size = count // groups
    alive, finished = [[(0.0, (prompt,))] for _ in range(groups)], [[] for _ in range(groups)]
    for length in range(1, tokens + 1):
        taken = []
        for g in range(groups):
            candidates = sorted(
                (
                    (score + float(lp) - diversity * taken.count(word), (*row, word))
                    for score, row in alive[g]
                    for word, lp in enumerate(table.log_probs(row))
                ),
                reverse=True,
            )
            finished[g] += [(s / length, row[1:-1]) for s, row in candidates[:size] if row[-1] == END]
            alive[g] = [(s, row) for s, row in candidates if row[-1] != END][:size]
            if len(finished[g]) >= size:
                alive[g] = []
            taken += [row[-1] for _, row in alive[g]]
    for g in range(groups):
        finished[g] += [(s / tokens, row[1:]) for s, row in alive[g]]
    return list(max(itertools.chain(*finished))[1])


@pytest.mark.parametrize(("count", "groups", "diversity"), [(4, 1, 0.0), (4, 2, 0.7), (6, 3, 10.0), (3, 3, 0.3)])
def test_beams_are_those_of_the_algorithm_with_lists_for_each_prompt_alone(count, groups, diversity):
    found = []
    for seed in range(20):
        prompts = [90 + seed, 91 + seed, 92 + seed]
        together = beam_search(Spoken(prompts, 6, seed), 5, [END], Beams(count, groups, diversity))
        assert together == [naive(Spoken([p], 6, seed), p, 5, count, groups, diversity) for p in prompts]
        found += together
    assert len({len(row) for row in found}) > 2  # ended at several lengths


def test_beams_enough_for_every_completion_find_the_best_of_all():
    for seed in range(10):
        table = Spoken([7], 4, seed)
        best = (-math.inf, [])
        for length in range(1, 4):
            for body in itertools.product(range(4), repeat=length):
                if END in body[:-1] or (length < 3 and body[-1] != END):
                    continue
                rows = [(7, *body[:i]) for i in range(length)]
                mean = sum(float(table.log_probs(r)[w]) for r, w in zip(rows, body, strict=True)) / length
                best = max(best, (mean, [word for word in body if word != END]))
        assert beam_search(Spoken([7], 4, seed), 3, [END], Beams(64, 1, 0.0)) == [best[1]]


@pytest.mark.parametrize("family", FAMILIES)
def test_one_group_of_beams_is_the_beam_search_of_transformers(toy, family):
    lm = frozen(toy, family)
    prompts, expected = [lm.embed(torch.tensor(row)) for row in rows_of(lm)], []
    for row in rows_of(lm):
        options = {"num_beams": 4, "early_stopping": True, "do_sample": False, "eos_token_id": lm.ends}
        out = lm.model.generate(torch.tensor([row]), max_new_tokens=6, **options)
        expected.append(lm.tokenizer.decode(out[0, len(row) :], skip_special_tokens=True).strip())
    assert complete(lm, prompts, 6, beams=Beams(4, 1, 0.0)) == expected
    assert expected != complete(lm, prompts, 6)


def test_one_beam_is_greedy_also_against_another_prompt_and_behind_a_prefix(toy):
    lm = frozen(toy)
    heads, size = key_shape(lm.model.config)
    torch.manual_seed(0)
    pairs = [
        (9 * torch.randn(3, heads, 2, size), 9 * torch.randn(3, heads, 2, size))
        for _ in attending_layers(lm.model.config)
    ]
    prompts, against = ([lm.embed(torch.tensor(row)) for row in rows_of(lm, part)] for part in (TEXTS, TEXTS[::-1]))
    arguments = (lm, prompts, 5, pairs, against, 0.5)
    assert complete(*arguments, Beams(1, 1, 0.0)) == complete(*arguments)
    alone = [
        complete(lm, [prompts[i]], 5, [(k[[i]], v[[i]]) for k, v in pairs], [against[i]], 0.5, Beams(6, 2, 1.0))[0]
        for i in range(3)
    ]
    assert complete(*arguments, Beams(6, 2, 1.0)) == alone != complete(*arguments)


def test_beams_are_a_multiple_of_groups():
    with pytest.raises(ValueError, match="12 beams are no multiple of 5 groups"):
        Beams(12, 5)


def test_layers_of_linear_attention_and_convolutions_have_no_keys_and_values():
    kinds = ["linear_attention", "full_attention", "conv", "sliding_attention"]
    config = Qwen3Config(num_hidden_layers=4, layer_types=["full_attention"] * 4, num_key_value_heads=2, head_dim=8)
    assert (attending_layers(config), key_shape(config)) == ([0, 1, 2, 3], (2, 8))
    config.layer_types = kinds
    assert attending_layers(config) == [1, 3]
    assert bytes_per_token(config, torch.float16) == 2 * 2 * 2 * 8 * 2

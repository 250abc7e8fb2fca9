"""Model editing measured: reliability, generalisation, locality, each by two ways of asking.

Token accuracy under teacher forcing is what WISE and EasyEdit report: the share of the target's tokens that are the
likeliest after the true ones before them. Exact match is what a user sees: the model continues greedily, on its own
tokens, and the first tokens must be the target's. A one-token mistake costs the first a token and the second the edit.

Reliability asks the edited prompts, generalisation their paraphrases, locality compares the answers to probes that no
edit is about with those of the unedited model, right or wrong. All are asked after the last edit.

Where a target is a sentence or a paragraph, likelihoods say more: the perplexity of the target (WISE, Table 4), and
the share of the tokens of running text on the subject that the model is sure of (Table 5). Where the true answer is
known, so does the choice between the two: CounterFact's efficacy and paraphrase scores (ROME, arXiv:2202.05262).
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from common.editing.hold import target_logits
from common.editing.requests import EditRequest, Probe, batch_of, batch_of_ids
from common.models.language_model import encode, encode_continuation

Tokens = list[int]
SURE = 0.8  # probability above which a token of running text counts as known; WISE, Sec. 3.1


@torch.no_grad()
def forced(model: Any, tokenizer: Any, probes: Sequence[Probe], batch: int = 128) -> list[Tokens]:
    """The likeliest token at each place of each completion, the true tokens before it given."""
    found: list[Tokens] = []
    for start in range(0, len(probes), batch):
        pairs = [(probe.prompt, probe.completion) for probe in probes[start : start + batch]]
        rows = batch_of(tokenizer, pairs, model.device)
        best = torch.split(target_logits(model, rows).argmax(-1), rows.sizes)
        found += [tokens.tolist() for tokens in best]
    return found


@torch.no_grad()
def greedy(model: Any, tokenizer: Any, probes: Sequence[Probe], batch: int = 128) -> list[Tokens]:
    """As many tokens as each completion has, decoded greedily after the prompt alone.

    Every step is a whole pass, without a cache, in which the editor still knows where the prompt ends: what it decides
    on the prompt holds for the whole answer.
    """
    prompts = [encode(tokenizer, probe.prompt) for probe in probes]
    wanted = [len(encode_continuation(tokenizer, probe.completion)) for probe in probes]
    written: list[Tokens] = [[] for _ in probes]
    for step in range(max(wanted, default=0)):
        open_rows = [i for i, count in enumerate(wanted) if count > step]
        for start in range(0, len(open_rows), batch):
            chosen = open_rows[start : start + batch]
            rows = batch_of_ids([(prompts[i], [*written[i], 0]) for i in chosen], 0, model.device)  # 0: to be predicted
            best = torch.split(target_logits(model, rows).argmax(-1), rows.sizes)
            for i, tokens in zip(chosen, best, strict=True):
                written[i].append(int(tokens[-1]))
    return written


def targets(tokenizer: Any, probes: Sequence[Probe]) -> list[Tokens]:
    """Tokens of the completions."""
    return [encode_continuation(tokenizer, probe.completion) for probe in probes]


def token_accuracy(found: Sequence[Tokens], wanted: Sequence[Tokens]) -> float:
    """Mean over rows of the share of places where both agree, in [0, 1]."""
    shares = [sum(a == b for a, b in zip(x, y, strict=True)) / len(y) for x, y in zip(found, wanted, strict=True)]
    return sum(shares) / len(shares)


def exact_match(found: Sequence[Tokens], wanted: Sequence[Tokens]) -> float:
    """Share of rows that agree at every place."""
    return sum(x == y for x, y in zip(found, wanted, strict=True)) / len(wanted)


@dataclass(frozen=True)
class Answers:
    """What a model gave to probes, both ways."""

    forced: list[Tokens]
    greedy: list[Tokens]


def answers(model: Any, tokenizer: Any, probes: Sequence[Probe], batch: int = 128) -> Answers:
    """Ask both ways."""
    return Answers(forced(model, tokenizer, probes, batch), greedy(model, tokenizer, probes, batch))


def asked(requests: Sequence[EditRequest]) -> dict[str, list[Probe]]:
    """Probes of requests: `rel` edited prompts, `gen` paraphrases, both with the new target; `loc` as they stand."""
    return {
        "rel": [Probe(request.prompt, request.target) for request in requests],
        "gen": [Probe(prompt, request.target) for request in requests for prompt in request.paraphrases],
        "loc": [probe for request in requests for probe in request.locality],
    }


def scores(found: Answers, wanted: Answers) -> tuple[float, float]:
    """Token accuracy and exact match."""
    return token_accuracy(found.forced, wanted.forced), exact_match(found.greedy, wanted.greedy)


def editing_scores(
    model: Any, tokenizer: Any, requests: Sequence[EditRequest], before: Answers, batch: int = 128
) -> dict[str, float]:
    """rel, gen, loc and their mean avg (of the groups that there are), and the same with `_exact`, fractions in [0, 1].

    Args:
        before: answers of the unedited model to the locality probes, in order.

    Raises:
        ValueError: no requests, or `before` is of other probes.
    """
    if not requests:
        raise ValueError("no edits to score")
    groups = {name: probes for name, probes in asked(requests).items() if probes}
    if len(before.forced) != len(groups.get("loc", [])):
        raise ValueError(f"{len(groups.get('loc', []))} locality probes and {len(before.forced)} answers before")
    result: dict[str, float] = {}
    for name, probes in groups.items():
        found = answers(model, tokenizer, probes, batch)
        gold = targets(tokenizer, probes)
        wanted = before if name == "loc" else Answers(gold, gold)
        result[name], result[f"{name}_exact"] = scores(found, wanted)
    for ending in ("", "_exact"):
        result[f"avg{ending}"] = sum(result[name + ending] for name in groups) / len(groups)
    return result


@torch.no_grad()
def token_losses(model: Any, tokenizer: Any, probes: Sequence[Probe], batch: int = 128) -> list[Tensor]:
    """Negative log-likelihood in nats of each token of each completion, [T_i] each, the true tokens before it given."""
    found: list[Tensor] = []
    for start in range(0, len(probes), batch):
        pairs = [(probe.prompt, probe.completion) for probe in probes[start : start + batch]]
        rows = batch_of(tokenizer, pairs, model.device)
        losses = nn.functional.cross_entropy(target_logits(model, rows), rows.targets, reduction="none")
        found += torch.split(losses, rows.sizes)
    return found


def likelihood_scores(
    model: Any, tokenizer: Any, requests: Sequence[EditRequest], batch: int = 128
) -> dict[str, float]:
    """`ppl`: perplexity of a target; `rel_sure`, `ood`: share of sure tokens, of targets and of texts; means."""
    edited = token_losses(model, tokenizer, asked(requests)["rel"], batch)
    scores = {"ppl": statistics.fmean(losses.mean().exp().item() for losses in edited), "rel_sure": sure_share(edited)}
    texts = [text for request in requests for text in request.texts]
    return scores | ({"ood": sure_share(token_losses(model, tokenizer, texts, batch))} if texts else {})


def preference_scores(
    model: Any, tokenizer: Any, requests: Sequence[EditRequest], batch: int = 128
) -> dict[str, float]:
    """`efficacy`, `paraphrase_score`: share of prompts, and of paraphrases, where P(target) > P(truth).

    P is the geometric mean over tokens, as in ROME's code, so that longer answers do not lose by their length. Over
    the requests with a `truth`; nothing where none has one.
    """
    known = [request for request in requests if request.truth]
    new, true = asked(known), asked([replace(request, target=request.truth) for request in known])
    scores: dict[str, float] = {}
    for name, kind in (("efficacy", "rel"), ("paraphrase_score", "gen")):
        losses = (token_losses(model, tokenizer, probes[kind], batch) for probes in (new, true))
        wins = [bool(a.mean() < b.mean()) for a, b in zip(*losses, strict=True)]
        scores |= {name: statistics.fmean(wins)} if wins else {}
    return scores


def sure_share(losses: Sequence[Tensor]) -> float:
    """Mean over rows, [T_i] each as `token_losses` has them, of the share of tokens with a probability above SURE."""
    return statistics.fmean((row < -math.log(SURE)).double().mean().item() for row in losses)

"""Texts as a few vectors: the states of a model at learned soft tokens, after it has read a text.

`Compressor`: a frozen language model with low-rank adapters reads the text, then the soft tokens, as in gist tokens (Mu
et al., NeurIPS 2023; arXiv:2304.08467) and ICAE (Ge et al., ICLR 2024; arXiv:2307.06945). `EncoderDecoder`: a T5 reads
the text in its encoder and the soft tokens in its decoder, as in MAC (Tack et al., NeurIPS 2024; arXiv:2403.04317).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from common.experiments.errors import UserError
from common.models.frozen import FrozenLM
from common.models.hub import located, without_bars


class Compressor(nn.Module):
    """`FrozenLM` with adapters of its own and soft tokens for each role; parameters: the adapters and soft tokens.

    Args:
        soft: how many soft tokens a text of a role gets, say `{"document": 4, "question": 4}`.
        rank, alpha: of LoRA.
        spread: standard deviation of new soft tokens around the mean input vector, in units of the input vectors' own.
    """

    def __init__(
        self, lm: FrozenLM, soft: Mapping[str, int], rank: int = 16, alpha: float = 32.0, spread: float = 1.0
    ) -> None:
        super().__init__()
        lm.add_adapters(rank, alpha)
        self._lm = lm
        self.soft = soft_tokens(lm.model, soft, spread)
        self.adapters = nn.ParameterList(lm.adapter_parameters)

    def forward(self, rows: Sequence[Sequence[int]], role: str) -> Tensor:
        """States at the soft tokens of each text, [B, m, D]; a text's are a function of its own tokens alone.

        Args:
            rows: token ids of each text; soft tokens follow its last one at once, and padding follows them.
            role: a key of `soft`.
        """
        soft = self.soft[role]
        lengths = torch.tensor([len(row) for row in rows], device=self._lm.device)
        vectors, at = appended(self._lm.embed(self._lm.ids(rows)), lengths, soft)
        with self._lm.adapters():
            states = self._lm.states(vectors)
        return states.gather(1, at[..., None].expand(-1, -1, states.shape[-1]))


class EncoderDecoder(nn.Module):
    """A T5 of its own, trained whole, with soft tokens for each role and a layer to the language model's width.

    Args:
        lm: whose token ids it is given.
        t5: a `T5Model`.
        tokenizer: of the T5, to which ids are translated by way of their text; None: it reads the language model's.
        soft, spread: as of `Compressor`.
    """

    def __init__(
        self, lm: FrozenLM, t5: Any, soft: Mapping[str, int], tokenizer: Any = None, spread: float = 1.0
    ) -> None:
        super().__init__()
        self._tokenizers = (lm.tokenizer, tokenizer)
        self.t5 = t5
        self.soft = soft_tokens(t5, soft, spread)
        self.out = nn.Linear(t5.config.d_model, lm.width)

    def forward(self, rows: Sequence[Sequence[int]], role: str) -> Tensor:
        """As of `Compressor`, [B, m, D]."""
        given, own = self._tokenizers
        if own is not None:
            rows = own(given.batch_decode([list(row) for row in rows], skip_special_tokens=True)).input_ids
        soft = self.soft[role]
        ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(soft.device)
        mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True).to(soft.device)
        output = self.t5(
            input_ids=ids, attention_mask=mask, decoder_inputs_embeds=soft.expand(len(rows), -1, -1), use_cache=False
        )
        states: Tensor = self.out(output.last_hidden_state)
        return states


def fresh_t5(lm: FrozenLM, width: int, layers: int, heads: int, inner: int) -> Any:
    """A T5 from torch's generator, without dropout, that reads the language model's token ids.

    Args:
        width: a multiple of `heads`. layers: of the encoder, and again of the decoder. inner: of feed-forward layers.
    """
    from transformers import T5Config, T5Model

    config = T5Config(
        vocab_size=lm.model.get_input_embeddings().num_embeddings,
        d_model=width,
        d_kv=width // heads,
        d_ff=inner,
        num_layers=layers,
        num_heads=heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return T5Model(config).to(lm.device)


def pretrained_t5(name: str) -> tuple[Any, Any]:
    """A T5 and its tokenizer from a folder or from this machine's copy of the hub, without dropout.

    Raises:
        UserError: it is not on this machine, or no T5.
    """
    from transformers import AutoConfig, AutoTokenizer, T5Model

    folder, title, _ = located(name, None)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if config.model_type != "t5":
        raise UserError(f"'{title}' is no T5 ({config.model_type})")
    config.dropout_rate = 0.0
    with without_bars():
        t5 = T5Model.from_pretrained(folder, config=config, use_safetensors=True, local_files_only=True)
    return t5.float(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def soft_tokens(model: Any, soft: Mapping[str, int], spread: float) -> nn.ParameterDict:
    """New soft tokens of each role, [m, width] each, around the mean of the model's input vectors."""
    table = model.get_input_embeddings().weight.detach().float()
    mean, deviation = table.mean(0), table.std(0)
    return nn.ParameterDict(
        {
            role: nn.Parameter(mean + spread * deviation * torch.randn(count, table.shape[1], device=table.device))
            for role, count in soft.items()
        }
    )


def keep_first(soft: nn.ParameterDict, count: int) -> None:
    """Only the first soft tokens of each role from now on; their states do not change, as they never saw the others."""
    for role, tokens in soft.items():
        soft[role] = nn.Parameter(tokens[:count].detach().clone())


def appended(vectors: Tensor, lengths: Tensor, soft: Tensor) -> tuple[Tensor, Tensor]:
    """Soft tokens right after the end of each row.

    Args:
        vectors: [B, T, D], padded on the right. lengths: [B]. soft: [m, D].

    Returns:
        Input vectors [B, T + m, D] and the positions of the soft tokens [B, m].
    """
    batch, width, _ = vectors.shape
    count = len(soft)
    place = torch.arange(width + count, device=vectors.device).expand(batch, -1) - lengths[:, None]  # 0: first soft one
    padded = nn.functional.pad(vectors, (0, 0, 0, count))
    inside = (place >= 0) & (place < count)
    result = torch.where(inside[..., None], soft.to(vectors.dtype)[place.clamp(0, count - 1)], padded)
    return result, lengths[:, None] + torch.arange(count, device=vectors.device)

"""Texts as a few vectors: a frozen language model with low-rank adapters reads a text, then learned soft tokens.

The states at the soft tokens are the compressed text, as in gist tokens (Mu et al., NeurIPS 2023; arXiv:2304.08467) and
ICAE (Ge et al., ICLR 2024; arXiv:2307.06945).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from common.models.frozen import FrozenLM


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
        table = lm.model.get_input_embeddings().weight.detach().float()
        mean, deviation = table.mean(0), table.std(0)
        self.soft = nn.ParameterDict(
            {
                role: nn.Parameter(mean + spread * deviation * torch.randn(count, lm.width, device=table.device))
                for role, count in soft.items()
            }
        )
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

    def keep(self, count: int) -> None:
        """Only the first soft tokens of each role from now on."""
        for role, soft in self.soft.items():
            self.soft[role] = nn.Parameter(soft[:count].detach().clone())


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

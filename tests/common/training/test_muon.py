"""Muon against torch's own, the polar factor, and AdamW for what is not its own."""

import pytest
import torch

from common.training.muon import Muon, orthogonal


def test_orthogonal_keeps_the_singular_vectors_and_flattens_the_values() -> None:
    torch.manual_seed(0)
    for shape in ((3, 24, 64), (3, 64, 24), (2, 32, 32)):
        matrices = torch.randn(shape)
        found = orthogonal(matrices)
        u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
        inside = u.mT @ found @ vt.mT  # diagonal where the singular vectors are kept
        values = torch.diagonal(inside, dim1=-2, dim2=-1)
        assert torch.allclose(inside, torch.diag_embed(values), atol=1e-4)
        assert values.median() > 0.65 and values.max() < 1.25


def test_steps_are_those_of_torch_within_bf16() -> None:
    torch.manual_seed(0)
    shapes = [(48, 96), (96, 48), (48, 48), (48, 96)]
    ours = [torch.randn(shape, requires_grad=True) for shape in shapes]
    theirs = [matrix.detach().clone().requires_grad_() for matrix in ours]
    begun = [matrix.detach().clone() for matrix in ours]
    muon = Muon(ours, [], lr=1e-2, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape)
            other.grad = mine.grad.clone()
        muon.step()
        reference.step()  # type: ignore[no-untyped-call]
    for mine, other, start in zip(ours, theirs, begun, strict=True):
        assert (mine - other).norm() < 0.03 * (other - start).norm()


def test_other_parameters_move_as_by_adamw() -> None:
    torch.manual_seed(0)
    vector, twin = (torch.ones(5, requires_grad=True) for _ in range(2))
    matrix = torch.randn(4, 6, requires_grad=True)
    muon = Muon([matrix], [{"params": [vector], "weight_decay": 0.0}], lr=1e-2, betas=(0.9, 0.98))
    adamw = torch.optim.AdamW([twin], lr=1e-2, betas=(0.9, 0.98), weight_decay=0.0)
    for _ in range(3):
        vector.grad = torch.randn(5)
        twin.grad = vector.grad.clone()
        matrix.grad = torch.randn(4, 6)
        muon.step()
        adamw.step()
    assert torch.equal(vector, twin)
    assert matrix.grad is None and muon.state[matrix].keys() == {"step", "average"}


def test_only_matrices_are_taken() -> None:
    with pytest.raises(ValueError, match="two dimensions"):
        Muon([torch.zeros(3, 4, 5)], [], lr=1e-2)

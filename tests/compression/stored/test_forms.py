"""Forms: the tensor that each stands for, to the bit."""

from __future__ import annotations

import pytest
import torch

from trainlarge.compression.stored.forms import Plain

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_pruned_tensor_keeps_the_bits_of_the_others(dtype: torch.dtype) -> None:
    source = torch.tensor([[-0.0, 1.5, -2.0], [-0.0, -3.0, 0.0]], dtype=dtype)
    form = Plain.pruned(source, torch.tensor([[False, True, False], [True, True, False]]))
    expected = torch.tensor([[-0.0, 0.0, -2.0], [0.0, 0.0, 0.0]], dtype=dtype)
    assert torch.equal(Plain(form.dense()).patterns(), Plain(expected).patterns())
    assert (form.shape, form.dtype, form.nonzero) == (source.shape, dtype, 1)
    assert form.mask().tolist() == [True, False, True, False, False, False]


def test_a_pruned_tensor_takes_one_bit_a_weight_beside_its_source() -> None:
    source = torch.randn(16, 10)
    form = Plain.pruned(source, source < 0)
    assert form.source is source
    assert form.kept is not None and form.kept.nbytes == 20

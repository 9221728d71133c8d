from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.config.task import masked_count
from trainlarge.errors import UserError
from trainlarge.tasks.masked_lm import mask_tokens

MASK, VOCAB, FIRST = 3, 1000, 4


def mask(ids: torch.Tensor, count: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """What the model sees, the positions to predict, and the labels."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(mask_tokens(ids, count, generator, mask_id=MASK, vocab_size=VOCAB, first_regular_id=FIRST).values())


@given(st.integers(1, 8), st.integers(1, 40), st.data(), st.integers(0, 2**32))
def test_labels_are_the_hidden_ids_and_all_else_stays(rows, length, data, seed):
    count = data.draw(st.integers(1, length))
    ids = torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))
    before = ids.clone()
    inputs, positions, labels = mask(ids, count, seed)
    assert torch.equal(ids, before) and inputs.dtype == positions.dtype == labels.dtype == torch.int64
    assert positions.shape == labels.shape == (rows, count)
    assert (positions.diff(dim=1) > 0).all() and positions.min() >= 0 and positions.max() < length
    assert torch.equal(inputs.scatter(1, positions, labels), ids)


@given(st.integers(0, 2**32))
def test_same_generator_state_same_masks(seed):
    ids = torch.arange(64).reshape(2, 32)
    assert all(torch.equal(one, other) for one, other in zip(mask(ids, 5, seed), mask(ids, 5, seed), strict=True))


def test_positions_are_uniform_and_fates_80_10_10():
    ids = torch.full((20_000, 20), 2)
    inputs, positions, _ = mask(ids, 3)
    share = torch.bincount(positions.flatten(), minlength=20) / 20_000
    assert torch.allclose(share, torch.tensor(3 / 20), atol=0.01)
    shown = inputs.gather(1, positions)
    fates = torch.stack([(shown == MASK), (shown >= FIRST), (shown == 2)]).float().mean(dim=(1, 2))
    assert torch.allclose(fates, torch.tensor([0.8, 0.1, 0.1]), atol=0.006)
    regular = shown[shown >= FIRST]
    assert regular.min() < FIRST + 10 and VOCAB - 10 < regular.max() < VOCAB


def test_fates_of_neighbours_are_independent():
    inputs, positions, _ = mask(torch.full((20_000, 10), 2), 2)
    hidden = (inputs.gather(1, positions) == MASK).float()
    assert abs(torch.corrcoef(hidden.T)[0, 1]) < 0.03


@pytest.mark.parametrize(("rate", "length", "count"), [(0.15, 64, 10), (0.4, 64, 26), (0.01, 8, 1), (1.0, 8, 8)])
def test_masked_count(rate, length, count):
    assert masked_count(rate, length) == count


@pytest.mark.parametrize("rate", [0, -0.1, 1.1])
def test_wrong_rate(rate):
    with pytest.raises(UserError, match=r"task\.mask_rate"):
        masked_count(rate, 64)

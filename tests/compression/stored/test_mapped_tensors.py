"""Tensors in pages of their own: the same bits, memory only while they are read."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trainlarge.compression import Magnitude, Recipe, Uniform, Weights, compress_grid
from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.stored.mapped_tensors import TensorsOnDisk, read, release, zeros_in_pages

MEGABYTE = 1 << 20
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Tensor]:
    """Some tensors of any bits, data types and shapes; empty ones and ones that are not contiguous, too."""
    found = {}
    for number in range(draw(st.integers(0, 6))):
        dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.lists(st.integers(0, 5), max_size=3))
        bits = torch.randint(0, 2 if dtype == torch.bool else 256, (*shape, dtype.itemsize), dtype=torch.uint8)
        found[f"tensor {number}"] = (
            bits.view(dtype).squeeze(-1).transpose(0, -1) if shape else torch.ones((), dtype=dtype)
        )
    return found


@settings(max_examples=60, deadline=None)
@given(tensors=tensors())
def test_the_bits_are_the_same_also_when_memory_was_given_back(tensors: dict[str, Tensor]) -> None:
    stored = TensorsOnDisk(tensors)
    assert list(stored) == list(tensors) and len(stored) == len(tensors)
    kept = dict(stored)
    for name, tensor in tensors.items():
        for found in (stored[name], kept[name]):
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
            assert _bits(found) == _bits(tensor)
            assert not found.numel() or found.data_ptr() % 64 == 0


def test_only_what_is_being_read_takes_memory() -> None:
    stored = TensorsOnDisk({name: torch.ones(64 * MEGABYTE, dtype=torch.uint8) for name in "abc"})
    before = psutil.Process().memory_info().rss
    for tensor in dict(stored).values():
        assert read(tensor).amin() == 1
        assert 50 * MEGABYTE < psutil.Process().memory_info().rss - before < 80 * MEGABYTE


def test_a_copy_does_not_follow_what_it_was_made_of() -> None:
    original = torch.ones(4)
    stored = TensorsOnDisk({"a": original})
    original.zero_()
    assert stored["a"].sum() == 4


def test_nothing_is_left_in_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stored = TensorsOnDisk({"a": torch.ones(4)})
    assert stored["a"].sum() == 4 and not list(tmp_path.iterdir())


def test_zeros_in_pages_are_zeros_again() -> None:
    pages, tensors = zeros_in_pages({"a": torch.ones(3, 5), "b": torch.ones(2, dtype=torch.int64), "c": torch.ones(0)})
    for _ in range(2):
        assert all(tensor.sum() == 0 for tensor in tensors.values())
        tensors["a"].fill_(1.5), tensors["b"].fill_(7)
        assert tensors["a"].sum() == 22.5 and tensors["b"].sum() == 14
        release(pages)


def test_zeros_in_pages_take_no_memory_when_given_back() -> None:
    pages, tensors = zeros_in_pages({"a": torch.ones(64 * MEGABYTE, dtype=torch.uint8)})
    before = psutil.Process().memory_info().rss
    tensors["a"].fill_(1)
    assert psutil.Process().memory_info().rss - before > 50 * MEGABYTE
    release(pages)
    assert psutil.Process().memory_info().rss - before < 10 * MEGABYTE


def test_a_snapshot_on_disk_is_compressed_as_one_in_memory(plainest: nn.Module) -> None:
    recipes = [Recipe(), Recipe(Magnitude(0.5, "global")), Recipe(Magnitude(0.5, "row"), Uniform(4))]
    on_disk = Weights.of(plainest, on_disk=True)
    assert isinstance(on_disk.tensors, TensorsOnDisk)
    found, expected = (dict(compress_grid(weights, recipes)) for weights in (on_disk, Weights.of(plainest)))
    for position in range(len(recipes)):
        assert found[position].sizes == expected[position].sizes
        ours, theirs = found[position].weights, expected[position].weights
        assert list(ours) == list(theirs) and all(_bits(ours[name]) == _bits(theirs[name]) for name in theirs)
        untouched = [stored for stored in found[position].packed.stored.values() if isinstance(stored, Dense)]
        assert all(stored.source.data_ptr() in _places(on_disk) for stored in untouched), "no copy of the checkpoint"


def test_a_snapshot_without_room_on_disk_is_in_memory(
    plainest: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    weights = Weights.of(plainest, on_disk=True)
    assert not isinstance(weights.tensors, TensorsOnDisk)
    assert all(torch.equal(weights.tensors[name], tensor) for name, tensor in Weights.of(plainest).tensors.items())


def _bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _places(weights: Weights) -> set[int]:
    return {tensor.data_ptr() for tensor in weights.tensors.values()}

"""The container: standard safetensors, whole or not at all, damage is seen."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from trainlarge.compression.stored import container
from trainlarge.compression.stored.container import TensorSpec
from trainlarge.errors import UserError

BODY = {"text": 'ä "quoted" \\ \n', "numbers": [1, 2.5, None]}
TENSORS = {
    "bytes": torch.arange(5, dtype=torch.uint8),
    "floats": torch.randn(3, 2),
    "half": torch.randn(3).bfloat16(),
    "doubles": torch.randn(1, 1, 2, dtype=torch.float64),
    "count": torch.tensor(7),
    "empty": torch.zeros(0, 4),
}


def write(path: Path, body: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    container.write(path, body, {name: TensorSpec.of(tensor) for name, tensor in tensors.items()}, tensors.items())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "new" / "file.safetensors"
    write(path, BODY, TENSORS)
    return path


def test_round_trip(path: Path) -> None:
    body, tensors = container.read(path)
    assert body == BODY == container.read_body(path)
    _assert_equal(tensors)


def test_the_safetensors_library_reads_it(path: Path) -> None:
    _assert_equal(load_file(path))


def test_size_is_known_before(path: Path) -> None:
    parts = {name: TensorSpec.of(tensor) for name, tensor in TENSORS.items()}
    assert container.file_bytes(BODY, parts) == path.stat().st_size


def test_same_content_gives_the_same_bytes(path: Path) -> None:
    first = path.read_bytes()
    write(path, BODY, TENSORS)
    assert path.read_bytes() == first


def test_the_order_in_which_tensors_come_does_not_matter(path: Path, tmp_path: Path) -> None:
    parts = {name: TensorSpec.of(tensor) for name, tensor in TENSORS.items()}
    container.write(tmp_path / "other", BODY, parts, reversed(TENSORS.items()))
    assert (tmp_path / "other").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("tensors", [{}, {"a": torch.zeros(3)}, {"a": torch.zeros(2, dtype=torch.int32)}], ids=str)
def test_what_is_not_as_announced_is_not_written(tensors: dict[str, Tensor], path: Path) -> None:
    old = path.read_bytes()
    with pytest.raises(ValueError, match=r"^a: .* is not "):
        container.write(path, {}, {"a": TensorSpec(torch.float32, (2,))}, tensors.items())
    assert path.read_bytes() == old and list(path.parent.iterdir()) == [path]


def test_a_reader_of_the_old_file_is_not_disturbed(path: Path) -> None:
    old = path.read_bytes()
    with path.open("rb") as reader:
        write(path, {}, {})
        assert reader.read() == old
    assert container.read(path) == ({}, {})


def test_every_flipped_byte_is_seen(path: Path) -> None:
    content = path.read_bytes()
    for position in range(0, len(content), 3):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(UserError, match=r"^packed="):
            container.read(path)


def test_every_truncation_is_seen(path: Path) -> None:
    content = path.read_bytes()
    for length in (0, 7, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="truncated or damaged"):
            container.read(path)


def test_checksum_is_named(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="checksum does not match"):
        container.read(path)


def test_newer_format(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "FORMAT", 2)
    write(path, BODY, TENSORS)
    monkeypatch.undo()
    with pytest.raises(UserError, match="format 1 or older, not 2"):
        container.read(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="an existing packed file"):
        container.read(tmp_path / "nowhere.safetensors")


def test_foreign_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match="a file that save_packed wrote"):
        container.read(tmp_path / "foreign.safetensors")


def test_unknown_data_type(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights\.dtype=torch\.complex64"):
        write(tmp_path / "x", {}, {"a": torch.zeros(2, dtype=torch.complex64)})


def test_a_full_disk_leaves_the_old_file(path: Path) -> None:
    old = path.read_bytes()
    with _largest_file(4096), pytest.raises(OSError, match="File too large"):
        write(path, {}, {"large": torch.zeros(100_000)})
    assert path.read_bytes() == old
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """The operating system refuses to write files beyond ``size`` bytes, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _assert_equal(tensors: dict[str, Tensor]) -> None:
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)

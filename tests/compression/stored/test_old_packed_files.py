"""Packed files of an earlier version are read to the bit, and written again with the same bytes.

``tests/old/packed_files.zip`` was made by version 0.1.0: every kind of encoding, for a module of one embedding and one
linear layer, and two ModernBERTs of other shapes than their checkpoint with rounded inputs. ``digests.json`` holds the
SHA-256 of the float weights that were evaluated then.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from trainlarge.compression.layout.shapes import Structure
from trainlarge.compression.stored import container
from trainlarge.compression.stored.encodings import ENCODINGS, encoding_named
from trainlarge.compression.stored.packing import load_packed, load_packed_weights
from trainlarge.config.recipe import Recipe

ARCHIVE = Path(__file__).parents[2] / "old" / "packed_files.zip"
SUFFIX = ".packed.safetensors"
with zipfile.ZipFile(ARCHIVE) as _archive:
    DIGESTS: dict[str, str] = json.loads(_archive.read("digests.json"))


@pytest.fixture
def packed_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The old file of that name."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        return Path(archive.extract(f"{request.param}{SUFFIX}", tmp_path))


every_file = pytest.mark.parametrize("packed_file", DIGESTS, indirect=True)


@every_file
def test_an_old_file_gives_the_weights_that_were_evaluated(packed_file: Path) -> None:
    digest = hashlib.sha256()
    for name, tensor in sorted(load_packed_weights(packed_file).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    assert digest.hexdigest() == DIGESTS[packed_file.name.removesuffix(SUFFIX)]


@every_file
def test_an_old_file_is_written_again_with_the_same_bytes(packed_file: Path, tmp_path: Path) -> None:
    body, tensors = container.read(packed_file)
    notes, again = {}, {}
    for name in dict.fromkeys(entry.partition(":")[0] for entry in tensors):
        note = body["tensors"].get(name, {"encoding": "dense"})
        prefix = f"{name}:" if note["encoding"] != "dense" else name
        parts = {entry.removeprefix(prefix): part for entry, part in tensors.items() if entry.startswith(prefix)}
        encoding = encoding_named(note["encoding"])
        decoded = encoding.decode(note, parts)
        again |= {f"{prefix}{part}": tensor for part, tensor in encoding.encode(decoded).items()}
        notes[name] = {"encoding": encoding.name, **encoding.note(decoded)}
    changed = {
        "recipe": Recipe.from_json(body["recipe"]).to_json(),
        "structure": Structure.from_json(body.get("structure", {})).to_json(),
        "tensors": {name: notes[name] for name in body["tensors"]},
    }
    specs = {name: container.TensorSpec.of(part) for name, part in again.items()}
    layout = {name: specs[name] for name in _header(packed_file.read_bytes()) if name in specs} | specs
    copy = tmp_path / "copy"
    container.write(copy, {key: changed.get(key, value) for key, value in body.items()}, layout, again.items())
    if changed["tensors"] == body["tensors"]:
        assert copy.read_bytes() == packed_file.read_bytes()
    else:
        assert {note["encoding"] for note in changed["tensors"].values()} == {"both"}, (
            "the summands may have smaller encodings now"
        )
        assert copy.stat().st_size < packed_file.stat().st_size


@pytest.mark.parametrize("packed_file", ["structure", "structure_last"], indirect=True)
def test_an_old_model_of_other_shapes_computes(packed_file: Path) -> None:
    model = load_packed(packed_file)
    logits = model(torch.tensor([[3, 4, 5, 6]])).logits
    assert logits.shape[-1] == {"structure": 40, "structure_last": 60}[packed_file.name.removesuffix(SUFFIX)]
    assert bool(logits.isfinite().all())


def test_the_old_files_hold_every_payload_of_then() -> None:
    found = set()
    with zipfile.ZipFile(ARCHIVE) as archive:
        for name in DIGESTS:
            body = json.loads(_header(archive.read(f"{name}{SUFFIX}"))["__metadata__"]["packed"])
            for note in body["tensors"].values():
                found |= {part["encoding"] for part in (note, note.get("body"), note.get("rest")) if part}
    payloads = {name.rpartition("_")[2] for name in ENCODINGS} - {"dense", "few", "centred", "repaired"}
    assert payloads <= {name.rpartition("_")[2] for name in found}


def _header(content: bytes) -> dict[str, Any]:
    """The JSON header of a safetensors file, entries in their order."""
    header: dict[str, Any] = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header

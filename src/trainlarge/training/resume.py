"""States of a trunk and its branches on disk, from which a run resumes as if it had never stopped.

A state is a folder (:mod:`trainlarge.training.trunk_folder`) with ``tensors.safetensors`` (weights, optimizer state,
training losses since the last point of the curve) and ``state.json`` (step, curve, clocks, how it was computed,
checksum of the tensors), which is sealed. Batches and dropout are functions of (seed, step), so there is no
random state to keep. A state is written under a temporary name and renamed; one that is torn or changed does not
match its seal or its checksum: it is removed, so that the run can save there again, and the one before it is used.
"""

from __future__ import annotations

import logging
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainlarge.config import typed_json
from trainlarge.config.group import Plain
from trainlarge.sweep.digest import file_digest
from trainlarge.sweep.files import exact_json, flush, give_usual_mode, make_folder, refuse_links, remove
from trainlarge.sweep.sealed import read_sealed, write_sealed
from trainlarge.sweep.step_times import read_measured
from trainlarge.training.clocks import Seconds
from trainlarge.training.loop import Snapshot
from trainlarge.training.run_timing import SavedTiming
from trainlarge.training.trunk_folder import KEPT_STATES, position_of, state_folders

log = logging.getLogger(__name__)

FORMAT = 1
START = "start.json"
"""File of a trunk that says what its states come from; studies of older versions do not have it."""
ABANDONED_SECONDS = 3600
"""Age from which a state that was not renamed into its place is taken for that of a process which was killed."""


@dataclass(frozen=True)
class TrainState:
    """Everything that the rest of a run depends on."""

    step: int
    """Steps done."""
    snapshot: Snapshot
    """Weights and optimizer state."""
    rows: list[dict[str, Plain]]
    """The curve so far, as plain data."""
    losses: Tensor
    """Training losses since the last row of the curve, [steps]."""
    clock: Seconds
    """Seconds so far."""
    timing: SavedTiming | None = None
    """How the steps were computed; None in older states."""


@dataclass(frozen=True, kw_only=True)
class StateFile:
    """Content of ``state.json``: a state without its tensors."""

    format: int
    """Version of the file and of the names of tensors."""
    step: int
    """Steps done."""
    rows: list[dict[str, Plain]]
    """The curve so far."""
    clock: Seconds
    """Seconds so far."""
    pace: SavedTiming | None = None
    """How the steps were computed."""
    modifiers: int = 0
    """Number of modifiers of the loop."""
    sha256: str
    """SHA-256 of ``tensors.safetensors``."""


@dataclass(frozen=True)
class StartFile:
    """Content of ``start.json`` of a trunk that starts from a train cell."""

    weights: str
    """SHA-256 of the weights that it starts from."""


class TrunkStates:
    """The states of one trunk.

    Raises:
        UserError: where a link leads to its folder.
    """

    def __init__(self, folder: Path) -> None:
        refuse_links(folder, inside=folder.parents[1])
        self.folder = folder

    def keep_those_from(self, weights: str | None) -> None:
        """Remove the states where they come from other first weights than those of the present run.

        A checkpoint can be trained again and be another then, and what was trained of the one before is no part of it.

        Args:
            weights: SHA-256 of the weights that the run starts from; None where no other run can have made others.
        """
        if weights is None:
            return
        path = self.folder / START
        kept = read_measured(StartFile, path)
        if kept and kept.weights == weights:
            return
        if kept:
            log.info("%s: its states come from a checkpoint that was trained again since, and are removed", self.folder)
            remove(self.folder)
        make_folder(self.folder, inside=self.folder.parents[1])
        write_sealed(path, {"weights": weights})

    def save(self, part: str, state: TrainState, position: int) -> None:
        """Write the state of ``part`` at ``position`` of its run; older ones beyond the last two go."""
        target = self.folder / f"{part}-{position:09d}"
        if target.exists():
            return
        temporary = self.folder / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
        temporary.mkdir(parents=True)
        try:
            self._remove_abandoned(now=temporary.stat().st_mtime)
            _write(temporary, state)
            temporary.rename(target)
        finally:
            remove(temporary)
        for old in state_folders(self.folder, part)[:-KEPT_STATES]:
            remove(old)

    def newest(self, part: str, at_most: int) -> TrainState | None:
        """The newest whole state of ``part`` no further than ``at_most``; damaged ones are removed."""
        for folder in reversed(state_folders(self.folder, part)):
            if position_of(folder) <= at_most and (state := self._read(folder)):
                return state
        return None

    def _read(self, folder: Path) -> TrainState | None:
        try:
            return _checked(folder)
        except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
            log.warning("%s is damaged (%s) and is removed; looking for the state before it", folder, error)
            remove(folder)
        except OSError as error:
            # The disk may be away, the state whole.
            log.warning("%s cannot be read (%s); looking for the state before it", folder, error)
        return None

    def _remove_abandoned(self, now: float) -> None:
        """Remove what killed processes left half written.

        Args:
            now: time of the file system, which may have another clock than this machine.
        """
        for folder in self.folder.glob(".*.tmp"):
            with suppress(FileNotFoundError):
                if now - folder.lstat().st_mtime > ABANDONED_SECONDS:
                    remove(folder)

    def delete_branch_states(self) -> None:
        """Remove the states of branches; the trunk's stay, so that a larger budget can continue from there."""
        for folder in self.folder.glob("branch*"):
            remove(folder)


def _write(folder: Path, state: TrainState) -> None:
    path = folder / "tensors.safetensors"
    save_file(_flat(state), path)
    give_usual_mode(folder)
    flush(path)
    content = StateFile(
        format=FORMAT,
        step=state.step,
        rows=state.rows,
        clock=state.clock,
        pace=state.timing,
        modifiers=len(state.snapshot.modifiers),
        sha256=file_digest(path),
    )
    write_sealed(folder / "state.json", typed_json.plain(content))


def _checked(folder: Path) -> TrainState | None:
    path = folder / "tensors.safetensors"
    # FLOPs are whole numbers beyond 64 bits, which the usual reader would turn into floats.
    data = read_sealed(folder / "state.json", exact_json)
    if data["format"] != FORMAT:
        log.warning("%s is of another version; looking for the state before it", folder)
        return None
    content = typed_json.read(StateFile, data)
    if content.sha256 != file_digest(path):
        raise ValueError("checksum")
    return _unflat(load_file(path), content)


def _flat(state: TrainState) -> dict[str, Tensor]:
    tensors = {f"model.{name}": tensor for name, tensor in state.snapshot.model.items()}
    for index, entries in state.snapshot.optimizer.items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in entries.items()}
    for index, entries in enumerate(state.snapshot.modifiers):
        tensors |= {f"modifier.{index}.{name}": tensor for name, tensor in entries.items()}
    # Clones: safetensors refuses tied tensors, which share memory.
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()} | {
        "losses": state.losses.detach().cpu()
    }


def _unflat(tensors: dict[str, Tensor], content: StateFile) -> TrainState:
    model = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    modifiers = _numbered("modifier", tensors)
    of_modifiers = [modifiers.get(index, {}) for index in range(content.modifiers)]
    snapshot = Snapshot(model, _numbered("optimizer", tensors), of_modifiers)
    return TrainState(content.step, snapshot, content.rows, tensors["losses"], content.clock, content.pace)


def _numbered(kind: str, tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Number -> name -> tensor, of the tensors ``<kind>.<number>.<name>``."""
    numbered: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{kind}."):
            _, index, entry = name.split(".", 2)
            numbered.setdefault(int(index), {})[entry] = tensor
    return numbered

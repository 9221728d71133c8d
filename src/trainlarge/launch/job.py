"""A running job: it holds the leases of its cells, sends heartbeats, and sets each cell's final state."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

from trainlarge.errors import UserError
from trainlarge.launch.error_line import error_line
from trainlarge.launch.hang import SignsOfWork
from trainlarge.machine.resources import Resources
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.lease import HEARTBEAT_SECONDS, Lease
from trainlarge.sweep.proof import DamagedFileError
from trainlarge.sweep.records import Record
from trainlarge.sweep.status import CellProgress, State, Status
from trainlarge.sweep.store import CellFolder, Study

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that ask a job to save its state and stop."""
PROGRESS_SECONDS = 0.5
"""Time between two writes of the progress."""
WORK_SECONDS = 30.0
"""Time between two notes that a job works which has no progress to report."""
_LEFT_OPEN = frozenset({State.QUEUED, State.RUNNING, State.PREEMPTED})
"""States in which a process can leave a cell that it does not end itself."""


class Preempted(BaseException):
    """The job was asked to stop; its unfinished cells can be claimed again."""


class LostLeaseError(RuntimeError):
    """Another process holds the cell now; this one must not write to it any more."""


@dataclass
class _Held:
    """One claimed cell."""

    folder: CellFolder
    cell: Cell
    lease: Lease
    status: Status


class RunningJob:
    """Claimed cells of one job, as the stage that runs them sees them."""

    def __init__(
        self,
        study: Study,
        stage: str,
        cells: list[Cell],
        held: dict[str, _Held],
        resources: Resources,
        command: str | None = None,
    ) -> None:
        self.study = study
        self.stage = stage
        self.cells = cells
        self.resources = resources
        """Cores and GPUs that it may use."""
        self.command = command
        """The command line that asked for its cells; None where Python code did."""
        self.unclaimed: tuple[str, ...] = ()
        """Ids of cells that are not among ``cells`` since their folder cannot be read or written."""
        self.signs = SignsOfWork()
        """When it last showed that it works."""
        self._held = held
        self._lock = threading.Lock()
        self._news = set[str]()
        self._stop_reason: str | None = None

    @classmethod
    def claim(
        cls,
        study: Study,
        stage: str,
        cell_ids: Sequence[str],
        resources: Resources | None = None,
        command: str | None = None,
    ) -> RunningJob:
        """Claim those of the cells that are neither done nor held by a living process.

        A cell whose folder cannot be read or written fails; the others are claimed.

        Args:
            resources: cores and GPUs that the job may use; None: the whole machine.
            command: the command line that asked for the cells; None where Python code did.
        """
        held, wrong = dict[str, _Held](), dict[str, OSError | UserError]()
        for cell_id in cell_ids:
            try:
                if claimed := _claim(study.folder(stage, cell_id)):
                    held[cell_id] = claimed
            except (OSError, UserError) as error:
                wrong[cell_id] = error
        for cell_id, reason in wrong.items():
            log.error("cell %s cannot be claimed: %s", cell_id, reason)
            mark_lost(study, stage, [cell_id], State.FAILED, f"it cannot be claimed: {reason}")
        cells = [claimed.cell for claimed in held.values()]
        job = cls(study, stage, cells, held, resources or Resources.whole_machine(), command)
        job.unclaimed = tuple(wrong)
        return job

    @contextmanager
    def running(self) -> Iterator[None]:
        """Heartbeat and stop signals while the block runs; cells left unfinished become failed or preempted."""
        ended = threading.Event()
        heartbeat = threading.Thread(target=self._beat, args=(ended,), daemon=True)
        heartbeat.start()
        try:
            with _stop_signals(self.request_stop):
                yield
        except Preempted:
            self._end_all(State.PREEMPTED, self._stop_reason)
        except BaseException as error:
            self._end_all(State.FAILED, error_line(error))
            raise
        finally:
            ended.set()
            heartbeat.join()

    def folder(self, cell_id: str) -> CellFolder:
        """The folder of one of the job's cells."""
        return self.study.folder(self.stage, cell_id)

    def progress(self, cell_id: str, progress: CellProgress) -> None:
        """Say how far the job is."""
        self.signs.note()
        with self._lock:
            held = self._held.get(cell_id)
            if held:
                held.status = replace(held.status, progress=progress, updated=time.time())
                self._news.add(cell_id)

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether the next ``check`` ends the job: the last moment to save."""
        return self._stop_reason is not None

    def check(self) -> None:
        """Call between steps.

        Raises:
            Preempted: when the job was asked to stop.
        """
        self.signs.note()
        if self._stop_reason:
            raise Preempted(self._stop_reason)

    def request_stop(self, reason: str) -> None:
        """Ask the job to stop at its next ``check``."""
        self._stop_reason = reason

    def require_lease(self, cell_id: str) -> None:
        """Call before anything of a cell's result is written.

        Raises:
            LostLeaseError: when another process has taken the cell over.
        """
        held = self._held.get(cell_id)
        if held is None or not held.lease.is_held():
            raise LostLeaseError(f"cell {cell_id} was taken over by another process")

    def finish(self, cell_id: str, record: Record) -> None:
        """Write the record of a cell, then say that it is done.

        Raises:
            LostLeaseError: when another process has taken the cell over; nothing is written then.
        """
        self.require_lease(cell_id)
        self.folder(cell_id).write_record(record)
        self._end(cell_id, State.DONE, None)

    def fail(self, cell_id: str, error: BaseException) -> None:
        """Say that one cell failed; the other cells of the job continue."""
        self._end(cell_id, State.FAILED, error_line(error))

    def give_up(self, reason: str) -> None:
        """Leave the cells that are not done to whoever claims them next, from another thread than the job's own.

        The process must end at once: a main thread that goes on after all finds its cells gone.
        """
        self._end_all(State.PREEMPTED, reason)

    def _end_all(self, state: State, error: str | None) -> None:
        for cell_id in list(self._held):
            self._end(cell_id, state, error)

    def _end(self, cell_id: str, state: State, error: str | None) -> None:
        with self._lock:
            held = self._held.pop(cell_id, None)
        if held is None:
            raise LostLeaseError(f"cell {cell_id} was given up")
        if held.lease.is_held():
            held.folder.write_status(replace(held.status, state=state, error=error, updated=time.time()))
            held.lease.release()

    def _beat(self, ended: threading.Event) -> None:
        renewed = time.monotonic()
        while not ended.wait(PROGRESS_SECONDS):
            is_due = time.monotonic() - renewed >= HEARTBEAT_SECONDS
            renewed = time.monotonic() if is_due else renewed
            with self._lock:
                self._write_progress(is_due)
            self.signs.heartbeat_cpu = time.thread_time()

    def _write_progress(self, is_due: bool) -> None:
        if is_due:
            self._note_work()
        for held in self._held.values():
            try:
                self._beat_for(held, is_due)
            except OSError as error:
                # A full disk must not stop the heartbeat: the cell itself fails, with this error, when it writes.
                log.warning("no heartbeat: %s", error, extra={"cell": held.folder.id})
        self._news.clear()

    def _note_work(self) -> None:
        """Have the status of the cell that the job is at say when the job last worked."""
        current = max(self._held.values(), key=lambda held: held.status.updated, default=None)
        worked = time.time() - self.signs.idle_seconds
        if current and worked - current.status.updated > WORK_SECONDS:
            current.status = replace(current.status, updated=worked)
            self._news.add(current.folder.id)

    def _beat_for(self, held: _Held, is_due: bool) -> None:
        has_news = held.folder.id in self._news
        if not (is_due or has_news):
            return
        if not held.lease.is_held():
            self.request_stop(f"cell {held.folder.id} was taken over by another process")
            return
        if is_due:
            held.lease.renew()
        if has_news:
            held.folder.write_status(held.status)


def _claim(folder: CellFolder) -> _Held | None:
    if folder.is_done():
        return None
    lease = Lease.acquire(folder.path)
    if lease is None:
        return None
    held = None
    try:
        held = _held(folder, lease)
    finally:
        if held is None:
            lease.release()
    return held


def _held(folder: CellFolder, lease: Lease) -> _Held | None:
    """The cell of a lease, now running; None where it need not or cannot run."""
    # Looked at again: the holder before us may have finished between the first look and the claim.
    if folder.is_done():
        return None
    before = folder.status()
    status = Status(State.RUNNING, before.attempts + 1, retries=before.retries + (before.state is State.FAILED))
    try:
        cell = folder.cell()
    except UserError as error:
        # A damaged configuration fails its own cell; the others of the job run.
        folder.write_status(replace(status, state=State.FAILED, error=str(error)))
        return None
    folder.write_status(status)
    return _Held(folder, cell, lease, status)


def mark_lost(study: Study, stage: str, cell_ids: list[str], state: State, reason: str) -> None:
    """Set the state of cells whose process has died without setting it, maybe before it claimed them.

    Args:
        state: FAILED, or PREEMPTED for a process that was asked to stop.
        reason: what became of the process.
    """
    for cell_id in cell_ids:
        folder = study.folder(stage, cell_id)
        try:
            if folder.status().state in _LEFT_OPEN:
                change_status(folder, reason, state)
        except (OSError, UserError) as error:
            # What it stands at cannot be written; whoever runs next finds it as it is, and a dead holder.
            log.warning("cell %s: %s (%s)", cell_id, reason, error)


def change_status(folder: CellFolder, error: str, state: State | None = None, is_done_too: bool = False) -> None:
    """Change the status of a cell that no living process holds, unless it is done.

    Args:
        folder: of the cell.
        error: what its status says from now on.
        state: its state from now on; None: as it is.
        is_done_too: change that of a done cell too.
    """
    lease = Lease.acquire(folder.path)
    if lease is None:
        return
    try:
        # Looked at now: the holder before us may have finished until we had the lease.
        if not folder.is_done() or is_done_too:
            status = folder.status()
            folder.write_status(replace(status, state=state or status.state, error=error, updated=time.time()))
    finally:
        lease.release()


def prove_checkpoint(folder: CellFolder) -> None:
    """Compare the checkpoint of a done train cell with what was written.

    A cell whose checkpoint is damaged counts as failed from then on: the command that made it makes it again. One whose
    checkpoint was cleaned away stays done.

    Raises:
        DamagedFileError: when a file of it is not as it was written.
    """
    try:
        folder.prove(f"{folder.checkpoint.name}/")
    except DamagedFileError as error:
        if folder.checkpoint.is_dir():
            mark_damaged(folder, error)
        raise


def mark_damaged(folder: CellFolder, error: UserError) -> None:
    """Have a done cell, one of whose files is damaged, count as failed, so that the command that made it does again."""
    change_status(folder, str(error), State.FAILED, is_done_too=True)


@contextmanager
def _stop_signals(request_stop: Callable[[str], None]) -> Iterator[None]:
    def handler(number: int, _frame: FrameType | None) -> None:
        request_stop(f"stopped by {signal.Signals(number).name}")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)

"""The share of this machine that each job gets."""

from __future__ import annotations

from collections.abc import Sequence

from trainlarge.config.budget import SECONDS, parse_budget
from trainlarge.config.launcher import LocalConfig
from trainlarge.config.schema import StageConfig, TrainConfig
from trainlarge.errors import UserError
from trainlarge.machine.devices import visible_devices
from trainlarge.machine.resources import Resources, device_groups, divide

MOST_WORKERS = 10_000
"""Jobs at once on one machine."""


def shares(config: LocalConfig, cells: Sequence[StageConfig]) -> tuple[Resources, ...]:
    """Cores and GPUs of each job that may run at once.

    Args:
        config: the launcher's keys.
        cells: the configurations of a command.

    Raises:
        UserError: for a value that this machine cannot serve.
    """
    _check_sharing(config.per_device, cells)
    workers, per_device = cells[0].workers, config.per_device
    devices_per_job = max(cell.impl.devices for cell in cells)
    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise UserError("workers", workers, f"a whole number of at least 1 and at most {MOST_WORKERS:,}")
    devices = visible_devices() if any(cell.impl.device != "cpu" for cell in cells) else ()
    if not devices:
        if per_device > 1:
            allowed = "1 where there are no GPUs to share; workers=N runs N jobs at once"
            raise UserError("launcher.per_device", per_device, allowed)
        return tuple(divide(workers or 1, (), devices_per_job, per_device))
    if devices_per_job > len(devices):
        raise UserError("impl.devices", devices_per_job, f"at most {len(devices)}, the GPUs that are visible here")
    room = len(device_groups(devices, devices_per_job)) * per_device
    if workers is not None and workers > room:
        raise UserError("workers", workers, f"at most {room}: {_reckoning(len(devices), devices_per_job, per_device)}")
    return tuple(divide(workers or room, devices, devices_per_job, per_device))


def _reckoning(devices: int, devices_per_job: int, per_device: int) -> str:
    each = f"impl.devices={devices_per_job} per job" if devices_per_job > 1 else "one per job"
    return f"{devices} GPUs, {each}, launcher.per_device={per_device}"


def _check_sharing(per_device: int, cells: Sequence[StageConfig]) -> None:
    for cell in cells if per_device > 1 else ():
        if budget := _budget_in_seconds(cell):
            allowed = f"1 with {budget}: a budget in seconds needs the times of a job that has its GPU alone"
            raise UserError("launcher.per_device", per_device, allowed)


def _budget_in_seconds(config: StageConfig) -> str | None:
    """The key and value of a train cell's budget, or of its schedule's horizon, in seconds; None where none is."""
    if not isinstance(config, TrainConfig):
        return None
    texts = {"budget": config.budget, "schedule.horizon": config.schedule.horizon}
    given = {key: text for key, text in texts.items() if text is not None}
    return next((f"{key}={text}" for key, text in given.items() if parse_budget(text, key).unit == SECONDS), None)

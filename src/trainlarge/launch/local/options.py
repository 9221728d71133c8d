"""What the configuration asks of the local launcher, checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass

from trainlarge.config.budget import SECONDS, parse_budget
from trainlarge.config.launcher import LauncherConfig
from trainlarge.config.schema import StageConfig, TrainConfig
from trainlarge.errors import UserError
from trainlarge.launch.failure_policy import FailurePolicy
from trainlarge.machine.devices import visible_devices
from trainlarge.machine.resources import Resources, device_groups, divide

_DEFAULTS = LauncherConfig()
_EVERY_LAUNCHER = frozenset({"name", "retries", "max_failures", "fail_fast", "wait"})
LOCAL_ONLY = frozenset({"per_device"})
"""Keys of ``launcher`` that are for ``local``."""
SLURM_ONLY = frozenset(_DEFAULTS.plain) - _EVERY_LAUNCHER - LOCAL_ONLY
"""Keys of ``launcher`` that are for ``slurm``."""


@dataclass(frozen=True)
class LocalOptions:
    """How jobs run on this machine."""

    shares: tuple[Resources, ...]
    """One for each job that may run at once."""
    policy: FailurePolicy = FailurePolicy()
    """What failures lead to."""
    waits: bool = True
    """Whether to wait for cells that other processes run."""

    @classmethod
    def of(cls, configs: list[StageConfig]) -> LocalOptions:
        """Options of a command that runs ``configs``.

        Raises:
            UserError: for a key that is not for this launcher, or a value that this machine cannot serve.
        """
        launcher = configs[0].launcher
        refuse_keys(launcher, SLURM_ONLY, "launcher=local; it is for launcher=slurm")
        _check_sharing(launcher.per_device, configs)
        return cls(tuple(_shares(configs)), FailurePolicy.of(launcher), launcher.wait)


def refuse_keys(launcher: LauncherConfig, keys: frozenset[str], where: str) -> None:
    """Refuse those of ``keys`` that are set although they mean nothing ``where`` they are.

    Raises:
        UserError: naming the key.
    """
    for key in sorted(keys):
        if getattr(launcher, key) != getattr(_DEFAULTS, key):
            raise UserError(f"launcher.{key}", getattr(launcher, key), f"nothing with {where}")


def _shares(configs: list[StageConfig]) -> list[Resources]:
    workers, per_device = configs[0].workers, configs[0].launcher.per_device
    devices_a_job = max(config.impl.devices for config in configs)
    if workers is not None and workers < 1:
        raise UserError("workers", workers, "a whole number of at least 1")
    devices = visible_devices() if any(config.impl.device != "cpu" for config in configs) else ()
    if not devices:
        _refuse_sharing_nothing(per_device)
        return divide(workers or 1, (), devices_a_job, per_device)
    if devices_a_job > len(devices):
        raise UserError("impl.devices", devices_a_job, f"at most {len(devices)}, the GPUs that are visible here")
    room = len(device_groups(devices, devices_a_job)) * per_device
    if workers is not None and workers > room:
        raise UserError("workers", workers, f"at most {room}: {_reckoning(len(devices), devices_a_job, per_device)}")
    return divide(workers or room, devices, devices_a_job, per_device)


def _reckoning(devices: int, devices_a_job: int, per_device: int) -> str:
    each = f"impl.devices={devices_a_job} for a job" if devices_a_job > 1 else "one for a job"
    return f"{devices} GPUs, {each}, launcher.per_device={per_device}"


def _refuse_sharing_nothing(per_device: int) -> None:
    if per_device > 1:
        raise UserError(
            "launcher.per_device", per_device, "1 where there are no GPUs to share; workers=N runs N jobs at once"
        )


def _check_sharing(per_device: int, configs: list[StageConfig]) -> None:
    if per_device < 1:
        raise UserError("launcher.per_device", per_device, "a whole number of at least 1")
    if per_device == 1:
        return
    for config in configs:
        budget = _budget_in_seconds(config)
        if budget:
            raise UserError("launcher.per_device", per_device, f"1 with {budget}: a budget in seconds needs true times")


def _budget_in_seconds(config: StageConfig) -> str | None:
    """The key and value of a train cell's budget, or of its schedule's horizon, in seconds; None where none is."""
    if not isinstance(config, TrainConfig):
        return None
    texts = {"budget": config.budget, "schedule.horizon": config.schedule.horizon}
    given = {key: text for key, text in texts.items() if text is not None}
    return next((f"{key}={text}" for key, text in given.items() if parse_budget(text, key).unit == SECONDS), None)

"""What ``impl`` asks for and this machine does not have is refused, naming the key."""

from __future__ import annotations

import pytest
import torch

from trainlarge.config.impl import ImplConfig
from trainlarge.errors import UserError
from trainlarge.machine.device import choose


@pytest.mark.parametrize("threads", [0, 1])
def test_more_devices_than_there_are_gpus_are_refused_whatever_the_threads(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"^impl\.devices=2 is not valid: must be at most 1, the GPUs of this machine"):
        choose(ImplConfig(device="auto", devices=2, threads=threads))


@pytest.mark.parametrize(
    ("impl", "error"),
    [
        (ImplConfig(device="cuda"), r"^impl\.device=cuda is not valid: must be cpu or auto"),
        (ImplConfig(device="auto", compile="graphs"), r"^impl\.compile=graphs is not valid: must be none or inductor"),
    ],
)
def test_what_needs_a_gpu_is_refused_without_one(monkeypatch: pytest.MonkeyPatch, impl: ImplConfig, error: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=error):
        choose(impl)


def test_threads_are_the_cores_of_the_job_divided_by_its_devices() -> None:
    assert choose(ImplConfig(device="cpu", precision="fp32", devices=2), cores=4).threads == 2
    assert choose(ImplConfig(device="cpu", precision="fp32", devices=2), cores=1).threads == 1
    assert choose(ImplConfig(device="cpu", precision="fp32", threads=3), cores=4).threads == 3

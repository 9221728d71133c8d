"""What the group ``impl`` may say; checked before anything starts."""

from __future__ import annotations

from typing import Any

from trainlarge.errors import UserError

CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "precision": ("auto", "fp32", "bf16"),
    "attention": ("auto", "eager", "sdpa"),
    "forward": ("fast", "library"),
    "strategy": ("auto", "ddp"),
    "compile": ("none", "inductor", "graphs"),
}


def check_impl(impl: dict[str, Any]) -> None:
    """Refuse a value that does not exist.

    Raises:
        UserError: naming the key.
    """
    for key, allowed in CHOICES.items():
        if impl[key] not in allowed:
            raise UserError(f"impl.{key}", impl[key], ", ".join(allowed))
    for key, least in (("threads", 0), ("devices", 1), ("micro_batch_rows", 0), ("save_seconds", 0)):
        if impl[key] < least:
            raise UserError(f"impl.{key}", impl[key], f"a number of at least {least}")
    _check_compile(impl)


def _check_compile(impl: dict[str, Any]) -> None:
    if impl["compile"] != "none" and impl["devices"] > 1:
        raise UserError("impl.compile", impl["compile"], f"none with impl.devices={impl['devices']}")
    if impl["compile"] == "graphs" and impl["micro_batch_rows"]:
        raise UserError(
            "impl.compile", "graphs", "none or inductor with micro-batches: each run overwrites the gradients before it"
        )

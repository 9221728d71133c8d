"""What the group ``impl`` may say; checked before anything starts."""

from __future__ import annotations

from typing import Any

from trainlarge.errors import UserError

CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "precision": ("auto", "fp32", "bf16"),
    "attention": ("auto", "eager", "sdpa"),
    "forward": ("auto", "fast", "library"),
    "strategy": ("auto", "ddp", "fsdp"),
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
    _check_strategy(impl)


def strategy_of(impl: dict[str, Any]) -> str:
    """``ddp`` or ``fsdp``: what the group says, with ``auto`` resolved."""
    return "ddp" if impl["strategy"] == "auto" else str(impl["strategy"])


def forward_of(impl: dict[str, Any]) -> str:
    """``fast`` or ``library``: what the group says, with ``auto`` resolved."""
    if impl["forward"] != "auto":
        return str(impl["forward"])
    # The fast path reads weights behind the back of the modules, which gather them when they are called.
    return "library" if strategy_of(impl) == "fsdp" else "fast"


def _check_compile(impl: dict[str, Any]) -> None:
    if impl["compile"] != "none" and impl["devices"] > 1:
        raise UserError("impl.compile", impl["compile"], f"none with impl.devices={impl['devices']}")
    if impl["compile"] == "graphs" and impl["micro_batch_rows"]:
        raise UserError(
            "impl.compile", "graphs", "none or inductor with micro-batches: each run overwrites the gradients before it"
        )


def _check_strategy(impl: dict[str, Any]) -> None:
    if impl["strategy"] != "fsdp":
        return
    if impl["devices"] < 2:
        raise UserError("impl.strategy", "fsdp", "auto with impl.devices=1: there is nobody to share the model with")
    if impl["forward"] == "fast":
        raise UserError("impl.forward", "fast", "auto or library with impl.strategy=fsdp, which gathers whole layers")

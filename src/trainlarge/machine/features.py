"""What of a processor decides which kernels there are: its instructions for vectors and matrices."""

from __future__ import annotations

import torch

VNNI = "VNNI"
BF16 = "BF16"
_WORDS = {
    "avx2": "AVX2",
    "avx512_f": "AVX512",
    "avx512_vnni": f"AVX512_{VNNI}",
    "avx_vnni": f"AVX_{VNNI}",
    "avx512_bf16": f"AVX512_{BF16}",
    "amx_int8": "AMX_INT8",
    "amx_bf16": f"AMX_{BF16}",
    "neon": "NEON",
    "dot": "DOTPROD",
    "i8mm": "I8MM",
    "bf16": BF16,
    "sve": "SVE",
}
"""Name of a capability in torch -> what it is called here; those of x86, then those of ARM."""


def features_of(device: str) -> tuple[str, ...]:
    """The features of a device, such as ``AVX512_VNNI``; of a GPU its compute capability, such as ``sm_90``."""
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return (f"sm_{major}{minor}",)
    capabilities = torch.cpu.get_capabilities()
    return tuple(word for name, word in _WORDS.items() if capabilities.get(name))


def has(features: tuple[str, ...], *words: str) -> bool:
    """Whether a feature has one of these words in its name."""
    return any(word in feature for feature in features for word in words)

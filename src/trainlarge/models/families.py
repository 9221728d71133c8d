"""What sets the families of encoders apart, as plain facts that shapes, counts and FLOPs are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FamilyName = Literal["modern", "roberta"]

PAD_ID = 0
"""Id of the padding token, as our tokenizers have it."""


@dataclass(frozen=True)
class Family:
    """One family of masked language models, each a Hugging Face architecture."""

    model_type: str
    """``config.model_type`` of the Hugging Face architecture."""

    rotary: bool
    """Positions are rotations of queries and keys (Su et al. 2021) of pairs of channels; else learned vectors."""

    first_position: int
    """Row of the position table that the first token of a row uses."""

    ffn_matrices: int
    """Matrices of size width x inner width in a feed-forward block: 3 with a gate (GeGLU, Shazeer 2020), else 2."""


FAMILIES: dict[str, Family] = {
    "modern": Family(model_type="modernbert", rotary=True, first_position=0, ffn_matrices=3),
    # RoBERTa counts positions from the padding id + 1 (fairseq's convention, kept by Hugging Face).
    "roberta": Family(model_type="roberta-prelayernorm", rotary=False, first_position=PAD_ID + 1, ffn_matrices=2),
}
"""Every family by the name that ``arch.name`` gives it."""

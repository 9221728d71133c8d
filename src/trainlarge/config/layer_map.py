"""Which layers of a teacher each layer of a student learns from, in distillation. All numbers count from 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trainlarge.config.method import is_integer
from trainlarge.errors import UserError

KEY = "recover.layer_map"
Pairs = tuple[tuple[int, int], ...]
"""Pairs of student and teacher."""


@dataclass(frozen=True)
class LayerMap:
    """What is compared with what."""

    layers: Pairs
    """Layers whose attention is compared."""

    hidden: Pairs
    """Hidden states that are compared: state 0 is what the first layer reads, state i + 1 what layer i gives."""

    def describe(self) -> str:
        """Such as ``0-1 1-3``: student layer 0 learns from teacher layer 1, and 1 from 3."""
        return " ".join(f"{student}-{teacher}" for student, teacher in self.layers)


@dataclass(frozen=True)
class Depths:
    """The layers of both models."""

    student: int
    """Layers of the student."""
    teacher: int
    """Layers of the teacher."""
    kept: tuple[int, ...]
    """Layers of the teacher that the student was made of, in order."""


def _uniform(depths: Depths) -> LayerMap:
    """Layer m of S, counted from 1, learns from layer ceil(m T / S) of T (TinyBERT, arXiv 1909.10351, section 3)."""
    ends = (-(-(layer + 1) * depths.teacher // depths.student) for layer in range(depths.student))
    return _with_first(tuple((layer, end - 1) for layer, end in enumerate(ends)))


def _last(depths: Depths) -> LayerMap:
    """The last layer learns from the last layer alone (MiniLM, Wang et al. 2020, arXiv 2002.10957)."""
    return LayerMap(((depths.student - 1, depths.teacher - 1),), ((depths.student, depths.teacher),))


def _kept(depths: Depths) -> LayerMap:
    """Each layer learns from the one that it was, and what the first one reads from what that one read (XTC)."""
    pairs = tuple(enumerate(depths.kept))
    return _with_first(pairs, depths.kept[0])


def _many(depths: Depths) -> LayerMap:
    """Each layer learns from all layers of the teacher, with equal weights."""
    return _with_first(
        tuple((student, teacher) for student in range(depths.student) for teacher in range(depths.teacher))
    )


MAPS: Mapping[str, Callable[[Depths], LayerMap]] = {"uniform": _uniform, "kept": _kept, "last": _last, "many": _many}
"""Name -> the map of a student and a teacher of so many layers."""
ALLOWED = (
    f"one of {', '.join(MAPS)}, a list with a teacher layer for each student layer ([1, 3]), or a list of pairs of "
    "student and teacher ([[0, 1], [1, 2], [1, 3]])"
)


def read_layer_map(given: object) -> str | tuple[int, ...] | Pairs | None:
    """The value of the key in its one form; None where it is none."""
    if isinstance(given, str):
        return given if given in MAPS else None
    if not isinstance(given, Sequence) or not given:
        return None
    if all(is_integer(item) and item >= 0 for item in given):
        return tuple(map(int, given))
    pairs = [tuple(item) if isinstance(item, (list, tuple)) else () for item in given]
    is_valid = all(len(pair) == 2 and all(is_integer(layer) and layer >= 0 for layer in pair) for pair in pairs)
    return tuple(sorted({(int(student), int(teacher)) for student, teacher in pairs})) if is_valid else None


def layer_map(given: str | tuple[int, ...] | Pairs, depths: Depths) -> LayerMap:
    """The map of two models.

    Args:
        given: the key, as ``read_layer_map`` gives it.
        depths: their layers.

    Raises:
        UserError: a layer is not there, or a list has not one entry for each layer of the student.
    """
    if isinstance(given, str):
        return MAPS[given](depths)
    pairs = tuple(item if isinstance(item, tuple) else (place, item) for place, item in enumerate(given))
    is_list = not isinstance(given[0], tuple)
    student, teacher = depths.student, depths.teacher
    if is_list and len(pairs) != student:
        raise UserError(KEY, list(given), f"a list of {student} numbers, one for each layer of the student")
    if any(one >= student or other >= teacher for one, other in pairs):
        allowed = f"made of student layers from 0 to {student - 1} and teacher layers from 0 to {teacher - 1}"
        raise UserError(KEY, _plain(given), allowed)
    return _with_first(pairs)


def _with_first(pairs: Pairs, teacher: int = 0) -> LayerMap:
    """A map of layers, with what the first layer reads compared with what layer ``teacher`` of the teacher reads."""
    return LayerMap(pairs, ((0, teacher), *((student + 1, other + 1) for student, other in pairs)))


def _plain(given: tuple[int, ...] | Pairs) -> list[object]:
    return [list(item) if isinstance(item, tuple) else item for item in given]

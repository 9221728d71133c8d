"""Weights of which rows or columns are removed after they were quantized stay codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import singledispatch

import torch
from torch import Tensor

from trainlarge.compression.stored.bits import pack_mask
from trainlarge.compression.stored.forms import Affine, Codebook, Disjoint, Form, Offset, Plain, Signs
from trainlarge.compression.stored.pattern import nonzero_count
from trainlarge.compression.weights import Weights


@dataclass(frozen=True, eq=False)
class Held:
    """A tensor as it is held, and what it was before."""

    form: Form
    """How it is held."""

    unrounded: Form | None = None
    """The tensor before it was rounded, whose weights that are not 0 count; None: as it is now."""

    def cut(self, dimension: int, kept: Tensor) -> Held | None:
        """The indices ``kept`` of a dimension; None where the form cannot be cut there."""
        before = self.form if self.unrounded is None else self.unrounded
        unrounded = before.dense().index_select(dimension, kept)
        form = cut(self.form, dimension, kept, nonzero_count(unrounded))
        return None if form is None else Held(form, Plain(unrounded))


def recut(before: Weights, after: Weights, held: Mapping[str, Held]) -> dict[str, Held]:
    """How the tensors of ``after`` are held, which a step that changes shapes made of ``before``, held as ``held``.

    A tensor that the step did not touch is held as before, one of which rows or columns are left as codes where that
    is possible, and every other one as floats.
    """
    untouched = {id(tensor): held[name] for name, tensor in before.tensors.items()}
    return {
        name: untouched.get(id(tensor)) or _cut(name, before, after, held) or Held(Plain(tensor))
        for name, tensor in after.tensors.items()
    }


def _cut(name: str, before: Weights, after: Weights, held: Mapping[str, Held]) -> Held | None:
    if name not in held or isinstance(held[name].form, Plain):
        return None
    kept = _kept(name, before, after)
    return kept and held[name].cut(*kept)


def _kept(name: str, before: Weights, after: Weights) -> tuple[int, Tensor] | None:
    """The dimension in which a tensor was cut and the indices that stayed; None where something else was done to it."""
    old, new = before.tensors[name], after.tensors[name]
    origin, places = before.origin(name), after.origin(name).places
    changed = [dimension for dimension in places if new.shape[dimension] != old.shape[dimension]]
    if old.ndim != new.ndim or len(changed) != 1:
        return None
    [dimension] = changed
    index = torch.searchsorted(origin.places.get(dimension, torch.arange(old.shape[dimension])), places[dimension])
    return (dimension, index) if torch.equal(old.index_select(dimension, index), new) else None


@singledispatch
def cut(form: Form, dimension: int, kept: Tensor, nonzero: int) -> Form | None:
    """The form of the indices ``kept`` of a dimension, ``nonzero`` of them not 0 before they were rounded; None where
    columns are taken out of groups, which would no longer be of one size."""
    return None


@cut.register
def _(form: Plain, dimension: int, kept: Tensor, nonzero: int) -> Form | None:
    return Plain(form.dense().index_select(dimension, kept))


@cut.register
def _(form: Affine, dimension: int, kept: Tensor, nonzero: int) -> Form | None:
    if _cuts_groups(form.step, dimension):
        return None
    step, zero = (_of_rows(scale, dimension, kept) for scale in (form.step, form.zero))
    return replace(form, codes=form.codes.index_select(dimension, kept), step=step, zero=zero, nonzero=nonzero)


@cut.register
def _(form: Offset, dimension: int, kept: Tensor, nonzero: int) -> Form | None:
    if _cuts_groups(form.step, dimension):
        return None
    step, offset = (_of_rows(scale, dimension, kept) for scale in (form.step, form.offset))
    left = form.mask().view(form.shape).index_select(dimension, kept)
    mask = None if bool(left.all()) else torch.from_numpy(pack_mask(left.reshape(-1).numpy()))
    return replace(form, codes=form.codes.index_select(dimension, kept), step=step, offset=offset, kept=mask)


@cut.register
def _(form: Signs, dimension: int, kept: Tensor, nonzero: int) -> Form | None:
    if _cuts_groups(form.scale, dimension):
        return None
    scale = _of_rows(form.scale, dimension, kept)
    return replace(form, signs=form.signs.index_select(dimension, kept), scale=scale, nonzero=nonzero)


@cut.register
def _(form: Codebook, dimension: int, kept: Tensor, nonzero: int) -> Form | None:
    book = _of_rows(form.book, dimension, kept)
    return replace(form, codes=form.codes.index_select(dimension, kept), book=book, nonzero=nonzero)


@cut.register
def _(form: Disjoint, dimension: int, kept: Tensor, nonzero: int) -> Form | None:
    rest = cut(form.rest, dimension, kept, nonzero)
    body = rest and cut(form.body, dimension, kept, nonzero - rest.nonzero)
    return Disjoint(body, rest) if body and rest else None


def _cuts_groups(scales: Tensor, dimension: int) -> bool:
    """Whether columns are taken out of rows with several scales [rows, groups]."""
    return dimension > 0 and scales.shape[1] > 1


def _of_rows(scales: Tensor, dimension: int, kept: Tensor) -> Tensor:
    """What is left of scales or books [rows, ...], or [1, ...] for the whole tensor."""
    return scales if dimension or len(scales) == 1 else scales.index_select(0, kept)

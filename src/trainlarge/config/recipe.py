"""What compression does to a checkpoint: a recipe is one method or none in each of its slots, and the order of them.

    Recipe(prune=Magnitude(sparsity=0.6), quantize=Uniform(bits=4))                        # prune, then quantize
    Recipe(structure=Heads(keep=0.5), quantize=Uniform(bits=8), order=("quantize", "structure"))

The natural order is that of ``SLOTS``, from coarse to fine: first the vocabulary is cut, then heads, neurons or layers
are removed, then matrices factorized, then weights pruned, then training continues (``recover``), then what is left is
quantized, so that each method sees the weights that will be there. Any other order is possible and part of the recipe,
but ``activations``, which is about the model that is left, comes last. Quantized weights stay codes when they are
pruned or rows or columns of them are removed later. They are floats again, and so counted in bytes, where a later step
changes their values (``sparsegpt``, ``factorize``, ``recover``), where columns are taken out of groups, and where a
codebook has no value to spare for 0.

Only the order of the slots that are used counts: recipes that differ in the place of an empty slot are equal.

JSON of version 1 has ``prune`` and ``quantize`` always, the other slots where they are used, ``order`` unless the
recipe only prunes, quantizes, or prunes and then quantizes, ``compress_head`` where the head is left alone, and
``entropy_coding`` where there is one. So recipes (and packed files, and configurations of cells) from before there were
more keys keep their form, and a reader from then refuses the new ones instead of misreading.

This file only describes (no torch): the slots of a recipe, what is allowed, its JSON form and how a configuration is
read. The methods of a slot are in the file of its name, what they share in ``method.py``; a method's function is
found by its class in ``trainlarge.compression.registry``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from importlib import import_module
from itertools import pairwise
from typing import Final, Literal, get_args, get_type_hints

from trainlarge.config.awareness import check_awareness
from trainlarge.config.group import Plain, check_value, one_of
from trainlarge.config.method import METHODS, Method, is_integer, is_real, normalize
from trainlarge.config.model_sizes import ModelSizes
from trainlarge.config.reads import Unread, unread
from trainlarge.config.recover import Distill
from trainlarge.config.rewinding import check_rewinding
from trainlarge.errors import NOT_SET, UserError

for _slot in METHODS:
    import_module(f"trainlarge.config.{_slot}")

RECIPE_VERSION = 1
"""Version of the JSON form of a recipe; it grows when a reader of the old form would misread the new one."""

SLOTS = tuple(METHODS)
"""All slots in the natural order: vocabulary, structure, factorize, prune, recover, quantize, activations."""

NO_METHOD: Final = "none"
"""The name of a slot that is left out, in a configuration."""

FIRST_SLOTS = ("prune", "quantize")
"""The slots that are always written, in the order that is not."""

SETTINGS = ("order", "compress_head", "entropy_coding")
"""The keys that are about the whole recipe."""

RECIPE_KEYS = (*SLOTS, *SETTINGS)
"""The keys that a recipe has among those of its configuration."""

CHANGING_HEADS = frozenset({"factorize", "prune", "quantize", "activations"})
"""The slots that act on a prediction head as on any other part: ``compress_head`` is about them."""

EntropyCoding = Literal["none", "zstd"]
"""How the codes of a packed file may be entropy-coded."""

CONFIG_GROUPS = (*FIRST_SLOTS, "recover")
"""The groups that a configuration always has: ``recover`` was one of them before it was a slot."""

LAST_SLOT = "activations"
"""The slot that comes after all others: it changes no weight, and nothing may change what it is about."""


@dataclass(frozen=True)
class Recipe:
    """Methods by slot, applied in ``order``; a slot that is None is left out, and all None is the dense checkpoint."""

    prune: Method | None = None
    """How weights are chosen to become zero, such as ``Magnitude(sparsity=0.6)``."""

    quantize: Method | None = None
    """How the remaining weights are rounded, such as ``Uniform(bits=4)``."""

    structure: Method | None = None
    """What is removed physically: heads, neurons or layers, such as ``Heads(keep=0.5)``."""

    factorize: Method | None = None
    """How matrices become products of thinner ones, such as ``LowRank(keep=0.5)``."""

    vocabulary: Method | None = None
    """Which tokens stay, such as ``Frequent(size=5000)``."""

    activations: Method | None = None
    """How the inputs of linear layers are quantized, such as ``Dynamic(bits=8)``."""

    recover: Method | None = None
    """How training continues before quantization, such as ``Retrain(budget="500 steps")``."""

    order: Sequence[str] | None = None
    """Slots in the order in which they are applied: all that are used, each once; null: the natural order. It is kept
    as a tuple of the slots that are used. What follows ``quantize`` may turn codes into floats."""

    compress_head: bool = True
    """Whether the prediction head is compressed too: what stands behind the part of a model that all heads share, and
    its pooler. With false, its weights are not pruned, quantized or factorized, nor its inputs rounded. A matrix that
    is tied to an embedding is an embedding. ``recover`` trains the head, ``vocabulary`` cuts its rows of tokens."""

    entropy_coding: EntropyCoding = "none"
    """Whether codes and masks of the packed file are entropy-coded, where that makes it smaller: ``none`` (a code takes
    a fixed number of bits) or ``zstd`` (the frequent ones take fewer). The weights are the same. It has no effect on a
    recipe that neither prunes nor quantizes."""

    def __post_init__(self) -> None:
        for slot in SLOTS:
            method = getattr(self, slot)
            if method is not None and getattr(method, "slot", None) != slot:
                raise UserError(slot, method, f"None or a method of {slot}: {_names(slot)}")
        if not isinstance(self.compress_head, bool):
            raise UserError("compress_head", self.compress_head, "true or false")
        allowed_coding = get_args(EntropyCoding)
        if self.entropy_coding not in allowed_coding:
            raise UserError("entropy_coding", self.entropy_coding, one_of(allowed_coding))
        order = self._checked_order()
        steps = [getattr(self, slot) for slot in order]
        check_awareness(steps)
        check_rewinding(steps)
        self._check_training(order)
        normalize(self, order=order, compress_head=self.compress_head or not CHANGING_HEADS.intersection(order))
        if not set(FIRST_SLOTS).intersection(order):
            normalize(self, entropy_coding=NO_METHOD)

    @cached_property
    def steps(self) -> tuple[Method, ...]:
        """What is carried out, in order: one step per method, more for one that takes turns with ``recover``."""
        methods = self._in_order()
        return tuple(
            step for method, following in pairwise((*methods, None)) if method for step in method.unfolded(following)
        )

    def methods(self) -> dict[str, Method | None]:
        """Slot -> method, in the order in which they are applied; then the slots that are left out."""
        used = self.order or ()
        return {slot: getattr(self, slot) for slot in (*used, *(slot for slot in SLOTS if slot not in used))}

    def describe(self) -> str:
        """Short human text in the order of application, such as ``prune 60 % global, 4 bit row``, or ``dense``."""
        steps = ", ".join(method.describe() for method in self._in_order()) or "dense"
        coding = "" if self.entropy_coding == NO_METHOD else f", {self.entropy_coding}"
        return (steps if self.compress_head else f"{steps}, head whole") + coding

    def check_fit(self, model: ModelSizes) -> None:
        """Refuse a recipe that cannot be carried out on a model of these sizes, as far as its weights do not decide it.

        Raises:
            UserError: naming the key of the method.
        """
        for step in self.steps:
            model = step.fitted(model)

    @property
    def has_first_form(self) -> bool:
        """Whether it only prunes, quantizes, or prunes and then quantizes: then its order goes without saying."""
        return self.order == tuple(slot for slot in FIRST_SLOTS if slot in (self.order or ()))

    def to_json(self) -> dict[str, Plain]:
        """Plain data that ``from_json`` turns into an equal recipe."""
        data: dict[str, Plain] = {"version": RECIPE_VERSION}
        for slot in SLOTS:
            method: Method | None = getattr(self, slot)
            if method is not None or slot in FIRST_SLOTS:
                data[slot] = None if method is None else method.to_json()
        return {**data, **self._settings()}

    @classmethod
    def from_json(cls, data: Mapping[str, Plain]) -> Recipe:
        """The recipe that ``to_json`` wrote. Raises UserError for unknown names, fields and versions."""
        allowed = ("version", *RECIPE_KEYS)
        unknown = set(data) - set(allowed)
        if unknown:
            raise UserError("recipe", ", ".join(sorted(unknown)), f"made of the keys {', '.join(allowed)}")
        _check_version("recipe.version", data.get("version"), RECIPE_VERSION)
        methods = {slot: _method_from_json(slot, data.get(slot)) for slot in SLOTS}
        settings = {name: data[name] for name in SETTINGS if name in data}
        return cls(**methods, **settings)  # type: ignore[arg-type]

    @classmethod
    def from_config(
        cls,
        prune: Mapping[str, Plain] | None = None,
        quantize: Mapping[str, Plain] | None = None,
        *,
        order: Sequence[str] | None = None,
        compress_head: bool = True,
        entropy_coding: EntropyCoding = "none",
        **groups: Mapping[str, Plain] | None,
    ) -> Recipe:
        """The recipe of the configuration groups named after the slots, and of the keys about the whole recipe.

        A group is ``{"name": "none"}`` or a method's name and fields; sparsity 0 and 32 bits are none, too. Numbers may
        arrive as text (``"0.6"``), whole numbers as floats (``4.0``).
        Raises UserError, with the configuration key, for unknown names and fields and for values out of range.
        """
        given = {"prune": prune, "quantize": quantize, **groups}
        methods = {slot: _method_from_config(slot, given.get(slot)) for slot in SLOTS}
        return cls(**methods, order=order, compress_head=compress_head, entropy_coding=entropy_coding)

    def to_config(self) -> dict[str, Plain]:
        """The configuration of the recipe: ``prune``, ``quantize`` and ``recover`` always, the rest where it is used.

        An absent group is one that is ``none``, whatever the defaults of ``conf/`` are, an absent order is that of
        ``has_first_form``, an absent ``compress_head`` is true, and an absent ``entropy_coding`` is none; so nothing is
        left to defaults, and cells from before there were more keys keep their ids.
        """
        config: dict[str, Plain] = {}
        # First what cells have always had first.
        for slot in ("recover", *(slot for slot in SLOTS if slot != "recover")):
            method: Method | None = getattr(self, slot)
            if method is not None:
                config[slot] = {key: value for key, value in method.to_json().items() if key != "version"}
            elif slot in CONFIG_GROUPS:
                config[slot] = {"name": NO_METHOD}
        return {**config, **self._settings()}

    def _settings(self) -> dict[str, Plain]:
        """What is said of the whole recipe, where it does not go without saying."""
        settings: dict[str, Plain] = {} if self.has_first_form else {"order": list(self.order or ())}
        if not self.compress_head:
            settings["compress_head"] = False
        return settings if self.entropy_coding == NO_METHOD else {**settings, "entropy_coding": self.entropy_coding}

    def _in_order(self) -> tuple[Method, ...]:
        """The methods, each once."""
        return tuple(getattr(self, slot) for slot in self.order or ())

    def _check_training(self, order: Sequence[str]) -> None:
        """Refuse a method that works while the model trains where no training comes right after it.

        Also a teacher of other tokens than the student's.
        """
        for slot, following in pairwise((*order, None)):
            method: Method = getattr(self, slot)  # type: ignore[arg-type]
            if isinstance(method, Distill) and "vocabulary" in order:
                allowed = "another method with vocabulary, without which teacher and student predict the same tokens"
                raise UserError("recover.name", method.name, allowed)
            if method.needs_training and following != "recover":
                allowed = (
                    "used with recover, such as recover=retrain, as the next step: it works while the model trains"
                )
                raise UserError(f"{slot}.name", method.name, allowed)
            if method.needs_training and self.recover:
                method.check_training(self.recover)

    def _checked_order(self) -> tuple[str, ...]:
        used = [slot for slot in SLOTS if getattr(self, slot) is not None]
        if self.order is None:
            return tuple(used)
        allowed = f"a list of slots, each once, with all that are used ({', '.join(used) or 'none'})"
        if isinstance(self.order, str) or not isinstance(self.order, Sequence):
            raise UserError("order", self.order, allowed)
        order = tuple(slot for slot in self.order if slot in used)
        if sorted(order) != sorted(used) or any(slot not in SLOTS for slot in self.order):
            raise UserError("order", list(self.order), f"{allowed} among {', '.join(SLOTS)}")
        if LAST_SLOT in order[:-1]:
            raise UserError("order", list(self.order), f"a list that ends with {LAST_SLOT}, where it is used")
        return order


def _method_from_json(slot: str, data: Plain) -> Method | None:
    if data is None:
        return None
    group = _checked_group(slot, data)
    kind = _method_named(slot, group.get("name"))
    _check_version(f"{slot}.version", group.get("version"), kind.version)
    return _build(kind, {key: value for key, value in group.items() if key not in ("name", "version")})


def _method_from_config(slot: str, data: Mapping[str, Plain] | None) -> Method | None:
    if data is None:
        return None
    group = _checked_group(slot, data)
    given = {key: value for key, value in group.items() if key != "name"}
    if group.get("name") == NO_METHOD:
        for key in given:
            raise UserError(f"{slot}.{key}", given[key], f"must not be set with {slot}.name=none")
        return None
    kind = _method_named(slot, group.get("name"))
    values = _values(kind, given)
    # Also of a method that is disabled no key may have a value that it never can have.
    method = _build(kind, {**values, **kind.enabled_by} if _is_disabled(kind, values) else values)
    return None if _is_disabled(kind, values) else method


def keys_read(slot: str, data: Mapping[str, Plain]) -> tuple[dict[str, Plain], tuple[Unread, ...]]:
    """The keys of the group of a slot that are read, and those that are set and not read.

    A disabled method reads none but those that disable it: what is left of it is ``none``.

    Raises:
        UserError: as ``Recipe.from_config``.
    """
    method = _method_from_config(slot, data)
    if data["name"] == NO_METHOD:
        return dict(data), ()
    kind = METHODS[slot][str(data["name"])]
    values = _values(kind, {key: value for key, value in data.items() if key != "name"})
    if method is not None:
        lost = tuple(unread(kind, values, slot))
        return {key: value for key, value in data.items() if key not in {item.name for item in lost}}, lost
    disabled = ", ".join(f"{slot}.{key}={value:g}" for key, value in kind.disabled_by.items())
    defaults = {item.name: item.default for item in fields(kind) if item.name not in kind.disabled_by}
    needs = f"with {disabled}, which leaves {kind.name} out"
    # The methods that are there without being chosen are left out without being missed.
    is_chosen = slot not in FIRST_SLOTS or kind is not next(iter(METHODS[slot].values()))
    name = (Unread("name", kind.name, NO_METHOD, needs),) if is_chosen else ()
    lost = name + tuple(
        Unread(key, values[key], default, needs)
        for key, default in defaults.items()
        if values.get(key, default) != default
    )
    return {"name": NO_METHOD}, lost


def _values(kind: type[Method], given: Mapping[str, Plain]) -> dict[str, Plain]:
    """The fields that a configuration gives to a method, in their types."""
    types = get_type_hints(kind)
    values = {key: _read(value, types.get(key)) for key, value in given.items()}
    _check_fields(kind, values)
    for key, value in values.items():
        # What has no value the method refuses itself, and says what it needs.
        if value != NOT_SET:
            check_value(f"{kind.slot}.{key}", value)
    return values


def _checked_group(slot: str, data: Plain | Mapping[str, Plain]) -> Mapping[str, Plain]:
    if not isinstance(data, Mapping):
        raise UserError(slot, data, f"a name with its fields, such as {{name: {next(iter(METHODS[slot]))}, ...}}")
    return data


def _method_named(slot: str, name: object) -> type[Method]:
    if not isinstance(name, str) or name not in METHODS[slot]:
        raise UserError(f"{slot}.name", name, f"one of none, {_names(slot)}")
    return METHODS[slot][name]


def _check_fields(kind: type[Method], given: Mapping[str, object]) -> None:
    allowed = [item.name for item in fields(kind)]
    for key in given:
        if key not in allowed:
            raise UserError(
                f"{kind.slot}.{key}", given[key], f"no such key: must be a field of {kind.name}: {', '.join(allowed)}"
            )


def _is_disabled(kind: type[Method], values: Mapping[str, object]) -> bool:
    return bool(kind.disabled_by) and all(
        is_real(values.get(key)) and values[key] == value for key, value in kind.disabled_by.items()
    )


def _build(kind: type[Method], given: Mapping[str, object]) -> Method:
    _check_fields(kind, given)
    # A field without default that is missing becomes None, so that the method itself says what it needs.
    needed = {item.name: None for item in fields(kind) if item.default is MISSING}
    return kind(**{**needed, **given})


def _check_version(key: str, version: object, known: int) -> None:
    if not is_integer(version) or not 1 <= version <= known:
        raise UserError(key, version, f"a version from 1 to {known}")


def _read(value: Plain, kind: object) -> Plain:
    """A YAML value as ``kind`` where that loses nothing; otherwise as it came, for the method to refuse."""
    kind = next((part for part in get_args(kind) if part in _READERS), kind)  # int | None is read as int
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str) or kind not in _READERS:
        return value
    try:
        return _READERS[kind](value.strip().lower())
    except (ValueError, KeyError):
        return value


_READERS: dict[object, Callable[[str], Plain]] = {
    float: float,
    int: int,
    bool: {"true": True, "false": False}.__getitem__,
}


def _names(slot: str) -> str:
    return ", ".join(METHODS[slot])

"""Recipes of compress cells: which are dense, which differ from dense ones by single weights only, and their names."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import orjson
import pandas as pd

from trainlarge.config.identity import field_names
from trainlarge.config.method import METHODS

SHAPE_SLOTS = ("vocabulary", "structure", "factorize")
"""Slots of a recipe that change the shapes of a model."""
DENSE = "dense"
"""Description of the recipe that does nothing."""


def is_dense(compression: pd.DataFrame) -> pd.Series:
    """Whether a row is the checkpoint itself, under the recipe that does nothing."""
    return compression["recipe"].eq(DENSE)


def keeps_shapes(compression: pd.DataFrame) -> pd.Series:
    """Whether a row only prunes and quantizes weights: no other shape, no training, no quantized activation."""
    unused = [compression[name].eq("none") for name in (*SHAPE_SLOTS, "recover", "activations")]
    return pd.concat(unused, axis=1).all(axis=1)


def same_task(compression: pd.DataFrame) -> pd.DataFrame:
    """The rows whose losses can be compared: with cut tokens counted as the unknown one it is another task."""
    return compression[compression["unknown_share"].eq(0)]


def recipe_family(row: Mapping[Hashable, object]) -> str:
    """What a recipe does, apart from how: ``4 bit``, ``prune 60 %``, else the names of the slots it uses."""
    bits, sparsity = float(str(row["bits"])), float(str(row["sparsity"]))
    used = [slot for slot in (*SHAPE_SLOTS, "prune", "recover", "quantize", "activations") if row[slot] != "none"]
    if used == ["quantize"]:
        return f"{bits:g} bit"
    if used in (["prune"], ["prune", "recover"]):
        method = METHODS["prune"].get(str(row["prune"]))
        is_found = method is not None and "sparsity" not in field_names(method)
        pruned = "prune" if is_found else f"prune {100 * sparsity:g} %"
        words = [pruned if method is None or not method.needs_training else f"{pruned} {method.name}"]
        return ", ".join([*words, *(f"{row[slot]}{_ticket(row)}" for slot in used[1:])])
    return " + ".join(used) or "other"


def _ticket(row: Mapping[Hashable, object]) -> str:
    """Such as `` from initial random_mask``; empty where weights train on from where they are."""
    rewind, control = (str(row.get(name, "none")) for name in ("recover_rewind", "recover_control"))
    return "" if rewind == "none" else f" from {rewind}" + ("" if control == "none" else f" {control}")


def told_apart(texts: pd.Series, recipes: Sequence[object]) -> pd.Series:
    """Descriptions of recipes, those of different recipes made different: the keys that differ are added to them.

    A description leaves out most keys, such as ``prune.damping``. Without this, recipes that differ in them alone would
    be averaged as one.

    Args:
        texts: description of each row.
        recipes: the recipe of each row, as its record has it.
    """
    keys = pd.Series([orjson.dumps(recipe, option=orjson.OPT_SORT_KEYS) for recipe in recipes], index=texts.index)
    several = keys.groupby(texts).transform("nunique") > 1
    for _, same_text in keys[several].groupby(texts[several]):
        settings = {key: _flat(orjson.loads(key)) for key in same_text.unique()}
        names = sorted({name for one in settings.values() for name in one})
        differing = [name for name in names if len({repr(one.get(name)) for one in settings.values()}) > 1]
        added = {
            key: ", ".join(f"{name}={one[name]}" for name in differing if name in one) for key, one in settings.items()
        }
        for key, settings_text in added.items():
            if settings_text:
                texts = texts.mask(keys.eq(key), texts + f" ({settings_text})")
    return texts


def _flat(recipe: object, prefix: str = "") -> dict[str, object]:
    """Keys with dots and their values."""
    if not isinstance(recipe, dict):
        return {prefix: recipe}
    return {
        name: value
        for key, part in recipe.items()
        for name, value in _flat(part, f"{prefix}.{key}" if prefix else str(key)).items()
    }

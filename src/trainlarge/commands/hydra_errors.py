"""Errors of Hydra and OmegaConf as one line with the key, the value and what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import get_type_hints

from trainlarge.commands.overrides import key_in
from trainlarge.commands.rerun import compose_config
from trainlarge.config.choices import ChosenGroup, key_of_another
from trainlarge.config.identity import field_names
from trainlarge.config.recipe import SLOTS
from trainlarge.config.register import hydra_schema
from trainlarge.config.schema import CHOSEN_GROUPS, CONFIGS
from trainlarge.errors import UserError
from trainlarge.sweep.compose import not_null


def explained(error: Exception, stage: str, arguments: list[str]) -> UserError:
    """The error of a user that stands behind an error of Hydra or OmegaConf.

    Args:
        stage: ``train`` or ``compress``.
        arguments: what was given on the command line.
    """
    text = "\n".join(str(part) for part in (error, error.__cause__) if part)
    for pattern, explain in _EXPLANATIONS:
        if match := pattern.search(text):
            return explain(match, text, stage, arguments)
    key = _full_key(text) or _culprit(stage, arguments)
    reason = _first_sentence(text) or type(error).__name__
    return UserError(key, _value_of(key, arguments), f"what a configuration can be made of ({reason})")


def _unknown_choice(match: re.Match[str], text: str, _stage: str, _arguments: list[str]) -> UserError:
    group, _, choice = match[1].rpartition("/")
    options = re.findall(
        r"^\t(\S+)$", text.partition("Available options")[2].partition("Config search path")[0], re.MULTILINE
    )
    if group.startswith("sweeps"):
        return UserError(
            "+sweeps",
            match[1].removeprefix("sweeps/"),
            "a file such as STUDY/train.yaml in the folder sweeps/ here or of trainlarge",
        )
    return UserError(
        group or "config", choice, f"one of {', '.join(options)}" if options else "a group or key of conf/"
    )


def _unknown_key(match: re.Match[str], text: str, stage: str, arguments: list[str]) -> UserError:
    key = _full_key(text) or match[1]
    group, _, name = key.rpartition(".")
    chosen = _chosen(group, text)
    if chosen and (error := key_of_another(chosen, name, _value_of(key, arguments))):
        return error
    if group in SLOTS:
        return UserError(
            key, _value_of(key, arguments), f"no such key: must be one of {_keys_of_slot(stage, group, arguments)}"
        )
    given = [argument for argument in arguments if key_in(argument).startswith(f"{key}.")]
    if given and "." not in key:
        # Hydra names the first part of a key whose group is not there.
        key = key_in(given[-1])
    if not _has_key(stage, key) and (other := next((name for name in CONFIGS if _has_key(name, key)), None)):
        return UserError(
            key,
            _value_of(key, arguments),
            f"no such key: must be a key of the {stage} stage; it is one of the {other} stage",
        )
    names = list(field_names(chosen)) if chosen else _fields_beside(hydra_schema(stage), key.split("."))
    close = difflib.get_close_matches(key.rpartition(".")[2], names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return UserError(
        key,
        _value_of(key, arguments),
        f"no such key: must be one of the keys {', '.join(names)}{hint}" if names else "a key of the chosen method",
    )


def _keys_of_slot(stage: str, slot: str, arguments: list[str]) -> str:
    """The keys of the method that a command line chooses for a slot, or of the one that is there without a choice."""
    chosen = [f"{slot}={argument.partition('=')[2]}" for argument in arguments if key_in(argument) == slot]
    try:
        group = compose_config(stage, chosen[-1:])[slot]
    except Exception:
        # A sweep over several methods.
        return f"the keys that all of {chosen[-1]} have"
    return f"the keys {', '.join(group)} of {group['name']}" if isinstance(group, dict) else "the keys of a method"


def _has_key(stage: str, key: str) -> bool:
    group = key.partition(".")[0]
    return group in field_names(hydra_schema(stage))


def _wrong_type(match: re.Match[str], text: str, _stage: str, _arguments: list[str]) -> UserError:
    key = _full_key(text) or (re.search(r"override (?:\S* )?([\w.]+)=", text) or match)[1]
    return UserError(key, match[1], _TYPES.get(match[2], match[2]))


def _chosen_twice(match: re.Match[str], _text: str, _stage: str, arguments: list[str]) -> UserError:
    group = match[1].lstrip("/")
    allowed = f"must be chosen once: 'override /{group}: NAME' in the defaults of a file replaces what is chosen"
    return UserError(group, _value_of(group, arguments), allowed)


def _no_truth_value(match: re.Match[str], text: str, _stage: str, _arguments: list[str]) -> UserError:
    return UserError(_full_key(text), match[1], _TYPES["Boolean"])


def _no_null(match: re.Match[str], text: str, _stage: str, _arguments: list[str]) -> UserError:
    key = _full_key(text) or match[1]
    return UserError(key, "null", not_null(key))


def _no_list(_match: re.Match[str], text: str, stage: str, arguments: list[str]) -> UserError:
    if not (key := _full_key(text)):
        file = _culprit(stage, arguments)
        return UserError(
            file, _value_of(file, arguments), "made with lists where keys take lists, as sweep.blocks does"
        )
    return UserError(key, _value_of(key, arguments), f"a list: {key}=[...]")


def _no_such_reference(match: re.Match[str], text: str, _stage: str, arguments: list[str]) -> UserError:
    key = _full_key(text)
    return UserError(key, _value_of(key, arguments), f"a reference to a key that exists; {match[1]} does not")


def _full_key(text: str) -> str:
    """The key that OmegaConf names; empty where it names none."""
    match = re.search(r"full_key: (\S+)", text)
    return match[1] if match else ""


def _ambiguous(match: re.Match[str], _text: str, _stage: str, arguments: list[str]) -> UserError:
    key = match[1].lstrip("+~")
    return UserError(
        key,
        _value_of(key, arguments),
        f"one value, or a list {key}=[...] where the key takes one; to sweep over values add -m",
    )


def _chosen(group: str, text: str) -> type[ChosenGroup] | None:
    """The dataclass of the choice of a group that OmegaConf names; None for other groups."""
    kinds = CHOSEN_GROUPS[group].by_name().values() if group in CHOSEN_GROUPS else ()
    named = re.search(r"object_type=(\w+)", text)
    return next((kind for kind in kinds if named and kind.__name__ == named[1]), None)


def _fields_beside(schema: type, path: list[str]) -> list[str]:
    child = get_type_hints(schema).get(path[0])
    if len(path) > 1 and child is not None:
        return _fields_beside(child, path[1:]) if isinstance(child, type) and is_dataclass(child) else []
    return [field.name for field in fields(schema)]


def _value_of(key: str, arguments: list[str]) -> str:
    values = [argument.partition("=")[2] for argument in arguments if f"{key_in(argument)}.".startswith(f"{key}.")]
    return values[-1] if values else "(set in a file)"


def _culprit(stage: str, arguments: list[str]) -> str:
    """The key of the first override with which alone nothing can be composed; where there is none, all of them."""
    for argument in arguments:
        if "=" in argument and not argument.startswith(("-", "hydra")):
            try:
                compose_config(stage, [argument])
            except Exception:
                return key_in(argument)
    return next((key_in(argument) for argument in arguments if key_in(argument) == "sweeps"), "configuration")


def _first_sentence(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "").partition(" See https")[0]


_TYPES = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "text"}

_Explain = Callable[["re.Match[str]", str, str, list[str]], UserError]
_EXPLANATIONS: list[tuple[re.Pattern[str], _Explain]] = [
    (re.compile(r"Multiple values for (\S+)\. To override"), _chosen_twice),
    (re.compile(r"(\S+) appears more than once in the final defaults list"), _chosen_twice),
    (re.compile(r"Value '(.*)' of type '.*' could not be converted to (\w+)"), _wrong_type),
    (re.compile(r"(?:Could not find|Could not load|In '.*': Could not find) '([^']+)'"), _unknown_choice),
    (re.compile(r"Could not (?:override|append to config\. An item is already at) '([^']+)'"), _unknown_key),
    (re.compile(r"Key '([^']+)' (?:is not in struct|not in '\w+')"), _unknown_key),
    (re.compile(r"Value '(.*)' is not a valid bool"), _no_truth_value),
    (re.compile(r"field '([^']+)' is not Optional"), _no_null),
    (re.compile(r"is not a ListConfig|Cannot merge DictConfig with ListConfig"), _no_list),
    (re.compile(r"Interpolation key '([^']+)' not found"), _no_such_reference),
    (re.compile(r"Ambiguous value for argument '([^'=]+)="), _ambiguous),
]

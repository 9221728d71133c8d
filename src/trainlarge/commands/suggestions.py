"""What may stand at the end of a command line that is being typed: verbs, flags, studies, cells, keys and values."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal, get_args, get_origin

from trainlarge.commands.keys_of_stage import choices_of_groups, keys_of
from trainlarge.commands.launch_flags import flags
from trainlarge.commands.studies import all_studies
from trainlarge.commands.sweep_files import sweep_files
from trainlarge.commands.verbs import VERBS
from trainlarge.config.share import share_folder
from trainlarge.errors import UserError
from trainlarge.sweep.cell import ID_PATTERN
from trainlarge.sweep.stages import STAGES
from trainlarge.sweep.store import studies_root

SHELLS = ("bash", "zsh", "fish")
_DEFAULT_STUDY = "default"


def suggestions(line: str) -> list[str]:
    """Words that the last word of a command line can become, in the order in which they are best read.

    Args:
        line: the command line up to the cursor, ``trainlarge`` included. Behind a space the last word is empty.
    """
    words = _words(line)
    return [word for word in dict.fromkeys(_candidates(words[1:-1], words[-1])) if word.startswith(words[-1])]


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError:
        # A quote is open.
        words = line.replace("'", "").replace('"', "").split()
    return words if line and not line[-1].isspace() and len(words) > 1 else [*words, ""]


def _candidates(before: Sequence[str], word: str) -> Iterable[str]:
    given = [argument for argument in before if argument != "--debug"]
    if not given:
        return [*VERBS, "--help", "--version", "--debug"]
    verb, *arguments = given
    if verb not in VERBS:
        return []
    if word.startswith("-"):
        return _flags(verb)
    if arguments and arguments[-1] == "--study":
        return _studies()
    if verb in STAGES or "=" in word or word.startswith("+"):
        return _overrides(verb, arguments, word)
    before_each = ["", *arguments]
    places = [
        argument
        for argument, previous in zip(arguments, before_each, strict=False)
        if not argument.startswith("-") and "=" not in argument and previous != "--study"
    ]
    return _PLACES[verb](arguments) if verb in _PLACES and not places else _overrides(verb, arguments, word)


def _flags(verb: str) -> list[str]:
    module = import_module(f"trainlarge.commands.{VERBS[verb].module}")
    parsers = [module.parser(verb) if verb in STAGES else module.parser(), *([flags()] if verb == "plan" else [])]
    actions = [action for parser in parsers for action in parser._actions if action.help != argparse.SUPPRESS]
    return [option for action in actions for option in action.option_strings]


def _studies() -> list[str]:
    return [study.name for study in all_studies()]


def _sweep_files() -> list[str]:
    """Sweep files as ``+sweeps`` takes them: ``quickstart/train``."""
    roots = dict.fromkeys((Path.cwd(), share_folder()))
    files = [path for root in roots for path in sorted((root / "sweeps").glob("*/*.yaml"))]
    return list(dict.fromkeys(f"{path.parent.name}/{path.stem}" for path in files))


def _cells(arguments: Sequence[str]) -> list[str]:
    """Ids of the cells of the study that ``--study`` names, or of all."""
    named = next((arguments[place + 1] for place, word in enumerate(arguments[:-1]) if word == "--study"), None)
    return [
        cell for study in ([named] if named else _studies()) for stage in STAGES for cell in _cells_of(study, stage)
    ]


def _cells_of(study: str, stage: str) -> list[str]:
    folder = studies_root() / study / stage
    names = (entry.name for entry in os.scandir(folder)) if folder.is_dir() else ()
    return sorted(filter(ID_PATTERN.fullmatch, names))


def _overrides(verb: str, arguments: Sequence[str], word: str) -> list[str]:
    """Of a word with ``=``, what its value can become; otherwise keys of the group that it names, or all groups."""
    if verb not in ("run", "plan", *STAGES):
        return []
    stages = [verb] if verb in STAGES else [argument for argument in arguments if argument in STAGES] or list(STAGES)
    named = {} if verb in STAGES else _named_files(arguments)
    start, dot, rest = word.partition(".")
    if dot and start in named:
        return [f"{start}.{each}" for each in _overrides(named[start], [], rest)]
    return [*_of_stages(stages, arguments, word), *(f"{name}." for name in named)]


def _of_stages(stages: Sequence[str], arguments: Sequence[str], word: str) -> list[str]:
    """Keys or values of some stages."""
    key, equals, value = word.partition("=")
    if equals:
        start = f"{key}={value[: value.rfind(',') + 1]}"
        return [f"{start}{each}" for stage in stages for each in _values(stage, arguments, key.lstrip("+~"))]
    sign = word[: len(word) - len(word.lstrip("+~"))]
    return [f"{sign}{each}" for stage in stages for each in _keys(stage, arguments, key.lstrip("+~"))]


def _named_files(arguments: Sequence[str]) -> dict[str, str]:
    """Name of a sweep file of the study on the command line, such as ``sst2`` of ``2_train_sst2.yaml`` -> its stage."""
    places = [argument for argument in arguments if not argument.startswith("-") and "=" not in argument]
    try:
        return {file.name: file.stage for place in places[:1] for file in sweep_files(place) if file.name}
    except UserError:
        return {}


def _keys(stage: str, arguments: Sequence[str], start: str) -> list[str]:
    keys = [f"{key}=" for key in keys_of(stage, _given(arguments))]
    if "." in start:
        return keys
    groups = {key.partition(".")[0]: f"{key.partition('.')[0]}." for key in keys if "." in key}
    own = [key for key in keys if "." not in key]
    return [*own, *(f"{group}=" for group in choices_of_groups(stage)), *groups.values(), "sweeps="]


def _values(stage: str, arguments: Sequence[str], key: str) -> Iterable[str]:
    if key in _VALUES:
        return _VALUES[key](arguments)
    choices = choices_of_groups(stage)
    if key in choices:
        return choices[key]
    hint = keys_of(stage, _given(arguments)).get(key)
    parts = get_args(hint) if get_origin(hint) is not Literal else (hint,)
    literals = [str(value) for part in parts or (hint,) if get_origin(part) is Literal for value in get_args(part)]
    return literals or (["true", "false"] if hint is bool else [])


def _given(arguments: Sequence[str]) -> dict[str, str]:
    pairs = (argument.lstrip("+~").partition("=") for argument in arguments)
    return {key: value for key, equals, value in pairs if equals}


def _checkpoints(arguments: Sequence[str]) -> list[str]:
    return ["every", *_cells_of(_given(arguments).get("study", _DEFAULT_STUDY), "train")]


def _swept_studies(_arguments: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.partition("/")[0] for name in _sweep_files()))


_VALUES: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "study": lambda _: _studies(),
    "sweeps": lambda _: _sweep_files(),
    "checkpoint": _checkpoints,
}
"""Key -> its values, where its type does not tell them."""
_PLACES: dict[str, Callable[[Sequence[str]], list[str]]] = {
    **dict.fromkeys(("ls", "status", "report", "sync", "clean"), lambda _: _studies()),
    **dict.fromkeys(("show", "redo", "export"), _cells),
    "run": _swept_studies,
    "plan": lambda arguments: [*STAGES, *_swept_studies(arguments)],
    "completion": lambda _: list(SHELLS),
}
"""Verb -> its first argument."""

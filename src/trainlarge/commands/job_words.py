"""A few words for each job of a plan, by which a person tells it from the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from trainlarge.config.budget import parse_budget
from trainlarge.config.group import Plain
from trainlarge.config.plain import to_plain
from trainlarge.config.schema import TrainConfig
from trainlarge.errors import shown
from trainlarge.sweep.cell import Cell

_SAID = frozenset({"budget", "study"})
_BY_RULE = frozenset(
    {"optim.peak_lr", "arch.init_std", "arch.heads", "arch.positions", "data.fingerprint", "data.split"}
)
"""Keys that follow from others, which say more."""


Words = tuple[str, ...]
"""A job in a few words: family, shape, seed, budgets, and what else tells it from others; or the path of a folder."""


def in_a_line(words: Words) -> str:
    """``modern 64x2, seed 0, 7.5 s to 60 s``."""
    return ", ".join([" ".join(words[:2]), *words[2:]])


def in_order(words: Words) -> list[str | float]:
    """A key that sorts jobs by their words, the numbers in these by their value: seed 2 before seed 10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", " ".join(words))
    return [float(part) if place % 2 else part for place, part in enumerate(parts)]


def train_words(cells: Sequence[Cell]) -> Words:
    """The words of a train job with these cells."""
    budgets = sorted((parse_budget(cell.as_train.budget) for cell in cells), key=lambda budget: budget.value)
    ends = dict.fromkeys(budget.in_words for budget in (budgets[0], budgets[-1]))
    return (*_shape_words(cells[0].as_train), " to ".join(ends))


def checkpoint_words(trained: TrainConfig) -> Words:
    """The words of the train cell that made a checkpoint."""
    return (*_shape_words(trained), parse_budget(trained.budget).in_words)


def start_words(
    configs: Sequence[TrainConfig | None], parent_of: Callable[[str], TrainConfig | None]
) -> dict[str, str]:
    """Id of each train cell that configurations start from -> what tells it from the others of its shape: ``60 s``.

    Args:
        configs: of the jobs.
        parent_of: the configuration of a train cell; None for a Hugging Face folder.
    """
    ids = dict.fromkeys(config.checkpoint for config in configs if config and config.checkpoint)
    parents = {cell_id: parent for cell_id in ids if (parent := parent_of(cell_id))}
    if not parents:
        return {}
    starts = list(parents.values())
    told = told_apart(list(map(checkpoint_words, starts)), starts, start_words(starts, parent_of))
    has_one_seed = len({parent.seed for parent in starts}) == 1
    return {cell_id: ", ".join(words[3 if has_one_seed else 2 :]) for cell_id, words in zip(parents, told, strict=True)}


def told_apart(
    words: Sequence[Words], configs: Sequence[TrainConfig | None], starts: Mapping[str, str] = MappingProxyType({})
) -> list[Words]:
    """The words of all jobs; where several have the same, with the keys and values in which these jobs differ.

    Args:
        words: of each job.
        configs: what each trains, or what trained its checkpoint; None for a Hugging Face folder.
        starts: what to call the checkpoints that they start from, as ``start_words`` says.
    """
    same: dict[Words, list[int]] = {}
    for place, own in enumerate(words):
        same.setdefault(own, []).append(place)
    told = list(words)
    for own, places in same.items():
        known = [(place, _values(config, starts)) for place in places if (config := configs[place])]
        for place, more in _differences(known if len(known) > 1 else []):
            told[place] = (*own, *more)
    return told


def without_common(words: Sequence[Words]) -> tuple[Words, list[Words]]:
    """What the words of all jobs have in common but for the shape, and each without that."""
    if len(words) < 2:
        return (), list(words)
    shapes = {own[1] for own in words if len(own) > 1}
    common = tuple(text for text in words[0] if text not in shapes and all(text in own for own in words))
    return common, [tuple(text for text in own if text not in common) for own in words]


def _shape_words(config: TrainConfig) -> Words:
    arch = config.arch
    return arch.name, f"{arch.width}x{arch.depth}", f"seed {config.seed}"


def _values(config: TrainConfig, starts: Mapping[str, str]) -> dict[str, Plain]:
    """Key -> value, with a checkpoint as it is called."""
    values = dict(_leaves(to_plain(config)))
    return {**values, "checkpoint": starts.get(str(config.checkpoint), config.checkpoint)}


def _differences(jobs: Sequence[tuple[int, Mapping[str, Plain]]]) -> Iterator[tuple[int, list[str]]]:
    """Each job with the keys that not all of them have the same value of, and their values."""
    keys = dict.fromkeys(key for _, values in jobs for key in values)
    differing = [key for key in keys if any(values.get(key) != jobs[0][1].get(key) for _, values in jobs)]
    telling = _enough([key for key in differing if key not in _BY_RULE] or differing, [values for _, values in jobs])
    for place, values in jobs:
        yield place, [_key_words(key, values.get(key)) for key in telling]


def _key_words(key: str, value: Plain) -> str:
    """``optim.batch=1024``, or ``from 60 s`` for a checkpoint."""
    return f"from {value}" if key == "checkpoint" and value else f"{key}={shown(value)}"


def _enough(keys: Sequence[str], jobs: Sequence[Mapping[str, Plain]]) -> list[str]:
    """Of the keys in which jobs differ, some that tell apart as many of them as all do: those of short values first.

    Jobs of two tasks differ in all that their data and their labels are made of.
    """
    chosen: list[str] = []
    for key in sorted(keys, key=lambda key: max(len(shown(values.get(key))) for values in jobs)):
        if _groups([*chosen, key], jobs) > _groups(chosen, jobs):
            chosen.append(key)
    return [key for key in keys if key in chosen]


def _groups(keys: Sequence[str], jobs: Sequence[Mapping[str, Plain]]) -> int:
    """How many kinds of jobs the values of some keys tell apart."""
    return len({tuple(shown(values.get(key)) for key in keys) for values in jobs})


def _leaves(config: Mapping[str, Plain], prefix: str = "") -> Iterator[tuple[str, Plain]]:
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{key}.")
        elif key not in _SAID:
            yield key, value

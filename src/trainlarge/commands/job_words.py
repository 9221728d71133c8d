"""A few words for each job of a plan, by which a person tells it from the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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


def train_words(cells: Sequence[Cell]) -> str:
    """``modern 64x2, seed 0, 7.5 s to 60 s``, of the cells of a train job."""
    budgets = sorted((parse_budget(cell.as_train.budget) for cell in cells), key=lambda budget: budget.value)
    ends = dict.fromkeys(budget.in_words for budget in (budgets[0], budgets[-1]))
    return f"{_shape_words(cells[0].as_train)}, {' to '.join(ends)}"


def checkpoint_words(trained: TrainConfig) -> str:
    """``modern 64x2, seed 0, 60 s``, of the train cell that made a checkpoint."""
    return f"{_shape_words(trained)}, {parse_budget(trained.budget).in_words}"


def told_apart(words: Sequence[str], configs: Sequence[TrainConfig | None]) -> list[str]:
    """The words of all jobs; where several have the same, with the keys and values in which these jobs differ.

    Args:
        words: of each job.
        configs: what each trains, or what trained its checkpoint; None for a Hugging Face folder.
    """
    same: dict[str, list[int]] = {}
    for place, text in enumerate(words):
        same.setdefault(text, []).append(place)
    told = list(words)
    for text, places in same.items():
        known = [(place, dict(_leaves(to_plain(config)))) for place in places if (config := configs[place])]
        for place, more in _differences(known if len(known) > 1 else []):
            told[place] = ", ".join([text, *more])
    return told


def _shape_words(config: TrainConfig) -> str:
    arch = config.arch
    return f"{arch.name} {arch.width}x{arch.depth}, seed {config.seed}"


def _differences(jobs: Sequence[tuple[int, Mapping[str, Plain]]]) -> Iterator[tuple[int, list[str]]]:
    """Each job with the keys that not all of them have the same value of: ``optim.batch=1024``."""
    keys = dict.fromkeys(key for _, values in jobs for key in values)
    differing = [key for key in keys if any(values.get(key) != jobs[0][1].get(key) for _, values in jobs)]
    telling = _enough([key for key in differing if key not in _BY_RULE] or differing, [values for _, values in jobs])
    for place, values in jobs:
        yield place, [f"{key}={shown(values.get(key))}" for key in telling]


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

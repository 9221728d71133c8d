"""A key has one default: what ``conf/`` composes for a choice is what the dataclass of the choice has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields

import pytest
from hydra import compose, initialize_config_dir

from trainlarge.config.choices import ChosenGroup
from trainlarge.config.data import DataConfig
from trainlarge.config.group import Group, Plain, as_plain, groups_of
from trainlarge.config.method import METHODS, Method
from trainlarge.config.plain import from_plain, value_before
from trainlarge.config.register import register_schema
from trainlarge.config.schema import CONFIGS, CompressConfig, TrainConfig
from trainlarge.config.share import share_folder
from trainlarge.config.sweep import SweepConfig
from trainlarge.config.task import MaskedLMConfig
from trainlarge.sweep.compose import Composed, plain
from trainlarge.sweep.expand import read_config

PRESETS: dict[tuple[str, str], tuple[dict[str, Plain], str]] = {
    ("arch", "bert"): ({"ffn_ratio": 4.0, "positions": 512, "dropout": 0.1}, "as in Devlin et al. 2019"),
    ("arch", "roberta"): ({"ffn_ratio": 4.0, "positions": 514, "dropout": 0.1}, "as in Li et al. 2020"),
    ("schedule", "fixed"): ({"decay_shape": "linear"}, "as in Li et al. 2020"),
    ("schedule", "matched"): ({"decay_shape": "linear"}, "to be compared with fixed"),
    ("impl", "plain"): ({"precision": "fp32", "attention": "eager", "forward": "library"}, "the reference"),
    ("prune", "two_of_four"): ({"sparsity": 0.5, "scope": "block", "m": 4}, "a name for a pattern of magnitude"),
}
"""Choices that are made of other values than the defaults on purpose, and why."""
CONF = share_folder() / "conf"
CHOICES = [(path.parent.name, path.stem) for path in sorted(CONF.glob("*/*.yaml")) if path.parent.name != "hydra"]
GROUPS = groups_of(TrainConfig) | groups_of(CompressConfig)


def composed(stage: str, *overrides: str) -> Composed:
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(compose(stage, list(overrides)))


def preset(group: str, choice: str) -> dict[str, Plain]:
    return PRESETS.get((group, choice), ({}, ""))[0]


@pytest.mark.parametrize(("group", "choice"), [pair for pair in CHOICES if pair[0] in GROUPS])
def test_a_group_composes_the_defaults_of_its_dataclass(group: str, choice: str) -> None:
    kind: type[Group] = GROUPS[group]
    if issubclass(kind, ChosenGroup):
        kind = kind.kind({"name": choice})
    name: dict[str, Plain] = {"name": choice} if "name" in {item.name for item in fields(kind)} else {}
    # Overrides of keys that are not there from the start are refused: `schedule=fixed` needs its horizon.
    more = {"horizon": "1 steps"} if choice == "fixed" else {}
    defaults = kind(**{**name, **preset(group, choice), **more}).plain
    overrides = [f"{group}.{key}='{value}'" for key, value in more.items()]
    assert composed("train", f"{group}={choice}", *overrides)[group] == defaults
    if isinstance(kind, ChosenGroup):
        assert kind.name == choice


@pytest.mark.parametrize(("slot", "choice"), [pair for pair in CHOICES if pair[0] in METHODS])
def test_a_method_composes_the_defaults_of_its_dataclass(slot: str, choice: str) -> None:
    values = composed("compress", "checkpoint=0", f"{slot}={choice}")[slot]
    name = values.pop("name")
    if name == "none":
        assert not values
        return
    assert values == {**dict(defaults_of(METHODS[slot][name])), **preset(slot, choice)}
    assert name == choice or (slot, choice) in PRESETS


def defaults_of(kind: type[Method]) -> Iterator[tuple[str, Plain]]:
    """A field without default is one by whose value the method is left out; where there is none, it must be given."""
    for item in fields(kind):
        given = item.default if item.default is not MISSING else kind.disabled_by.get(item.name, "???")
        yield item.name, as_plain(given)


def test_every_choice_has_its_file_and_every_file_its_choice() -> None:
    chosen = {(key, name) for key, kind in GROUPS.items() if issubclass(kind, ChosenGroup) for name in kind.by_name()}
    methods = {(slot, name) for slot in METHODS for name in (*METHODS[slot], "none")}
    assert chosen | methods <= set(CHOICES)
    known = GROUPS.keys() | METHODS.keys()
    assert {group for group, _ in CHOICES} <= known and PRESETS.keys() <= set(CHOICES)


def test_a_stage_composes_the_defaults_of_its_dataclass() -> None:
    assert read_config("train", composed("train")) == TrainConfig() == from_plain(TrainConfig, {})
    # A folder of a model is evaluated on the text of these groups; a train cell brings its own.
    text = {"data": DataConfig(), "task": MaskedLMConfig()}
    assert read_config("compress", composed("compress", "checkpoint=0")) == CompressConfig(checkpoint="0", **text)
    for stage in CONFIGS:
        defaults = {item.name: as_plain(item.default) for item in fields(SweepConfig)}
        assert composed(stage, "checkpoint=0")["sweep"] == defaults


@pytest.mark.parametrize(
    ("key", "before"),
    [
        ("data.split", "documents"),
        ("data.fraction", 1.0),
        ("clock", "modelled"),
        ("structure.name", "none"),
        ("prune.scope", None),
        ("arch.width", None),
        ("seed", None),
    ],
)
def test_what_a_file_means_that_is_older_than_a_key(key: str, before: Plain) -> None:
    assert value_before(TrainConfig, key) == before

"""Writes docs/configuration.md from the dataclasses of ``trainlarge.config``: ``python docs/make_configuration.py``.

Meaning and type of a key are read from the dataclass, its default from ``conf/``, composed as a command does.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from trainlarge.config.choices import ChosenGroup
from trainlarge.config.method import METHODS, Method
from trainlarge.config.named import Named
from trainlarge.config.recipe import SLOTS, Recipe
from trainlarge.config.register import register_schema
from trainlarge.config.schema import CHOSEN_GROUPS, CompressConfig, TrainConfig
from trainlarge.config.share import share_folder
from trainlarge.config.source import EvaluationTextConfig, SourceConfig
from trainlarge.config.sweep import SweepConfig

NAMED = {"data.sources": SourceConfig, "data.evaluations": EvaluationTextConfig}
"""Key that holds groups with names of a user -> the group."""
PAGE = Path(__file__).with_name("configuration.md")
HEAD = """# Configuration

Every key of `trainlarge train` and `trainlarge compress`. This page is made from the dataclasses in
`src/trainlarge/config/` and the defaults in `conf/` by `python docs/make_configuration.py`; edit those, not this page.

Set a key with `KEY=VALUE` on the command line or in a file of `sweeps/`; a group is chosen with its name
(`arch=roberta`). `trainlarge train --cfg job` shows the composed configuration. A key that no cell of a command reads,
such as `schedule.horizon` without `schedule=fixed`, is refused; in a grid it is left out where it is not read.
"""
TABLE = "| key | type | default | meaning |\n| --- | --- | --- | --- |"


def page() -> str:
    """The text of docs/configuration.md."""
    register_schema()
    with initialize_config_dir(version_base="1.3", config_dir=str(share_folder() / "conf")):
        train = OmegaConf.to_container(compose("train"))
        compress = OmegaConf.to_container(compose("compress"))
    assert isinstance(train, dict) and isinstance(compress, dict)
    parts = [HEAD, "## Keys of both stages, and of `train`\n", _table(TrainConfig, "", train)]
    parts += [_section(name, kind, train[name]) for name, kind in _groups(TrainConfig)]
    parts += [_of_named(name, kind) for name, kind in NAMED.items()]
    parts += [section for group in CHOSEN_GROUPS.items() for section in _choices(*group)]
    parts += [_section("sweep", SweepConfig, train["sweep"])]
    only = {name for name, _ in _groups(TrainConfig)} | {field.name for field in fields(TrainConfig)} | {"recipe"}
    parts += ["## Keys of `compress` alone\n", _table(CompressConfig, "", compress, leave_out=only - {"checkpoint"})]
    parts += ["## Keys of a whole recipe\n", _table(Recipe, "", {}, leave_out=set(SLOTS))]
    parts += [_slot(slot, methods) for slot, methods in METHODS.items()]
    return "\n".join(parts)


def _of_named(key: str, kind: type) -> str:
    """A section on a group to which a user gives a name."""
    return f"## `{key}.NAME`: {_first_line(kind)}\n\n{_table(kind, f'{key}.NAME.', {})}"


def _choices(group: str, base: type[ChosenGroup]) -> Iterator[str]:
    """A section for each choice of a group that has keys of its own."""
    common = {field.name for field in fields(base)}
    for name, kind in base.by_name().items():
        if {field.name for field in fields(kind)} - common:
            table = _table(kind, f"{group}.", {}, leave_out=common)
            yield f"## `{group}={name}`: {_first_line(kind)}\n\n{table}"


def _section(name: str, kind: type, defaults: Mapping[str, Any], prefix: str = "") -> str:
    return f"## `{name}`: {_first_line(kind)}\n\n{_table(kind, prefix or f'{name}.', defaults)}"


def _slot(slot: str, methods: Mapping[str, type[Method]]) -> str:
    names = ", ".join(f"`{name}`" for name in methods)
    parts = [f"## `{slot}`\n\n`{slot}=none` leaves it out; the methods are {names}.\n"]
    for name, kind in methods.items():
        text = _paragraph(inspect.getdoc(kind) or "")
        parts.append(f"### `{slot}={name}`\n\n{text}\n\n{_table(kind, f'{slot}.', kind.disabled_by)}")
    return "\n".join(parts)


def _table(kind: type, prefix: str, defaults: Mapping[str, Any], leave_out: set[str] | None = None) -> str:
    groups, texts, types = {name for name, _ in _groups(kind)}, _texts(kind), get_type_hints(kind)
    keys = [field for field in fields(kind) if field.name not in groups and field.name not in (leave_out or ())]
    rows = [
        f"| `{prefix}{key.name}` | {_type(types[key.name])} | {_default(key, defaults)} | {texts.get(key.name, '')} |"
        for key in keys
    ]
    return f"{TABLE}\n" + "\n".join(rows) + "\n"


def _groups(kind: type) -> Iterator[tuple[str, type]]:
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint) and isinstance(hint, type):
            yield name, hint


def _default(field: Any, defaults: Mapping[str, Any]) -> str:
    value = defaults.get(field.name, field.default)
    if value is MISSING or value == "???":
        return "must be given"
    if value is None or isinstance(value, bool):
        return f"`{json.dumps(value)}`"
    return f"`{value}`"


def _type(hint: Any) -> str:
    """A type in the words of a YAML file."""
    parts = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(dict.fromkeys("null" if part is type(None) else _type(part) for part in parts))
    if get_origin(hint) is Named:
        return "mapping from names to groups"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if get_origin(hint) in (tuple, Sequence):
        return f"list of {_type(parts[0])}" if parts[0] in (str, int, float) else "list"
    return getattr(hint, "__name__", str(hint))


@cache
def _texts(kind: type) -> dict[str, str]:
    """Field -> the text under it, for the class and those it inherits from."""
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        if is_dataclass(part):
            found |= _texts_of(part)
    return found


def _texts_of(kind: type) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: _paragraph(inspect.cleandoc(text.value.value))
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }  # fmt: skip


def _first_line(kind: type) -> str:
    return (inspect.getdoc(kind) or "").splitlines()[0].rstrip(".")


def _paragraph(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

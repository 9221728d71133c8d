"""The command that makes one cell again, from its frozen configuration."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping

from hydra import compose, initialize_config_dir

from trainlarge.config.group import Plain
from trainlarge.config.identity import names_not_identity
from trainlarge.config.plain import digest_keys, to_plain
from trainlarge.config.register import register_schema
from trainlarge.config.schema import CompressConfig, TrainConfig
from trainlarge.config.share import share_folder
from trainlarge.errors import UserError
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.compose import Composed, plain
from trainlarge.sweep.expand import read_config
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.unread import refuse_unread

_PLAIN_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_TEXT = frozenset({"true", "false", "null", "inf", "nan", "yes", "no", "on", "off"})
_NO_RESULT = names_not_identity(TrainConfig) | {"sweep"}
"""Keys that cannot change a result."""
_RULED = frozenset({"arch", "optim", "schedule"})
"""Groups of which some values follow from others by a rule, so that both cannot be set."""
_FOUND_AGAIN = digest_keys(TrainConfig) | digest_keys(CompressConfig)
"""Keys that are read off the data, whatever they are set to."""


def rerun_command(cell: Cell, redo: bool = False) -> str:
    """``trainlarge <stage> study=... KEY=VALUE ...``: every key of the cell that differs from today's defaults.

    Keys that a rule fills in are left out where the rule gives the same value today.

    Args:
        redo: run the cell again although it is done.
    """
    arguments = [f"study={hydra_text(cell.config.study)}", *overrides(cell), *(["redo=true"] if redo else [])]
    return shlex.join(["trainlarge", cell.stage, *arguments])


def overrides(cell: Cell) -> list[str]:
    """The Hydra overrides that make the cell: choices of groups first, then values."""
    choices = _choices(cell)
    defaults = dict(_leaves(compose_config(cell.stage, choices)))
    leaves = _leaves(to_plain(cell.config))
    values = {key: value for key, value in leaves if key not in defaults or defaults[key] != value}
    ruled = {key for key in values if defaults.get(key, "") is None}
    short = choices + [_override(key, value, key in defaults) for key, value in values.items() if key not in ruled]
    if not ruled or _makes(cell, short):
        return short
    return choices + [_override(key, value, key in defaults) for key, value in values.items()]


def is_refused(cell: Cell) -> bool:
    """Whether no command makes the cell any more: an older version let it set a key that nobody reads.

    Text or a checkpoint that is not there now is no such reason.
    """
    try:
        refuse_unread(cell.config)
    except UserError:
        return True
    try:
        make_cells(cell.stage, [cell.config])
    except UserError as error:
        return error.key.partition(".")[0] in _RULED
    except OSError:
        return False
    return False


def compose_config(stage: str, arguments: list[str]) -> Composed:
    """The configuration that a stage composes from overrides, as plain data."""
    register_schema()
    with initialize_config_dir(str(share_folder() / "conf"), version_base="1.3"):
        return plain(compose(stage, arguments))


def hydra_text(value: Plain) -> str:
    """A value in the grammar of Hydra's overrides; text is quoted unless it is a plain word."""
    if isinstance(value, list):
        return f"[{','.join(map(hydra_text, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN_WORD.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    # Only backslashes that stand before a quote (or the end) mean something inside quotes.
    escaped = re.sub(r'(\\*)("|$)', lambda match: match[1] * 2 + ('\\"' if match[2] else ""), value)
    return f'"{escaped}"'


def _choices(cell: Cell) -> list[str]:
    """Choices of groups in which the cell differs from the defaults."""
    folder, composed = share_folder() / "conf", compose_config(cell.stage, [])
    defaults = {key: value.get("name") for key, value in composed.items() if isinstance(value, dict)}
    groups = {key: value for key, value in to_plain(cell.config).items() if key not in _NO_RESULT}
    named = {key: value["name"] for key, value in groups.items() if isinstance(value, dict)}
    return [
        f"{group}={name}"
        for group, name in named.items()
        if defaults.get(group) != name and (folder / group / f"{name}.yaml").is_file()
    ]


def _leaves(config: Mapping[str, Plain], prefix: str = "") -> Iterator[tuple[str, Plain]]:
    for key, value in config.items():
        path = prefix + key
        if path in _NO_RESULT or path in _FOUND_AGAIN:
            continue
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _override(key: str, value: Plain, is_known: bool) -> str:
    return f"{'' if is_known else '+'}{key}={hydra_text(value)}"


def _makes(cell: Cell, arguments: list[str]) -> bool:
    """Whether the overrides give this very cell; False too where that is not known, as when the data is elsewhere."""
    try:
        return make_cells(cell.stage, [read_config(cell.stage, compose_config(cell.stage, arguments))]) == [cell]
    except (UserError, OSError):
        return False

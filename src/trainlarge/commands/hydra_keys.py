"""Checks of Hydra's own keys on a command line or in a file: none may make Hydra run code.

Hydra calls whatever ``hydra.callbacks``, nested ``_target_`` keys, logging factories and some parameters of plugins
name, and ``--experimental-rerun`` unpickles a file. So what Hydra has composed is checked before Hydra acts on it:
its node ``hydra`` must be the one that comes with trainlarge and the installed plugins, but for a few keys.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from trainlarge.commands.overrides import read_overrides
from trainlarge.config.group import Plain
from trainlarge.config.share import share_folder
from trainlarge.errors import UserError
from trainlarge.sweep.compose import TARGET, refuse_target

_OF_SWEEPERS = ("params", "max_batch_size", "n_trials", "n_jobs", "direction", "study_name", "seed", "sampler.seed")
VERBOSE = "hydra.verbose"
HARMLESS = (VERBOSE, *(f"hydra.sweeper.{name}" for name in _OF_SWEEPERS))
"""Keys of Hydra that may be set, to plain values: how much it logs, and what sweepers such as Optuna's try."""
PLUGINS = re.compile(r"hydra/(sweeper|launcher)(/\w+)*")
"""Groups of Hydra from which an installed plugin may be chosen."""
_NO_PATH = "must not be set: --config-dir FOLDER adds a folder of configurations"
_REFUSED_FLAGS = {
    "experimental_rerun": "must not be set: a pickle could run code; 'trainlarge show' prints the command of a cell",
    "config_path": _NO_PATH,
    "config_name": "must not be set: the verb (train or compress) chooses the configuration",
}
_WRITTEN_BY_HYDRA = frozenset({"hydra.runtime", "hydra.job.override_dirname", "hydra.searchpath"})
ONLY = f"must not be set: of Hydra's keys only {', '.join(HARMLESS)} can be, to plain values"
"""What is wrong with a key of Hydra, as an error says it."""
_SHOWN = 80


def check_command_line(arguments: list[str]) -> argparse.Namespace:
    """Refuse a command line that tells Hydra to run code; what its files say is for ``check_composed``.

    Args:
        arguments: Hydra flags and overrides.

    Returns:
        The flags.

    Raises:
        UserError: for a flag or key that may not be set.
    """
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        given, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(str(error.argument_name), "", f"must be used as --help says ({error.message})") from None
    if unknown:
        raise UserError("flag", unknown[0], "one that --help shows")
    _check_flags(given)
    for override in read_overrides(given.overrides):
        _check_override(override)
    return given


def check_composed(stage: str, overrides: list[str], composed: DictConfig) -> None:
    """Refuse a configuration by which Hydra would run code.

    Args:
        stage: ``train`` or ``compress``.
        overrides: with which it was composed: of the command line, and ``search_path_override``.
        composed: before Hydra acts on it.

    Raises:
        UserError: for a key that may not be set, wherever it is set.
    """
    config = _plain(composed)
    expected = dict(_trusted_node(stage, tuple(filter(_is_plugin, overrides))))
    expected["job"] = {**cast(dict[str, Plain], expected["job"]), "name": JobRuntime.instance().get("name")}
    parsed = OverridesParser.create().parse_overrides(overrides)
    expected["overrides"] = {
        "hydra": [override.input_line for override in parsed if override.is_hydra_override()],
        "task": [override.input_line for override in parsed if not override.is_hydra_override()],
    }
    for key, value in _changed("hydra", config.pop("hydra"), expected):
        _check_value(key, value)
    refuse_target(config)


def search_path_override(folders: list[Path]) -> str:
    """The override that adds folders in which Hydra searches configurations."""
    places = ",".join('"file://{}"'.format(str(folder).replace('"', '\\"')) for folder in folders)
    return f"hydra.searchpath=[{places}]"


@cache
def _trusted_node(stage: str, plugins: tuple[str, ...]) -> dict[str, Plain]:
    """The node ``hydra`` that trainlarge and the installed plugins make, from no other folder; never changed."""
    loader = ConfigLoaderImpl(create_config_search_path(str(share_folder() / "conf")))
    return _plain(loader.load_configuration(stage, list(plugins), RunMode.RUN)["hydra"])


def _check_flags(given: argparse.Namespace) -> None:
    if given.shell_completion:
        raise UserError("--shell-completion", "", 'must not be set: eval "$(trainlarge completion bash)" completes all')
    modes = [f"--{name}" for name in ("multirun", "run", "cfg", "info") if getattr(given, name)]
    if len(modes) > 1:
        more = ": of a sweep, trainlarge plan says more" if given.multirun else ""
        raise UserError(modes[1], getattr(given, modes[1][2:]), f"must not be used with {modes[0]}{more}")
    if given.config_dir and not Path(given.config_dir).is_dir():
        raise UserError("--config-dir", given.config_dir, "a folder that exists")
    if given.package and not given.cfg:
        raise UserError("--package", given.package, "must be used with --cfg job, of which it prints a part")
    if given.hydra_help:
        raise UserError("--hydra-help", "", "must not be set: --help lists the flags")
    if given.resolve and given.cfg is None:
        raise UserError("--resolve", "", "must be used with --cfg job")
    for name, allowed in _REFUSED_FLAGS.items():
        if (value := getattr(given, name)) is not None:
            raise UserError(f"--{name.replace('_', '-')}", value, allowed)


def _check_override(override: Override) -> None:
    key = override.key_or_group
    if key == "hydra.searchpath":
        raise UserError(key, _text(override.value()), _NO_PATH)
    if key == "hydra" or (key.startswith("hydra/") and not PLUGINS.fullmatch(key)):
        raise UserError(
            key,
            _text(override.value()),
            "must not be set: of Hydra's groups only hydra/sweeper and hydra/launcher can be",
        )
    if key.startswith("hydra."):
        _check_value(key, override.value())


def _is_plugin(line: str) -> bool:
    return bool(PLUGINS.fullmatch(line.partition("=")[0].lstrip("+~")))


def _plain(config: DictConfig) -> dict[str, Plain]:
    """Everything as written, references too."""
    return cast(dict[str, Plain], OmegaConf.to_container(config, resolve=False, enum_to_str=True))


def _changed(key: str, value: object, expected: object) -> Iterator[tuple[str, object]]:
    """The keys at which ``value`` is not as expected, with what stands there."""
    if key in _WRITTEN_BY_HYDRA or value == expected:
        return
    if key in HARMLESS or not (isinstance(value, dict) and isinstance(expected, dict)):
        yield key, value
        return
    for name in [*expected, *(name for name in value if name not in expected)]:
        yield from _changed(f"{key}.{name}", value.get(name), expected.get(name))


def _check_value(key: str, value: object) -> None:
    is_allowed = any(key == name or key.startswith(f"{name}.") for name in HARMLESS) and TARGET not in key
    if not is_allowed or not _is_plain_value(value):
        raise UserError(key, _text(value), ONLY)
    if key == VERBOSE and not isinstance(value, (bool, str, list)):
        raise UserError(key, _text(value), "true or false, the name of a logger, or a list of such names")


def _is_plain_value(value: object) -> bool:
    """Whether Hydra makes nothing of it: no ``_target_`` or the like, and no reference, behind which one may stand."""
    if isinstance(value, dict):
        return all(not str(key).startswith("_") and _is_plain_value(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain_value, value))
    return "${" not in str(value)


def _text(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."

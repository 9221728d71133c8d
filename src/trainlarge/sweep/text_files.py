"""How Hydra reads the files of a configuration here: text stays as it is written."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainlarge.config.group import Plain
from trainlarge.errors import UserError
from trainlarge.sweep.text_keys import read_yaml

MOST_BYTES = 300_000
"""Size of a file: PyYAML takes seconds for so many bytes."""


class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's own source of ``file://`` folders but for how a file is read. Hydra knows it by the name of its class."""

    def load_config(self, config_path: str) -> ConfigResult:
        """A file with its header. Raises ConfigLoadError where there is none."""
        path = (Path(self.path) / self._normalize_file_name(config_path)).resolve()
        if not path.exists():
            raise ConfigLoadError(f"Config not found : {path}")
        text = _text(path)
        header = _header(path, text)
        if config_path.startswith("sweeps/") and header["package"] is None:
            # The file of a sweep sets the keys of the whole configuration, whether it says so or not.
            header["package"] = "_global_"
        content = _content(path, text, _package(config_path, header.get("package")))
        try:
            config = OmegaConf.create(content)
        except OmegaConfBaseException as error:
            raise UserError(str(path), "content", f"made of keys and values ({_reason(error)})") from error
        return ConfigResult(config=config, path=f"{self.scheme()}://{self.path}", provider=self.provider, header=header)


def keys_and_values(path: Path) -> dict[str, Plain]:
    """The content of a sweep file, with text as it is written there.

    Raises:
        UserError: it cannot be read, or is no mapping from keys to values.
    """
    return _content(path, _text(path), "")


def _text(path: Path) -> str:
    if path.stat().st_size > MOST_BYTES:
        raise UserError(
            str(path), f"{path.stat().st_size:,} bytes", f"at most {MOST_BYTES:,}: divide it into several files"
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(str(path), f"byte {error.start}", "text in UTF-8") from error


def _header(path: Path, text: str) -> dict[str, str | None]:
    try:
        return ConfigSource._get_header_dict(text[:512])
    except ValueError as error:
        raise UserError(str(path), "header", f"# @package NAME ({_reason(error)})") from error


def _content(path: Path, text: str, package: str) -> dict[str, Plain]:
    try:
        content = _parsed(text, package)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "content"
        raise UserError(str(path), where, f"YAML ({error.problem or error.context})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(str(path), "content", f"YAML ({_reason(error)})") from error
    if content is not None and not isinstance(content, dict):
        raise UserError(str(path), content, "a mapping from keys to values, as in 'seed: 3'")
    return content or {}


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error).partition("\n")[0]


@lru_cache(maxsize=64)
def _parsed(text: str, package: str) -> Any:
    """``read_yaml``, once for the times that Hydra reads a file in one command; OmegaConf copies the result."""
    return read_yaml(text, package)


def keep_text_in_files() -> None:
    """From now on Hydra reads files so, whichever folder they are in: ours, the working directory, ``--config-dir``."""
    # The registry is filled when the plugins are, and offers no way to replace a source.
    Plugins.instance()
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource


def _package(config_path: str, package: str | None) -> str:
    """The key under which the content of a file goes."""
    if package == "_global_":
        return ""
    group = config_path.rpartition("/")[0].replace("/", ".")
    return package.replace("_group_", group) if package else group

"""How Hydra reads the files of a configuration here: text stays as it is written."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from trainlarge.sweep.text_keys import read_yaml


class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's own source of ``file://`` folders but for how a file is read. Hydra knows it by the name of its class."""

    def load_config(self, config_path: str) -> ConfigResult:
        """A file with its header. Raises ConfigLoadError where there is none."""
        path = (Path(self.path) / self._normalize_file_name(config_path)).resolve()
        if not path.exists():
            raise ConfigLoadError(f"Config not found : {path}")
        text = path.read_text(encoding="utf-8")
        header = ConfigSource._get_header_dict(text[:512])
        config = OmegaConf.create(_parsed(text, _package(config_path, header.get("package"))) or {})
        return ConfigResult(config=config, path=f"{self.scheme()}://{self.path}", provider=self.provider, header=header)


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

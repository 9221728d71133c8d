"""Frozen configurations that are long, deep or full of aliases are refused before they take memory or the process."""

from __future__ import annotations

import time
import tracemalloc

import pytest
import yaml

from trainlarge.sweep import config_yaml
from trainlarge.sweep.config_yaml import from_yaml, to_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join(['*a' + str(level - 1)] * 10)}]\n" for level in range(1, 30)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB, "[" * 100_000, "{a: " * 100_000, "- " * 100_000, "? " * 100_000, "a: " + "[" * 300 + "]" * 300,
        "\n".join(" " * depth + "a:" for depth in range(300)), "a: &b 1\nc: *b\n", "a: 1\n" * (1 << 20),
    ],
    ids=["bomb", "list", "map", "items", "keys", "closed", "blocks", "alias", "long"],
)  # fmt: skip
def test_a_text_that_is_no_frozen_configuration_is_refused_at_once(text: str) -> None:
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises(yaml.YAMLError):
        from_yaml(text)
    assert time.monotonic() - started < 5 and tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_signs_within_texts_are_no_nesting_and_no_alias() -> None:
    config = {"a": "&b *b [[[", "b": ["- ? {:"] * 150, "c": {"d": {"e": {"f": [1, None, True]}}}}
    assert from_yaml(to_yaml(config)) == config


def test_a_configuration_of_thousands_of_files_is_read() -> None:
    config = {"data": {"files": [f"/folder/of/texts/with-a-long-name/{number:06d}.txt" for number in range(5_000)]}}
    text = to_yaml(config)
    assert len(text) < config_yaml.MOST_CHARACTERS and from_yaml(text) == config

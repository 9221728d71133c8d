"""Rows of an epoch are the same before data is prepared, where they are counted, and after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groups import data_group
from trainlarge.config.data import DataConfig
from trainlarge.config.group import with_values
from trainlarge.config.task import ClassificationConfig, MaskedLMConfig
from trainlarge.data import rows_in_use as module
from trainlarge.data.fingerprint import resolved_data
from trainlarge.data.labelled import prepare_labelled
from trainlarge.data.labelled_tables import Columns
from trainlarge.data.rows_in_use import rows_in_use


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    rows = [{"text": f"text {number // 2}", "label": number % 2} for number in range(400)]
    rows += [{"text": " ", "label": 1}, {"text": "no label"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return resolved_data(data_group({"name": "text", "files": [str(tmp_path / "rows.jsonl")], "vocab_size": 270}))


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_rows_that_are_counted_are_those_of_the_prepared_table(share: float, data: DataConfig, tmp_path: Path) -> None:
    task = ClassificationConfig(selection_share=share)
    counted = rows_in_use(data, task, tmp_path / "root")
    half = rows_in_use(with_values(data, fraction=0.5), task, tmp_path / "root")
    prepare_labelled(data, Columns("label"), tmp_path / "root")
    module._counted_rows.cache_clear()
    (tmp_path / "rows.jsonl").unlink()
    assert counted == rows_in_use(data, task, tmp_path / "root") and counted is not None
    assert half == round(0.5 * counted)


def test_what_is_large_or_no_table_is_not_counted(
    data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rows_in_use(data, MaskedLMConfig(), tmp_path / "root") is None
    monkeypatch.setattr(module, "COUNTED_BYTES", 10)
    module._counted_rows.cache_clear()
    assert rows_in_use(data, ClassificationConfig(), tmp_path / "root") is None

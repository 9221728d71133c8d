"""What is known to fail is refused before anything is queued: one line per cause, with the number of cells."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from trainlarge.cli import main
from trainlarge.config.schema import StageConfig, TrainConfig
from trainlarge.errors import UserError
from trainlarge.launch.check import check_cells, launcher_for
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.store import CellFolder, Study

Tiny = Callable[..., TrainConfig]
Run = Callable[[str, list[StageConfig]], list[CellFolder]]
LABELS = ["task=classification", "data.vocab_size=262"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that cannot be used, each in its own way, and two that can."""
    folder = tmp_path_factory.mktemp("data")
    draw = random.Random(0)
    rows = [{"text": f"row {draw.random()} of some text", "label": "ab"[number % 2]} for number in range(9000)]
    files = {
        "ok.jsonl": rows[:400],
        "large.jsonl": rows,
        "no_column.jsonl": [{"body": row["text"]} for row in rows[:400]],
        "one.jsonl": rows[:1],
    }
    for name, content in files.items():
        (folder / name).write_text("\n".join(map(json.dumps, content)))
    whole = gzip.compress("\n".join(map(json.dumps, rows)).encode())
    (folder / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "latin.txt").write_bytes("Grüße\n".encode("latin-1") * 1000)
    (folder / "row.csv").write_text("text,label\n" + "a,b,c\n" * 10)
    (folder / "broken.jsonl").write_text("not json\n" * 10)
    (folder / "broken.parquet").write_text("no parquet")
    return folder


DATA = [
    (["data.files=[no_column.jsonl]"], "data.text_column=text", "one of the columns body"),
    (["data.files=[large.jsonl,no_column.jsonl]"], "data.text_column=text", "one of the columns body"),
    (["data.files=[large.jsonl]", "data.text_column=body"], "data.text_column=body", "one of the columns text, label"),
    (["data.files=[one.jsonl]"], "data.files=", "none is left for validation"),
    (["data.files=[large.jsonl]", "data.validation_share=1e-9"], "data.files=", "none is left for validation"),
    (["data.files=[cut.jsonl.gz]"], "cut.jsonl.gz", "a readable .jsonl file"),
    (["data.files=[latin.txt]"], "latin.txt", "another data.encoding"),
    (["data.files=[row.csv]"], "row.csv", "has 3 fields, the header 2"),
    (["data.files=[broken.jsonl]"], "broken.jsonl", "is not JSON"),
    (["data.files=[broken.parquet]"], "broken.parquet", "a readable .parquet file"),
    (["data.files=[nowhere]"], "data.files=nowhere", "an existing file"),
    (["data.files=[ok.jsonl]", "data.vocab_size=9000"], "data.vocab_size=9000", "for this text"),
    (["data.files=[ok.jsonl]", "data.sequence_length=4096", "optim.batch=4096"], "data.sequence_length=4096", "1 to "),
    (["data.files=[ok.jsonl]", "data.fraction=0.001"], "data.fraction=0.001", "a batch has 16 rows"),
    ([*LABELS, "data.files=[ok.jsonl]", "task.labels=3"], "task.labels=3", "2, the different labels"),
    ([*LABELS, "data.files=[large.jsonl]", "task.label_column=kind"], "task.label_column=kind", "columns text, label"),
    ([*LABELS, "data.files=[ok.jsonl]", "task.second_text_column=b"], "task.second_text_column=b", "columns text"),
    ([*LABELS, "data.files=[latin.txt]"], "latin.txt", "tables with a column of labels"),
    (["data.files=[ok.jsonl]", "impl.compile=graphs"], "impl.compile=graphs", "graphs are those of CUDA"),
]


@pytest.mark.parametrize(("overrides", "named", "allowed"), DATA, ids=lambda value: "".join(value)[-60:])
def test_data_and_device(
    overrides: list[str],
    named: str,
    allowed: str,
    data: Path,
    study: Study,
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(data)
    configs = [tiny(*overrides, f"seed={seed}") for seed in (0, 1)]
    with pytest.raises(UserError) as error:
        check_cells(launcher_for(configs), study, "train", make_cells("train", configs))
    [line] = str(error.value).splitlines()
    assert named in line and allowed in line and line.endswith("(2 of 2 cells)")
    assert not study.path.exists() and [path.name for path in study.path.parent.iterdir()] == [".data"]


@pytest.mark.parametrize("verb", ["plan train", "train -m"])
def test_commands_refuse_before_anything_is_written(
    verb: str, data: Path, study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    given = [text for text in tiny_overrides if not text.startswith("data.files")]
    files = f"data.files=[{data / 'no_column.jsonl'}]"
    assert main([*verb.split(), *given, files, "seed=0,1", "impl.compile=graphs"]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert [line.partition("=")[0] for line in lines] == ["error: impl.compile", "error: data.text_column"]
    assert all(line.endswith("(2 of 2 cells)") for line in lines)
    assert not study.path.exists() and [path.name for path in study.path.parent.iterdir()] == [".data"]


def test_a_gpu_that_is_not_there(
    study: Study, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("SLURM_CONF", "/nowhere/slurm.conf")
    assert main(["plan", "train", *tiny_overrides, "impl.device=cuda"]) == 2
    assert "error: impl.device=cuda is not valid: must be cpu or auto" in capfd.readouterr().err
    assert main(["plan", "train", *tiny_overrides, "impl.device=cuda", "launcher=slurm"]) == 0, "it may have one there"


def test_done_cells_are_not_looked_at(study: Study, tiny: Tiny, tiny_overrides: list[str], run_here: Run) -> None:
    run_here("train", [tiny("budget=2 steps")])
    command = ["train", *tiny_overrides, "budget=2 steps", "impl.device=cuda"]
    assert main(command) == 0, "nothing is left to compute"


GRID = ["prune=magnitude", "prune.scope=block", "prune.m=2,4,5", "prune.sparsity=0.0,0.5,0.8", "quantize.bits=8,4"]


def test_recipes_that_do_not_fit_are_refused_together(
    study: Study, tiny: Tiny, run_here: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    [parent] = run_here("train", [tiny("budget=2 steps")])
    compress = ["study=tiny", "tracking=none", f"checkpoint={parent.id}", *GRID]
    for verb in (["plan", "compress"], ["compress", "-m"]):
        capfd.readouterr()
        assert main([*verb, *compress]) == 2
        lines = capfd.readouterr().err.strip().splitlines()
        assert lines == [
            f"error: prune.sparsity={zeros} is not valid: must be a multiple of 1/{m}, since prune.m is {m} "
            "(2 of 18 points)"
            for zeros, m in (("0.8", 2), ("0.8", 4), ("0.5", 5))
        ]
    possible = [
        "prune.m=5",
        "prune.sparsity=0.2,0.8",
        "quantize.bits=8,4",
        "structure=layer_list",
        "structure.layers=[7]",
    ]
    assert main(["compress", "-m", *compress[:5], *possible]) == 2
    [line] = capfd.readouterr().err.strip().splitlines()
    assert "structure.layers=[7]" in line and line.endswith("(4 of 4 cells)")
    assert main(["compress", "-m", *compress[:5], *possible[:3]]) == 2
    [line] = capfd.readouterr().err.strip().splitlines()
    assert line == (
        "error: prune.m=5 is not valid: must be a divisor of the columns of every matrix; the token embedding has 16 "
        "(4 of 4 cells)"
    )
    assert not (study.path / "compress").exists()
    (parent.checkpoint / "model.safetensors").unlink()
    assert main(["compress", "-m", *compress[:3], "quantize.bits=8,4"]) == 2
    assert "weights are still there; to make them again: trainlarge redo" in capfd.readouterr().err

"""What a command says when its cells are done: the result of one cell, what to doubt, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trainlarge.errors import UserError
from trainlarge.launch.engine import Outcome
from trainlarge.results.analysis.plateau import has_learned
from trainlarge.results.scores import is_judged_by_loss, score_text, task_scores
from trainlarge.results.units import prefixed_text
from trainlarge.sweep.cell import ID_PATTERN, Cell
from trainlarge.sweep.records import CompressRecord, Record, TrainRecord
from trainlarge.sweep.store import CellFolder, Study

_bytes, _count = prefixed_text("B"), prefixed_text("")


def summary(outcome: Outcome) -> list[str]:
    """Lines on the cells that were asked for and are done; none where jobs were left to a cluster."""
    if outcome.is_submitted:
        return []
    stage, failed = outcome.plan.stage, {*outcome.failed}
    folders = [outcome.study.folder(stage, cell.id) for cell in outcome.plan.cells if cell.id not in failed]
    lines = _of_one(folders[0]) if len(folders) == 1 else []
    if stage == "train":
        return [*lines, *doubts(folders)]
    return [*lines, *doubts(checkpoints(outcome.study, outcome.plan.cells), "checkpoint")]


def next_steps(outcome: Outcome) -> list[str]:
    """Commands that follow one whose cells are all done."""
    if outcome.is_submitted or outcome.failed:
        return []
    name, cells = outcome.study.name, outcome.plan.cells
    first = f"show {cells[0].id} --study {name}" if len(cells) == 1 else f"ls {name}"
    chosen = cells[0].id if len(cells) == 1 else "every"
    sweep = "" if len(cells) == 1 else "-m "
    compress = f"compress {sweep}study={name} checkpoint={chosen} prune.sparsity=0.6 quantize.bits=4"
    commands = [first, *([compress] if outcome.plan.stage == "train" else []), f"report {name}"]
    return [f"next: trainlarge {command}" for command in commands]


def checkpoints(study: Study, cells: Iterable[Cell]) -> list[CellFolder]:
    """The train cells of a study that compress cells start from."""
    ids = dict.fromkeys(cell.as_compress.checkpoint for cell in cells)
    return [study.folder("train", text) for text in ids if ID_PATTERN.fullmatch(text)]


def doubts(folders: Sequence[CellFolder], what: str = "cell") -> list[str]:
    """What makes the results of done train cells say little: no step at the full rate, nothing learned but frequencies.

    Args:
        folders: of train cells that are done; those whose record cannot be read are passed over.
        what: a word for one of them.
    """
    records = list(_train_records(folders))
    return [*_all_warm_up(records, what), *_on_plateau(records, what)]


def _of_one(folder: CellFolder) -> list[str]:
    try:
        record = folder.record()
    except UserError as error:
        return [str(error)]
    return [f"{folder.stage} cell {folder.id}: {_result(record)}", f"folder: {folder.path}"]


def _result(record: Record) -> str:
    if isinstance(record, TrainRecord):
        if record.diverged:
            return f"the loss stopped being a number at step {record.diverged_at}"
        metrics = task_scores(_task(record))
        others = [f"{name} {score_text(metrics[name], value)}" for name, value in _others(record).items()]
        loss = f"loss {record.scores['loss']:.4f} {metrics['loss'].unit}"
        return ", ".join([loss, *others, f"{record.step:,} steps", f"{_count(record.parameters)} parameters"])
    return _compressed(record)


def _compressed(record: CompressRecord) -> str:
    loss = record.scores.get("loss")
    shown = "no loss" if loss is None else f"loss {loss:.4f} ({record.loss_increase:+.4f} by {record.description})"
    return f"{shown}, {_bytes(record.file_bytes)}"


def _others(record: TrainRecord) -> dict[str, float]:
    """Scores of the task other than the loss."""
    names = [name for name in task_scores(_task(record)) if name != "loss"]
    return {name: value for name in names if (value := record.scores.get(name)) is not None}


def _task(record: TrainRecord) -> str | None:
    task = record.config.get("task")
    name = task.get("name") if isinstance(task, dict) else None
    return name if isinstance(name, str) else None


def _train_records(folders: Iterable[CellFolder]) -> Iterable[TrainRecord]:
    for folder in folders:
        try:
            yield folder.train_record()
        except UserError:
            # `status` and `show` name it.
            continue


def _all_warm_up(records: Sequence[TrainRecord], what: str) -> list[str]:
    short = [record for record in records if record.step <= _warmup_steps(record)]
    if not short:
        return []
    most = max(map(_warmup_steps, short))
    return [
        f"warning: {_share(len(short), len(records), what)} ended inside the warm-up "
        f"(schedule.warmup_steps={most}): the learning rate never reached its peak, so a larger budget, or a shorter "
        "warm-up, is needed"
    ]


def _share(some: int, all_of_them: int, what: str) -> str:
    return f"{some} of {all_of_them} {what if all_of_them == 1 else f'{what}s'}"


def _warmup_steps(record: TrainRecord) -> int:
    schedule = record.config.get("schedule")
    steps = schedule.get("warmup_steps") if isinstance(schedule, dict) else None
    return steps if isinstance(steps, int) else 0


def _on_plateau(records: Sequence[TrainRecord], what: str) -> list[str]:
    stuck = []
    for record in filter(lambda record: is_judged_by_loss(_task(record)), records):
        loss, frequencies = record.scores.get("loss"), record.data.token_frequency_loss
        metric = task_scores(_task(record))["loss"]
        if loss is not None and frequencies is not None and not has_learned(loss, frequencies, metric):
            stuck.append((frequencies, metric))
    if not stuck:
        return []
    level = f"{stuck[0][0]:.2f} {stuck[0][1].short_unit}"
    return [
        f"warning: {_share(len(stuck), len(records), what)} learned no more than frequencies, whose loss is "
        f"{level}: sizes and recipes cannot be compared yet, so a larger budget, or another learning rate, is needed"
    ]

"""``trainlarge latency``: how fast the models of cells compute on this machine, by each runtime."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from trainlarge.commands.call import Call
from trainlarge.commands.studies import existing_study
from trainlarge.commands.terminal import console, path_in_words, table
from trainlarge.commands.verbs import verb_parser
from trainlarge.config.impl import ImplConfig
from trainlarge.errors import UserError
from trainlarge.machine.environment import hide_profiler_messages
from trainlarge.results.units import prefixed_text, significant
from trainlarge.sweep.latencies import LATENCIES, BreakEven, Latency
from trainlarge.sweep.store import CellFolder

if TYPE_CHECKING:
    from trainlarge.latency.runtime import Runtime
    from trainlarge.latency.session import Session, Wanted

ALL = "all"
"""Stands for every runtime, also those that are slow to make ready."""
LARGEST = 1_000_000
"""Of a number on the command line."""
NOTHING = "–"
_EPILOG = (
    "Without a cell or --where, the models on the frontier of file size and score, and their checkpoints.\n"
    f"What is measured is kept in {LATENCIES} of the study; measuring again replaces the same rows."
)
_HEADER = ("runtime", "what explains it", "batch", "length", "median", "quartiles", "rows/s", "speedup", "memory")
_BREAK_EVEN_HEADER = ("matrix", "tokens", "dense", "faster from", "at 50 % zeros", "at 90 %", "at 99 %")
_bytes, _count = prefixed_text("B"), prefixed_text("")


def main(call: Call) -> int:
    """Measure cells and print what they take."""
    options = parser().parse_args(call.arguments)
    study = existing_study(options.study)
    hide_profiler_messages()
    # Only now: a help text should not wait for torch and pandas.
    from trainlarge.commands.latency_cells import chosen_cells
    from trainlarge.latency.session import Session

    session = Session(study, wanted(options))
    folders = chosen_cells(study, options.cells, options.where)
    session.check(folders)
    printed = console()
    for place, folder in enumerate(folders, 1):
        printed.print(f"{folder.stage} cell {folder.id}, {place} of {len(folders)}")
        printed.print(table(_HEADER, _rows(session, folder), printed.is_terminal, texts=2))
    if options.break_even:
        shown = [_break_even_texts(row) for row in session.break_evens(folders)]
        printed.print(table(_BREAK_EVEN_HEADER, shown, printed.is_terminal))
    printed.print(f"kept in {path_in_words(study.path / LATENCIES)}", soft_wrap=True)
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = verb_parser("latency", epilog=_EPILOG)
    made.add_argument("study")
    made.add_argument("cells", nargs="*", metavar="cell", help="cell ids, or their starts")
    made.add_argument("--where", metavar="CONDITION", help="all cells with weights such as 'arch.width == 128'")
    made.add_argument("--batch", default="1,8,32", help="rows of a pass, with commas (default: %(default)s)")
    made.add_argument("--length", help="tokens of a row (default: data.sequence_length of the cell)")
    made.add_argument("--runtimes", help=f"names with commas, or {ALL}; default: those that are quick to make ready")
    made.add_argument("--device", default="auto", help="cpu, cuda or auto (default: %(default)s)")
    made.add_argument("--threads", help="CPU threads (default: the cores that this command may use)")
    made.add_argument("--break-even", action="store_true", help="also from which sparsity on sparse layers are faster")
    made.add_argument("--rounds", default="30", help="rounds in which runtimes take turns (default: %(default)s)")
    return made


def wanted(options: argparse.Namespace) -> Wanted:
    """How cells are measured, as the command line says it.

    Raises:
        UserError: naming the flag.
    """
    from trainlarge.latency.session import Wanted
    from trainlarge.latency.turns import LEAST_ROUNDS

    if options.device not in ("auto", "cpu", "cuda"):
        raise UserError("--device", options.device, "one of auto, cpu, cuda")
    return Wanted(
        runtimes=_runtimes(options.runtimes),
        batches=tuple(dict.fromkeys(_number("--batch", text) for text in options.batch.split(","))),
        length=None if options.length is None else _number("--length", options.length),
        rounds=_number("--rounds", options.rounds, LEAST_ROUNDS),
        impl=ImplConfig(
            device=options.device, threads=0 if options.threads is None else _number("--threads", options.threads)
        ),
    )


def _number(flag: str, text: str, least: int = 1) -> int:
    number = int(text) if text.isdecimal() and len(text) <= len(str(LARGEST)) else 0
    if not least <= number <= LARGEST:
        raise UserError(flag, text, f"a whole number from {least} to {LARGEST:,}")
    return number


def _runtimes(text: str | None) -> tuple[Runtime, ...]:
    from trainlarge.latency.registry import RUNTIMES

    if text is None:
        return tuple(runtime for runtime in RUNTIMES.values() if not runtime.is_slow_to_make)
    names = list(RUNTIMES) if text == ALL else text.split(",")
    if unknown := [name for name in names if name not in RUNTIMES]:
        raise UserError("--runtimes", unknown[0], f"{ALL}, or of {', '.join(RUNTIMES)}")
    return tuple(RUNTIMES[name] for name in names)


def _rows(session: Session, folder: CellFolder) -> list[list[str]]:
    return [_texts(row) for rows in session.measure(folder) for row in rows]


def _texts(row: Latency) -> list[str]:
    """A row as a table shows it."""
    size = [str(row.batch), str(row.length)]
    if row.seconds is None or row.seconds_low is None or row.seconds_high is None or row.speedup is None:
        return [row.runtime, row.why_empty or NOTHING, *size, *[NOTHING] * 5]
    return [
        row.runtime,
        "; ".join(filter(None, (row.kernel, row.remark))),
        *size,
        f"{_milliseconds(row.seconds)} ms",
        f"{_milliseconds(row.seconds_low)} to {_milliseconds(row.seconds_high)}",
        _count(row.batch / row.seconds),
        f"{row.speedup:.2f}",
        _bytes((row.model_bytes or 0) + (row.working_bytes or 0)),
    ]


def _break_even_texts(row: BreakEven) -> list[str]:
    """A sparse layer as a table shows it."""
    pays = "never" if row.break_even is None else f"{row.break_even:.0%} zeros"
    speedups = [f"{row.speedups[sparsity]:.2f}" for sparsity in ("0.5", "0.9", "0.99")]
    return [f"{row.outputs} x {row.inputs}", str(row.tokens), f"{_milliseconds(row.dense_seconds)} ms", pays, *speedups]


def _milliseconds(seconds: float) -> str:
    return significant(1000 * seconds, digits=3)

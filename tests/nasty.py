"""Command lines and sweep files with one mistake in them, drawn from a seed, and what a command makes of them."""

from __future__ import annotations

import json
import random
import re
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import FrameType

import pytest

from trainlarge.cli import main
from trainlarge.config.method import METHODS
from trainlarge.config.register import hydra_schema
from trainlarge.config.schema import CHOSEN_GROUPS

SECONDS = 10.0
"""Longest time that a command may take to refuse, or to plan, what it is given."""

VALUES = (
    "", "null", "true", "-1", "0", "1", "2.5", "1e400", "-1e400", "inf", "nan", "1e9", "99999999999999999999", "1_0",
    "'???'", "???", "nonsense", "'with space'", "[]", "[1,2]", "[[]]", "[a", "{a:1}", "{a:{b:[1]}}", "a,b", "1,2",
    "range(1,1e9)", "range(0,1,0)", "range(1,3)", "shuffle(range(1,1e9))", "choice(1,2)", "interval(0,1)", "glob(*)",
    "sort(3,1)", "tag(a,1)", "${seed}", "${nothing}", "${seed", "${oc.env:NO_SUCH_NAME}", "'", "\\", "é", "\u2028",
    "\x00", "\ud800", "=", "a=b", "@", "+", "~", "/", "a/b", "../x", "#", "0x10", "1e", ".5", "5.", "--x", "x" * 5000,
    "[" * 200, "9" * 5000, "int(1.5)", "str(1)", "bool(x)", "float(nan)", "json_str({})", "extend_list(1)",
)  # fmt: skip
"""What a key is set to, as it is written on a command line."""
PREFIXES = ("", "", "", "+", "++", "~")


@dataclass(frozen=True)
class Given:
    """A command line, and the keys of which one must be named where it is refused."""

    arguments: tuple[str, ...]
    keys: tuple[str, ...]


class TooSlowError(BaseException):
    """A command was not done within ``SECONDS``. No Exception, which a command might take for its own."""


def command_lines(seed: int, count: int, stages: dict[str, tuple[str, ...]]) -> Iterator[Given]:
    """Command lines in which one key of a stage, each in its turn, has a strange value.

    Args:
        stages: stage -> overrides with which it has a cell.
    """
    draw = random.Random(seed)
    turns = [(stage, *place) for stage in stages for place in places(stage)]
    draw.shuffle(turns)
    for index in range(count):
        stage, choices, key = turns[index % len(turns)]
        override = f"{draw.choice(PREFIXES)}{_misspelt(key, draw)}={draw.choice(VALUES)}"
        verb = draw.choice([("plan", stage), (stage,), (stage, "-m")])
        # Where a group is misspelt, it is what is wrong.
        named = key if key_of(override) == key.upper() else key_of(override)
        others = [name for name in stages[stage] if key_of(name) not in (named, named.partition(".")[0])]
        # A choice that nothing else fits is refused itself: task=causal_lm with arch=modern.
        groups = [word for choice in choices for word in choice.split("=")]
        yield Given(
            (*verb, *others, *choices, override),
            tuple({named, key, key_of(override).partition(".")[0]} if key_of(override) != key else {named, *groups}),
        )


def places(stage: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every key of a stage with the choices of groups under which it is there."""
    for key in _keys(hydra_schema(stage), ""):
        yield (), key
    for group, kind in CHOSEN_GROUPS.items():
        for name, chosen in kind.by_name().items():
            if name != "slurm":
                yield from (((f"{group}={name}",), f"{group}.{item.name}") for item in fields(chosen))
    for slot, methods in METHODS.items() if stage == "compress" else ():
        for name, method in methods.items():
            yield from (((f"{slot}={name}",), f"{slot}.{item.name}") for item in fields(method))


def key_of(override: str) -> str:
    """The key that an override sets."""
    return override.partition("=")[0].lstrip("+~")


@contextmanager
def limited() -> Iterator[None]:
    """Within the block, a command has ``SECONDS`` of a core, six times as many in all, and 4 GB more than there are."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TooSlowError

    # On a busy machine a second of a core takes several; who waits for something uses none.
    clocks = {signal.SIGPROF: (signal.ITIMER_PROF, SECONDS), signal.SIGALRM: (signal.ITIMER_REAL, 6 * SECONDS)}
    handlers = {number: signal.signal(number, stop) for number in clocks}
    left = {timer: signal.setitimer(timer, seconds)[0] for timer, seconds in clocks.values()}
    started, memory = time.monotonic(), resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + 4 * 2**30, memory[1]))
    try:
        yield
    finally:
        for timer, seconds in left.items():
            # The time limit of the whole test goes on.
            signal.setitimer(timer, max(0.1, seconds - (time.monotonic() - started)) if seconds else 0)
        resource.setrlimit(resource.RLIMIT_DATA, memory)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def complaint(given: Given, capfd: pytest.CaptureFixture[str]) -> str | None:
    """What is wrong with how a command takes a command line; None where it does it, or refuses it in one clear line."""
    status: int | str | None = None
    try:
        with limited():
            status = _status(given.arguments)
    except TooSlowError:
        return "took too long"
    except BaseException as error:
        return f"raised {type(error).__name__}: {error}"
    finally:
        printed = capfd.readouterr()
    return _wrong(status, printed.out, printed.err, given.keys)


def _status(arguments: Sequence[str]) -> int | str | None:
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code


def _wrong(status: int | str | None, out: str, err: str, keys: Sequence[str]) -> str | None:
    refusals = [line for line in err.splitlines() if line.startswith("error: ")]
    if "Traceback" in out + err:
        return "printed a traceback"
    if status == 0:
        return f"status 0 with errors: {refusals}" if refusals else None
    # A sweep says each cause in a line.
    others = [line for line in err.splitlines() if not line.startswith(("error: ", "warning"))]
    if status != 2 or not 0 < len(refusals) <= 11 or others:
        return f"status {status}: {err!r}"
    if longest := [line for line in refusals if len(line) > 2000]:
        return f"a line of {len(longest[0])} characters: {longest[0][:200]}"
    # The name of a group is set as the group itself: arch.name=1e is arch=1e.
    return (
        None
        if any(key.removesuffix(".name") in refusals[0] for key in keys)
        else f"names none of {keys}: {refusals[0]}"
    )


def _data_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[5]) * resource.getpagesize()


def _keys(schema: type, prefix: str) -> Iterator[str]:
    for item in fields(schema):
        yield prefix + item.name
        if is_dataclass(item.type):
            yield from _keys(item.type, f"{prefix}{item.name}.")  # type: ignore[arg-type]


def _misspelt(key: str, draw: random.Random) -> str:
    """Mostly the key itself."""
    return draw.choice([key] * 12 + [f"{key}x", f"{key}.x", f"{key[:-1]}", f"{key}[0]", f"{key}@x", key.upper()])


SWEEP = """# @package _global_
study: fuzz
data:
  vocab_size: 2048
  sequence_length: 64
optim: {batch: 1024, lr: 2e-3}
sweep:
  blocks:
    - arch.width: [32, 64]
      arch.depth: &depth 1
      budget: [10 steps, 20 steps]
    - arch: roberta
      arch.depth: *depth
      budget: 40 steps
  exclude:
    - arch.width == 64 and budget > 10
"""
"""A sweep file with what such files have."""
KEYS_OF_SWEEP = (
    "arch",
    "arch.width",
    "arch.depth",
    "budget",
    "data.vocab_size",
    "optim.lr",
    "optim.batch",
    "seed",
    "study",
)
NODES = (
    "null", "~", "true", "-1", "0", "2.5", ".inf", ".nan", "1e400", "99999999999999999999", "???", "''", "nonsense", "[]",
    "{}", "[[]]", "[1, [2]]", "{a: 1}", "{a: {b: 1}}", "[{a: 1}]", "{width: [16, 32]}", "{width: {x: 1}}", "*depth",
    "&again [*again]", "*nowhere", "!!python/object/apply:os.getcwd []", "!x 1", "2026-11-27", "0x10", "0o7", "1_0",
    "${seed}", "${nothing}", "${oc.env:NO_SUCH_NAME}", "|\n  text\n", "'é'", "12:30:45", "=", "<<", "'a,b'", "'a b['",
    "range(1,1e9)", "'" + "x" * 5000 + "'", "9" * 5000, "[" * 2000, "{a: " * 300, "[" + "1," * 3000 + "]",
)  # fmt: skip
"""What a key of a file is set to."""
# ruff: noqa: E501
FILES: tuple[str | bytes, ...] = (
    "", "# nothing\n", "---\n---\n", "text", "- a list\n", "null", "3", "\tstudy: x\n", "study: x\n  seed: 1\n",
    "sweep: {blocks: [", "seed: 1\nseed: 2\n", "study: \xe9".encode("latin-1"), "study: x".encode("utf-16"), b"\xff\xfe",
    b"study: \x00", b"\x80", "study: \ufeffx", "? [a]\n: 1\n", "1: 2\n", "null: 1\n", "[a]: 1\n", "<<: 3\n", "<<: {seed: 1}\n",
    "%YAML 9.9\n---\nseed: 1\n", "@x: 1\n", "`x`: 1\n", "seed: @x\n", "seed: %x\n", "'': 1\n", ".: 1\n", "a.b: 1\n", "arch.: 1\n",
    "defaults: 3\n", "defaults: [nothing]\n", "defaults:\n  - /arch: nothing\n", "defaults: [{a: b, c: d}]\n",
    "hydra: {callbacks: {x: {_target_: os.getcwd}}}\n", "_target_: os.getcwd\n", "hydra: 3\n",
    "sweep: 3\n", "sweep: null\n", "sweep: {blocks: 3}\n", "sweep: {blocks: [3]}\n", "sweep: {blocks: {arch.width: [1]}}\n",
    "sweep: {block: []}\n", "sweep: {exclude: 3}\n", "sweep: {exclude: [3]}\n", "sweep: {where: seed == 1}\n",
    "sweep: {blocks: [{sweep.exclude: [x]}]}\n", "sweep: {blocks: [{hydra.verbose: true}]}\n", "sweep: {blocks: [{'': 1}]}\n",
    "sweep: {blocks: [{arch: {width: 1}, arch.width: 2}]}\n", "sweep: {blocks: [{arch..width: 1}]}\n",
    "sweep: {blocks: [{seed: [" + "1," * 400 + "], arch.width: [" + "1," * 400 + "]}]}\n",
    "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{other}: &{other} [{','.join([f'*{one}'] * 9)}]\n" for one, other in zip("abcdefg", "bcdefgh", strict=True)
    ),
    "a: &a {b: *a}\n", "a: " * 3000, "- " * 3000, "seed: " + "9" * 5000 + "\n", "seed: [" + "1," * 300_000 + "]\n",
    "# @package nowhere\nseed: 1\n", "# @package arch\nwidth: 32\n", "# @package _global_ x\nseed: 1\n", "seed: 3\n",
)  # fmt: skip
"""Whole files."""
CONDITIONS = (
    "(" * 5000, "not " * 9000 + "1", "-" * 3000 + "1", "[" * 1000 + "]" * 1000, "x" * 100_000, "seed == 1 " + "and 1" * 2000,
    "arch.wide == 1", "arch == 1", "arch < 1", "seed.x", "1 +", "seed = 1", "__import__('os')", "lambda: 1", "seed == '\\ud800'",
    "seed if 1 else 2", "9" * 5000, "seed in 3", "budget < '3 s'", "f'{seed}'", "b'x' == seed", "1 is 1", "...", "seed[0]",
    "\x00", "budget == nonsense", "budget > []", "''", "'", "seed == 1e999", "not", "arch.width % 2 == 0", "seed;1",
)  # fmt: skip
"""What a sweep leaves out."""


def sweep_files(seed: int, count: int) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    """Contents of sweep files, and the keys of which one, if not the file itself, is named where one is refused."""
    draw = random.Random(seed)
    for content in FILES:
        yield content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"), KEYS_OF_FILES
    for condition in CONDITIONS:
        yield f"sweep: {{exclude: [{json.dumps(condition)}]}}\n".encode(), ("sweep.exclude", "sweep=no cells")
    for _ in range(count - len(FILES) - len(CONDITIONS)):
        yield draw.choice([_other_value, _other_signs])(draw)


KEYS_OF_FILES = (
    "arch",
    "sweep",
    "hydra",
    "_target_",
    "seed",
    "defaults",
    "study",
    "a=",
    "a.b",
    "1=",
    "null=",
    "''",
    ".=",
    "<<",
)


def _other_value(draw: random.Random) -> tuple[bytes, tuple[str, ...]]:
    """A key with a strange value, at the top or in a block."""
    key, node = draw.choice(KEYS_OF_SWEEP), draw.choice(NODES)
    place = draw.choice(
        ["{key}: {node}\n", "sweep: {{blocks: [{{{key}: {node}}}]}}\n", "sweep: {{blocks: [{{{key}: [{node}]}}]}}\n"]
    )
    at_top = place.startswith("{key}") and "." in key
    if at_top:
        group, _, name = key.partition(".")
        return f"{group}: {{{name}: {node}}}\n".encode(), (key, group)
    return place.format(key=key, node=node).encode(), (key, key.partition(".")[0], "sweep.blocks")


def _other_signs(draw: random.Random) -> tuple[bytes, tuple[str, ...]]:
    """A file in which some signs were lost, doubled or replaced."""
    text = list(SWEEP)
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(len(text))
        text[place] = draw.choice(["", text[place] * 2, *"\t:-[]{}'\"#&*!|>%@`,? \n\x00é"])
    changed = "".join(text)
    return changed.encode(), tuple({*KEYS_OF_SWEEP, *re.findall(r"[^\s{},:]+(?=:)", changed), "sweep"})


def write_sweep(folder: Path, content: bytes) -> None:
    """The sweep ``fuzz`` of a folder."""
    (folder / "sweeps" / "fuzz").mkdir(parents=True, exist_ok=True)
    (folder / "sweeps" / "fuzz" / "train.yaml").write_bytes(content)

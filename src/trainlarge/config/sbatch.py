"""Which options of sbatch may be added to ours. sbatch takes long ones shortened, and several short ones in a word."""

from __future__ import annotations

import shlex

from trainlarge.errors import UserError

RESERVED = (
    "array",
    "clusters",
    "error",
    "export",
    "export-file",
    "help",
    "input",
    "job-name",
    "no-requeue",
    "nodes",
    "ntasks",
    "open-mode",
    "output",
    "parsable",
    "requeue",
    "signal",
    "test-only",
    "usage",
    "version",
    "wait",
    "wrap",
)
"""Long options on which resuming, logs and states rest, or with which nothing is submitted."""
RESERVED_LETTERS = frozenset("aehiJMnNoVW")
"""Short ones of the same meaning."""
_NO_VALUE = (
    "contiguous", "exclusive", "get-user-env", "hold", "ignore-pbs", "nice", "no-kill", "overcommit", "oversubscribe",
    "propagate", "quiet", "reboot", "spread-job", "use-min-nodes", "verbose",
)  # fmt: skip
"""Long options after which a word is not their value: sbatch would run it as the script."""
_LETTERS_WITHOUT_VALUE = frozenset("HkOQsuv")


def check_sbatch_option(entry: str) -> None:
    """Refuse what is not one option of sbatch, or one of ours.

    Args:
        entry: one of the key ``launcher.sbatch``: ``--constraint=avx512``, ``--constraint avx512``, ``-C avx512``.

    Raises:
        UserError: naming the key.
    """
    try:
        words = shlex.split(entry)
    except ValueError as error:
        raise UserError("launcher.sbatch", entry, f"options as a shell reads them ({error})") from None
    if not words or len(words) > 2 or words[-1].startswith("-") != (len(words) == 1) or len(words[0].strip("-")) == 0:
        raise UserError(
            "launcher.sbatch", entry, "a list of options of sbatch, one each: --name=VALUE, --name or -x VALUE"
        )
    name, _, value = words[0].partition("=")
    is_long = name.startswith("--")
    if _is_reserved_long(name[2:]) if is_long else _is_reserved_short(words[0][1:]):
        ours = ", ".join([*(f"--{each}" for each in RESERVED), *(f"-{each}" for each in sorted(RESERVED_LETTERS))])
        raise UserError("launcher.sbatch", entry, f"options of sbatch other than {ours}")
    if len(words) == 2 and not (_takes_long(name[2:], value) if is_long else _takes_short(words[0][1:])):
        raise UserError("launcher.sbatch", entry, f"without {words[1]}, which sbatch would run as the script")


def _is_reserved_long(name: str) -> bool:
    return any(option.startswith(name) for option in RESERVED)


def _is_reserved_short(letters: str) -> bool:
    """Whether a reserved letter is among those of a word, of which all but the last have no value."""
    return any(letter in RESERVED_LETTERS for letter in _options_in(letters))


def _options_in(letters: str) -> str:
    """The letters of a word that are options: all up to the first that takes the rest as its value."""
    first = next((index for index, letter in enumerate(letters) if letter not in _LETTERS_WITHOUT_VALUE), len(letters))
    return letters[: first + 1]


def _takes_long(name: str, value: str) -> bool:
    return not value and not any(option.startswith(name) for option in _NO_VALUE)


def _takes_short(letters: str) -> bool:
    """Whether the last letter of a word takes the next word as its value."""
    return _options_in(letters) == letters and letters[-1] not in _LETTERS_WITHOUT_VALUE

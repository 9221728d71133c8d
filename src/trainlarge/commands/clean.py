"""``trainlarge clean``: free the space of saved states and leftovers that nothing needs any more."""

from __future__ import annotations

import argparse

from rich.console import Console

from trainlarge.commands.call import Call
from trainlarge.commands.cleanup import KINDS, Removable, Wanted, find_removable, links, remove
from trainlarge.commands.studies import existing_study
from trainlarge.commands.terminal import console, table
from trainlarge.commands.verbs import verb_parser
from trainlarge.errors import UserError
from trainlarge.results.units import prefixed_text
from trainlarge.sweep.store import Study

_WORDS = {
    "states": "saved states of trunks whose cells are all done; a larger budget would then start from the beginning",
    "leftovers": "half-written files of processes that were killed",
    "leases": "old leases of cells that are done",
    "checkpoints": "weights of train cells",
    "packed": "packed files of compress cells",
}
_bytes = prefixed_text("B")


def main(call: Call) -> int:
    """Show what can go and, with ``--yes``, remove it."""
    options = parser().parse_args(call.arguments)
    wanted = Wanted(options.checkpoints, options.packed, options.keep)
    clean(existing_study(options.study), wanted, console(), is_wanted=options.yes)
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = verb_parser("clean")
    made.add_argument("study")
    made.add_argument("--checkpoints", action="store_true", help="also weights of train cells that are done")
    made.add_argument("--packed", action="store_true", help="also packed files of compress cells that are done")
    made.add_argument("--keep", metavar="CONDITION", help="keep those of cells such as 'arch.width == 128'")
    made.add_argument("--yes", action="store_true", help="remove it; without this it is only shown")
    return made


def clean(study: Study, wanted: Wanted, console: Console, is_wanted: bool) -> None:
    """Show what can go and, if that ``is_wanted``, remove it.

    Raises:
        UserError: for a condition without anything that it could keep, or one that cannot be read.
    """
    if wanted.keep is not None and not (wanted.checkpoints or wanted.packed):
        raise UserError("--keep", wanted.keep, "must be used with --checkpoints or --packed, which it restricts")
    items = find_removable(study, wanted)
    if left := links(study):
        console.print(f"left alone, since they are links: {', '.join(map(str, left))}", soft_wrap=True, markup=False)
    if not items:
        console.print("nothing to remove")
        return
    console.print(table(("what", "kind", "files", "size"), _rows(items), console.is_terminal, texts=2))
    if not is_wanted:
        console.print(f"nothing was removed; --yes frees {_bytes(sum(item.size for item in items))}")
        return
    freed, kept = remove(items)
    stays = f"; {len(kept)} stay, because a process holds their cells" if kept else ""
    console.print(f"freed {_bytes(freed)}{stays}")


def _rows(items: list[Removable]) -> list[list[str]]:
    groups = {kind: [item for item in items if item.kind == kind] for kind in KINDS}
    return [
        [_WORDS[kind], kind, str(sum(len(item.paths) for item in items)), _bytes(sum(item.size for item in items))]
        for kind, items in groups.items()
        if items
    ]

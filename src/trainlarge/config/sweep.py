"""The group ``sweep``: the cells of a command. It makes the cells and is no part of them."""

from __future__ import annotations

from dataclasses import dataclass

from trainlarge.config.group import Plain


@dataclass(frozen=True)
class SweepConfig:
    """The cells of a sweep."""

    blocks: tuple[Plain, ...] = ()
    """Each block maps keys (or groups) to values and stands for their product; the sweep is the union."""
    exclude: tuple[str, ...] = ()
    """Conditions such as ``arch.width == 64 and budget > "30 s"``; cells that meet one are left out."""
    where: str | None = None
    """Condition on the checkpoints that ``checkpoint: every`` stands for, such as ``budget == 2e12``."""
    data_folder: str | None = None
    """Folder in which relative paths of ``data.files`` and the like are looked for; null: the working directory."""
    budget_factor: float = 1.0
    """What every budget of the sweep, and ``schedule.horizon``, is multiplied by: 50 for a machine that is 50 times as
    fast. Conditions see the multiplied budgets."""
    best_of: tuple[str, ...] = ()
    """Keys, such as ``[optim.lr, budget]``: of the checkpoints that ``checkpoint: every`` stands for, those that agree
    in all other keys are a group, and only the best of each group is used. Best is judged on the part of the training
    rows that ``task.selection_share`` holds out, by the task's main metric."""

"""How far compression, or finetuning, moved the weights of each kind of module, read where they are needed.

The files of the cells say it tensor by tensor; names of tensors say which module they belong to.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from trainlarge.config.group import Plain
from trainlarge.errors import UserError
from trainlarge.sweep.files import read_json
from trainlarge.sweep.store import CellFolder, Study

MODULES = ("attention in", "attention out", "feed-forward in", "feed-forward out")
"""The modules of a layer, in the order of the paper's figure 9."""
EMBEDDINGS, HEAD, OTHER = "embeddings", "head", "other"
_PATTERNS = (
    (HEAD, r"(^|\.)(classifier|score|lm_head|pooler|cls|head)\.|(^|\.)decoder\.(weight|bias)$"),
    (EMBEDDINGS, r"embed|(^|\.)(wte|wpe)\."),
    ("attention in", r"Wqkv|(query|key|value)(_proj)?\.|[qkv]_proj|in_proj|c_attn|(^|\.)[qkv]\."),
    ("attention out", r"attn\.(Wo|dense|c_proj)|attention\.(output\.)?dense|o_proj|out_proj|(^|\.)o\."),
    ("feed-forward in", r"mlp\.(Wi|c_fc|dense_h_to_4h)|intermediate\.dense|gate_proj|up_proj|(^|\.)fc1\.|w[13]\."),
    ("feed-forward out", r"mlp\.(Wo|c_proj|dense_4h_to_h)|output\.dense|down_proj|(^|\.)fc2\.|w2\."),
)
"""Module and what names of its tensors contain; the first that fits counts."""
_NUMBERS = ("weights", "mean_absolute_change", "spread", "squared_norm", "relative_squared_error")
COLUMNS = ("cell", "tensor", "module", *_NUMBERS)


def module_of(tensor: str) -> str:
    """The kind of module that a tensor belongs to, by its name in the Hugging Face layout."""
    return next((module for module, pattern in _PATTERNS if re.search(pattern, tensor)), OTHER)


@dataclass(frozen=True)
class WeightChanges:
    """The weight changes of a study's cells; nothing is read before ``of``."""

    study: Study | None = None
    """Where the cells are; None: nothing is known."""

    def of(self, stage: str, cells: Iterable[str]) -> pd.DataFrame:
        """One row per tensor of the cells that kept its change: compress cells, and train cells from a checkpoint.

        Returns:
            Columns ``COLUMNS``: ``weights`` is how many the tensor has, ``mean_absolute_change`` the mean of |w' - w|,
            ``spread`` its standard deviation, ``squared_norm`` the sum of w^2 before, ``relative_squared_error`` the
            sum of (w' - w)^2 over that. Damaged files are left out with a warning.
        """
        folders = [self.study.folder(stage, cell) for cell in cells] if self.study else []
        rows = [row for folder in folders for row in _rows(folder)]
        return pd.DataFrame(rows, columns=list(COLUMNS))


def by_module(changes: pd.DataFrame) -> pd.DataFrame:
    """One row per cell and module: ``mean_absolute_change`` over all its weights, and ``relative_squared_error``."""
    moved = changes.assign(
        total=changes["mean_absolute_change"] * changes["weights"],
        error=changes["relative_squared_error"] * changes["squared_norm"],
    )
    sums = moved.groupby(["cell", "module"])[["total", "error", "weights", "squared_norm"]].sum()
    means = pd.DataFrame(
        {
            "mean_absolute_change": sums["total"] / sums["weights"],
            "relative_squared_error": sums["error"] / sums["squared_norm"],
        }
    )
    return means.reset_index()


def _rows(folder: CellFolder) -> list[tuple[Plain, ...]]:
    path = folder.weight_errors
    try:
        folder.prove(path.name)
        tensors = read_json(path)
        if not isinstance(tensors, dict):
            raise ValueError("no mapping from tensors to errors")
        return [(folder.id, name, module_of(name), *_numbers(error)) for name, error in tensors.items()]
    except FileNotFoundError:
        return []
    except UserError as error:
        warnings.warn(f"weight changes are left out: {error}", stacklevel=2)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        hint = f"weight changes of cell {folder.id}; to make them again: {folder.redo_command}"
        warnings.warn(str(UserError(str(path), type(error).__name__, hint)), stacklevel=2)
    return []


def _numbers(error: Plain) -> list[float]:
    """The numbers of one tensor. Raises LookupError or TypeError where they are not there."""
    if not isinstance(error, dict):
        raise TypeError("no mapping from names to numbers")
    return [float(str(error[key])) for key in _NUMBERS]

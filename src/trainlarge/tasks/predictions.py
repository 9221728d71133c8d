"""``predictions.npz``: what a model predicts for each row of the evaluation set, from which every score follows.

Arrays by name, read with ``numpy.load(path)``: ``row`` (its number in the validation split), ``label`` and
``prediction`` (classes from 0 in the order of the labels, or numbers), ``loss`` (fp32), all [rows], and ``outputs``
[rows, labels] (fp32: logits, or the number). No pickle.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainlarge.sweep.files import remove_file, replacing
from trainlarge.tasks.evaluation import Evaluation, EvaluationSet

NAME = "predictions.npz"


def write_predictions(folder: Path, data: EvaluationSet, evaluation: Evaluation | None) -> None:
    """Put the predictions of an evaluation into the folder of a cell; of tasks on tokens none are kept.

    Args:
        folder: of the cell.
        data: what it was evaluated on.
        evaluation: what the model gave there; None where it diverged.
    """
    path = folder / NAME
    if evaluation is None or evaluation.predictions is None or evaluation.outputs is None or data.rows is None:
        remove_file(path)
        return
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            row=data.rows.numpy(),
            label=data.labels.flatten().numpy(),
            prediction=evaluation.predictions.numpy(),
            loss=evaluation.losses.flatten().numpy(),
            outputs=evaluation.outputs.numpy(),
        )

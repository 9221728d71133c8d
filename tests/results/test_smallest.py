"""The smallest model that is good enough, on a frame made by hand."""

from __future__ import annotations

import pandas as pd

from trainlarge.results import smallest_networks

ROWS = [
    # cell, parent, parameters, left, loss, dense loss, rewind, control
    ("a", "small", 100, 100, 2.00, 2.0, "none", "none"),
    ("b", "small", 100, 40, 2.02, 2.0, "none", "none"),
    ("c", "small", 100, 20, 2.05, 2.0, "none", "none"),
    ("d", "small", 100, 30, 2.01, 2.0, "initial", "none"),
    ("e", "small", 100, 60, 1.99, 2.0, "initial", "random_mask"),
    ("f", "small", 100, 30, 2.40, 2.0, "initial", "random_mask"),
    ("g", "large", 900, 50, 1.51, 1.5, "none", "none"),
    ("h", "large", 900, 50, 1.50, 1.5, "none", "none"),
    ("i", "large", 900, 10, 9.00, 1.5, "initial", "none"),
]
NAMES = [
    *("cell", "parent", "parameters", "nonzero_parameters", "loss", "dense_loss"),
    *("recover_rewind", "recover_control"),
]


def frame() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=NAMES).assign(unknown_share=0.0, task="mlm")


def test_the_smallest_of_each_checkpoint_and_kind_that_reaches_the_goal() -> None:
    found = smallest_networks(frame(), share=0.98)
    assert list(found["cell"]) == ["d", "e", "b", "g"], "of equal sizes the first cell; none where no model reaches it"
    assert list(found["goal"].round(6)) == [round(2 / 0.98, 6)] * 3 + [round(1.5 / 0.98, 6)]
    assert list(smallest_networks(frame(), share=0.95)["cell"]) == ["d", "e", "c", "g"]


def test_of_a_score_that_is_better_higher_a_share_is_to_be_reached() -> None:
    rows = frame().assign(task="classification", accuracy=[0.8, 0.79, 0.7, 0.8, 0.5, 0.5, 0.9, 0.9, 0.1])
    rows["dense_accuracy"] = [0.8] * 6 + [0.9] * 3
    assert list(smallest_networks(rows, share=0.98, y="accuracy")["cell"]) == ["d", "b", "g"]
    rows["dense_accuracy"] = -0.1
    assert set(smallest_networks(rows, y="accuracy")["goal"]) == {-0.1}, "a score below 0 has no share"

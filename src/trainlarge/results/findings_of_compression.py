"""What the compress cells show: who loses less, and who wins at equal size."""

from __future__ import annotations

import numpy as np
import pandas as pd

from trainlarge.results.axes import axis
from trainlarge.results.finding import Finding, by_size, last_budget, listed, runs
from trainlarge.results.frontier import TIE, frontier
from trainlarge.results.recipes import is_dense, same_task

DESTROYED = 2.0
"""An increase (nats) from which on a model counts as destroyed, so that who loses less says nothing."""
WORKING = 1.0
"""An increase (nats) up to which a compressed model is worth comparing at equal size."""
NARROW = 1.25
"""A range of sizes whose ends differ by less than this factor is not worth a word."""
CLEAR_ERRORS = 2.0
"""Standard errors of a difference from which on it is clear."""


def compression_findings(compression: pd.DataFrame) -> list[Finding]:
    """All findings of this file; one sentence where nothing was compressed."""
    known = same_task(compression).dropna(subset=["series"])
    if known.empty:
        return [Finding("Nothing was compressed yet.", found=False)]
    return [*larger_loses_less(known), *equal_bytes(known), *beats_dense(known), *nearest_to_dense(known)]


def larger_loses_less(compression: pd.DataFrame) -> list[Finding]:
    """Whether the largest series loses less than the smallest under the same recipe after the same budget."""
    order = by_size(compression)
    if len(order) < 2:
        return [Finding("One size only was compressed: whether a larger one loses less is open.", found=False)]
    pairs = recipe_pairs(compression, order[0], order[-1])
    if pairs.empty:
        return [
            Finding(f"{order[0]} and {order[-1]} share no recipe and budget under which they still work.", found=False)
        ]
    less, more = int((pairs["clear"] & (pairs["gap"] > 0)).sum()), int((pairs["clear"] & (pairs["gap"] < 0)).sum())
    counts = (
        f"Under the same recipe after the same budget ({len(pairs)} comparisons; "
        f"increases of {DESTROYED:g} nats or more in both left out), "
        f"the largest, {order[-1]}, loses less than the smallest, {order[0]}, in {less}, more in {more}, "
        f"and about the same (within {CLEAR_ERRORS:g} standard errors) in {len(pairs) - less - more}."
    )
    if less > more:
        return [Finding(counts), *_example(compression, pairs, order)]
    return [Finding(counts, found=False), Finding("So larger models do not lose less here.", found=False)]


def recipe_pairs(compression: pd.DataFrame, small: str, large: str) -> pd.DataFrame:
    """Two series under every recipe and budget that both have.

    Returns:
        ``budget``, ``recipe``, ``small`` and ``large`` (loss increases, nats), ``gap`` (small - large) and ``clear``
        (whether it exceeds ``CLEAR_ERRORS`` standard errors); dense models and destroyed pairs are left out.
    """
    keys = ["budget", "seed", "recipe"]
    columns = [*keys, "loss_increase", "increase_standard_error"]
    changed = compression[~is_dense(compression)]
    left, right = (changed[changed["series"] == name][columns] for name in (small, large))
    pairs = left.merge(right, on=keys, suffixes=("_small", "_large"))
    pairs = pairs.assign(small=pairs["loss_increase_small"], large=pairs["loss_increase_large"])
    pairs["gap"] = pairs["small"] - pairs["large"]
    pairs["clear"] = pairs["gap"].abs() > CLEAR_ERRORS * np.hypot(
        pairs["increase_standard_error_small"], pairs["increase_standard_error_large"]
    )
    works = pairs[["small", "large"]].min(axis=1) < DESTROYED
    return pairs.loc[works, [*keys, "small", "large", "gap", "clear"]].reset_index(drop=True)


def equal_bytes(compression: pd.DataFrame, size: str = "file_bytes", tie: float = TIE) -> list[Finding]:
    """Which series has the lowest loss at every file size, among models of one budget that still work."""
    rows, place = last_budget(compression), axis(size)
    rows = rows[rows["loss_increase"] < WORKING]
    if rows.empty:
        return [Finding(f"No model of the last budget was compressed at a cost below {WORKING:g} nat.", found=False)]
    order = by_size(rows)
    limits = sorted({limit for _, own in rows.groupby("series") for limit in frontier(own, size)[size]})
    spans = _wide(runs([_winner(rows, limit, size, order, tie) for limit in limits]), limits)
    starts = [place.write(limits[first]) for _, first, _ in spans]
    ends = [f"to {start}" for start in starts[1:]] + ["up"]
    parts = [f"{name} from {start} {end}" for (name, _, _), start, end in zip(spans, starts, ends, strict=True)]
    models = f"trained for {_budget(rows)}, compressed at a cost below {WORKING:g} nat"
    sentences = [Finding(f"At equal {place.words} ({models}), lowest loss: {'; '.join(parts)}.")]
    never = [name for name in order[1:] if not any(name == winner for winner, _, _ in spans)]
    if never:
        verb = "wins" if len(never) == 1 else "win"
        sentences.append(Finding(f"{listed(never)} clearly {verb} at no file size after {_budget(rows)}.", found=False))
    return sentences


def beats_dense(compression: pd.DataFrame, size: str = "file_bytes") -> list[Finding]:
    """For each series but the largest: a larger one, compressed, that is smaller and better than it is dense."""
    rows, write = last_budget(compression), axis(size).write
    dense, order, sentences = rows[is_dense(rows)], by_size(rows), []
    for index, name in enumerate(order[:-1]):
        own = dense[dense["series"] == name].nsmallest(1, "loss")
        larger = rows[rows["series"].isin(order[index + 1 :])]
        if own.empty:
            continue
        base = own.iloc[0]
        better = larger[(larger[size] <= base[size]) & (larger["loss"] < base["loss"])].nsmallest(1, "loss")
        what = f"{name} dense ({base['loss']:.2f} at {write(base[size])})"
        if better.empty:
            sentences.append(
                Finding(
                    f"No larger model compresses to something smaller and better than {what}, after {_budget(rows)}.",
                    found=False,
                )
            )
        else:
            sentences.append(
                Finding(
                    f"{_model(better.iloc[0], size)} is smaller and better than {what}, both after {_budget(rows)}."
                )
            )
    return sentences


def nearest_to_dense(compression: pd.DataFrame, size: str = "file_bytes", tie: float = TIE) -> list[Finding]:
    """How small the best dense model's quality can be had: the smallest file within a tie of its loss."""
    dense, write = compression[is_dense(compression)], axis(size).write
    if dense.empty:
        return []
    best = dense.nsmallest(1, "loss").iloc[0]
    smallest = compression[compression["loss"] < best["loss"] + tie].nsmallest(1, size).iloc[0]
    name = (
        f"The best dense model is {best['series']} after {best['budget']} ({best['loss']:.2f} at {write(best[size])})"
    )
    if smallest[size] >= best[size]:
        return [Finding(f"{name}; nothing compressed comes within {tie:g} nats of it.", found=False)]
    factor, gap = best[size] / smallest[size], smallest["loss"] - best["loss"]
    return [
        Finding(
            f"{name}; {_model(smallest, size)} comes within {tie:g} nats of it ({gap:+.3f}) "
            f"at {factor:.1f} times fewer bytes."
        )
    ]


def _example(compression: pd.DataFrame, pairs: pd.DataFrame, order: list[str]) -> list[Finding]:
    """The recipe with the clearest gap after the last budget, with the increase of every size."""
    rows = last_budget(compression)
    last = pairs[
        (pairs["budget"] == rows["budget"].iloc[0]) & pairs["clear"] & (pairs["gap"] > 0) & (pairs["large"] < WORKING)
    ]
    if last.empty:
        return []
    recipe = last.nlargest(1, "gap")["recipe"].iloc[0]
    increases = rows[rows["recipe"] == recipe].groupby("series")["loss_increase"].mean()
    values = listed(f"{increases[name]:+.2f} ({name})" for name in order if name in increases)
    return [Finding(f"Clearest after {_budget(rows)}: {recipe} costs {values} nats.")]


def _wide(spans: list[tuple[str, int, int]], limits: list[float]) -> list[tuple[str, int, int]]:
    """``spans`` without the narrow ones, which go to the winner before them."""
    labels: list[str] = []
    for index, (name, first, last) in enumerate(spans):
        is_narrow = 0 < index < len(spans) - 1 and limits[last + 1] < NARROW * limits[first]
        labels += [labels[-1] if is_narrow else name] * (last - first + 1)
    return runs(labels)


def _winner(rows: pd.DataFrame, limit: float, size: str, order: list[str], tie: float) -> str:
    """The series of lowest loss among files of at most ``limit`` bytes, or the two that tie there."""
    losses = rows[rows[size] <= limit].groupby("series")["loss"].min().nsmallest(2)
    if len(losses) > 1 and losses.iloc[1] - losses.iloc[0] < tie:
        first, second = sorted(map(str, losses.index), key=order.index)
        return f"{first} and {second} tie"
    return str(losses.index[0])


def _model(row: pd.Series, size: str) -> str:
    at = axis(size).write(row[size])
    return f"{row['series']} after {row['budget']} with {row['recipe']} ({row['loss']:.2f} at {at})"


def _budget(rows: pd.DataFrame) -> str:
    return str(rows["budget"].iloc[0])

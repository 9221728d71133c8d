"""What the compress cells show: what costs nothing, who loses less, and who has the lowest loss at equal size."""

from __future__ import annotations

import math
from itertools import pairwise

import pandas as pd

from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.analysis.intervals import NO_DOCUMENTS, Difference, number
from trainlarge.results.analysis.loss_increases import Increases
from trainlarge.results.analysis.models import Model, cost_of, loss_difference, models_of
from trainlarge.results.recipes import is_dense
from trainlarge.results.report.finding import Finding, counted, listed, runs, seeds_in_words
from trainlarge.results.report.findings_of_pruning import pruned_on_the_way
from trainlarge.results.report.findings_of_training import MOST_SIZES, NAMED_PAIRS
from trainlarge.results.series import by_size, last_budget
from trainlarge.results.training_cost import has_recovery, recovery_share
from trainlarge.results.units import scale_of

Cost = tuple[Model, Difference]
"""A compressed model and what compression costs it."""
Costs = list[Cost]
SAME_SIZE = 1.05
"""Files whose sizes differ by less than this factor are one size: the cheaper one is named."""
NARROW = 1.25
"""A range of sizes whose ends differ by less than this factor is not worth a word."""


def compression_findings(evidence: Evidence) -> list[Finding]:
    """All findings of this file; one sentence where there is no compressed model to compare."""
    if evidence.known.empty:
        return [Finding(_nothing_to_compare(evidence), is_result=False)]
    left_out = on_the_plateau(evidence)
    if evidence.compressed.empty:
        return left_out
    return [
        *left_out,
        *recovered_longer(evidence),
        *nearest_to_dense(evidence),
        *larger_loses_less(evidence),
        *equal_bytes(evidence),
        *beats_dense(evidence),
        *pruned_on_the_way(evidence),
    ]


def _nothing_to_compare(evidence: Evidence) -> str:
    """Why there is no compressed model: nothing was made yet, it was made elsewhere, or it cannot be compared."""
    made = evidence.made[evidence.made["series"].notna()]
    if len(made):
        cut = int(made["unknown_share"].gt(0).sum())
        reasons = {
            "tokens that are to be predicted were cut": cut,
            "their checkpoint missed its budget": len(made) - cut,
        }
        why = listed(f"{reason} ({count})" for reason, count in reasons.items() if count)
        return f"No compressed model is compared: of {counted(len(made), 'model', 'models')}, {why}."
    if evidence.compressed_later:
        parts = listed(f"{name} ({count:,})" for name, count in evidence.compressed_later.items())
        return f"These models were compressed after they were finetuned, and not before: {parts}."
    if len(evidence.made):
        return "Hugging Face folders were compressed, and no checkpoint of the study."
    return "Nothing was compressed yet."


def on_the_plateau(evidence: Evidence) -> list[Finding]:
    """Which checkpoints were compressed before they had learned more than frequencies."""
    left = evidence.known[~evidence.known["cell"].isin(evidence.compressed["cell"])].drop_duplicates("parent")
    if left.empty:
        return []
    rows, loss = left.drop_duplicates(["series", "budget"]).to_dict("records"), evidence.loss
    names = listed(f"{row['series']} after {row['budget']}" for row in rows)
    frequency_loss = number(float(left["frequency_loss"].iloc[0]), 2)
    text = (
        f"Left out of all comparisons of compressed models: {names}. Their dense loss is not {loss.amount(loss.tie)} "
        f"below that of {evidence.frequencies} ({frequency_loss} {loss.short_unit})."
    )
    return [Finding(text, is_result=False)]


def recovered_longer(evidence: Evidence) -> list[Finding]:
    """Which models of the last budget are compared with no others of it, since recovery trained them for longer."""
    last = last_budget(evidence.compressed)
    longer = last[has_recovery(last) & ~last["cell"].isin(evidence.compressed_equally["cell"])]
    if longer.empty:
        return []
    share = recovery_share(longer)
    text = (
        f"{counted(len(longer), 'model', 'models')} of {_budget(last)} had recovery training on top of it, "
        f"{_percent(share.min(), share.max())} of the steps of the checkpoint: left out where models of equal training "
        "are compared."
    )
    return [Finding(text, is_result=False)]


def larger_loses_less(evidence: Evidence) -> list[Finding]:
    """What the same recipes cost each size: at equal training time, at equal steps and at equal dense loss."""
    return [_increase(evidence, answer) for answer in evidence.increases]


def _increase(evidence: Evidence, answer: Increases) -> Finding:
    if answer.why_not:
        return Finding(f"Loss increases at equal {answer.equal} cannot be compared: {answer.why_not}.", is_result=False)
    decimals = 2 if max(estimate.value for estimate in answer.overall.values()) >= 0.1 else 3
    means = listed(f"{number(answer.overall[name].value, decimals)} ({name})" for name in answer.sizes)
    seeds = min(len(estimate.seeds) for estimate in answer.overall.values())
    text = (
        f"At equal {answer.equal} ({answer.where}; {seeds_in_words(seeds)} per size), the same recipes cost {means} "
        f"{evidence.loss.short_unit}: median of each family of recipes, mean of "
        f"{counted(len(answer.families), 'family', 'families')}. "
    )
    parts, gaps = [], []
    for small, large in pairwise(answer.sizes):
        gap = evidence.family[answer.equal, small, large]
        gaps.append(gap)
        fewer = sum(medians[large].value < medians[small].value for medians in answer.families.values())
        word, shown = ("less", gap) if gap.value >= 0 else ("more", gap.turned())
        parts.append(f"{large} loses {word} than {small} by {shown}, and less in {fewer} of {len(answer.families)}")
    if len(parts) > MOST_SIZES:
        parts = [*parts[:NAMED_PAIRS], f"and so on for {len(parts) - NAMED_PAIRS} pairs more"]
    is_found = any(gap.is_clear and gap.value > 0 for gap in gaps) and all(gap.value > 0 for gap in gaps)
    return Finding(f"{text}{'; '.join(parts)}.", is_result=is_found)


def equal_bytes(evidence: Evidence, size: str = "file_bytes") -> list[Finding]:
    """Which series has the lowest loss at every file size, among models of equal training that still work."""
    loss, place = evidence.loss, scale_of(size)
    cost, budget = f"a cost below {loss.amount(loss.broken)}", _budget(last_budget(evidence.compressed))
    rows = evidence.compressed_equally
    rows = rows[rows["loss_increase"] < loss.broken]
    if rows.empty:
        return [Finding(f"No model of the last budget was compressed at {cost}.", is_result=False)]
    order, models = by_size(rows), models_of(rows, size)
    if len(order) < 2:
        return [Finding(f"Only {order[0]} was compressed after {budget}: sizes are not compared.", is_result=False)]
    limits = _limits(models)
    winners = _wide(runs([_winner(evidence, models, limit, order) for limit in limits]), limits)
    starts = [place.write(limits[first]) for _, first, _ in winners]
    ends = [f"to {start}" for start in starts[1:]] + ["up"]
    parts = [f"{name} from {start} {end}" for (name, _, _), start, end in zip(winners, starts, ends, strict=True)]
    recovery = ", recovery included" if has_recovery(rows).any() else ""
    text = (
        f"At equal {place.words} ({listed(order)}; trained for {budget}{recovery}, compressed at {cost}), lowest "
        f"measured loss: {'; '.join(parts)}. Order not tested: the best of many recipes is chosen on the evaluation "
        "set itself."
    )
    never = [name for name in order if not any(name in winner.split(" or ") for winner, _, _ in winners)]
    verb = "has" if len(never) == 1 else "have"
    lost = f"{listed(never)} {verb} the lowest loss at no file size after {budget}." if never else ""
    return [Finding(text), *([Finding(lost, is_result=False)] if lost else [])]


def beats_dense(evidence: Evidence, size: str = "file_bytes") -> list[Finding]:
    """For each series but the largest: a larger one, compressed, that is smaller and better than it is dense."""
    rows, unit = evidence.compressed_equally, evidence.loss.short_unit
    models, order, budget = models_of(rows, size), by_size(rows), _budget(last_budget(evidence.compressed))
    sentences = []
    for index, name in enumerate(order[:-1]):
        dense = next((model for model in models if model.series == name and model.is_dense), None)
        if dense is None:
            continue
        what = f"{name} dense ({_loss_at(dense, size, unit)})"
        larger = [model for model in models if model.series in order[index + 1 :] and model.size <= dense.size]
        best = min(larger, key=lambda model: model.loss, default=None)
        if best is None or best.loss >= dense.loss:
            text = f"No larger model compresses to something smaller and better than {what}, after {budget}."
            sentences.append(Finding(text, is_result=False))
            continue
        gap = loss_difference(evidence, dense, best)
        which = f"{best.series} after {best.budget} with {best.recipe} ({_loss_at(best, size, unit)})"
        trained = "both trained for" if best.recovery == 0 else "neither trained for more than"
        sentences.append(
            Finding(f"{which} is smaller and better than {what} by {gap}, {trained} {budget}.", is_result=gap.low > 0)
        )
    return sentences


def nearest_to_dense(evidence: Evidence, size: str = "file_bytes") -> list[Finding]:
    """What compression costs the best dense model: first what costs nothing measurable, then the next smaller file."""
    rows = evidence.compressed
    dense = models_of(rows[is_dense(rows)], size)
    if not dense:
        return []
    best, loss = min(dense, key=lambda model: model.loss), evidence.loss
    made = rows[rows["series"].eq(best.series) & rows["budget"].eq(best.budget) & ~is_dense(rows)]
    smaller = sorted(models_of(made, size), key=lambda model: model.size)
    costs = [(model, cost_of(evidence, model)) for model in smaller if model.size < best.size]
    name = f"The best dense model is {best.series} after {best.budget} ({_loss_at(best, size, loss.short_unit)})"
    if not costs:
        return [Finding(f"{name}; nothing smaller was made of it.", is_result=False)]
    free = [(model, cost) for model, cost in costs if cost.high < loss.negligible]
    tied = [cost for cost in free if cost[1].low <= 0] or free
    chosen = _smallest(tied)
    share = f"{len(tied)} of {counted(len(costs), 'recipe', 'recipes')}"
    first = _free(evidence, name, best, chosen, share, size) if chosen else _none_is_free(evidence, name, costs)
    return [first, *_next_smaller(evidence, best, costs, chosen, size)]


def _smallest(tied: Costs) -> Cost | None:
    """The smallest file, or of files of nearly its size the cheapest."""
    limit = SAME_SIZE * min((model.size for model, _ in tied), default=0.0)
    return min((cost for cost in tied if cost[0].size <= limit), key=lambda cost: cost[1].value, default=None)


def _none_is_free(evidence: Evidence, name: str, costs: Costs) -> Finding:
    """That every smaller file costs something, or may."""
    if all(math.isnan(cost.low) for _, cost in costs):
        why = f"whether a smaller file of it costs nothing was not tested: {NO_DOCUMENTS}"
    else:
        why = f"every smaller file of it may cost {evidence.loss.amount(evidence.loss.negligible)} or more"
    return Finding(f"{name}; {why}.", is_result=False)


def _free(evidence: Evidence, name: str, best: Model, chosen: Cost, share: str, size: str) -> Finding:
    """What costs nothing measurable, or at most next to nothing, and by which rule it was chosen."""
    (model, cost), negligible = chosen, evidence.loss.amount(evidence.loss.negligible)
    covers = cost.low <= 0
    amount, ends = ("nothing measurable", "cover 0 and end") if covers else (f"less than {negligible}", "end")
    return Finding(
        f"{name}. {model.recipe} costs it {amount} at {_factor(best, model, size)}: {_cost(cost)}. The intervals of "
        f"{share} {ends} below {negligible}; of these it is the smallest file, or the cheapest within "
        f"{100 * (SAME_SIZE - 1):.0f} % of it."
    )


def _next_smaller(evidence: Evidence, best: Model, costs: Costs, chosen: Cost | None, size: str) -> list[Finding]:
    """The cheapest of the files that are much smaller than what costs nothing: a few bytes are worth no loss."""
    limit = (chosen[0] if chosen else best).size / NARROW
    paid = [(model, cost) for model, cost in costs if model.size <= limit]
    paid = [(model, cost) for model, cost in paid if model.loss_increase < evidence.loss.broken]
    if not paid:
        return []
    model, cost = min(paid, key=lambda pair: pair[0].loss_increase)
    text = (
        f"Of files of {best.series} after {best.budget} up to {scale_of(size).write(limit)}, at least {NARROW:g} times "
        f"smaller than {'that' if chosen else 'dense'}, {model.recipe} costs least, at {_factor(best, model, size)}: "
        f"{_cost(cost)}."
    )
    return [Finding(text)]


def _cost(cost: Difference) -> str:
    sign = "+" if cost.value >= 0 else ""
    return f"{sign}{number(cost.value, max(cost.precision, 3))} {cost.unit} ({cost.interval()})"


def _factor(best: Model, model: Model, size: str) -> str:
    """How much smaller a model is, and what training that took on top of that of the checkpoint."""
    more = f" and {_percent(model.recovery, model.recovery)} more training" if model.recovery else ""
    return f"{best.size / model.size:.1f} times fewer bytes ({scale_of(size).write(model.size)}){more}"


def _percent(low: float, high: float) -> str:
    ends = [f"{100 * share:.2g}" for share in (low, high)]
    return f"{ends[0]} %" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]} %"


def _loss_at(model: Model, size: str, unit: str) -> str:
    return f"{model.loss:.2f} {unit} at {scale_of(size).write(model.size)}"


def _limits(models: list[Model]) -> list[float]:
    """Sizes, ascending, from which on a series has a lower loss than in any smaller file of its own."""
    limits, lowest = set(), dict[str, float]()
    for model in sorted(models, key=lambda model: (model.size, model.loss)):
        if model.loss < lowest.get(model.series, math.inf):
            lowest[model.series] = model.loss
            limits.add(model.size)
    return sorted(limits)


def _wide(spans: list[tuple[str, int, int]], limits: list[float]) -> list[tuple[str, int, int]]:
    """``spans`` without the narrow ones, which go to the winner before them."""
    labels: list[str] = []
    for index, (name, first, last) in enumerate(spans):
        is_narrow = 0 < index < len(spans) - 1 and limits[last + 1] < NARROW * limits[first]
        labels += [labels[-1] if is_narrow else name] * (last - first + 1)
    return runs(labels)


def _winner(evidence: Evidence, models: list[Model], limit: float, order: list[str]) -> str:
    """The series of lowest loss among files of at most ``limit`` bytes; two where the interval covers 0."""
    fitting = sorted((model for model in models if model.size <= limit), key=lambda model: (model.loss, model.cells[0]))
    best = fitting[0]
    rival = next((model for model in fitting if model.series != best.series), None)
    if rival and loss_difference(evidence, rival, best).covers_zero:
        return " or ".join(sorted((best.series, rival.series), key=order.index))
    return best.series


def _budget(rows: pd.DataFrame) -> str:
    return str(rows["budget"].iloc[0])

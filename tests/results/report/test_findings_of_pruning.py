"""Pruning on the way of a training is compared with pruning once and training for as long, and with nothing else."""

from __future__ import annotations

import pandas as pd

from trainlarge.results.frames import StudyFrames
from trainlarge.results.report.findings_of_compression import compression_findings
from trainlarge.results.report.findings_of_pruning import pruned_on_the_way

from .test_findings import changed


def by(rows: pd.DataFrame, prune: str, recipe: str, gain: float, **others: object) -> pd.DataFrame:
    """The same cells pruned by another method, with another loss and ids of their own."""
    ids = rows["cell"].map(lambda name: f"{int(name, 16) ^ (len(recipe) << 40):012x}")
    better = {name: rows[name] - gain for name in ("loss", "loss_increase")}
    return rows.assign(prune=prune, recipe=recipe, cell=ids, **better, **others)


def test_each_sparsity_is_compared_at_equal_training(frames: StudyFrames) -> None:
    rows = frames.compression
    plain = rows[rows["prune"].eq("magnitude") & rows["quantize"].eq("none") & rows["budget"].eq("60 s")]
    plain = plain[plain["sparsity"].eq(plain["sparsity"].max()) & plain["series"].eq(plain["series"].iloc[0])]
    assert len(plain) == 1
    steps = int(plain["step"].iloc[0] // 10)
    once = by(plain, "magnitude", "once", 0.0, recover="retrain", recover_steps=steps)
    turns = by(once, "iterative", "in turns", 0.2)
    gradual = by(once, "gradual", "gradually", -0.1)
    longer = by(once, "iterative", "in turns, longer", 5.0, recover_steps=2 * steps)
    tickets = by(once, "iterative", "in turns, from the start", 5.0, recover_rewind="initial")
    taught = by(once, "iterative", "in turns, with a teacher", 5.0, recover="distill")
    every = pd.concat([rows, once, turns, gradual, longer, tickets, taught], ignore_index=True)
    evidence = changed(frames, compression=every)
    [finding] = pruned_on_the_way(evidence)
    sparsity = 100 * float(plain["sparsity"].iloc[0])
    start = f"{plain['series'].iloc[0]} after 60 s, pruned to {sparsity:.3g} % with 10 % of its steps of training: "
    assert finding.text.startswith(f"{start}against once (+")
    assert "in turns loses less by 0.20" in finding.text and "gradually loses more by 0.10" in finding.text
    assert finding.is_result and not any(word in finding.text for word in ("longer", "from the start", "teacher"))
    assert finding in compression_findings(evidence)
    assert pruned_on_the_way(changed(frames, compression=pd.concat([rows, turns], ignore_index=True))) == []

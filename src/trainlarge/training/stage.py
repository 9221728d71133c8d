"""Runs a train job: one trunk, a branch for each budget, and a record for each cell."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from trainlarge.config.budget import parse_budget
from trainlarge.data.blocks import Blocks
from trainlarge.data.evaluation import EvaluationSet, evaluation_set
from trainlarge.data.prepare import PreparedData, prepare
from trainlarge.data.tokenizer import hugging_face_tokenizer
from trainlarge.launch.job import RunningJob
from trainlarge.launch.provenance import origin, software
from trainlarge.models.build import build_model
from trainlarge.models.counts import parameter_counts
from trainlarge.sweep.store import CellFolder, replace_folder
from trainlarge.training.clocks import Clock
from trainlarge.training.curve import Curve, is_curve_step
from trainlarge.training.device import FORWARDS, Implementation, choose, is_shared
from trainlarge.training.evaluate import evaluate
from trainlarge.training.module import MaskedLanguageModule, Masking
from trainlarge.training.probe import settled_step_seconds
from trainlarge.training.schedule import Branch, Schedule, branches, make_schedule
from trainlarge.training.steps import Step, shape_of, step_of, steps_in
from trainlarge.training.trainer import Stretches

RECORD_SCHEMA = 1


def run(job: RunningJob) -> None:
    """Train the cells of a job, which differ in their budgets only."""
    TrunkRun(job).run()


class TrunkRun:
    """One trunk with its branches."""

    def __init__(self, job: RunningJob) -> None:
        self.job = job
        self.config: dict[str, Any] = job.cells[0].config
        self.implementation: Implementation = choose(self.config["impl"])
        torch.set_num_threads(self.implementation.threads)
        self.was_shared = is_shared(self.implementation.threads)
        self.started = time.time()
        self.clock = Clock()
        self.prepared: PreparedData = prepare(self.config["data"], job.study.data_root)
        self.evaluation_set = _evaluation_set(self.config, self.prepared)
        self.step: Step = step_of(self.config)
        self.stretches = self._stretches()
        self.step_seconds = settled_step_seconds(job.study.path / "probes", self._probe_key(), self.stretches.timed)
        self.schedule: Schedule = make_schedule(self.config["schedule"], self._horizon_steps())
        self.curve = Curve(self.step, self.step_seconds)
        self.branches: list[Branch] = branches(self.schedule, {cell.id: self._total(cell.config) for cell in job.cells})
        self.steps_done, self.steps_in_all = 0, _steps_in_all(self.branches)

    def run(self) -> None:
        """Train trunk and branches in turn; the trunk goes on from where each branch left it."""
        trunk_at = 0
        for branch in self.branches:
            self._stretch(trunk_at, branch.start, branch, None)
            trunk_at = branch.start
            snapshot, curve, clock = self.stretches.snapshot(), self.curve.copy(), self.clock.snapshot()
            self._stretch(branch.start, branch.stop, branch, branch.stop)
            self._finish(branch)
            self.stretches.restore(snapshot)
            self.curve, self.clock = curve, Clock.restored(clock)

    def _stretch(self, start: int, stop: int, branch: Branch, total: int | None) -> None:
        """Train steps ``start`` to ``stop``: on the branch of ``total`` steps, or on the trunk when that is None."""
        part = "trunk" if total is None else "branch"

        def rate(step: int) -> float:
            return self.schedule.trunk(step) if total is None else self.schedule.branch(step, total)

        def observe(steps: int, loss: Tensor) -> None:
            self.curve.losses.append(loss)
            self.steps_done += 1
            # The last step has its point when the branch is finished.
            if is_curve_step(steps, self.config["task"]["evaluations_per_doubling"]) and steps < branch.stop:
                self._evaluate(steps, rate(steps - 1), part)
            self._tell(branch)
            self.job.check()

        self.clock.start()
        self.stretches.run(start, stop, rate, observe)
        self.clock.stop()

    def _evaluate(self, steps: int, rate: float, part: str) -> None:
        self.clock.stop()
        result = evaluate(self.stretches.module.model, self.evaluation_set, FORWARDS[self.implementation.forward])
        self.curve.add(steps, rate * self.config["optim"]["peak_lr"], part, result, self.clock)
        self.clock.start()

    def _tell(self, branch: Branch) -> None:
        last = self.curve.rows[-1]["loss"] if self.curve.rows else None
        self.job.progress(
            branch.cell_ids[0],
            step=self.steps_done,
            steps=self.steps_in_all,
            loss=last,
            tokens_per_second=self.step.tokens / self.step_seconds,
            seconds_left=(self.steps_in_all - self.steps_done) * self.step_seconds,
        )

    def _finish(self, branch: Branch) -> None:
        """Evaluate the end of a branch and write its cells: weights, then curve, then record, then the state."""
        self._evaluate(branch.stop, self._last_rate(branch), "branch" if branch.start < branch.stop else "trunk")
        self.clock.stop()
        for cell_id in branch.cell_ids:
            folder = self.job.folder(cell_id)
            _save_checkpoint(folder, self.stretches.module, self.prepared)
            folder.write_metrics(self.curve.rows)
            self.job.finish(cell_id, self._record(cell_id, branch))

    def _last_rate(self, branch: Branch) -> float:
        return self.schedule.branch(branch.stop - 1, branch.stop)

    def _stretches(self) -> Stretches:
        arch = self.config["arch"]
        model = build_model(
            shape_of(self.config),
            init_std=arch["init_std"],
            seed=self.config["seed"],
            attention=self.implementation.attention,
        )
        masking = Masking.of(self.prepared, self.step, self.config["seed"])
        module = MaskedLanguageModule(model, masking, self.config["optim"], FORWARDS[self.implementation.forward])
        blocks = Blocks(self.prepared.train, self.step.sequence_length, self.config["seed"])
        return Stretches(module, blocks, self.step.rows, self.implementation, self.config["impl"])

    def _probe_key(self) -> dict[str, Any]:
        arch = {key: value for key, value in self.config["arch"].items() if key != "init_std"}
        step = {"rows": self.step.rows, "sequence_length": self.step.sequence_length, "masked": self.step.masked}
        vocab_size = self.config["data"]["vocab_size"]
        return {"implementation": self.implementation.to_json(), "arch": arch, "vocab_size": vocab_size, "step": step}

    def _total(self, config: dict[str, Any]) -> int:
        return steps_in(parse_budget(config["budget"]), self.step, self.step_seconds)

    def _horizon_steps(self) -> int | None:
        horizon = self.config["schedule"]["horizon"]
        return horizon and steps_in(
            parse_budget(horizon, "schedule.horizon"), self.step, self.step_seconds, "schedule.horizon"
        )

    def _record(self, cell_id: str, branch: Branch) -> dict[str, Any]:
        config = next(cell.config for cell in self.job.cells if cell.id == cell_id)
        last = self.curve.rows[-1]
        counts = parameter_counts(shape_of(config))
        return {
            "schema": RECORD_SCHEMA,
            "stage": "train",
            "cell": cell_id,
            "study": self.job.study.name,
            **{
                key: last[key]
                for key in (
                    "loss",
                    "accuracy",
                    "step",
                    "tokens",
                    "flops",
                    "train_seconds",
                    "model_seconds",
                    "wall_seconds",
                )
            },
            "perplexity": math.exp(last["loss"]),
            "branch_step": branch.start,
            "step_seconds": self.step_seconds,
            "parameters": counts.total,
            "embedding_parameters": counts.embedding,
            "non_embedding_parameters": counts.non_embedding,
            "data": {
                "fingerprint": self.prepared.fingerprint,
                "evaluation_fingerprint": self.evaluation_set.fingerprint,
                "train_tokens": len(self.prepared.train),
                "validation_tokens": len(self.prepared.validation),
                "epochs": last["tokens"] / len(self.prepared.train),
            },
            "environment": {**self.implementation.to_json(), "shared": self.was_shared, "software": software()},
            "provenance": {**origin(), "started": self.started, "ended": time.time()},
            "config": config,
        }


def _evaluation_set(config: dict[str, Any], prepared: PreparedData) -> EvaluationSet:
    task = config["task"]
    return evaluation_set(
        prepared, config["data"]["sequence_length"], task["evaluation_rows"], task["evaluation_mask_rate"]
    )


def _save_checkpoint(folder: CellFolder, module: MaskedLanguageModule, prepared: PreparedData) -> None:
    """Write model and tokenizer in Hugging Face layout to a folder beside, then put it in place."""
    temporary = folder.path / ".checkpoint.tmp"
    module.model.save_pretrained(temporary)
    hugging_face_tokenizer(prepared.tokenizer_file).save_pretrained(temporary)
    replace_folder(folder.checkpoint, temporary)


def _steps_in_all(plan: list[Branch]) -> int:
    trunk = max(branch.start for branch in plan)
    return trunk + sum(branch.stop - branch.start for branch in plan)

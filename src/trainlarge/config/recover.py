"""Methods of recovery: training that continues between pruning and quantization."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from trainlarge.config.budget import EPOCHS, STEPS, parse_budget
from trainlarge.config.identity import added_with
from trainlarge.config.layer_map import ALLOWED as MAPS_ALLOWED
from trainlarge.config.layer_map import Pairs, read_layer_map
from trainlarge.config.method import Method, is_integer, is_real, method, normalize

LR_SHARE = 1.0
"""Peak learning rate as a share of the parent's, where none is given: at every sparsity and length that was tried, the
parent's own peak recovered more than a tenth or a third of it (docs/recovery.md). Renda et al. 2020 (arXiv 2003.02389)
find the same: retraining with the original learning rates beats finetuning with the last and smallest one."""
ALLOWED = (
    "whole steps ('500 steps', '1k steps'), passes over the training data ('1 epoch'), a share of the parent's steps "
    "('0.1 parent')"
)
UNTIL_ALLOWED = f"{ALLOWED}, or a share of the dense score ('until 0.995 dense')"
NO_REWIND, INITIAL = "none", "initial"
TICKET_BUDGET = "1 parent"
"""The only budget of a training that goes back: to the step at which the parent ended."""
QUANTIZING = ("quantize", "activations")
"""The slots that training may be aware of."""
PARENT, DENSE = "parent", "dense"
_PART = re.compile(r"\s*(?:until\s+)?([0-9.]+(?:e[+-]?[0-9]+)?)\s*(parent|dense)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Recovery(Method):
    """What methods share that continue training.

    They train on the task, the data, the batch and the optimizer settings of the parent, the train cell that made the
    checkpoint, with new optimizer moments. The order of the data continues where the parent stopped: the first step
    takes the batch that the parent's next step would have taken.
    """

    budget: str = "0.1 parent"
    """Length: ``500 steps``, ``1 epoch`` (a pass over the training data), a share of the parent's steps
    (``0.1 parent``), or until the model is nearly as good as the checkpoint was: ``until 0.995 dense``, at most
    ``at_most``."""

    lr: float | None = None
    """Peak learning rate; null: that of the parent."""

    quantize_aware: float = field(default=0.0, metadata=added_with(0.0))
    """Share of the steps, the last ones, in which the forward pass quantizes as ``quantize`` and ``activations`` will
    after it, in [0, 1]; false is 0 and true is 1. Gradients pass straight through the rounding (Bengio et al. 2013,
    arXiv 1308.3432)."""

    at_most: str | None = field(default=None, metadata=added_with(None))
    """The longest that training goes on until it is as good, as a length: ``1 epoch``; null for a fixed length."""

    checks: int = field(default=20, metadata=added_with(20))
    """How often training until a score looks at it, evenly over ``at_most``; also before the first step."""

    trains: Literal["all", "norms_and_biases"] = field(default="all", metadata=added_with("all"))
    """What is trained: all weights, or only the vectors, which are norms and biases, while every matrix stays as it is
    (PERP, Zimmer et al. 2023, arXiv 2312.15230)."""

    rewind: str = field(default=NO_REWIND, metadata=added_with(NO_REWIND))
    """``initial`` or steps of the parent (``100 steps``): the weights that pruning leaves go back to their values after
    so many steps of the parent, and train again as they did, at its rates and on its data, to the step where it ended
    (``budget=1 parent``). Such weights with their mask are a lottery ticket (Frankle and Carbin 2019, arXiv 1803.03635;
    early steps: Frankle et al. 2020, arXiv 1912.05671). ``none``: they train on from where they are."""

    control: Literal["none", "random_mask", "reinitialized"] = field(default="none", metadata=added_with("none"))
    """What a lottery ticket is compared with: ``random_mask`` has as many zeros in each matrix at random places,
    ``reinitialized`` (with ``rewind=initial``) has the mask on initial weights of another seed."""

    def __post_init__(self) -> None:
        self.require_one_of("trains")
        self._check_rewind()
        budget, at_most = _length(self.budget), _length(self.at_most)
        self.require("budget", budget is not None, UNTIL_ALLOWED)
        is_until = str(budget).endswith(DENSE)
        if is_until:
            self.require("at_most", at_most is not None and not at_most.endswith(DENSE), ALLOWED)
            self.require_whole("checks", 1, 10_000)
        else:
            self.require("at_most", self.at_most is None, f"null with recover.budget={self.budget}, a fixed length")
            self.require("checks", self.checks == 20, f"20 with recover.budget={self.budget}, which looks at no score")
        is_valid = self.lr is None or (is_real(self.lr) and 0 < self.lr < math.inf)
        self.require("lr", is_valid, "a positive number or null")
        normalize(self, budget=budget, at_most=at_most, lr=None if self.lr is None else float(self.lr))
        is_share = isinstance(self.quantize_aware, bool) or (
            is_real(self.quantize_aware) and 0 <= self.quantize_aware <= 1
        )
        self.require("quantize_aware", is_share, "a share of the steps in [0, 1], or true or false")
        normalize(self, quantize_aware=float(self.quantize_aware))
        # The weights of the best score would be rounded ones, and those that round to them lost.
        allowed = "0 with recover.budget=until ..., or a fixed length"
        self.require("quantize_aware", not (is_until and self.quantize_aware), allowed)

    def _check_rewind(self) -> None:
        self.require_one_of("control")
        rewind = f"{self.rewind} steps" if is_integer(self.rewind) else self.rewind
        length = rewind if rewind in (NO_REWIND, INITIAL) else _length(rewind)
        is_known = length in (NO_REWIND, INITIAL) or (length is not None and length.endswith(STEPS))
        self.require("rewind", is_known, "none, initial, or whole steps of the parent ('100 steps')")
        normalize(self, rewind=length)
        if not self.rewinds:
            self.require("control", self.control == "none", "none with recover.rewind=none: it is one for a ticket")
            return
        is_whole = _length(self.budget) == TICKET_BUDGET
        self.require("budget", is_whole, f"{TICKET_BUDGET} with recover.rewind={length}: to the step where it ended")
        self.require("lr", self.lr is None, f"null with recover.rewind={length}: rates are those of the parent")
        is_made = self.control != "reinitialized" or length == INITIAL
        self.require("control", is_made, f"none or random_mask with recover.rewind={length}, or rewind=initial")

    @property
    def rewinds(self) -> bool:
        """Whether weights go back to what they were before."""
        return self.rewind != NO_REWIND

    @property
    def first_step(self) -> int:
        """Step of the parent at which a training that goes back begins."""
        return int(self.rewind.split()[0]) if self.rewind.endswith(STEPS) else 0

    def between_rounds(self) -> Recovery:
        """As it is between rounds of pruning, which look for the ticket that the control is compared with."""
        return replace(self, control="none")

    def ahead(self, later: Sequence[Method]) -> tuple[Method, ...]:
        """The quantization that it is aware of."""
        return tuple(step for step in later if step.slot in QUANTIZING) if self.quantize_aware else ()

    def aware_steps(self, steps: int) -> int:
        """How many of its ``steps`` are aware of quantization: the last ones, at least one where there is a share."""
        return max(round(self.quantize_aware * steps), 1 if self.quantize_aware else 0)

    @property
    def dense_share(self) -> float | None:
        """The share of the dense score until which it trains; None where the length is fixed."""
        return float(self.budget.split()[1]) if self.budget.endswith(DENSE) else None

    @property
    def in_words(self) -> str:
        """How long, how far aware of quantization and of which weights, such as ``500 steps 50 % quantize-aware``."""
        share, aware = self.quantize_aware, ""
        if share:
            aware = (f" {share * 100:g} %" if share < 1 else "") + " quantize-aware"
        length = self.budget + (f", at most {self.at_most}" if self.at_most else "")
        length += f" from {self.rewind}" if self.rewinds else ""
        length += "" if self.control == "none" else f" {self.control}"
        return f"{length}{aware}" + (" of norms and biases" if self.trains == "norms_and_biases" else "")

    @property
    def length(self) -> str:
        """The length, or the longest."""
        return self.at_most or self.budget

    @property
    def needs_parent(self) -> bool:
        """Whether the length depends on the training that made the checkpoint."""
        return not self.length.endswith(STEPS)

    def steps(self, parent_steps: int, epoch_steps: float) -> int:
        """Optimizer steps, or the most of them; at least one.

        Args:
            parent_steps: steps of the train cell that made the checkpoint.
            epoch_steps: steps of a pass over its training data.
        """
        amount, unit = self.length.split()
        steps = round(float(amount) * {PARENT: parent_steps, EPOCHS: epoch_steps, STEPS: 1}[unit])
        return max(1, steps - self.first_step)

    def peak_lr(self, parent_lr: float) -> float:
        """Peak learning rate, where the parent's was ``parent_lr``."""
        return LR_SHARE * parent_lr if self.lr is None else self.lr


@method("recover", "retrain")
@dataclass(frozen=True)
class Retrain(Recovery):
    """Train on with pruned weights held at zero, at a rate that falls linearly from its peak to 0.

    Gradients, optimizer moments and values of weights that are 0 stay 0, so the sparsity stays what pruning made it.
    Source: Li et al. 2020 (arXiv 2002.11794), section 4.1, who prune and finetune in turns (``prune=iterative``), each
    time until 99.5 % of the accuracy before pruning or for one epoch.
    """

    def summary(self) -> str:
        """Such as ``retrain 500 steps``, or ``retrain 500 steps 50 % quantize-aware``."""
        return f"retrain {self.in_words}"


PARENT_AS_TEACHER = "parent"
"""As a teacher: the checkpoint before compression."""
TERMS = ("task", "logits", "hidden", "attention")
"""The terms of a distillation loss."""
STAGES: Mapping[int, tuple[tuple[str, ...], ...]] = {
    1: (TERMS,),
    2: (("hidden", "attention"), ("task", "logits")),
    3: (("hidden",), ("attention",), ("task", "logits")),
}
"""Number of stages -> the terms of each."""


@method("recover", "distill")
@dataclass(frozen=True)
class Distill(Recovery):
    """Train on as ``retrain`` does, towards what a teacher computes on the same batch.

    Loss = task_weight x loss of the task + logits_weight x T^2 KL(teacher's softmax(z / T) || student's) +
    hidden_weight x sum of the mean squared errors of hidden states + attention_weight x sum of the errors of attention
    maps, where the sums go over the layers of the student (of the mean over the teacher layers of each). A single
    logit, as in regression, has its squared error in the place of KL. The teacher has no dropout and does not train.
    Sources: Hinton et al. 2015 (arXiv 1503.02531), TinyBERT (Jiao et al. 2020, arXiv 1909.10351, equations 7 to 10),
    MiniLM (arXiv 2002.10957). The defaults are the loss of XTC (Wu et al. 2022, arXiv 2206.01859): no loss of the task,
    all other weights 1, T = 1, one stage.
    """

    teacher: str = PARENT_AS_TEACHER
    """Who teaches: ``parent`` (the checkpoint before compression), the id of another train cell of the study with the
    same task and vocabulary, or a condition that one such cell meets (``arch.depth == 12``)."""

    task_weight: float = 0.0
    """Weight of the task's own loss."""

    logits_weight: float = 1.0
    """Weight of the error of predictions."""

    hidden_weight: float = 1.0
    """Weight of the error of hidden states. Where the models differ in width, a matrix that is trained too maps those
    of the student to the teacher's width."""

    attention_weight: float = 1.0
    """Weight of the error of attention maps, of models with as many heads in the layers that are compared."""

    temperature: float = 1.0
    """T, by which logits are divided."""

    attention: Literal["scores", "probabilities"] = "scores"
    """What of an attention map is compared: ``scores`` before the softmax by mean squared error (TinyBERT, XTC), or
    ``probabilities`` after it by KL (MiniLM)."""

    layer_map: str | tuple[int, ...] | Pairs = "uniform"
    """Which teacher layers each student layer learns from: ``uniform`` (layer m of S from ceil(m T / S) of T), ``kept``
    (those that the student was made of), ``last`` (the last one from the last one), ``many`` (each from all), a list
    with a teacher layer for each student layer, or a list of pairs of student and teacher. Layers count from 0."""

    stages: int = 1
    """1: all terms from the first step. 2: hidden states and attention, then logits and task. 3: hidden states, then
    attention, then logits and task. Each stage has an equal share of the steps, and its rate falls from the peak to
    0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("teacher", isinstance(self.teacher, str) and bool(self.teacher.strip()), TEACHER_ALLOWED)
        for term in TERMS:
            value = getattr(self, f"{term}_weight")
            self.require(f"{term}_weight", is_real(value) and 0 <= value < math.inf, "a number of at least 0")
            normalize(self, **{f"{term}_weight": float(value)})
        self.require("temperature", is_real(self.temperature) and 0 < self.temperature < math.inf, "a positive number")
        self.require_one_of("attention")
        normalize(self, temperature=float(self.temperature), teacher=self.teacher.strip())
        known = read_layer_map(self.layer_map)
        self.require("layer_map", known is not None, MAPS_ALLOWED)
        normalize(self, layer_map=known)
        self._check_together()

    def _check_together(self) -> None:
        """Refuse keys that nobody reads beside others, and a stage without terms."""
        learned = [term for term in TERMS[1:] if self.weight(term)]
        self.require("logits_weight", bool(learned), "above 0 where hidden_weight and attention_weight are 0")
        self.require("temperature", self.temperature == 1 or bool(self.logits_weight), "1 with logits_weight=0")
        is_scores = self.attention == "scores"
        self.require("attention", is_scores or bool(self.attention_weight), "scores with attention_weight=0")
        is_uniform = self.layer_map == "uniform" or bool(self.hidden_weight or self.attention_weight)
        self.require("layer_map", is_uniform, "uniform with hidden_weight=0 and attention_weight=0")
        is_own = self.layer_map != "kept" or self.teacher == PARENT_AS_TEACHER
        self.require("layer_map", is_own, "another one than kept where the teacher is not the parent")
        self.require(
            "stages", is_integer(self.stages) and self.stages in STAGES, f"one of {', '.join(map(str, STAGES))}"
        )
        for terms in STAGES[self.stages]:
            words = " or ".join(f"recover.{term}_weight" for term in terms)
            is_used = any(self.weight(term) for term in terms)
            self.require("stages", is_used, f"1, or with {words} above 0: a stage must have a loss")
        self.require("stages", self.stages == 1 or self.dense_share is None, "1 with recover.budget=until ...")
        self.require("stages", self.stages == 1 or not self.rewinds, "1 with recover.rewind, at rates of the parent")

    def check_heads(self, student: int, teacher: int) -> None:
        """Refuse to compare the attention of layers of so many heads."""
        allowed = f"0 where a layer of the student has {student} heads and that of the teacher {teacher}"
        self.require("attention_weight", not self.attention_weight or student == teacher, allowed)

    def weight(self, term: str) -> float:
        """Weight of a term."""
        return float(getattr(self, f"{term}_weight"))

    def stage(self, done: int, steps: int) -> int:
        """The stage of the next step when ``done`` of ``steps`` are done, from 0."""
        return min(done * self.stages // steps, self.stages - 1)

    def rate(self, done: int, steps: int) -> float:
        """Learning rate of that step as a share of the peak: linearly to 0 within its stage."""
        stage = self.stage(done, steps)
        start, stop = (-(-edge * steps // self.stages) for edge in (stage, stage + 1))
        return 1 - (done - start) / (stop - start)

    def weights_of(self, stage: int) -> dict[str, float]:
        """Term -> weight, of the terms of a stage that have one."""
        return {term: weight for term in STAGES[self.stages][stage] if (weight := self.weight(term))}

    def summary(self) -> str:
        """Such as ``distill 500 steps from parent``, with the weights that are not those of XTC."""
        others = [f"{term} {self.weight(term):g}" for term in TERMS if self.weight(term) != (term != "task")]
        others += [f"T {self.temperature:g}"] if self.temperature != 1 else []
        others += [f"attention {self.attention}"] if self.attention != "scores" else []
        others += [f"layers {_map_in_words(self.layer_map)}"] if self.layer_map != "uniform" else []
        others += [f"{self.stages} stages"] if self.stages > 1 else []
        return ", ".join([f"distill {self.in_words} from {self.teacher}", *others])


TEACHER_ALLOWED = (
    "parent, the id of a train cell of the study that is done, or a condition that one of them meets, such as "
    "arch.depth == 12"
)


def _map_in_words(given: str | tuple[int, ...] | Pairs) -> str:
    if isinstance(given, str):
        return given
    return " ".join("-".join(map(str, item)) if isinstance(item, tuple) else str(item) for item in given)


def _length(text: object) -> str | None:
    """A length in its one spelling; None where it cannot be read."""
    if not isinstance(text, str):
        return None
    share = _PART.fullmatch(text)
    try:
        budget = None if share else parse_budget(text)
        amount = float(share[1]) if share else 0.0
    except ValueError:
        return None
    if budget is not None:
        if budget.unit == STEPS:
            return f"{int(budget.value)} steps" if budget.value.is_integer() else None
        return str(budget) if budget.unit == EPOCHS else None
    return _relative(text, amount, share[2].lower()) if share and 0 < amount < math.inf else None


def _relative(text: str, amount: float, unit: str) -> str | None:
    """A length relative to the parent; None where ``until`` stands with steps, is missing, or asks for too much."""
    is_until = text.split()[0].lower() == "until"
    if is_until != (unit == DENSE) or (is_until and amount > 1):
        return None
    return f"until {amount:.12g} {unit}" if is_until else f"{amount:.12g} {unit}"

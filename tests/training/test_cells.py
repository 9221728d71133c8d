from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from trainlarge.config.budget import parse_budget
from trainlarge.config.canonical import canonical_json
from trainlarge.config.optim import OptimConfig
from trainlarge.config.schema import TrainConfig
from trainlarge.errors import UserError
from trainlarge.sweep.cell import Cell
from trainlarge.tasks.step import Pace, step_of, steps_in, timed_step
from trainlarge.training.cells import STAGE
from trainlarge.training.rules import init_std, peak_lr

Tiny = Callable[..., TrainConfig]


def test_resolving_fills_in_every_rule(tiny: Tiny) -> None:
    config = STAGE.resolve(tiny("arch.width=64", "budget=30 min"))
    assert config.arch.heads == 2 and config.arch.positions == 16
    assert config.arch.init_std == pytest.approx(0.085)
    assert config.optim.peak_lr == pytest.approx(3e-3 * 2**0.5)
    assert config.budget == "1800 s" and len(config.data.fingerprint) == 16
    assert STAGE.resolve(config) == config, "resolving twice changes nothing"


def test_a_rule_that_changes_changes_the_frozen_configuration(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    before = STAGE.resolve(tiny())
    monkeypatch.setattr("trainlarge.training.rules.INIT_SCALE", 0.5)
    assert STAGE.resolve(tiny()) != before


def test_measured_rules() -> None:
    assert init_std(128) == pytest.approx(0.0601, abs=1e-4)
    optim = OptimConfig(lr=3e-3)
    assert peak_lr(optim, 128) == 3e-3 and peak_lr(optim, 512) == pytest.approx(1.5e-3)
    assert peak_lr(replace(optim, lr_rule="constant"), 512) == peak_lr(replace(optim, lr_rule="mup"), 512) == 3e-3
    assert peak_lr(replace(optim, lr_rule="inverse_width"), 512) == pytest.approx(7.5e-4)


@pytest.mark.parametrize(("rule", "rate"), [("constant", 3e-3), ("sqrt", 6e-3), ("linear", 1.2e-2), ("table", 5e-3)])
def test_rates_by_batch(tiny: Tiny, rule: str, rate: float) -> None:
    config = tiny("arch.width=128", "optim.batch=8192", f"optim.batch_rule={rule}", "optim.batch_lr=[[8192, 5e-3]]")
    assert STAGE.resolve(config).optim.peak_lr == pytest.approx(rate)


def test_a_batch_outside_the_table_is_refused(tiny: Tiny) -> None:
    table = ("optim.batch_rule=table", "optim.batch_lr=[[8192, 5e-3], [512, 1e-3]]")
    with pytest.raises(UserError, match=r"^optim\.batch=256 is not valid: must be 8192, 512"):
        STAGE.resolve(tiny(*table))


def test_cells_that_differ_in_the_budget_share_work_where_the_schedule_lets_them(tiny: Tiny) -> None:
    def groups(*overrides: str) -> int:
        return len(
            {repr(STAGE.shared_work(STAGE.resolve(tiny(f"budget={steps} steps", *overrides)))) for steps in (10, 20)}
        )

    assert groups() == 1 and groups("schedule=matched") == 2
    assert groups("schedule=fixed", "schedule.horizon=50 steps") == 1
    assert STAGE.shared_work(STAGE.resolve(tiny())) != STAGE.shared_work(STAGE.resolve(tiny("seed=1")))


def test_budgets_of_every_unit_become_the_same_steps(tiny: Tiny) -> None:
    step = step_of(STAGE.resolve(tiny()))
    assert step.tokens == 256 and step.rows == 16 and step.predictions == 2
    pace = Pace(step_seconds=0.1, epoch_rows=64)
    for text in ("40 steps", f"{40 * 256} tokens", f"{40 * step.flops} FLOPs", "4 s", "10 epochs"):
        assert steps_in(parse_budget(text), step, pace) == 40
    assert steps_in(parse_budget("40.9 steps"), step) == 40
    for text in ("4 s", "10 epochs"):
        with pytest.raises(UserError, match=f"^budget={text} "):
            steps_in(parse_budget(text), step)


def test_what_is_one_budget_is_one_cell(tiny: Tiny) -> None:
    def ids(*texts: str, key: str = "budget", more: tuple[str, ...] = ()) -> set[str]:
        return {Cell("train", STAGE.resolve(tiny(*more, f"{key}={text}"))).id for text in texts}

    assert len(ids("1000 steps", "1k steps", "1 k steps", "1_000 steps", "1e3 steps")) == 1
    assert len(ids("150 s", "2 min 30 s", "2.5 min")) == len(ids("3 epochs", "3.0 epoch")) == 1
    assert len(ids("3 epochs", "3 steps")) == 2
    fixed = ("schedule=fixed", "budget=10 steps")
    assert len(ids("1k steps", "1000 steps", key="schedule.horizon", more=fixed)) == 1


def test_longer_budgets_cost_more(tiny: Tiny) -> None:
    assert STAGE.cost(STAGE.resolve(tiny("budget=80 steps"))) == 2 * STAGE.cost(STAGE.resolve(tiny()))


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("arch=llama", "arch.name"),
        ("arch.heads=3", "arch.heads"),
        ("arch.width=15", "arch.width"),
        ("arch.dropout=1.0", "arch.dropout"),
        ("arch.positions=8", "arch.positions"),
        ("task.mask_rate=0", "task.mask_rate"),
        ("task.evaluation_rows=0", "task.evaluation_rows"),
        ("optim.batch=17", "optim.batch"),
        ("optim.lr=-1", "optim.lr"),
        ("optim.lr_rule=magic", "optim.lr_rule"),
        ("optim.batch_rule=cube", "optim.batch_rule"),
        ("optim.base_batch=0", "optim.base_batch"),
        ("optim.name=lion", "optim.name"),
        ("optim.peak_lr=-1", "optim.peak_lr"),
        ("optim.peak_lr=0", "optim.peak_lr"),
        ("arch.init_std=-0.1", "arch.init_std"),
        ("arch.init_std=0", "arch.init_std"),
        ("optim.beta2=1", "optim.beta2"),
        ("budget=0.5 steps", "budget"),
        ("budget=100 tokens", "budget"),
        ("data.fraction=0", "data.fraction"),
        ("data.fraction=1.5", "data.fraction"),
        ("impl.devices=3", "impl.devices"),
        ("impl.strategy=fsdp", "impl.strategy"),
        ("impl.strategy=deepspeed", "impl.strategy"),
        ("seed=-1", "seed"),
        ("checkpoint=0123456789ab", "checkpoint"),
        ("data.vocab_size=20", "data.vocab_size"),
        ("data.sequence_length=1", "data.sequence_length"),
    ],
)
def test_the_impossible_is_refused_before_anything_starts(tiny: Tiny, override: str, key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}=") as error:
        STAGE.resolve(tiny(override))
    assert "\n" not in str(error.value)


def test_a_divided_model_has_no_fast_forward_pass(tiny: Tiny) -> None:
    divided = ("impl.strategy=fsdp", "impl.devices=2")
    assert STAGE.resolve(tiny(*divided)).impl.forward == "auto"
    with pytest.raises(
        UserError, match=r"^impl\.forward=fast is not valid: must be auto or library with impl\.strategy=fsdp"
    ):
        STAGE.resolve(tiny(*divided, "impl.forward=fast"))


@pytest.mark.parametrize("override", ["optim.lr_rule=mop", "optim.batch_rule=cube"])
def test_a_rule_that_does_not_exist_is_refused_also_beside_a_given_rate(tiny: Tiny, override: str) -> None:
    assert STAGE.resolve(tiny("optim.peak_lr=0.01")).optim.peak_lr == 0.01
    with pytest.raises(UserError, match=f"^{override} is not valid: must be "):
        STAGE.resolve(tiny("optim.peak_lr=0.01", override))


def test_a_budget_beyond_the_horizon_is_refused(tiny: Tiny) -> None:
    with pytest.raises(UserError, match=r"^schedule\.horizon="):
        STAGE.resolve(tiny("schedule=fixed", "schedule.horizon=10 steps"))


@pytest.mark.parametrize("width", [16.0, True])
def test_a_width_of_another_type_is_refused_also_after_its_equal_was_taken(tiny: Tiny, width: float) -> None:
    config = STAGE.resolve(tiny(f"arch.width={int(width)}", "arch.heads=1", "arch=roberta"))
    assert step_of(config).flops > 0
    with pytest.raises(UserError, match=r"arch\.width"):
        step_of(replace(config, arch=replace(config.arch, width=width)))


def test_keys_of_kept_step_times_stay_as_they_are(tiny: Tiny) -> None:
    """They name the files of studies that were made before."""
    sizes = '"depth":1,"dropout":0.0,"ffn_ratio":2.0,"heads":2,"name":"modern","positions":16,"tied":true,"width":16'
    step = '"step":{"masked":2,"rows":16,"sequence_length":16},"vocab_size":300'
    assert canonical_json(timed_step(STAGE.resolve(tiny()))) == f'{{"arch":{{{sizes}}},{step}}}'
    divided = timed_step(STAGE.resolve(tiny("impl.devices=2", "impl.micro_batch_rows=4")), jobs_per_device=3)
    assert (divided["devices"], divided["per_device"], divided["micro_batch_rows"]) == (2, 3, 4)

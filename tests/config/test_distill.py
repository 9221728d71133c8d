"""The method ``recover=distill``: its keys, stages and rates, and what does not go together."""

from __future__ import annotations

import re
from typing import Any

import pytest

from trainlarge.config.prune import Magnitude
from trainlarge.config.quantize import Binary
from trainlarge.config.recipe import Recipe
from trainlarge.config.recover import Distill, Retrain
from trainlarge.config.vocabulary import Frequent
from trainlarge.errors import UserError

EVERYTHING = Distill(
    "500 steps",
    teacher="arch.depth == 12",
    task_weight=0.1,
    temperature=2,
    attention="probabilities",
    layer_map=[[0, 1], [0, 2]],
    stages=3,
)


@pytest.mark.parametrize("method", [Distill(), EVERYTHING, Distill("1 epoch", layer_map="kept", quantize_aware=1.0)])
def test_it_is_written_and_read_back(method: Distill) -> None:
    recipe = Recipe(prune=Magnitude(0.5), recover=method, quantize=Binary())
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_config(**recipe.to_config()) == recipe


def test_it_says_what_it_does() -> None:
    assert Distill("500 steps", quantize_aware=1.0).describe() == "distill 500 steps quantize-aware from parent"
    assert EVERYTHING.describe() == (
        "distill 500 steps from arch.depth == 12, task 0.1, T 2, attention probabilities, layers 0-1 0-2, 3 stages"
    )


def test_stages_have_equal_shares_of_the_steps_and_their_own_terms() -> None:
    for steps in (9, 10, 11, 100):
        for stages in (1, 2, 3):
            method = Distill(stages=stages, task_weight=1.0)
            found = [method.stage(done, steps) for done in range(steps)]
            counts = [found.count(stage) for stage in range(stages)]
            assert found == sorted(found) and max(counts) - min(counts) <= 1 and sum(counts) == steps
            rates = [method.rate(done, steps) for done in range(steps)]
            for stage in range(stages):
                within = [rate for rate, of in zip(rates, found, strict=True) if of == stage]
                assert within == pytest.approx([1 - place / len(within) for place in range(len(within))])
    assert Distill(stages=2).weights_of(0) == {"hidden": 1, "attention": 1}
    assert Distill(stages=2).weights_of(1) == {"logits": 1}
    assert Distill(task_weight=0.5, stages=3).weights_of(2) == {"task": 0.5, "logits": 1}
    assert Distill().weights_of(0) == {"logits": 1, "hidden": 1, "attention": 1}


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"temperature": 0}, "recover.temperature=0 is not valid: must be a positive number"),
        ({"hidden_weight": -1}, "recover.hidden_weight=-1 is not valid: must be a number of at least 0"),
        ({"task_weight": float("nan")}, "recover.task_weight=nan"),
        ({"teacher": " "}, "recover.teacher"),
        ({"teacher": 3}, "recover.teacher=3 is not valid: must be parent, the id of a train cell"),
        ({"attention": "maps"}, "recover.attention=maps is not valid: must be one of scores, probabilities"),
        ({"layer_map": "first"}, "recover.layer_map=first is not valid: must be one of uniform, kept, last, many, a"),
        ({"layer_map": "kept", "teacher": "0123456789ab"}, "recover.layer_map=kept is not valid: must be another one"),
        ({"stages": 4}, "recover.stages=4 is not valid: must be one of 1, 2, 3"),
        ({"stages": True}, "recover.stages=true is not valid"),
        ({"stages": 2, "budget": "until 0.9 dense", "at_most": "9 steps"}, "recover.stages=2 is not valid: must be 1"),
        (
            {"stages": 3, "attention_weight": 0},
            "recover.stages=3 is not valid: must be 1, or with recover.attention_we",
        ),
        ({"logits_weight": 0, "hidden_weight": 0, "attention_weight": 0}, "recover.logits_weight=0.0 is not valid"),
        ({"logits_weight": 0, "temperature": 2}, "recover.temperature=2.0 is not valid: must be 1 with"),
        ({"attention_weight": 0, "attention": "probabilities"}, "recover.attention=probabilities is not valid"),
        ({"attention_weight": 0, "hidden_weight": 0, "layer_map": "last"}, "recover.layer_map=last is not valid"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=re.escape(line)) as error:
        Distill(**keys)
    assert "\n" not in str(error.value)


def test_teacher_and_student_have_one_vocabulary() -> None:
    with pytest.raises(UserError, match=r"recover\.name=distill is not valid: must be another method with vocab"):
        Recipe(vocabulary=Frequent(100), recover=Distill())
    Recipe(vocabulary=Frequent(100), recover=Retrain())

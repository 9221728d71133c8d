from __future__ import annotations

import subprocess
import sys

import pytest

import trainlarge
from trainlarge import results


@pytest.mark.parametrize("name", trainlarge.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(trainlarge, name).__name__ == name
    assert name in dir(trainlarge)


@pytest.mark.parametrize("name", [name for name in results.__all__ if not name.isupper()])
def test_every_exported_name_of_results_is_there(name: str) -> None:
    assert getattr(results, name).__name__ == name
    assert name in dir(results)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_that"):
        _ = trainlarge.nothing_like_that


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import trainlarge", "pandas numpy torch hydra matplotlib"),
        ("from trainlarge import load_study", "torch transformers matplotlib wandb"),
        ("import trainlarge.results", "pandas numpy matplotlib"),
        ("from trainlarge.results import frontier", "torch matplotlib"),
    ],
)
def test_importing_brings_nothing_that_is_not_needed(code: str, absent: str) -> None:
    check = f"import sys; {code}; print([name for name in {absent.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

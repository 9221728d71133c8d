"""Nothing that a file or a command line tells Hydra runs code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from trainlarge.cli import main
from trainlarge.sweep.store import Study

CODE = "{_target_: os.mkdir, path: ran}"
VERBS = (
    ["train"],
    ["train", "--cfg", "job"],
    ["train", "--cfg", "hydra"],
    ["train", "--info", "config"],
)
"""Beside a sweep and its plan."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: nothing in it may be run, which would leave ``ran``."""
    (tmp_path / "work" / "sweeps" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def refused(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command is refused."""
    capfd.readouterr()
    assert main(arguments) == 2, arguments
    printed = capfd.readouterr()
    [line] = printed.err.strip().splitlines()
    assert line.startswith("error: ") and not Path("ran").exists()
    return line.removeprefix("error: ")


HYDRA = {
    f"callbacks: {{x: {CODE}}}": "hydra.callbacks.x=",
    f"launcher: {{x: {CODE}}}": "hydra.launcher.x=",
    f"sweeper: {{params: {CODE}}}": "hydra.sweeper.params=",
    "sweeper: {params: '${oc.decode:\"{_target_: os.mkdir, path: ran}\"}'}": "hydra.sweeper.params=",
    "sweeper: {custom_search_space: os.mkdir}": "hydra.sweeper.custom_search_space=",
    "job_logging: {handlers: {x: {(): os.mkdir, path: ran}}}": "hydra.job_logging.handlers=",
    "hydra_logging: {handlers: {x: {class: os.mkdir, path: ran}}}": "hydra.hydra_logging.handlers=",
    "job: {env_set: {LD_PRELOAD: ran}}": "hydra.job.env_set.LD_PRELOAD=",
    "job: {env_copy: [HOME]}": "hydra.job.env_set.HOME=",
    "job: {env_copy: [NOT_THERE]}": "hydra.job.env_copy=",
    "run: {dir: ran}": "hydra.run.dir=",
    "output_subdir: ran": "hydra.output_subdir=",
    "overrides: {hydra: [hydra.run.dir=ran]}": "hydra.overrides.hydra=",
}


@pytest.mark.parametrize("text", HYDRA)
def test_a_sweep_file_cannot_tell_hydra_to_run_code(
    text: str, folder: Path, study: Study, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "sweeps" / "x" / "train.yaml").write_text(f"# @package _global_\nstudy: tiny\nhydra:\n  {text}\n")
    line = refused(["plan", "+sweeps=x/train"], capfd)
    assert line.startswith(HYDRA[text]) and "hydra.verbose" in line
    assert refused(["train", "-m", "+sweeps=x/train"], capfd) == line


def test_no_verb_runs_it(folder: Path, study: Study, capfd: pytest.CaptureFixture[str]) -> None:
    text = f"# @package _global_\nstudy: tiny\nhydra: {{callbacks: {{x: {CODE}}}}}\n"
    for stage in ("train", "compress"):
        (folder / "sweeps" / "x" / f"{stage}.yaml").write_text(text)
        assert refused([stage, "-m", f"+sweeps=x/{stage}"], capfd).startswith("hydra.callbacks.x=")
    for verb in VERBS:
        assert refused([*verb, "+sweeps=x/train"], capfd).startswith("hydra.callbacks.x="), verb
    assert refused(["run", "x"], capfd).startswith("hydra.callbacks.x=")
    assert main(["train", "--help", "+sweeps=x/train"]) == 0, "help composes nothing"
    assert not Path("ran").exists()


@pytest.mark.parametrize("group", ["hydra/launcher/trainlarge", "hydra/sweeper/trainlarge", "hydra/callbacks/x"])
@pytest.mark.parametrize("option", [[], ["--config-dir", "."]])
def test_a_file_beside_the_study_does_not_take_the_place_of_ours(
    group: str, option: list[str], folder: Path, study: Study, capfd: pytest.CaptureFixture[str]
) -> None:
    path = folder / f"{group}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("_target_: os.mkdir\npath: ran\n")
    (folder / "sweeps" / "x" / "train.yaml").write_text(
        f"# @package _global_\ndefaults:\n  - override /{path.parent.relative_to(folder)}: {path.stem}\n"
    )
    assert refused(["train", "-m", "study=tiny", "+sweeps=x/train", *option], capfd).startswith("hydra.")


@pytest.mark.parametrize(
    "given, named",
    [
        (["+hydra.callbacks.x={_target_:os.mkdir,path:ran}"], "hydra.callbacks.x="),
        (["++hydra.job.env_set.PYTHONSTARTUP=ran"], "hydra.job.env_set.PYTHONSTARTUP="),
        (["~hydra.callbacks"], "hydra.callbacks="),
        (["hydra.searchpath=[pkg://antigravity]"], "hydra.searchpath="),
        (["hydra.verbose=${oc.decode:x}"], "hydra.verbose="),
        (["hydra.verbose=1"], "hydra.verbose=1 is not valid: must be true or false, the name of a logger"),
        (["hydra.verbose={a: b}"], "hydra.verbose={'a': 'b'} is not valid: must be true or false"),
        (["++arch=roberta"], "+arch=roberta is not valid: must be written without the +"),
        (["+tracking=csv"], "+tracking=csv is not valid: must be written without the +"),
        (["hydra/job_logging=default"], "hydra/job_logging=default"),
        (["+hydra/callbacks=x"], "hydra/callbacks=x"),
        (["hydra/sweeper=nowhere"], "hydra/sweeper=nowhere is not valid: must be one of basic, trainlarge"),
        (["--experimental-rerun=job.pickle"], "--experimental-rerun=job.pickle"),
        (["--experimental-rerun", "job.pickle"], "--experimental-rerun=job.pickle"),
        (["--exp=job.pickle"], "--experimental-rerun=job.pickle"),
        (["--config-name=x"], "--config-name=x"),
        (["-cp", "/tmp"], "--config-path=/tmp"),
        (["+optim._target_=os.mkdir"], "optim._target_=os.mkdir"),
        (["+_target_=os.mkdir"], "_target_=os.mkdir"),
    ],
)
def test_a_command_line_cannot_either(
    given: list[str], named: str, study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    Path("job.pickle").write_bytes(pickle.dumps(_Code()))
    assert refused(["train", *tiny_overrides, *given], capfd).startswith(named)
    if not given[0].startswith("-"):
        assert refused(["plan", "train", *tiny_overrides, *given], capfd).startswith(named)


class _Code:
    def __reduce__(self) -> Any:
        return Path.mkdir, (Path("ran"),)


def test_a_group_of_a_sweep_names_no_code(
    folder: Path, study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "tracking").mkdir()
    (folder / "tracking" / "x.yaml").write_text(f"name: none\nproject: {CODE}\n_target_: os.mkdir\npath: ran\n")
    (folder / "schema").mkdir()
    for sweep in ([], ["-m"]):
        assert "tracking" in refused(
            ["train", *tiny_overrides, *sweep, "tracking=x,none" if sweep else "tracking=x"], capfd
        )


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir [ran]", "!!python/name:os.mkdir ''"])
def test_tags_of_yaml_make_no_objects(tag: str, folder: Path, study: Study, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "sweeps" / "x" / "train.yaml").write_text(f"# @package _global_\nstudy: {tag}\n")
    assert "python" in refused(["train", "-m", "+sweeps=x/train"], capfd)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (
            ["+structure=layer_list", "structure.layers=[0]"],
            "+structure=layer_list is not valid: must be written without",
        ),
        (["structure=heads,layers", "structure.foo=1"], "the keys that all of structure=heads,layers have"),
        (["structure=heads", "structure.foo=1"], "the keys name, keep, scope, importance, calibration_rows of heads"),
        (
            ["+sweeps=x/compress"],
            "structure=(set in a file) is not valid: must be chosen once: 'override /structure: NAME'",
        ),
    ],
)
def test_a_method_is_chosen_once(
    given: list[str], named: str, folder: Path, study: Study, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "sweeps" / "x" / "compress.yaml").write_text("defaults: [{/structure: heads}, _self_]\n")
    assert named in refused(["plan", "compress", "-m", "checkpoint=every", *given], capfd)


def test_harmless_keys_pass(tiny_overrides: list[str], study: Study, capfd: pytest.CaptureFixture[str]) -> None:
    keys = ["hydra.verbose=true", "hydra/sweeper=basic", "hydra.sweeper.max_batch_size=2"]
    assert main(["train", *tiny_overrides, *keys, "--cfg", "hydra"]) == 0
    assert "max_batch_size: 2" in capfd.readouterr().out


def test_a_working_directory_with_quotes_in_its_name(
    tmp_path: Path, study: Study, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'it\'s "mine"').mkdir()
    monkeypatch.chdir(tmp_path / 'it\'s "mine"')
    assert main(["plan", "train", *tiny_overrides]) == 0

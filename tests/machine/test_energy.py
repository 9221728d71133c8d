from __future__ import annotations

from pathlib import Path

import pytest

from trainlarge.machine.energy import PackageEnergy, find_energy
from trainlarge.machine.peak_memory import working_memory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two packages as the kernel shows them, one with a part of it."""
    for name, value in (("intel-rapl:0", 1_000_000), ("intel-rapl:1", 500_000), ("intel-rapl:0:0", 7)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "energy_uj").write_text(f"{value}\n")
        (folder / "max_energy_range_uj").write_text("2000000\n")
    return tmp_path


def test_joules_are_those_of_all_packages_since_it_was_made(root: Path) -> None:
    energy = find_energy(root)
    assert isinstance(energy, PackageEnergy) and energy() == 0.0
    (root / "intel-rapl:0" / "energy_uj").write_text("1250000\n")
    (root / "intel-rapl:0:0" / "energy_uj").write_text("999999\n")
    assert energy() == 0.25


def test_a_counter_that_is_full_begins_again(root: Path) -> None:
    energy = find_energy(root)
    assert isinstance(energy, PackageEnergy)
    (root / "intel-rapl:1" / "energy_uj").write_text("100000\n")
    assert energy() == 1.6
    (root / "intel-rapl:1" / "energy_uj").write_text("200000\n")
    assert energy() == pytest.approx(1.7)


def test_a_machine_without_counters_says_so(tmp_path: Path, root: Path) -> None:
    assert find_energy(tmp_path / "none") == f"this machine reports no energy: no RAPL counter in {tmp_path / 'none'}"
    (root / "intel-rapl:0" / "energy_uj").write_text("")
    assert "cannot be read" in str(find_energy(root))


def test_working_memory_is_what_a_piece_of_work_takes_at_most() -> None:
    def work() -> None:
        bytearray(50_000_000)

    taken = working_memory(work, "cpu")
    if taken is None:
        pytest.skip("this system does not keep the peak of a process")
    assert 45_000_000 < taken < 80_000_000
    assert (working_memory(lambda: None, "cpu") or 0) < 5_000_000

"""The peak of a device is measured once and remembered, and a cache that is of no use costs nothing but time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch

from llmlab.core import device
from llmlab.core.device import Device, measured_peak, peak_flops

CPU = Device("cpu", "fp32")


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[mock.Mock]:
    """What stands in for the measurement; in a cache of its own."""
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))
    with mock.patch.object(device, "_measure", side_effect=[3e11, 2e11, 4e11]) as measure:
        yield measure


def test_a_second_start_does_not_measure(measured: mock.Mock) -> None:
    assert [peak_flops(CPU), peak_flops(CPU)] == [3e11, 3e11]
    assert measured.call_count == 1


def test_another_precision_number_of_threads_or_torch_is_measured_by_itself(measured: mock.Mock) -> None:
    peak_flops(CPU)
    assert peak_flops(Device("cpu", "bf16")) == 2e11
    with mock.patch.object(torch, "get_num_threads", return_value=torch.get_num_threads() + 1):
        assert peak_flops(CPU) == 4e11
    with mock.patch.object(torch, "__version__", "99.0"), pytest.raises(StopIteration):
        peak_flops(CPU)
    assert peak_flops(CPU) == 3e11


def test_a_measurement_on_a_busy_machine_does_not_replace_a_higher_one(measured: mock.Mock) -> None:
    assert [measured_peak(CPU), measured_peak(CPU), peak_flops(CPU)] == [3e11, 3e11, 3e11]
    assert [measured_peak(CPU), peak_flops(CPU)] == [4e11, 4e11]


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"flops": "fast"}', '{"flops": -1.0}', '{"flops": 1e999}'])
def test_a_damaged_cache_measures_again(measured: mock.Mock, tmp_path: Path, damage: str) -> None:
    peak_flops(CPU)
    (file,) = (tmp_path / "cache" / "peaks").iterdir()
    file.write_text(damage)
    assert peak_flops(CPU) == 2e11
    assert peak_flops(CPU) == 2e11


def test_a_cache_that_cannot_be_written_measures_again(measured: mock.Mock, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()  # where the folder would be
    assert [peak_flops(CPU), peak_flops(CPU)] == [3e11, 2e11]

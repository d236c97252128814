"""How busy a GPU is, by NVML: a driver's library that is played, since there is none here."""

from __future__ import annotations

import sys
import time
from types import ModuleType, SimpleNamespace

import pytest
import torch

from livetrain.training import utilisation
from livetrain.training.utilisation import Utilisation


class PlayedNvml(ModuleType):
    """One device; `answers` are what it says in turn, an exception at their end."""

    class NVMLError(Exception):
        pass

    def __init__(self, answers: list[tuple[int, int]], uuid: str = "GPU-1234") -> None:
        super().__init__("pynvml")
        self.answers, self.uuid = answers, uuid

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != self.uuid:
            raise self.NVMLError
        return "handle"

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> SimpleNamespace:
        assert handle == "handle"
        if not self.answers:
            raise self.NVMLError
        return SimpleNamespace(gpu=self.answers[0][0], memory=7)

    def nvmlDeviceGetDecoderUtilization(self, handle: str) -> list[int]:
        return [self.answers.pop(0)[1], 167000]


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr(utilisation, "PERIOD_SECONDS", 0.001)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234"))
    return torch.device("cuda", 1)


def test_the_mean_since_the_last_look(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = PlayedNvml([(100, 50), (50, 0), (0, 40)])
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    found = Utilisation(device)
    deadline = time.monotonic() + 10
    while found._thread and found._thread.is_alive():  # it ends by itself where the driver answers no more
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert found.read() == {"gpu_percent": 50.0, "nvdec_percent": 30.0}
    assert found.read() == {}
    found.close()


def test_the_gpu_is_named_by_its_uuid_and_another_one_gives_no_figures(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", PlayedNvml([(1, 1)] * 1000, uuid="GPU-of-somebody"))
    found = Utilisation(device)
    assert found._thread is None and found.read() == {}
    found.close()


def test_closing_ends_the_thread(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", PlayedNvml([(1, 1)] * 1_000_000))
    found = Utilisation(device)
    assert found._thread is not None and found._thread.is_alive()
    found.close()
    assert not found._thread.is_alive()


def test_a_cpu_has_no_figures_and_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = Utilisation(torch.device("cpu"))
    assert found.read() == {}
    found.close()

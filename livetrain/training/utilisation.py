"""How busy a GPU and its video decoder are, by NVML, sampled beside training.

NVML tells the share of its last sampling period (a sixth of a second to one second) alone; what a log line says is the
mean of what was asked twice a second since the one before.
"""

from __future__ import annotations

import statistics
import threading
from typing import Any

import torch

PERIOD_SECONDS = 0.5


class Utilisation:
    """Samples how busy `device` is, in a thread, until `close`.

    Without NVML (no GPU, no driver library) there are not figures.
    """

    def __init__(self, device: torch.device) -> None:
        self._samples: dict[str, list[float]] = {"gpu_percent": [], "nvdec_percent": []}
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._handle = _handle(device)
        self._thread: threading.Thread | None = None
        if self._handle is not None:
            self._thread = threading.Thread(target=self._run, name="nvml", daemon=True)
            self._thread.start()

    def read(self) -> dict[str, float]:
        """Mean gpu_percent and nvdec_percent since the last call; empty where nothing was sampled."""
        with self._lock:
            found = {name: statistics.fmean(values) for name, values in self._samples.items() if values}
            for values in self._samples.values():
                values.clear()
        return found

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        import pynvml

        while not self._stop.wait(PERIOD_SECONDS):
            try:
                gpu = float(pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)
                decoder = float(pynvml.nvmlDeviceGetDecoderUtilization(self._handle)[0])
            except pynvml.NVMLError:  # a driver that is restarted, a MIG slice that does not tell
                return
            with self._lock:
                self._samples["gpu_percent"].append(gpu)
                self._samples["nvdec_percent"].append(decoder)


def _handle(device: torch.device) -> Any | None:
    """NVML's handle of a CUDA device, by its UUID: NVML does not know of CUDA_VISIBLE_DEVICES."""
    if device.type != "cuda":
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except pynvml.NVMLError:
        return None

"""Speed of a run.

Clips and frames a second, share of time waiting for data, model FLOP/s utilisation, GPU memory, how busy GPU and video
decoder are.
"""

from __future__ import annotations

import time

import torch
from accelerate import Accelerator

from livetrain.core.machine import DEVICE_NAMES, PEAK_FLOPS_16BIT
from livetrain.training.utilisation import Utilisation

SPREAD = ("step_seconds", "data_wait_percent", "gpu_memory_gib")  # what processes may differ in


def peak_flops(device: torch.device, precision: str) -> float | None:
    """The device's peak FLOP/s for `precision`, or None where it is not known (CPU, fp32, other cards)."""
    if device.type != "cuda" or precision == "fp32":
        return None
    product = DEVICE_NAMES.get(torch.cuda.get_device_name(device))
    return PEAK_FLOPS_16BIT[product] if product else None


def over_processes(figures: dict[str, float], accelerator: Accelerator) -> dict[str, float]:
    """Figures with the medians over all processes of those in SPREAD.

    With their `_min` and `_max`, and `slowest_rank`, the process that waited longest for data. All processes call it;
    of a single one nothing changes.
    """
    if accelerator.num_processes == 1:
        return figures
    names = [name for name in SPREAD if name in figures]
    mine = torch.tensor([[figures[name] for name in names]], dtype=torch.float64, device=accelerator.device)
    every = accelerator.gather(mine).cpu()
    spread = dict(figures)
    for name, values in zip(names, every.unbind(dim=1), strict=True):
        spread[name] = float(values.quantile(0.5))
        spread[f"{name}_min"], spread[f"{name}_max"] = float(values.min()), float(values.max())
    spread["slowest_rank"] = int(every[:, names.index("data_wait_percent")].argmax())
    return spread


class Meter:
    """Measures between calls of `read`: call `add` after each update."""

    def __init__(
        self,
        *,
        clips_per_step: int,
        frames_per_clip: int,
        flops_per_clip: float,
        device: torch.device,
        precision: str,
        world: int,
    ) -> None:
        self.clips_per_step, self.frames_per_clip = clips_per_step, frames_per_clip
        self.flops_per_clip, self.device = flops_per_clip, device
        peak = peak_flops(device, precision)
        self.peak = peak * world if peak else None
        self.utilisation = Utilisation(device)
        self.started = time.perf_counter()
        self.num_steps, self.waited = 0, 0.0

    def add(self, wait_seconds: float) -> None:
        """One update is done; `wait_seconds` of it were spent waiting for data."""
        self.num_steps += 1
        self.waited += wait_seconds

    def pause(self, seconds: float) -> None:
        """Take time that was not training (an evaluation, a checkpoint) out of the measurement."""
        self.started += seconds

    def read(self) -> dict[str, float]:
        """Figures since the last `read`, over all processes; then start over.

        Memory and what NVML tells are of this process's GPU.

        MFU is of the FLOPs that training needs (model.cost.count_training_flops); recomputation is not among them.
        """
        elapsed = max(time.perf_counter() - self.started, 1e-9)
        samples = self.num_steps * self.clips_per_step / elapsed
        figures = {
            "samples_per_second": samples,
            "frames_per_second": samples * self.frames_per_clip,
            "data_wait_percent": min(100.0, 100 * self.waited / elapsed),
            "step_seconds": elapsed / max(1, self.num_steps),
        }
        if self.peak and self.flops_per_clip:
            figures["mfu_percent"] = 100 * self.flops_per_clip * samples / self.peak
        if self.device.type == "cuda":
            figures["gpu_memory_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        figures |= self.utilisation.read()
        self.started, self.num_steps, self.waited = time.perf_counter(), 0, 0.0
        return figures

    def close(self) -> None:
        """End what runs beside training."""
        self.utilisation.close()

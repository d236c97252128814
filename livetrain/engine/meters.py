"""Speed of a run: clips and frames a second, share of time waiting for data, model FLOP/s utilisation, GPU memory,
how busy GPU and video decoder are."""

from __future__ import annotations

import time

import torch

from livetrain.engine.utilisation import Utilisation

# Dense peak of the 16-bit matrix units, FLOP/s, without sparsity, by a word of the device's name.
# Sources: NVIDIA's data sheets of each product.
PEAK_FLOPS_16BIT = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A40": 149.7e12,
    "A10G": 70e12,
    "L40S": 362e12,
    "L4": 121e12,
    "V100": 125e12,
    "T4": 65e12,
}


def peak_flops(device: torch.device, precision: str) -> float | None:
    """The device's peak FLOP/s for `precision`, or None where it is not known (CPU, fp32, other cards)."""
    if device.type != "cuda" or precision == "fp32":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for word, peak in PEAK_FLOPS_16BIT.items() if word in name), None)


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
        """Figures since the last `read`, over all processes; then start anew. Memory and what NVML tells are of this
        process's GPU.

        MFU counts three times the forward pass's FLOPs an update (backward is twice forward; recomputation is not
        work), as in Chowdhery et al., "PaLM" (2022), appendix B.
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
            figures["mfu_percent"] = 100 * 3 * self.flops_per_clip * samples / self.peak
        if self.device.type == "cuda":
            figures["gpu_memory_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        figures |= self.utilisation.read()
        self.started, self.num_steps, self.waited = time.perf_counter(), 0, 0.0
        return figures

    def close(self) -> None:
        """End what runs beside training."""
        self.utilisation.close()

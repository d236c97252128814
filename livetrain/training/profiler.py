"""`profile=true`: a torch trace of a window of updates, a file a process."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from livetrain.core.files import atomic_write

FOLDER = "profile"
SKIPPED, WARM_UP, RECORDED = 10, 2, 5  # updates: the first ones choose kernels and fill queues


@contextlib.contextmanager
def recording(enabled: bool, run_dir: Path, rank: int, tell: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Yields what to call after each update. Writes run_dir/profile/rank-<rank>.json.gz when the window is over."""
    if not enabled:
        yield lambda: None
        return
    path = run_dir / FOLDER / f"rank-{rank}.json.gz"

    def write(recorder: profile) -> None:
        with atomic_write(path) as temporary:
            trace = temporary.with_name(f"{temporary.name}.json.gz")  # torch compresses by the name's end
            recorder.export_chrome_trace(str(trace))
            shutil.move(trace, temporary)
        tell(f"profile of {RECORDED} updates: {path} (open it in ui.perfetto.dev)")

    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    window = schedule(skip_first=SKIPPED, wait=0, warmup=WARM_UP, active=RECORDED, repeat=1)
    with profile(activities=activities, schedule=window, on_trace_ready=write) as recorder:
        yield recorder.step

"""The most that decoding allows: libavcodec alone on the same clips, and the frames that a GOP forces one to decode."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from livetrain.bench.peers import Task, random_frames
from livetrain.bench.sides import steady_rate
from livetrain.data.decode import Work, frames_by_timestamp


def needed_only(task: Task) -> float:
    """The ceiling: libavcodec in threads, no packet more than the wanted frames need, pictures thrown away."""
    data = [path.read_bytes() for path in task.videos]

    def clip(index: int) -> Work:
        return decode_and_discard(data[index * 7 % len(data)], random_frames(task, index), task.num_frames)

    with ThreadPoolExecutor(task.workers) as pool:
        rate = steady_rate(
            pool.map(clip, range(task.num_clips)),
            task.frames_per_clip,
            skip=task.skip * task.batch_size,
            count=task.count * task.batch_size,
        )
        pool.shutdown(cancel_futures=True)
    return rate


def decode_and_discard(data: bytes, wanted: NDArray[np.int64], num_frames: int) -> Work:
    """Decode what frames `wanted` need and nothing else, and make no pixels of it; what it took."""
    work = Work()
    with av.open(io.BytesIO(data)) as container:
        found = sum(1 for _ in frames_by_timestamp(container, np.unique(wanted), num_frames, work))
    assert found == len(np.unique(wanted))
    return work


def ffmpeg_null(task: Task) -> float:
    """`ffmpeg -f null`, one single-threaded process a worker: every frame of every clip, thrown away."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise ImportError("no ffmpeg on this machine (Debian: apt-get install ffmpeg)")
    clips = [task.videos[index * 7 % len(task.videos)].resolve() for index in range(task.count * task.batch_size)]
    with tempfile.TemporaryDirectory() as folder:
        commands = []
        for worker in range(task.workers):
            names = Path(folder) / f"{worker}.txt"
            names.write_text("".join(f"file '{path}'\n" for path in clips[worker :: task.workers]))
            commands.append([program, "-v", "error", "-threads", "1", "-f", "concat", "-safe", "0", "-i", str(names),
                             "-f", "null", "-"])  # fmt: skip
        started = time.perf_counter()
        processes = [subprocess.Popen(command) for command in commands]
        codes = [process.wait() for process in processes]
        seconds = time.perf_counter() - started
    if any(codes):
        raise RuntimeError(f"ffmpeg ended with exit code {max(codes)}")
    return len(clips) * task.frames_per_clip / seconds


def fewest_frames(data: bytes, wanted: Sequence[int]) -> int:
    """How many frames of an H.264 file in MP4 must be decoded to have frames `wanted` (display order).

    Of each wanted frame: itself, and all reference pictures (nal_ref_idc > 0; ITU-T H.264, 7.4.1) from the last IDR
    picture (nal_unit_type 5) to it in decoding order. Read from the NAL headers, without livetrain's decoder.
    """
    with av.open(io.BytesIO(data), "r") as container:
        packets: list[Any] = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
    order = {pts: index for index, pts in enumerate(sorted(packet.pts or 0 for packet in packets))}
    shown = [order[packet.pts or 0] for packet in packets]
    headers = [_slice_header(bytes(packet)) for packet in packets]
    needed: set[int] = set()
    for frame in wanted:
        position = shown.index(frame)
        start = max(index for index in range(position + 1) if headers[index][1] == 5)
        needed |= {position} | {index for index in range(start, position) if headers[index][0] > 0}
    return len(needed)


def _slice_header(packet: bytes) -> tuple[int, int]:
    """(nal_ref_idc, nal_unit_type) of a packet's first slice; NAL units are preceded by their length, 4 bytes."""
    at = 0
    while at + 4 < len(packet):
        length = int.from_bytes(packet[at : at + 4], "big")
        header = packet[at + 4]
        if header & 31 in (1, 5):
            return header >> 5 & 3, header & 31
        at += 4 + length
    raise ValueError("a packet without a slice; not H.264 in MP4?")

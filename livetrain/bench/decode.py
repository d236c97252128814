"""`livetrain bench decode`: CPU decoding against libavcodec alone.

And the frames it decodes against the fewest that the videos' GOPs allow.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from livetrain.bench import limits, peers
from livetrain.bench.clips import ClipSet, make_clips
from livetrain.bench.corpus import clip_sets, make_task
from livetrain.bench.options import Options
from livetrain.bench.results import Report, Table
from livetrain.bench.sides import race, ratio
from livetrain.data.decode import Work, decode_video

CEILING = "libavcodec, needed frames, no pixels"
OURS = "livetrain"
SIDES: dict[str, Callable[[peers.Task], float]] = {
    OURS: peers.livetrain,
    CEILING: limits.needed_only,
    "ffmpeg -f null, all frames": limits.ffmpeg_null,
    "PyAV, up to the last wanted": peers.pyav,
}


def run(options: Options) -> Report:
    """Rates, and frames decoded, for each set of clips."""
    ratios: dict[str, float] = {}
    rates = Table(
        "Wanted frames per second, median; ratio: livetrain over this side, median of the rounds. livetrain hands over "
        "RGB pixels at full size, the ceiling none.",
        ("clips", "side", "ratio", "frames/s"),
    )
    for what in clip_sets(options):
        task = make_task(what, options, "decode")
        sides = {name: SIDES[name] for name in (OURS, CEILING)} if options.quick else SIDES
        found = race(sides, [task], rounds=options.rounds, title=f"decode {what.name}")
        for name, side in found.items():
            rates.rows.append((what.name, name, ratio(found[OURS], side), side.error or side.rate))
        ratios[f"decode {what.height}p over ceiling"] = ratio(found[OURS], found[CEILING])
    counts = Table(
        "Frames decoded for 8 of a clip's frames, evenly spaced and random, against the fewest possible (from the NAL "
        "headers: references since the last IDR picture, and the wanted frames).",
        ("clips", "packets fed", "frames decoded", "fewest", "ratio"),
    )
    for what in _gops(options):
        work, fewest = _count(what, options.data)
        value = work.num_frames / fewest
        counts.rows.append((what.name, work.num_packets, work.num_frames, fewest, value))
        ratios[f"fewest over decoded frames, gop {what.gop or 250}"] = 1 / value
    return Report("Decoding on the CPU", _summary(rates, counts), [rates, counts], ratios)


def _gops(options: Options) -> list[ClipSet]:
    size: dict[str, Any] = {"width": 320, "height": 240, "num_clips": 4}
    gops = (0, 12) if options.quick else (0, 1, 8, 12, 25, 50)
    return [ClipSet(gop=gop, **size) for gop in gops]


def _count(what: ClipSet, folder: Path) -> tuple[Work, int]:
    """What decoding took over the clips of a set, and the fewest frames it could have taken."""
    work, fewest = Work(), 0
    random = np.random.default_rng(0)
    for video in make_clips(folder, what):
        data = video.read_bytes()
        for wanted in ((np.arange(8) * 2 + 1) * what.num_frames // 16, random.choice(what.num_frames, 8, False)):
            decode_video(data, wanted, what.num_frames, work=work)
            fewest += limits.fewest_frames(data, wanted.tolist())
    return work, fewest


def _summary(rates: Table, counts: Table) -> str:
    shares = [f"{row[2]:.0%} on {row[0]}" for row in rates.rows if row[1] == CEILING]
    worst = max(row[4] for row in counts.rows)
    return (
        f"livetrain's decoder reaches {' and '.join(shares)} of what libavcodec does when it decodes the needed frames "
        f"alone and throws the pictures away. It decodes at most {worst:.3f} times the fewest frames possible."
    )

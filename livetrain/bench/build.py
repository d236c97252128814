"""`livetrain bench build`: building and verifying shards against the tools that do a part of it.

The same files, fewest copies on disk: many hard links to a few clips. Every side ends when its bytes are on the disk
(fsync), starts with its input in the page cache, and removes what it wrote.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from livetrain.bench.clips import ClipSet, make_clips
from livetrain.bench.options import Options
from livetrain.bench.report import Report, Table
from livetrain.bench.sides import Measured, race, ratio
from livetrain.fileio import write_text

QUICK, FULL = "livetrain build --check probe", "livetrain build (decodes every frame)"
COPY, TAR, DECODE = "cp", "tar + ffprobe", "tar + ffprobe -count_frames"
VERIFY, SHA256SUM = "livetrain verify", "sha256sum"
SHARD_MB = 64


def run(options: Options) -> Report:
    """Rates of building and verifying, with one worker and with all, and memory as the number of videos grows."""
    what = ClipSet(320, 240, num_clips=4) if options.quick else ClipSet(640, 480)
    clips = make_clips(options.data, what)
    count = 200 if options.quick else 1600
    home = _corpus(options.data / f"files-{count}", clips, count)
    size = sum(path.stat().st_size for path in (home / "videos").iterdir())
    packing = {QUICK: build_quick, COPY: copy}
    if not options.quick:
        packing[TAR] = tar_and_ffprobe
    table = Table(
        f"{count:,} H.264 clips of {what.name}, {size / 1e6:,.0f} MB; {options.workers} workers a side; MB of videos a "
        "second until they are on the disk.",
        ("side", "livetrain's ratio", "MB/s", "memory, MiB", "remark"),
    )
    found = race(packing, [home, options.workers], rounds=options.rounds, title="build")
    _add(table, found, QUICK)
    ratios = {f"build over {name}": ratio(found[QUICK], found[name]) for name in packing if name != QUICK}
    tables = [table]
    summary = "Building runs at " + " and ".join(
        f"{found[QUICK].rate / found[name].rate:.2f} x the rate of {name}" for name in packing if name != QUICK
    )
    verifying = race(
        {VERIFY: verify, SHA256SUM: sha256sum}, [home, options.workers], rounds=options.rounds, title="verify"
    )
    table = Table("Reading them again.", table.header)
    _add(table, verifying, VERIFY)
    tables.append(table)
    ratios["verify over sha256sum"] = ratio(verifying[VERIFY], verifying[SHA256SUM])
    summary += f", verifying at {ratios['verify over sha256sum']:.0%} of that of sha256sum."
    if not options.quick:
        few = _corpus(options.data / "files-100", clips, 100)
        decoding = race(
            {FULL: build_full, DECODE: tar_and_count}, [few, options.workers], rounds=options.rounds, title="decode"
        )
        table = Table("100 of the clips, every frame decoded once.", table.header)
        _add(table, decoding, FULL)
        tables.append(table)
        alone = race({FULL: build_full}, [few, 1], rounds=options.rounds, title="one worker")
        ratios["build with all workers over one"] = ratio(decoding[FULL], alone[FULL])
        summary += (
            f" Decoding every frame, {options.workers} workers are "
            f"{ratios['build with all workers over one']:.2f} x one."
        )
        tables.append(_growth(options, clips))
    return Report("Building shards", summary, tables, ratios)


def _corpus(home: Path, clips: Sequence[Path], count: int) -> Path:
    """`count` links to `clips` in home/videos, and home/label.csv."""
    if not (home / "label.csv").exists():
        shutil.rmtree(home, ignore_errors=True)
        (home / "videos").mkdir(parents=True)
        for number in range(count):
            os.link(clips[number % len(clips)], home / "videos" / f"{number:06d}.mp4")
        rows = [f"{number:06d}.mp4,{number % len(clips) % 2},person{number},train" for number in range(count)]
        write_text(home / "label.csv", "\n".join(["fname,liveness_score,subject,split", *rows, ""]))
    return home


def _add(table: Table, found: dict[str, Measured], ours: str) -> None:
    for name, side in found.items():
        table.rows.append((name, ratio(found[ours], side), side.rate, side.memory / 2**20, side.error))


def _growth(options: Options, clips: Sequence[Path]) -> Table:
    table = Table("Memory of a build as the number of videos grows.", ("videos", "memory, MiB", "videos/s"))
    for count in (100, 400, 1600, 6400):
        home = _corpus(options.data / f"files-{count}", clips, count)
        side = race({QUICK: build_quick}, [home, options.workers], rounds=1, title=f"{count:,} videos", warm_up=False)[
            QUICK
        ]
        table.rows.append((count, side.memory / 2**20, side.rate * 1e6 * count / _size(home)))
    return table


def _size(home: Path) -> int:
    return sum(path.stat().st_size for path in (home / "videos").iterdir())


def _timed(work: Callable[[Path, Path], None], home: Path) -> float:
    """MB of videos a second that `work(home, out)` gets through."""
    out = home / f"out-{os.getpid()}"
    shutil.rmtree(out, ignore_errors=True)
    try:
        started = time.perf_counter()
        work(home, out)
        return _size(home) / 1e6 / (time.perf_counter() - started)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def build_quick(home: Path, workers: int) -> float:
    """`shards build --check probe`."""
    return _timed(lambda home, out: _build(home, out, workers, "probe"), home)


def build_full(home: Path, workers: int) -> float:
    """`shards build`."""
    return _timed(lambda home, out: _build(home, out, workers, "decode"), home)


def _build(home: Path, out: Path, workers: int, check: str) -> None:
    from shards import build

    options = build.Options(shard_mb=SHARD_MB, check=check)
    build.build(home / "videos", home / "label.csv", out, options, num_workers=workers)


def verify(home: Path, workers: int) -> float:
    """`shards verify` of what `build_quick` wrote once."""
    from shards import verify

    shards = _kept_shards(home, workers)
    started = time.perf_counter()
    assert verify.verify(shards, num_workers=workers) == []
    return _size(home) / 1e6 / (time.perf_counter() - started)


def sha256sum(home: Path, workers: int) -> float:
    """`sha256sum` of the same tars."""
    tars = sorted(str(path) for path in _kept_shards(home, workers).glob("*.tar"))
    started = time.perf_counter()
    _parallel(["sha256sum"], tars, workers, len(tars))
    return _size(home) / 1e6 / (time.perf_counter() - started)


def _kept_shards(home: Path, workers: int) -> Path:
    shards = home / "shards"
    if not (shards / "dataset.json").exists():
        _build(home, shards, workers, "quick")
    return shards


def copy(home: Path, workers: int) -> float:
    """`cp` of the files, `workers` at a time."""

    def work(home: Path, out: Path) -> None:
        out.mkdir()
        _parallel(["cp", "-t", str(out)], _files(home), workers, 64)
        _sync(out)

    return _timed(work, home)


def tar_and_ffprobe(home: Path, workers: int) -> float:
    """What a script would do: `ffprobe` of every file, and `tar`."""
    return _timed(lambda home, out: _tar(home, out, workers, []), home)


def tar_and_count(home: Path, workers: int) -> float:
    """The same with every frame decoded."""
    return _timed(lambda home, out: _tar(home, out, workers, ["-count_frames"]), home)


def _tar(home: Path, out: Path, workers: int, options: Sequence[str]) -> None:
    if shutil.which("ffprobe") is None:
        raise ImportError("no ffprobe on this machine (Debian: apt-get install ffmpeg)")
    out.mkdir()
    ffprobe = ["ffprobe", "-v", "error", "-threads", "1", *options, "-show_streams", "-of", "json", "-i"]
    _parallel(ffprobe, _files(home), workers, 1)
    tars = []
    files = _files(home)
    for number in range(workers):
        names = out / f"{number}.txt"
        names.write_text("\n".join(files[number::workers]))
        tars.append(subprocess.Popen(["tar", "-cf", str(out / f"{number}.tar"), "-P", "-h", "-T", str(names)]))
    codes = [tar.wait() for tar in tars]
    if any(codes):
        raise RuntimeError("tar failed")
    _sync(out)


def _files(home: Path) -> list[str]:
    return sorted(str(path) for path in (home / "videos").iterdir())


def _parallel(command: Sequence[str], arguments: Sequence[str], workers: int, at_once: int) -> None:
    """`command` with `at_once` of the arguments at a time, `workers` processes at a time."""
    subprocess.run(
        ["xargs", "-P", str(workers), "-n", str(max(1, min(at_once, -(-len(arguments) // workers)))), *command],
        input="\n".join(arguments), text=True, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def _sync(folder: Path) -> None:
    """The folder's files onto the disk."""
    subprocess.run(["sync", "-d", *(str(path) for path in folder.iterdir())], check=True)

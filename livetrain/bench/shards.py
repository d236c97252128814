"""`livetrain bench shards`: building and verifying shards against the tools that do a part of it.

The same files, fewest copies on disk: many hard links to a few clips. Every side ends when its bytes are on the disk
(fsync), starts with its input in the page cache, and removes what it wrote.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from livetrain.bench.clips import make_clips
from livetrain.bench.corpus import clip_sets, is_built
from livetrain.bench.options import Options
from livetrain.bench.results import Report, Table
from livetrain.bench.sides import Measured, race, ratio
from livetrain.core.engines import LocalEngine
from livetrain.core.files import write_text

PROBED, DECODED, REMUXED = "build --check probe", "build (every frame decoded)", "build --store remux"
COPY, TAR, PROBE = "cp", "tar + ffprobe", "probing alone"
FFMPEG, LIBAVCODEC = "ffmpeg -f null", "libavcodec, all frames"
VERIFY, SHA256SUM = "verify", "sha256sum"
QUICK_SIDES = (PROBED, PROBE, DECODED, LIBAVCODEC, VERIFY, SHA256SUM)
SHARD_MB = 64


def run(options: Options) -> Report:
    """Rates of building and verifying, with one worker and with all; memory as data grow is in benchmarks/growth.md."""
    what = clip_sets(replace(options, height=480))[0]
    clips = make_clips(options.data, what)
    # Less than this many megabytes say nothing of reading: starting processes takes longer.
    many = _corpus(options.data / f"files-{what.name}-{400 if options.quick else 1600}", clips)
    few = _corpus(options.data / f"files-{what.name}-{10 if options.quick else 100}", clips)
    races = [
        ("Files probed, into shards", many, {PROBED: build_probed, COPY: copy, TAR: tar_and_ffprobe, PROBE: probe}),
        ("Every frame decoded once", few, {DECODED: build_decoded, FFMPEG: ffmpeg, LIBAVCODEC: libavcodec}),
        ("Reading shards again", many, {VERIFY: verify, SHA256SUM: sha256sum}),
    ]  # fmt: skip
    ratios: dict[str, float] = {}
    tables: list[Table] = []
    for title, home, sides in races:
        if options.quick:
            sides = {name: side for name, side in sides.items() if name in QUICK_SIDES}
        rounds = max(options.rounds, 5) if VERIFY in sides else options.rounds  # a pass takes less than a second
        found = race(sides, [home, options.workers], rounds=rounds, title=title)
        ours, *others = found
        ratios |= {f"{ours} over {name}": ratio(found[ours], found[name]) for name in others}
        tables.append(_table(f"{title}: {_size(home) / 1e6:,.0f} MB of {what.name}.", found, ours))
    beside = [ratios.get(f"{PROBED} over {name}", math.nan) for name in (COPY, PROBE)]
    probed = max((value for value in beside if math.isfinite(value)), default=math.nan)  # over the slower one
    summary = (
        f"Building runs at {ratios[f'{DECODED} over {LIBAVCODEC}']:.2f} x libavcodec's own rate for all frames, with "
        f"--check probe at {probed:.2f} x the slower of disk and probe; verifying at "
        f"{ratios[f'{VERIFY} over {SHA256SUM}']:.2f} x sha256sum."
    )
    if not options.quick:
        ratios |= _of_builds(few, options)
        summary += f" {options.workers} workers are {ratios['all workers over one']:.2f} x one."
    return Report("Building shards", summary, tables, ratios)


def _of_builds(home: Path, options: Options) -> dict[str, float]:
    """Rates of builds over other builds: all workers over one, and `--store remux` over the original."""
    race_of = {"all": build_decoded, REMUXED: build_remuxed}
    one = race({"one": build_decoded}, [home, 1], rounds=options.rounds, title="one worker")["one"]
    found = race(race_of, [home, options.workers], rounds=options.rounds, title="all workers")
    return {
        "all workers over one": ratio(found["all"], one),
        f"{REMUXED} over build": ratio(found[REMUXED], found["all"]),
    }


def _table(title: str, found: dict[str, Measured], ours: str) -> Table:
    table = Table(
        f"{title} MB of videos a second until they are on the disk.",
        ("side", "livetrain's ratio", "MB/s", "memory, MiB", "remark"),
    )
    for name, side in found.items():
        table.rows.append((name, ratio(found[ours], side), side.rate, side.memory / 2**20, side.error))
    return table


def _corpus(home: Path, clips: Sequence[Path]) -> Path:
    """So many links to `clips` as the folder's name says, in home/videos, and home/label.csv."""
    count = int(home.name.rpartition("-")[2])
    if not (home / "label.csv").exists():
        shutil.rmtree(home, ignore_errors=True)
        (home / "videos").mkdir(parents=True)
        for number in range(count):
            os.link(clips[number % len(clips)], home / "videos" / f"{number:06d}.mp4")
        rows = [f"{number:06d}.mp4,{number % len(clips) % 2},person{number},train" for number in range(count)]
        write_text(home / "label.csv", "\n".join(["fname,liveness_score,subject,split", *rows, ""]))
    return home


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


def build_probed(home: Path, workers: int) -> float:
    """`shards build --check probe`."""
    return _timed(lambda home, out: _build(home, out, workers, "probe"), home)


def build_decoded(home: Path, workers: int) -> float:
    """`shards build`."""
    return _timed(lambda home, out: _build(home, out, workers, "decode"), home)


def build_remuxed(home: Path, workers: int) -> float:
    """`shards build --store remux`."""
    return _timed(lambda home, out: _build(home, out, workers, "decode", "remux"), home)


def _build(home: Path, out: Path, workers: int, check: str, store: str = "original") -> None:
    from shards import build
    from shards.build_request import Options
    from shards.stores import StoreOptions

    options = Options(StoreOptions(store), shard_mb=SHARD_MB, check=check)
    build.build(home / "videos", home / "label.csv", out, options, engine=LocalEngine(workers))


def probe(home: Path, workers: int) -> float:
    """Reading, hashing and probing the packets of every file, in as many processes as a build has."""
    return _each(_probe, home, workers)


def _probe(path: Path) -> None:
    from shards.probing import probe_file
    from shards.videos import Video

    found = probe_file(Video(path.parent, path.name), quick=True)
    assert found.facts


def libavcodec(home: Path, workers: int) -> float:
    """Every frame of every file through PyAV, and nothing else."""
    return _each(_decode_all, home, workers)


def _decode_all(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return sum(1 for _ in container.decode(stream))


def _each(task: Callable[[Path], object], home: Path, workers: int) -> float:
    from livetrain.core import worker_pool
    from shards.build import PRELOAD

    started = time.perf_counter()
    paths = [Path(name) for name in _files(home)]
    count = sum(1 for _ in worker_pool.unordered(task, paths, workers, PRELOAD))
    assert count == len(paths)
    return _size(home) / 1e6 / (time.perf_counter() - started)


def ffmpeg(home: Path, workers: int) -> float:
    """`ffmpeg -f null` of every file, one thread each, `workers` at a time."""
    started = time.perf_counter()
    command = [_ffmpeg(), "-v", "error", "-nostdin", "-threads", "1", "-i", "{}", "-f", "null", "-"]
    _run(["xargs", "-P", str(workers), "-I", "{}", *command], _files(home))
    return _size(home) / 1e6 / (time.perf_counter() - started)


def _ffmpeg() -> str:
    """The program on PATH, or the one that imageio-ffmpeg (extra: dev) brings."""
    if found := shutil.which("ffmpeg"):
        return found
    from imageio_ffmpeg import get_ffmpeg_exe

    return str(get_ffmpeg_exe())


def verify(home: Path, workers: int) -> float:
    """`shards verify` of what `build_probed` wrote once."""
    from shards import verify

    shards = _kept_shards(home, workers)
    started = time.perf_counter()
    problems = verify.verify(shards, engine=LocalEngine(workers))
    assert not problems
    return _size(home) / 1e6 / (time.perf_counter() - started)


def sha256sum(home: Path, workers: int) -> float:
    """`sha256sum` of the same tars."""
    tars = sorted(str(path) for path in _kept_shards(home, workers).glob("*.tar"))
    started = time.perf_counter()
    _parallel(["sha256sum"], tars, workers, len(tars))
    return _size(home) / 1e6 / (time.perf_counter() - started)


def _kept_shards(home: Path, workers: int) -> Path:
    shards = home / "shards"
    if not is_built(shards):
        shutil.rmtree(shards, ignore_errors=True)
        _build(home, shards, workers, "probe")
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
    return _timed(lambda home, out: _tar(home, out, workers), home)


def _tar(home: Path, out: Path, workers: int) -> None:
    if shutil.which("ffprobe") is None:
        raise ImportError("no ffprobe on this machine (Debian: apt-get install ffmpeg)")
    out.mkdir()
    ffprobe = ["ffprobe", "-v", "error", "-threads", "1", "-show_streams", "-of", "json", "-i"]
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
    share = max(1, min(at_once, -(-len(arguments) // workers)))
    _run(["xargs", "-P", str(workers), "-n", str(share), *command], arguments)


def _run(command: Sequence[str], lines: Sequence[str]) -> None:
    subprocess.run(command, input="\n".join(lines), text=True, check=True, stdout=subprocess.DEVNULL)


def _sync(folder: Path) -> None:
    """The folder's files onto the disk."""
    subprocess.run(["sync", "-d", *(str(path) for path in folder.iterdir())], check=True)

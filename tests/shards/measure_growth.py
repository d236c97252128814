"""Memory and time of the data jobs for 10^4, 10^5 and 10^6 videos: benchmarks/growth.md.

    python -m tests.shards.measure_growth FOLDER > benchmarks/growth.md

Videos are files of 16 bytes, and what decodes and stores a video is a stub: figures are those of everything else, per
video. Splitting, planning and opening are measured with 10^7 too, whose index is made of that of 10^4. Each job
runs in a process of its own: `shards build --protocol hash`, `shards verify`, `shards split`, `livetrain plan DIR`, and
what a training process does first: open the shard folder, and find the rows of its splits.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import mock

from livetrain.bench.results import Report, Table
from livetrain.core.machine import status_bytes

SIZES = (10**4, 10**5, 10**6)
LARGE = 10**7  # an index of so many rows, for the jobs that read nothing else
JOBS = {"build": SIZES, "verify": SIZES, "split": (*SIZES, LARGE), "plan": (*SIZES, LARGE), "open": (*SIZES, LARGE)}
TITLES = {
    "build": "shards build",
    "verify": "shards verify",
    "split": "shards split",
    "plan": "livetrain plan DIR",
    "open": "opening the shards, and finding splits",
}
WORDS = (
    "Memory and time of the data jobs as data grow. Videos are files of 16 bytes, and what decodes and stores "
    "them is a stub. Figures are those of the process that the user starts; two workers do what is done for each "
    "video. Resident memory that is not the process's own is pages of programs and of the mapped index (220 bytes "
    "a video; `split` maps the old one and the new one), which the kernel takes back when it needs them. What a "
    "process holds itself grows by 360 bytes a video while a build plans, and by 190 while videos are split."
)
PER_FOLDER = 1000
PER_PERSON = 5
SHARD_MB = 4


def make_videos(folder: Path, count: int) -> None:
    """`count` files of different bytes, and their labels."""
    if (folder / "label.csv").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "label.tmp").open("w", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("fname", "liveness_score", "attack_type", "subject"))
        for number in range(count):
            name = f"{number // PER_FOLDER:06d}/{number % PER_FOLDER:03d}.mp4"
            path = folder / "videos" / name
            if number % PER_FOLDER == 0:
                path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{number:016d}".encode())
            is_live = number % 2
            writer.writerow((name, is_live, "live" if is_live else "print", f"person {number // PER_PERSON:06d}"))
    (folder / "label.tmp").replace(folder / "label.csv")


def run(job: str, folder: Path) -> None:
    """Do a job in this process, and print what it took as JSON."""
    peaks = {"RssAnon": 0}
    threading.Thread(target=_watch, args=(peaks,), daemon=True).start()
    started = time.process_time()
    if job == "open":
        from livetrain.data import Dataset

        started = time.process_time()  # its imports are not the job
        dataset = Dataset.open(folder / "shards")
        assert sum(len(dataset.rows(split)) for split in ("train", "dev", "test")) == len(dataset)
    elif job == "plan":
        from livetrain import cli

        assert cli.main(["plan", str(folder / "shards")]) == 0
    else:
        with mock.patch.dict(os.environ):
            _command(job, folder)
    seconds = time.process_time() - started
    print(json.dumps({"seconds": seconds, "peak": status_bytes("VmHWM"), "anonymous": peaks["RssAnon"]}))


def _command(job: str, folder: Path) -> None:
    from shards import cli

    out, two = str(folder / "shards"), ["--workers", "2"]
    match job:
        case "build":
            _stub()
            corpus = ["--videos", str(folder / "videos"), "--labels", str(folder / "label.csv")]
            rest = ["--protocol", "hash", "--shard-mb", str(SHARD_MB), "--overwrite", "--reassign"]
            code = cli.main(["build", *corpus, "--out", out, *rest, *two])
        case "verify":
            code = cli.main(["verify", out, *two])
        case "split":
            code = cli.main(["split", out, "--protocol", "hash", "--seed", "1"])
    assert code == 0


def _stub() -> None:
    """Have workers probe and store any file."""
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # as the command has it, but pyarrow is imported here already
    from shards import build, probing
    from tests.shards import stub_videos

    mock.patch.object(probing, "probe_file", stub_videos.probe_file).start()
    mock.patch.object(build, "write_shard", stub_videos.write_shard).start()


def _watch(peaks: dict[str, int]) -> None:
    while True:
        for name in peaks:
            peaks[name] = max(peaks[name], status_bytes(name))
        time.sleep(0.02)


def report(folder: Path) -> str:
    """benchmarks/growth.md."""
    from livetrain.bench.synthetic import make_folder  # not in the processes that are measured

    tables = []
    for job, sizes in JOBS.items():
        rows = []
        for size in sizes:
            corpus = folder / f"{size}"
            if size == LARGE:
                make_folder(folder / f"{SIZES[0]}" / "shards", corpus / "shards", size, size // SIZES[0])
            else:
                make_videos(corpus, size)
            command = [sys.executable, "-m", "tests.shards.measure_growth", str(corpus), "--job", job]
            line = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
            found = json.loads(line)
            print(f"{job} of {size:,}: {found}", file=sys.stderr)
            megabytes = [f"{found[name] / 1e6:.0f}" for name in ("peak", "anonymous")]
            rows.append([f"{size:,}", *megabytes, f"{1e6 * found['seconds'] / size:.1f}"])
        header = ["videos", "resident at most, MB", "of it its own, MB", "CPU time a video, µs"]
        tables.append(Table(TITLES[job], header, rows))
    return Report("Growth", WORDS, tables).text(["python", "-m", "tests.shards.measure_growth"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--job", choices=JOBS)
    given = parser.parse_args()
    if given.job:
        run(given.job, given.folder)
    else:
        print(report(given.folder), end="")


if __name__ == "__main__":
    main()

"""How good and how fast the audit is: the figures of benchmarks/audit.md.

    python -m tests.shards.audit.measure copies FOLDER [WEIGHTS]   planted copies in a corpus (videos/, label.csv)
    python -m tests.shards.audit.measure people DIR                shards whose people get two names each
    python -m tests.shards.audit.measure growth                    10^4, 10^5 and 10^6 synthetic clips

FOLDER: a corpus as `livetrain demo` or an importer makes it. Every 20th clip gets a copy of each kind. Pairs of clips
that are no planted copies are counted wrong, but for clips of one sequence (NUAA's are interleaved: their clips show
the same seconds). WEIGHTS: of mobilenetv2_100, for candidates by features beside those by hashes.
"""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from livetrain.core.engines import LocalEngine
from livetrain.core.machine import num_cores
from shards import cli
from shards.audit import copies, hashes, look_table, neighbours, people
from shards.audit.clips import Clips
from shards.audit.features import features_of
from shards.faces.detector import EMBEDDING_SIZE
from tests.shards.audit import planted

EVERY = 20
PER_SESSION = 20  # clips of a session, alike
ASKED = 500  # clips of the synthetic corpora that are asked for, each with a copy


def measure_copies(source: Path, weights: str) -> None:
    """Precision and recall, with and without features."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "corpus"
        names = sorted(path.name for path in (source / "videos").glob("*.mp4"))[::EVERY]
        truth = planted.plant(source, names, folder)
        with (folder / "label.csv").open(encoding="utf-8") as file:
            rows = {row["fname"]: row for row in csv.DictReader(file)}
        arguments = ["--videos", folder / "videos", "--labels", folder / "label.csv", "--out", folder / "shards"]
        assert cli.main(["build", *map(str, arguments)]) == 0
        clips = Clips.read([folder / "shards"])
        start = time.monotonic()
        looks = look_table.look_at_all(clips, folder / "state", faces=False, engine=LocalEngine(num_cores()))
        print(f"{len(clips)} clips: {1000 * num_cores() * (time.monotonic() - start) / len(clips):.0f} core-ms each")
        same = copies.exact(clips)
        for name in ["hashes", "hashes and features"] if weights else ["hashes"]:
            features = features_of(looks, "mobilenetv2_100", weights) if "features" in name else None
            start = time.monotonic()
            skipped = {pair.second for pair in same}
            found, compared = copies.near(looks, skipped, features, engine=LocalEngine(num_cores()))
            seconds = time.monotonic() - start
            videos = clips.words["video"]
            shows = {video: truth.get(video, video) for video in videos}
            pairs = [(str(videos[pair.first]), str(videos[pair.second])) for pair in found]
            sequence = [[rows[shows[video]].get("sequence", "") for video in pair] for pair in pairs]
            right = [shows[one] == shows[other] for one, other in pairs]
            excused = [
                not good and one != "" and one == other for good, (one, other) in zip(right, sequence, strict=True)
            ]
            wrong = [pair for pair, good, fine in zip(pairs, right, excused, strict=True) if not good and not fine]
            group_of = {
                str(videos[row]): number for number, rows_ in enumerate(copies.groups([*same, *found])) for row in rows_
            }
            hit, of = Counter[str](), Counter[str]()
            for copy, original in truth.items():
                kind = copy.partition("-")[0]
                of[kind] += 1
                hit[kind] += group_of.get(copy, -1) == group_of.get(original, -2)
            precision = sum(right) / max(1, sum(right) + len(wrong))
            print(f"{name}: {compared} pairs compared, {1000 * num_cores() * seconds / compared:.1f} core-ms each")
            print(f"precision {precision:.3f} ({sum(right)} right, {len(wrong)} wrong, {sum(excused)} of one sequence)")
            print(f"recall {sum(hit.values()) / sum(of.values()):.3f} of {sum(of.values())}")
            print(json.dumps({kind: f"{hit[kind]}/{of[kind]}" for kind in of}), wrong[:4])


def measure_people(folder: Path) -> None:
    """Everybody under two names, each for half of their clips: at random, by class, by session."""
    clips = Clips.read([folder])
    with tempfile.TemporaryDirectory() as state:
        looks = look_table.look_at_all(clips, Path(state), faces=True, engine=LocalEngine(num_cores()))
        identities = looks.numbers("identity", EMBEDDING_SIZE)
    own = clips.words["subject"]
    sessions = clips.words["session"]
    second = {
        "at random": np.random.default_rng(0).random(len(clips)) < 0.5,
        "by class": clips.live,
        "by session": sessions == sorted(set(sessions))[-1],
    }
    for name, other in second.items():
        names = np.where(other, own + " again", own)
        both = {who for who in set(own) if len(set(names[own == who])) == 2}
        found = people.alike(replace(clips, words={**clips.words, "subject": names}), identities)
        right = sum(pair.first_name.split(" ")[0] == pair.second_name.split(" ")[0] for pair in found.pairs)
        pairs = len(found.pairs)
        print(f"{name}: {right} of {len(both)} people found, {pairs - right} pairs wrong {found.reason}")


def measure_growth() -> None:
    """Each size in a process of its own, for its memory."""
    for size in (10_000, 100_000, 1_000_000):
        subprocess.run([sys.executable, "-m", "tests.shards.audit.measure", "synthetic", str(size)], check=True)


def synthetic(num: int) -> None:
    """Hashes of sessions of PER_SESSION clips that are alike; ASKED of them have a copy that was altered."""
    random = np.random.default_rng(0)

    def flips(shape: int, share: float) -> np.ndarray:
        bits = [np.packbits(random.random((min(65536, shape - i), 64)) < share, axis=1) for i in range(0, shape, 65536)]
        return np.concatenate(bits)

    sessions = flips(num // PER_SESSION + 1, 0.5)
    clips = sessions[np.arange(num) // PER_SESSION] ^ flips(num, 0.12)
    rows = np.repeat(clips, hashes.NUM_INDEXED, axis=0) ^ flips(hashes.NUM_INDEXED * num, 0.03)
    owners = np.repeat(np.arange(num), hashes.NUM_INDEXED)
    asked = random.permutation(num)[:ASKED]
    copied = np.repeat(clips[asked], hashes.VARIANTS * hashes.NUM_QUERIED, axis=0)
    queries = copied ^ flips(len(copied), 0.08)
    askers = np.repeat(np.arange(ASKED) + num, hashes.VARIANTS * hashes.NUM_QUERIED)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    start = time.monotonic()
    index = neighbours.index_of(rows)
    built = time.monotonic() - start
    start = time.monotonic()
    found = neighbours.nearest(index, owners, queries, askers, copies.CANDIDATES)
    right = sum(int(asked[clip - num] in others) for clip, others, _ in found)
    each = (time.monotonic() - start) / ASKED
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{num:,} clips: index {built:.1f} s; {1000 * each:.2f} ms a clip; recall "
        f"{right / ASKED:.3f}; {peak / 1024:.0f} MiB, {(peak - before) / 1024:.0f} of them for the search",
        flush=True,
    )


if __name__ == "__main__":
    if sys.argv[1] == "copies":
        measure_copies(Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
    elif sys.argv[1] == "people":
        measure_people(Path(sys.argv[2]))
    elif sys.argv[1] == "synthetic":
        synthetic(int(sys.argv[2]))
    else:
        measure_growth()

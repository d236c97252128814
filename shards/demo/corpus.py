"""A small liveness corpus from nothing: `livetrain demo DIR` writes DIR/videos/*.mp4 and DIR/label.csv.

Procedural people in procedural rooms, filmed live or attacked with a print or a screen. The cues are the real ones
(parallax and non-rigid motion against a plane that moves as one piece, halftone, moire, refresh bands, glare, edges of
paper and bezel); size, frame rate, orientation, room, light and white balance are drawn per session and so the same for
all three kinds. A number got on it says that the software works, and nothing about real faces.

The same arguments give the same bytes, for any number of workers: each clip is a function of (seed, subject, clip), and
x264 runs with one thread. (Another NumPy, FFmpeg or CPU family may round differently.)
"""

from __future__ import annotations

import csv
import functools
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from livetrain.core import worker_pool
from livetrain.core.errors import UserError
from livetrain.core.files import atomic_write, write_text
from livetrain.core.progress import progress
from shards.demo import scene

KINDS = ("live", "print", "replay")
NUM_ROOMS = 7
MAX_SECONDS = 4.0
TAG_FACE, TAG_ROOM, TAG_SESSION, TAG_CLIP, TAG_ENCODER = range(5)

# x264's look-ahead (in PyAV 18.1's build) now and then gives other bits for the same frames, single-threaded too: 14 of
# 15 encodings of a clip agreed. Without it, all of 480 did.
X264_WITHOUT_LOOKAHEAD = "rc-lookahead=0:mbtree=0:b-adapt=0:scenecut=0:weightp=0"


@dataclass(frozen=True)
class Format:
    """How a camera stores frames: size as displayed, frame rate, and the clockwise turn (degrees) a player applies."""

    width: int
    height: int
    fps: Fraction
    rotation: int = 0


# Seven, so that people with three sessions each meet all of them. A phone held upright stores landscape frames and says
# how to turn them.
FORMATS = (
    Format(256, 192, Fraction(30)),
    Format(192, 256, Fraction(25)),
    Format(192, 256, Fraction(24), rotation=90),
    Format(272, 154, Fraction(15)),
    Format(160, 284, Fraction(30), rotation=270),
    Format(240, 192, Fraction(20)),
    Format(256, 144, Fraction(30000, 1001), rotation=180),
)


@dataclass(frozen=True)
class Clip:
    """One video of the corpus: which person, session and kind. `seed` is the corpus's.

    It lasts 1 to `max_seconds` seconds, short ones being more frequent. `camera`: another format than the corpus has.
    """

    seed: int
    subject: int
    session: int
    kind: str
    camera: Format | None = None
    max_seconds: float = MAX_SECONDS

    @property
    def name(self) -> str:
        return f"id{self.subject:02d}_{self.session}_{self.kind}.mp4"

    @property
    def format(self) -> Format:
        return self.camera or FORMATS[(3 * self.subject + self.session) % len(FORMATS)]

    @property
    def room(self) -> int:
        return (self.subject + 2 * self.session) % NUM_ROOMS

    def random(self, tag: int) -> np.random.Generator:
        """The clip's generator for one purpose; people, rooms and sessions are shared among clips."""
        keys = {
            TAG_FACE: (self.subject,),
            TAG_ROOM: (self.room,),
            TAG_SESSION: (self.subject, self.session),
            TAG_CLIP: (self.subject, self.session, KINDS.index(self.kind)),
            TAG_ENCODER: (self.subject, self.session, KINDS.index(self.kind)),
        }
        return np.random.default_rng([self.seed, tag, *keys[tag]])


def generate(
    out: Path,
    *,
    num_subjects: int = 12,
    clips_per_subject: int = 10,
    max_seconds: float = MAX_SECONDS,
    seed: int = 0,
    workers: int | None = None,
) -> None:
    """Write `out`/videos/*.mp4 and, last, `out`/label.csv (fname,liveness_score,subject,attack_type,session).

    Each of `num_subjects` people has `clips_per_subject` clips: live, print and replay in turn, three to a session; the
    first kind is another for the next person, so that a last session with less than three favours none. `workers`
    processes share the work (default: the cores this process may use). Raises UserError for counts below 1, clips
    below 1 s, or when `out`/videos holds files that are not of this corpus.
    """
    if min(num_subjects, clips_per_subject, max_seconds, 1 if workers is None else workers) < 1 or seed < 0:
        raise UserError(
            "the demo corpus needs at least 1 subject, clip a subject, second and worker, and a seed from 0 on"
        )
    clips = [
        Clip(seed, subject, index // len(KINDS), KINDS[(index + subject) % len(KINDS)], max_seconds=max_seconds)
        for subject in range(num_subjects)
        for index in range(clips_per_subject)
    ]
    videos = Path(out) / "videos"
    strangers = (
        sorted({path.name for path in videos.glob("*")} - {clip.name for clip in clips}) if videos.is_dir() else []
    )
    if strangers:
        raise UserError(f"{videos} holds other files ({strangers[0]}); remove the folder or choose another")

    workers = min(workers or len(os.sched_getaffinity(0)), len(clips))
    write = functools.partial(write_clip, folder=videos)
    with progress("demo corpus", len(clips), "clips") as advance:
        for index, result in worker_pool.unordered(write, clips, workers, preload=[__name__]):
            if isinstance(result, worker_pool.WorkerDied):
                raise UserError(f"the process that made {clips[index].name} was killed; try fewer workers (memory?)")
            advance()

    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("fname", "liveness_score", "subject", "attack_type", "session"))
    for clip in clips:
        writer.writerow((clip.name, int(clip.kind == "live"), f"id{clip.subject:02d}", clip.kind, f"room{clip.room}"))
    write_text(Path(out) / "label.csv", table.getvalue())


def write_clip(clip: Clip, folder: Path) -> None:
    """Render one clip and write it as H.264 in MP4 to `folder`/`clip.name`, atomically."""
    random = clip.random(TAG_ENCODER)
    form = clip.format
    turns = form.rotation // 90
    stored = (form.height, form.width) if turns % 2 else (form.width, form.height)
    # Encoders differ in the wild: key frames near or far, B-frames or none.
    options = {
        "crf": str(random.integers(20, 27)),
        "preset": "veryfast",
        "g": str(random.choice([8, 25, 250])),
        "bf": str(random.choice([0, 2])),
        "threads": "1",
        "x264-params": X264_WITHOUT_LOOKAHEAD,
    }
    with atomic_write(folder / clip.name) as path:
        with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
            stream = container.add_stream("libx264", rate=form.fps, options=options)
            stream.width, stream.height = stored
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 1
            for image in render(clip):
                # A camera turned by `rotation` stores the frame turned back by as much.
                pixels = np.ascontiguousarray(np.rot90(image, turns))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        if form.rotation:
            path.write_bytes(with_rotation(path.read_bytes(), form.rotation, *stored))


def with_rotation(mp4: bytes, rotation: int, width: int, height: int) -> bytes:
    """`mp4` with the display matrix of its only track set to a clockwise turn by `rotation` (90, 180, 270).

    PyAV offers no way to write a stream's display matrix, so its nine numbers are replaced in the track header box
    (`tkhd` version 0, ISO/IEC 14496-12, 8.3.2). `width` and `height` are of the stored frame.
    """
    one = 1 << 16
    a, b, c, d, x, y = {
        90: (0, one, -one, 0, height * one, 0),
        180: (-one, 0, 0, -one, width * one, height * one),
        270: (0, -one, one, 0, 0, width * one),
    }[rotation]
    matrix = np.array([a, b, 0, c, d, 0, x, y, 1 << 30], dtype=">i4").tobytes()
    box = mp4.rindex(b"tkhd")
    start = box + 4 + 40
    assert mp4[box + 4] == 0 and mp4.count(b"tkhd") == 1
    return mp4[:start] + matrix + mp4[start + len(matrix) :]


def render(clip: Clip, num_frames: int | None = None) -> Iterator[np.ndarray]:
    """The clip's frames in display order: uint8 RGB [height, width, 3], upright; `num_frames`, where given."""
    form = clip.format
    random = clip.random(TAG_CLIP)
    drawn = round(float(form.fps) * clip.max_seconds ** random.random())
    num_frames = drawn if num_frames is None else num_frames
    seconds = np.arange(num_frames) / float(form.fps)
    draw = {"live": _live_frames, "print": _print_frames, "replay": _replay_frames}[clip.kind]
    yield from _film(clip, random, draw(clip, random, seconds))


def _wander(random: np.random.Generator, seconds: np.ndarray, amplitude: float) -> np.ndarray:
    """A smooth random motion around 0: four sines of 0.2 to 2.5 Hz, [len(seconds)]."""
    hertz = random.uniform(0.2, 2.5, 4)
    phase = random.uniform(0, 2 * np.pi, 4)
    weight = random.dirichlet(np.ones(4)) * amplitude * 1.6
    return (weight * np.sin(2 * np.pi * hertz * seconds[:, None] + phase)).sum(axis=1)


def _backdrop(clip: Clip, random: np.random.Generator, seconds: np.ndarray) -> Iterator[scene.Image]:
    """The session's room through a hand-held camera: a window into a larger picture that wanders by a few pixels."""
    width, height = clip.format.width, clip.format.height
    room = scene.make_room(clip.random(TAG_ROOM), height + 32, width + 32)
    dx = 16 + random.uniform(-8, 8) + _wander(random, seconds, 4)
    dy = 16 + random.uniform(-8, 8) + _wander(random, seconds, 4)
    for left, top in zip(dx, dy, strict=True):
        i, j = int(top), int(left)
        down, across = float(top) - i, float(left) - j
        rows: scene.Image = room[i : i + height] * (1 - down) + room[i + 1 : i + height + 1] * down
        yield rows[:, j : j + width] * (1 - across) + rows[:, j + 1 : j + width + 1] * across


def _poses(
    random: np.random.Generator, seconds: np.ndarray, width: int, height: int, size: float
) -> Iterator[scene.Pose]:
    """A living head: drifts, nods, turns, blinks, often speaks. `size`: its height over the frame's short side."""
    scale = size * min(width, height) / 2
    x = width * random.uniform(0.44, 0.56) + _wander(random, seconds, 0.16 * scale)
    y = height * random.uniform(0.44, 0.52) + _wander(random, seconds, 0.10 * scale)
    zoom = 1 + _wander(random, seconds, 0.04)
    roll, yaw, pitch = (_wander(random, seconds, a) for a in (0.10, 0.45, 0.25))
    blinks = random.uniform(0, max(seconds[-1], 0.5), 1 + int(random.random() < 0.4))
    blink = np.exp(-(((seconds[:, None] - blinks) / 0.07) ** 2)).max(axis=1)
    speech = float(random.random() < 0.6) * np.abs(np.sin(seconds * random.uniform(6, 12))) * random.uniform(0.3, 0.9)
    light = random.uniform(-1, 1)
    track = np.column_stack([x, y, scale * zoom, roll, yaw, pitch, blink, speech, np.full(len(seconds), light)])
    for values in track.tolist():
        yield scene.Pose(*values)


def _live_frames(clip: Clip, random: np.random.Generator, seconds: np.ndarray) -> Iterator[scene.Image]:
    face = scene.make_face(clip.random(TAG_FACE))
    poses = _poses(random, seconds, clip.format.width, clip.format.height, random.uniform(0.50, 0.78))
    brightness = 1 + _wander(random, seconds, 0.04)
    for image, pose, gain in zip(_backdrop(clip, random, seconds), poses, brightness, strict=True):
        scene.draw_face(image, face, pose)
        image *= np.float32(gain)
        yield image


def _source(
    clip: Clip, random: np.random.Generator, seconds: np.ndarray, width: int, height: int
) -> Iterator[scene.Image]:
    """What the attacker shows: the victim filmed elsewhere, [height, width, 3]."""
    face = scene.make_face(clip.random(TAG_FACE))
    room = scene.make_room(random, height, width)
    for pose in _poses(random, seconds, width, height, random.uniform(0.65, 0.85)):
        image = room.copy(order="K")
        scene.draw_face(image, face, pose)
        yield image


def _plane_motion(
    clip: Clip, random: np.random.Generator, seconds: np.ndarray
) -> Iterator[tuple[scene.Image, scene.Image]]:
    """Coordinates of a hand-held plane in each frame. A third are so close that their edges lie outside the picture."""
    form = clip.format
    close = random.random() < 0.33
    scale = (
        max(form.width, form.height) / 2 * random.uniform(1.15, 1.35)
        if close
        else min(form.width, form.height) / 2 * random.uniform(0.78, 0.98)
    )
    steady = random.uniform(0.15, 1.0)
    x = form.width * random.uniform(0.46, 0.54) + _wander(random, seconds, 0.10 * scale * steady)
    y = form.height * random.uniform(0.46, 0.54) + _wander(random, seconds, 0.08 * scale * steady)
    zoom = scale * (1 + _wander(random, seconds, 0.05 * steady))
    roll = random.uniform(-0.08, 0.08) + _wander(random, seconds, 0.08 * steady)
    yaw = random.uniform(-0.2, 0.2) + _wander(random, seconds, 0.30 * steady)
    pitch = random.uniform(-0.2, 0.2) + _wander(random, seconds, 0.25 * steady)
    for values in np.column_stack([x, y, zoom, roll, yaw, pitch]).tolist():
        yield scene.plane_coordinates(form.height, form.width, *values)


def _print_frames(clip: Clip, random: np.random.Generator, seconds: np.ndarray) -> Iterator[scene.Image]:
    width, height = (240, 208) if clip.format.width > clip.format.height else (200, 256)
    paper = scene.print_photo(random, next(_source(clip, random, seconds, width, height)))
    slope = np.float32(random.uniform(-0.12, 0.12))
    for image, (u, v) in zip(_backdrop(clip, random, seconds), _plane_motion(clip, random, seconds), strict=True):
        scene.paste_plane(image, paper, u, v, 1 + slope * u)
        yield image


def _replay_frames(clip: Clip, random: np.random.Generator, seconds: np.ndarray) -> Iterator[scene.Image]:
    width, height = (216, 160) if clip.format.width > clip.format.height else (152, 200)
    bezel = int(random.integers(4, 13))
    form = clip.format
    row, column = np.mgrid[0 : form.height, 0 : form.width].astype(np.float32)
    lines = min(form.width, form.height) / 2 * random.uniform(0.8, 1.2)
    depth = random.uniform(0.10, 0.22)
    band = 2 * np.pi * random.uniform(0.7, 2.0) / form.height
    drift = random.uniform(-9, 9)
    glare_x, glare_y = random.uniform(-0.7, 0.7, 2)
    glare_size, glare_gain = random.uniform(0.1, 0.35), random.uniform(0.0, 0.5)
    backdrop, planes = _backdrop(clip, random, seconds), _plane_motion(clip, random, seconds)
    pictures = _source(clip, random, seconds, width, height)
    for image, (u, v), picture, time in zip(backdrop, planes, pictures, seconds, strict=True):
        gain = scene.pixel_grid(u, v, lines, depth)
        # The display refreshes out of step with the camera's rolling shutter: soft bands that roll over the screen.
        gain *= (1 + 0.07 * np.sin(band * row + drift * time))[..., None].astype(np.float32)
        gain += np.float32(glare_gain) * np.exp(-((u - glare_x) ** 2 + (v - glare_y) ** 2) / glare_size**2)[
            ..., None
        ].astype(np.float32)
        scene.paste_plane(image, scene.show_on_screen(picture, bezel), u, v, gain)
        yield image


def _film(clip: Clip, random: np.random.Generator, frames: Iterator[scene.Image]) -> Iterator[np.ndarray]:
    """The session's camera: white balance, exposure, vignette, sensor noise, 8 bits. The same for every kind."""
    form = clip.format
    session = clip.random(TAG_SESSION)
    balance = session.uniform(0.86, 1.14, 3).astype(np.float32)
    exposure = np.float32(session.uniform(0.75, 1.2) * random.uniform(0.85, 1.15))
    y, x = np.mgrid[-1 : 1 : form.height * 1j, -1 : 1 : form.width * 1j]
    vignette = (exposure * (1 - session.uniform(0.0, 0.25) * (x**2 + y**2) / 2)).astype(np.float32)[..., None] * balance
    noise = random.standard_normal((form.height * 2, form.width * 2, 1), dtype=np.float32) * np.float32(
        session.uniform(0.008, 0.025)
    )
    for image in frames:
        top, left = random.integers(form.height), random.integers(form.width)
        image = image * vignette + noise[top : top + form.height, left : left + form.width]
        yield (np.clip(image, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)

"""What people load videos with, each as its users would write it: `side(task) -> wanted frames per second`.

Every side gets the same clips and wants the same number of frames of each (one random frame of each of equal segments),
and uses as many workers as there are cores. The level says how far it goes:

  decode   the frames as uint8, nothing more (workers hand over a checksum, so that no side pays for moving pictures)
  resize   also to the training size, normalised, as a float batch
  augment  also what livetrain's default `augment` does: crop, flip, colour, grayscale, blur, JPEG, downscale, erase

Nothing here is used in training.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from livetrain.bench.sides import steady_rate
from livetrain.core.world import World

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEVELS = ("decode", "resize", "augment")
WORKERS = "fork"  # as a program that a user starts has it; a side's process is spawned, and would pass that on


@dataclass(frozen=True)
class Task:
    """One pass: `count` batches after `skip` of them.

    Two workers of a DataLoader hand over two batches at a time, so both are even. shards, frame_shards: built of
    `videos`; jpegs: their frames as files, one folder a video.
    """

    videos: tuple[Path, ...]
    num_frames: int
    shards: Path
    frame_shards: Path
    jpegs: Path
    level: str
    frames_per_clip: int = 8
    image_size: int = 224
    batch_size: int = 8
    workers: int = 2
    skip: int = 2
    count: int = 8
    device: str = "cpu"

    @property
    def num_clips(self) -> int:
        """Clips to offer: more than are measured, for what runs ahead."""
        return self.batch_size * (self.skip + self.count + 2 * self.workers + 4)

    def keys(self, shards: Path) -> list[str]:
        """The configuration of a training that loads what the other sides load, as `key=value`."""
        keys = [f"data.shards={shards}", f"data.num_frames={self.frames_per_clip}", "data.train_split=train"]
        keys += [f"data.image_size={self.image_size}", f"data.threads={self.workers}"]
        return [*keys, f"train.global_batch={self.batch_size}", f"augment.enabled={self.level == 'augment'}"]

    def rate(self, batches: Any) -> float:
        """Wanted frames per second of an iterable of batches."""
        return steady_rate(batches, self.batch_size * self.frames_per_clip, skip=self.skip, count=self.count)


# --- livetrain ----------------------------------------------------------------------------------------------------


def livetrain(task: Task) -> Any:
    """The loader of a training run on shards of the original videos."""
    return _livetrain(task, task.shards)


def livetrain_frames(task: Task) -> Any:
    """The same on `--store frames` shards: JPEGs chosen when they were built."""
    return _livetrain(task, task.frame_shards)


def _livetrain(task: Task, shards: Path) -> tuple[float, dict[str, float]]:
    """Wanted frames a second, and `core_seconds`: of all cores together for a wanted frame."""
    from livetrain import data
    from livetrain.config import load_config
    from livetrain.data.decode import decode_video
    from livetrain.data.plan import Samples, plan_train

    config = load_config([], task.keys(shards), warn=lambda line: None)
    dataset = data.Dataset.open(config.data.shards, config.data)
    steps = task.num_clips // task.batch_size
    if task.level == "decode":
        samples = Samples.of(dataset, "train", config)

        def clip(row: int, frames: NDArray[np.int64]) -> int:
            return int(decode_video(dataset.video_bytes(row), frames, task.num_frames)[..., 0, 0, 0].sum())

        with ThreadPoolExecutor(task.workers) as pool:
            plans = [plan_train(samples, config, step, 0, 0, 1) for step in range(steps)]
            results = pool.map(clip, [r for p in plans for r in p.rows.tolist()], [f for p in plans for f in p.frames])
            found = _with_core_seconds(task, _batched(results, task.batch_size))
            pool.shutdown(cancel_futures=True)
        return found
    world = World(torch.device(task.device))
    with data.train_loader(dataset, config, world=world, mean=MEAN, std=STD, num_steps=steps) as loader:
        return _with_core_seconds(task, _synchronised(loader, task.device))


def _with_core_seconds(task: Task, batches: Iterator[Any]) -> tuple[float, dict[str, float]]:
    clock: list[float] = []

    def clocked() -> Iterator[Any]:
        for batch in batches:
            clock.append(time.process_time())
            yield batch

    rate = task.rate(clocked())
    num_frames = task.count * task.batch_size * task.frames_per_clip
    return rate, {"core_seconds": (clock[task.skip + task.count - 1] - clock[task.skip - 1]) / num_frames}


def _batched(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := [item for _, item in zip(range(size), items, strict=False)]:
        yield batch


def _synchronised(batches: Any, device: str) -> Iterator[Any]:
    """On a GPU a batch counts when its pixels are there."""
    for batch in batches:
        if device != "cpu":
            torch.cuda.synchronize()
        yield batch


# --- a DataLoader around one decoder ------------------------------------------------------------------------------

Decoder = Callable[[Path, NDArray[np.int64]], Any]
Transform = Callable[[Any], torch.Tensor]


class Clips(torch.utils.data.Dataset[Any]):
    """Clip i of an endless list; `decode` reads frames of a file, `transform` makes float [F, 3, S, S] of them."""

    def __init__(self, task: Task, decode: Decoder, transform: Transform | None) -> None:
        self.task, self.decode, self.transform = task, decode, transform

    def __len__(self) -> int:
        return self.task.num_clips

    def __getitem__(self, index: int) -> torch.Tensor:
        path = self.task.videos[index * 7 % len(self.task.videos)]
        frames = self.decode(path, random_frames(self.task, index))
        if self.transform is None:
            return torch.tensor(int(frames[..., 0, 0, 0].sum()))
        return self.transform(frames)


def random_frames(task: Task, index: int) -> NDArray[np.int64]:
    """One random frame of each segment, ascending, int64 [F]."""
    from livetrain.data.frame_choice import segment_frames

    u = np.random.default_rng(index).random((1, task.frames_per_clip))
    return segment_frames(np.array([task.num_frames]), task.frames_per_clip, u)[0]


def _data_loader(task: Task, decode: Decoder, transform: Transform | None) -> float:
    pin = task.device != "cpu"
    loader: Any = torch.utils.data.DataLoader(
        Clips(task, decode, transform),
        task.batch_size,
        shuffle=False,
        num_workers=task.workers,
        pin_memory=pin,
        multiprocessing_context=WORKERS,
    )
    return task.rate(_uploaded(loader, task.device))


def _uploaded(batches: Any, device: str) -> Iterator[Any]:
    for batch in batches:
        if device == "cpu":
            yield batch
        else:
            batch = batch.to(device, non_blocking=True)
            torch.cuda.synchronize()
            yield batch


def _torchvision(task: Task) -> Transform | None:
    """Livetrain's default augmentations by torchvision.transforms.v2, on uint8 [F, 3, H, W]."""
    from torchvision.transforms import v2

    from livetrain.config import AugmentConfig

    if task.level == "decode":
        return None
    normalise = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    size = [task.image_size, task.image_size]
    if task.level == "resize":
        return v2.Compose([v2.Resize(size, antialias=True), *normalise])
    a = AugmentConfig()
    small = round(task.image_size * (a.downscale_min + 1) / 2)
    jitter = v2.ColorJitter(a.brightness, a.contrast, a.saturation, a.hue_degrees / 360)
    return v2.Compose([
        v2.RandomResizedCrop(
            size, (a.crop_scale_min, a.crop_scale_max), (a.crop_ratio_min, a.crop_ratio_max), antialias=True
        ),
        v2.RandomHorizontalFlip(a.flip),
        v2.RandomApply([v2.Resize([small, small], antialias=True), v2.Resize(size)], a.downscale),
        v2.RandomApply([jitter], a.color),
        v2.RandomGrayscale(a.grayscale),
        v2.RandomApply([v2.GaussianBlur(13, (0.1, a.blur_sigma_max))], a.blur),
        v2.RandomApply([v2.JPEG((a.jpeg_quality_min, 95))], a.jpeg),
        *normalise,
        v2.RandomErasing(a.erase, (0.02, a.erase_scale_max)),
    ])  # fmt: skip


def _albumentations(task: Task) -> Transform | None:
    """The same by albumentations, on uint8 [F, H, W, 3]."""
    if task.level == "decode":
        return None
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks a server for its newest version
    import albumentations as A
    import cv2

    from livetrain.config import AugmentConfig

    cv2.setNumThreads(0)
    size = (task.image_size, task.image_size)
    tail = [A.Normalize(MEAN, STD)]
    if task.level == "resize":
        steps = [A.Resize(*size, interpolation=cv2.INTER_AREA), *tail]
    else:
        a = AugmentConfig()
        steps = [
            A.RandomResizedCrop(
                size, (a.crop_scale_min, a.crop_scale_max), (a.crop_ratio_min, a.crop_ratio_max),
                interpolation=cv2.INTER_AREA,
            ),
            A.HorizontalFlip(p=a.flip),
            A.Downscale((a.downscale_min, 1.0), p=a.downscale),
            A.ColorJitter(a.brightness, a.contrast, a.saturation, a.hue_degrees / 360, p=a.color),
            A.ToGray(p=a.grayscale),
            A.GaussianBlur(0, (0.1, a.blur_sigma_max), p=a.blur),
            A.ImageCompression("jpeg", (a.jpeg_quality_min, 95), p=a.jpeg),
            *tail,
            A.CoarseDropout((1, 1), (0.15, 0.45), (0.15, 0.45), p=a.erase),
        ]  # fmt: skip
    compose = A.Compose(steps)

    def transform(frames: NDArray[np.uint8]) -> torch.Tensor:
        # `images`: one draw of the parameters for all frames of the clip.
        return torch.from_numpy(np.ascontiguousarray(compose(images=frames)["images"].transpose(0, 3, 1, 2)))

    return transform


def _channels_first(task: Task, decode: Decoder) -> Decoder:
    """Torchvision wants uint8 tensors [F, 3, H, W]."""
    if task.level == "decode":
        return decode
    return partial(_decode_channels_first, decode)


def _decode_channels_first(decode: Decoder, path: Path, frames: NDArray[np.int64]) -> torch.Tensor:
    return torch.from_numpy(decode(path, frames)).permute(0, 3, 1, 2)


def pyav(task: Task) -> float:
    """PyAV + DataLoader + torchvision: decode on to the last wanted frame, keep the wanted."""
    return _data_loader(task, _channels_first(task, decode_pyav), _torchvision(task))


def decode_pyav(path: Path | io.BytesIO, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Frames by decoding from the start, as most code found in the field does. uint8 [F, H, W, 3]."""
    import av

    wanted, kept = set(frames.tolist()), {}
    with av.open(str(path) if isinstance(path, Path) else path, "r") as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                kept[number] = frame.to_ndarray(format="rgb24")
            if len(kept) == len(wanted):
                break
    return np.stack([kept[number] for number in frames.tolist()])


def torchcodec(task: Task) -> float:
    """Torchcodec + DataLoader + torchvision."""
    try:
        import torchcodec.decoders  # noqa: F401
    except (OSError, RuntimeError):
        raise ImportError("torchcodec finds no FFmpeg libraries (Debian: apt-get install ffmpeg)") from None
    return _data_loader(task, _decode_torchcodec, _torchvision(task))


def _decode_torchcodec(path: Path, frames: NDArray[np.int64]) -> torch.Tensor:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), seek_mode="approximate", num_ffmpeg_threads=1)
    return decoder.get_frames_at(frames.tolist()).data


def decord(task: Task) -> float:
    """Decord + DataLoader + torchvision."""
    return _data_loader(task, _channels_first(task, _decode_decord), _torchvision(task))


def _decode_decord(path: Path, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
    from decord import VideoReader

    return VideoReader(str(path), num_threads=1).get_batch(frames.tolist()).asnumpy()


def opencv(task: Task) -> float:
    """OpenCV + DataLoader + albumentations, what challenge teams write."""
    return _data_loader(task, _decode_opencv, _albumentations(task))


def _decode_opencv(path: Path, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
    import cv2

    cv2.setNumThreads(0)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    wanted, kept = set(frames.tolist()), {}
    for number in range(int(frames[-1]) + 1):
        if not capture.grab():  # decodes
            break
        if number in wanted:
            kept[number] = cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
    capture.release()
    return np.stack([kept[number] for number in frames.tolist()])


def pytorchvideo(task: Task) -> float:
    """Pytorchvideo's EncodedVideo + DataLoader + torchvision: it decodes the whole clip, then subsamples."""
    return _data_loader(task, _decode_pytorchvideo, _torchvision(task))


def _decode_pytorchvideo(path: Path, frames: NDArray[np.int64]) -> torch.Tensor:
    from pytorchvideo.data.encoded_video import EncodedVideo

    video = EncodedVideo.from_path(str(path), decode_audio=False)
    return video.get_clip(0, video.duration)["video"][:, frames].permute(1, 0, 2, 3).to(torch.uint8)


def webdataset(task: Task) -> float:
    """Webdataset over the same tars + PyAV + DataLoader + torchvision."""
    import webdataset as wds

    transform = _torchvision(task)
    counter = iter(range(10**9))

    def decode(sample: dict[str, Any]) -> torch.Tensor:
        frames = decode_pyav(io.BytesIO(sample["mp4"]), random_frames(task, next(counter)))
        if transform is None:
            return torch.tensor([int(frames[..., 0, 0, 0].sum())])  # it batches no scalars
        return transform(torch.from_numpy(frames).permute(0, 3, 1, 2))

    tars = [str(path) for path in sorted(task.shards.glob("*.tar"))]
    # resampled: every worker draws shards for itself, so that two shards feed any number of workers without end
    stream = wds.WebDataset(tars, resampled=True, shardshuffle=False).shuffle(8).map(decode)
    loader: Any = torch.utils.data.DataLoader(
        stream.batched(task.batch_size), batch_size=None, num_workers=task.workers, multiprocessing_context=WORKERS
    )
    return task.rate(_uploaded(loader, task.device))


def jpeg_files(task: Task) -> float:
    """JPEG frames extracted to disk beforehand + PIL + DataLoader + torchvision: the usual first baseline."""
    return _data_loader(task, _channels_first(task, partial(_decode_jpegs, task.jpegs)), _torchvision(task))


def _decode_jpegs(folder: Path, path: Path, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
    from PIL import Image

    return np.stack([np.asarray(Image.open(folder / path.stem / f"{number:05d}.jpg")) for number in frames.tolist()])


PACKAGES = ("torchvision", "torchcodec", "decord", "opencv-python-headless", "albumentations", "pytorchvideo")
VIDEO_PEERS = {
    "torchcodec": torchcodec,
    "PyAV": pyav,
    "decord": decord,
    "webdataset + PyAV": webdataset,
    "OpenCV + albumentations": opencv,
    "pytorchvideo": pytorchvideo,
}

"""The DALI pipeline: crop, resize, rotate, augment, normalise. One graph for CPU and GPU, and no random operator in it.

Everything that varies is an input, so the same inputs give the same pixels, whatever process or batch they are in.
Three sources enter the same graph: pictures decoded, cropped and resized on the CPU (`cpu`), whole video files
decoded by DALI (`video`: NVDEC on CUDA), and JPEGs (`jpeg`: nvJPEG on CUDA; each frame is then a sample of its own,
with its clip's parameters). RGB that DALI made of a video is brought to the standard formulas by a matrix a clip,
before it is rounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.pipeline import Pipeline, do_not_convert

from livetrain.data.augment import PATH, PER_FRAME, Change
from livetrain.data.decoders import Decoder
from livetrain.data.windows import graph_inputs
from shards.format.colour import Colours, correction

Params = dict[str, NDArray[Any]]

COLOUR_INPUTS = {"colour_matrix", "colour_offset"}

# Batches in flight at most, each in a pipeline of its own with a queue of one: one that fails takes no other with it.
DEPTH = 2


def colour_params(colours: Sequence[Colours]) -> Params:
    """The inputs `colour_matrix` float32 [n, 3, 3] and `colour_offset` float32 [n, 3] of n clips that are `video`."""
    pairs = [correction(item) for item in colours]
    return {"colour_matrix": np.stack([m for m, _ in pairs]), "colour_offset": np.stack([t for _, t in pairs])}


def depth(device: torch.device) -> int:
    """Batches that a loader has in a graph at once.

    On a GPU the CPU stages of one overlap the GPU stages of the other. On the CPU a second one would take memory
    (0.1 to 0.3 GiB for 8 clips of 8 frames at 224 pixels) and gain nothing.
    """
    return DEPTH if device.type == "cuda" else 1


class GraphError(Exception):
    """DALI could not decode or transform a batch."""


@dataclass(frozen=True)
class GraphOptions:
    """What a graph makes of clips: 1 to `max_clips` clips of at most `num_frames` frames, all of a batch equally many.

    image_size: side of the output, pixels. mean, std: of RGB in [0, 1]. dtype: torch.float32 or torch.float16.
    """

    image_size: int
    num_frames: int
    max_clips: int
    mean: Sequence[float]
    std: Sequence[float]
    device: torch.device
    dtype: torch.dtype
    num_threads: int


class Graph:
    """The DALI pipeline for clips of one decoder: `push` up to `DEPTH` batches, `pull` them in the same order."""

    def __init__(
        self,
        decoder: Decoder,
        changes: Sequence[Change],
        example: Params,
        options: GraphOptions,
    ) -> None:
        self.decoder, self.device, self.dtype = decoder, options.device, options.dtype
        on_gpu = self.device.type == "cuda"
        self._free: list[Pipeline] = []
        self._busy: deque[tuple[Pipeline, int]] = deque()

        def make() -> Pipeline:
            pipeline = _define(
                decoder,
                list(changes),
                _input_types(self._inputs(example, options.num_frames)),
                options,
                batch_size=options.max_clips * (options.num_frames if decoder == "image" else 1),
                num_threads=options.num_threads,
                device_id=(self.device.index or 0) if on_gpu else None,
                prefetch_queue_depth=1,
            )
            pipeline.build()
            return pipeline

        self._make = make

    def push(self, media: Sequence[Any], frames: NDArray[np.int64], params: Params) -> None:
        """Start a batch of n clips; what is wrong with it is raised when it is pulled.

        media[i]: uint8 [F, S, S, 3] (`frames`; see crop.CropAndResize), bytes of a video file (`video`), or F JPEG
        files (`jpeg`). frames: int64 [n, F], used by `video` alone, as `colour_params` are. params: as the example's,
        [n, …].
        """
        assert len(self._busy) < DEPTH, "pull before pushing more"
        num_clips = len(media)
        params = self._inputs(params, frames.shape[1])
        if self.decoder == "image":
            media = [jpeg for clip in media for jpeg in clip]
        if self.decoder != "cpu":
            media = [np.frombuffer(item, np.uint8) for item in media]
        pipeline = self._free.pop() if self._free else self._make()
        pipeline.feed_input("media", list(media))
        # One dense array an input: as lists of arrays, 18 inputs of 256 samples take 15 ms of Python, so 0.7.
        if self.decoder == "nvdec":
            pipeline.feed_input("frame_numbers", np.ascontiguousarray(frames, np.int32))
        for name, values in params.items():
            pipeline.feed_input(name, np.ascontiguousarray(values))
        pipeline.schedule_run()
        self._busy.append((pipeline, num_clips))

    def pull(self) -> torch.Tensor:
        """The clips of the oldest batch pushed: [n, F, 3, S, S] on the device. Raises GraphError."""
        pipeline, num_clips = self._busy.popleft()
        try:
            (output,) = pipeline.share_outputs()
        except RuntimeError as error:  # this pipeline is unusable now; the next push makes another
            raise GraphError(_reason(error)) from error
        clips = self._copy(output)
        pipeline.release_outputs()
        self._free.append(pipeline)
        return clips.reshape(num_clips, -1, *clips.shape[-3:])

    def run(self, media: Sequence[Any], frames: NDArray[np.int64], params: Params) -> torch.Tensor:
        """`push` and `pull` of one batch."""
        assert not self._busy, "pull before running"
        self.push(media, frames, params)
        return self.pull()

    def _inputs(self, params: Params, num_frames: int) -> Params:
        """The parameters that the graph takes as inputs, for each of its samples.

        A frame that is cropped already needs no box, and one that DALI does not convert no colours.
        """
        unused = {"cpu": {"box", *COLOUR_INPUTS}, "image": COLOUR_INPUTS, "nvdec": set()}[self.decoder]
        window = params.get("window")
        params = {name: values for name, values in params.items() if name not in {"window", *unused}}
        # What each frame has its own of, by frame; the rest is repeated where each frame is a sample.
        own = {name: params.pop(name)[:, np.arange(num_frames) % PATH] for name in PER_FRAME if name in params}
        if self.decoder == "image":
            params = {name: np.repeat(values, num_frames, axis=0) for name, values in params.items()}
            own = {name: values.reshape(-1, *values.shape[2:]) for name, values in own.items()}
        params |= own
        if window is None or self.decoder == "cpu":
            return params
        if self.decoder == "image":
            return params | graph_inputs(window.reshape(-1, 4))
        found = graph_inputs(window)
        return params | found | {"crop_size": found["crop_size"][:, 0]}  # one of all frames of a clip

    def _copy(self, output: Any) -> torch.Tensor:
        if self.device.type == "cpu":
            return torch.from_numpy(output.as_array())
        from nvidia.dali.plugin.pytorch import feed_ndarray

        dense = output.as_tensor()
        clips = torch.empty(dense.shape(), dtype=self.dtype, device=self.device)
        feed_ndarray(dense, clips, cuda_stream=torch.cuda.current_stream(self.device))
        # The copy must be done before DALI may write the next batch into this buffer. The stream is the loader's own:
        # it has no update of the trainer's to wait for.
        torch.cuda.current_stream(self.device).synchronize()
        return clips


@pipeline_def(enable_conditionals=True)
def _define(
    decoder: Decoder,
    changes: list[Change],
    inputs: dict[str, tuple[Any, int]],
    options: GraphOptions,
) -> Any:
    """All that depends on an input by `if`, and no more: see livetrain.data.augment.where."""
    frames, params = _squares(decoder, inputs, options)
    if params["angle"] != 0:
        frames = _rotated(frames, params, options.image_size)
    for item in changes:
        frames = item.apply(frames, params, options.image_size)
    return _normalised(frames, params, decoder, options)


@do_not_convert
def _squares(decoder: Decoder, inputs: dict[str, tuple[Any, int]], options: GraphOptions) -> tuple[Any, dict[str, Any]]:
    """Frames decoded, cropped and resized, and the graph's inputs."""
    size, on_gpu = options.image_size, options.device.type == "cuda"
    params = {name: fn.external_source(name=name, dtype=kind, ndim=ndim) for name, (kind, ndim) in inputs.items()}
    if decoder != "image":
        # Arguments of operators, [F, …]; what is multiplied with the frames has their dimensions and takes no mark.
        arguments = [name for name in PER_FRAME if name in params and inputs[name][1] < 4]
        params |= {name: fn.per_frame(params[name]) for name in arguments}
    device = "mixed" if on_gpu else "cpu"
    if decoder == "cpu":
        frames = fn.external_source(name="media", dtype=types.UINT8, ndim=4, layout="FHWC")
        return frames.gpu() if on_gpu else frames, params
    encoded = fn.external_source(name="media", dtype=types.UINT8, ndim=1)
    if decoder == "nvdec":
        numbers = fn.external_source(name="frame_numbers", dtype=types.INT32, ndim=1)
        frames = fn.decoders.video(encoded, device=device, frames=numbers)
    else:
        frames = fn.decoders.image(encoded, device=device, output_type=types.RGB)
    box = params["box"]
    # Not `resize` with a region: its filter looks beyond the region's edge, where what is cropped has no pixels.
    frames = fn.slice(frames, rel_start=box[0:2], rel_end=box[2:4], axis_names="HW")
    if "crop_matrix" in params:
        frames = _windows(frames, params, is_clip=decoder == "nvdec")
    resized: dict[str, Any] = {"size": [size, size], "interp_type": types.INTERP_LINEAR, "antialias": True}
    if decoder == "nvdec":
        return corrected(fn.resize(frames, dtype=types.FLOAT, **resized), params), params
    return fn.resize(frames, **resized), params


@do_not_convert
def _rotated(frames: Any, params: dict[str, Any], size: int) -> Any:
    """Small and square by now: quarter turns of a square by nearest neighbour move pixels and change none."""
    return fn.rotate(frames, angle=params["angle"], size=[size, size], interp_type=types.INTERP_NN, fill_value=0)


@do_not_convert
def _normalised(frames: Any, params: dict[str, Any], decoder: Decoder, options: GraphOptions) -> Any:
    """Mirrored where that is planned, by mean and deviation, channels first."""
    mean, std = ([255 * value for value in values] for values in (options.mean, options.std))
    dtype = types.FLOAT16 if options.dtype == torch.float16 else types.FLOAT
    layout = "CHW" if decoder == "image" else "FCHW"
    return fn.crop_mirror_normalize(
        frames, mirror=params["flip"], mean=mean, std=std, dtype=dtype, output_layout=layout
    )


def _windows(frames: Any, params: dict[str, Any], *, is_clip: bool) -> Any:
    """The window of each frame, black beyond the picture: whole pixels are moved, so nearest neighbour changes none."""
    matrix = fn.per_frame(params["crop_matrix"]) if is_clip else params["crop_matrix"]
    how = {"size": params["crop_size"], "interp_type": types.INTERP_NN, "fill_value": 0}
    return fn.warp_affine(frames, matrix=matrix, **how)


def corrected(frames: Any, params: dict[str, Any]) -> Any:
    """RGB that DALI made of YUV, float, by the formulas of its stream (shards.format.colour), rounded to bytes."""
    right = fn.coord_transform(frames, M=params["colour_matrix"], T=params["colour_offset"])
    return fn.cast(right, dtype=types.UINT8)


def _input_types(example: Params) -> dict[str, tuple[Any, int]]:
    kinds = {np.float32: types.FLOAT, np.int32: types.INT32, np.bool_: types.BOOL}
    return {name: (kinds[values.dtype.type], values.ndim - 1) for name, values in example.items()}


def _reason(error: Exception) -> str:
    """DALI's message without its stack: the line that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = [line for line in lines if "Assert" in line or "rror" in line or "ailed" in line]
    return (text or lines or [type(error).__name__])[-1][:300]

"""The loader: plans run ahead through fetch, decode and graph, and arrive as batches in order.

    plan ─▶ fetch and decode (thread pool, `prefetch` batches ahead) ─▶ graph (DALI) ─▶ queue ─▶ trainer
      └▶ shards behind a URL: announced `download_ahead` batches before, and downloaded meanwhile

One background thread drives it, so the trainer only waits when data is late, and `wait_seconds` says how long that
was. A clip that cannot be fetched or decoded comes as zeros with `valid` False and is listed in `failures`
(data.on_error=skip), or ends the run with the shard and the key named (stop).
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from livetrain.config import Config
from livetrain.core.errors import MachineFault, UserError
from livetrain.core.machine import num_cores
from livetrain.data import attack_types, augment, mixup, perturb, plan
from livetrain.data.dataset import Dataset, FetchError
from livetrain.data.decode import DecodeError
from livetrain.data.decoders import Source, colours_of, decoded_bytes, lane_of
from livetrain.data.graph import DEPTH, Graph, GraphError, Params, colour_params
from livetrain.data.loader_stages import Stages
from livetrain.data.nvdec_refusals import Refusals
from livetrain.data.plan import PADDING, ClipPlan
from livetrain.data.side_stream import SideStream
from shards.format.colour import RGB, Colours

Lane = tuple[Source, int]  # one of the graphs of a source
Parts = dict[Lane, tuple[list[int], list[Any]]]  # positions in a batch and their media

# So many clips in a row that cannot be had are no accident: the disk is gone, or the folder is not what the index says.
MAX_FAILURES_IN_A_ROW = 32


class Clips(Protocol):
    """Where a loader's clips come from: a `Dataset`, or video files (livetrain.data.video_files)."""

    @property
    def is_remote(self) -> bool:
        """See `Dataset`, here and below."""

    def column(self, name: str) -> NDArray[Any]: ...
    def text(self, name: str, row: int) -> str: ...
    def shard_name(self, row: int) -> str: ...
    def shard_path(self, row: int) -> Any: ...
    def root_of(self, row: int) -> Any: ...
    def video_bytes(self, row: int) -> bytes: ...
    def jpeg_bytes(self, row: int, frames: NDArray[np.integer]) -> list[bytes]: ...
    def decode(
        self, row: int, frames: NDArray[np.int64], box: NDArray[np.floating], size: int
    ) -> NDArray[np.uint8]: ...
    def prefetch(self, rows: NDArray[np.int64], share: float = 1.0) -> None: ...


@dataclass(frozen=True)
class Failure:
    """A clip that did not arrive: the tar's name, the sample's key, the reason, the row of the index."""

    shard: str
    key: str
    reason: str
    row: int = PADDING


@dataclass(frozen=True)
class Batch:
    """A micro-batch of n clips.

    clips: float [n, F, 3, S, S] on the device, normalised, zeros where not valid. labels: float32 [n] on the device
    (live = 1; 0 where not valid). kinds: float32 [n, K] on the device, live or one of loss.attack_types, K = 0 without
    those (see livetrain.data.attack_types). valid: bool [n] on the device; False for padding (rows == PADDING, key "")
    and for clips that could not be had (rows >= 0; listed in failures). rows: int64 [n]. frames: int64 [n, F], which
    frames of each video. keys: n sample keys. step: the update (training) or batch (evaluation) it belongs to.
    """

    clips: torch.Tensor
    labels: torch.Tensor
    kinds: torch.Tensor
    valid: torch.Tensor
    rows: NDArray[np.int64]
    frames: NDArray[np.int64]
    keys: list[str]
    step: int
    failures: list[Failure]


@dataclass
class _Prepared:
    """A planned micro-batch on its way through the graphs.

    rounds: one after the other, what each lane decodes; as many as data.decode_memory_mb makes necessary, at least one.
    failures: positions whose clip did not arrive. clips: as far as they are there.
    """

    plan: ClipPlan
    rounds: list[Parts] = field(default_factory=lambda: [{}])
    failures: dict[int, str] = field(default_factory=dict)
    clips: torch.Tensor | None = None


def train_loader(
    dataset: Dataset,
    config: Config,
    *,
    rank: int,
    world: int,
    local_world: int,
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    start_step: int = 0,
    num_steps: int,
    samples: plan.Samples | None = None,
) -> Loader:
    """Micro-batches of the updates start_step … num_steps-1 for process `rank` of `world` (`local_world` on this
    machine).

    Yields `train.accumulation` batches an update. `mean`, `std`: of RGB in [0, 1]. `samples`: of these, instead of the
    whole training split.
    """
    samples = samples or plan.Samples.of_training(dataset, config)
    plan.micro_batch_size(config, world)  # tells a global batch that does not divide before anything starts

    def plans() -> Iterator[ClipPlan]:
        for step in range(start_step, num_steps):
            for micro in range(config.train.accumulation):
                yield plan.plan_train(samples, config, step, micro, rank, world)

    return Loader(
        dataset,
        config,
        plans,
        (num_steps - start_step) * config.train.accumulation,
        plan.plan_train(samples, config, start_step, 0, rank, world),
        augment.active_augmentations(config.augment),
        local_world=local_world,
        device=device,
        mean=mean,
        std=std,
    )


def eval_loader(
    dataset: Dataset,
    config: Config,
    split: str,
    *,
    rank: int,
    world: int,
    local_world: int,
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    perturbation: perturb.Perturbation | None = None,
) -> Loader:
    """Batches of a split without augmentation: each sample once over all processes, equally many batches on each.

    With a `perturbation` every clip comes changed by it.
    """
    samples = plan.Samples.of(dataset, split)
    num_batches = plan.num_evaluation_batches(len(samples), config, world)

    def planned(batch: int) -> ClipPlan:
        item = plan.plan_evaluation(samples, config, batch, rank, world)
        return item if perturbation is None else perturb.perturb(item, samples, config, perturbation)

    def plans() -> Iterator[ClipPlan]:
        return map(planned, range(num_batches))

    example = planned(0)
    if not config.eval.num_frames:  # room for the longest
        longest = int(samples.columns["num_frames"][samples.rows].max())
        example = dataclasses.replace(example, frames=np.zeros((1, longest), np.int64))
    return Loader(
        dataset,
        config,
        plans,
        num_batches,
        example,
        [] if perturbation is None else perturbation.augmentations(),
        local_world=local_world,
        device=device,
        mean=mean,
        std=std,
    )


class Loader:
    """Iterates once over micro-batches; made by `train_loader` and `eval_loader`. Use as a context manager or
    `close()`."""

    def __init__(
        self,
        dataset: Clips,
        config: Config,
        plans: Callable[[], Iterator[ClipPlan]],
        num_batches: int,
        example: ClipPlan,
        augmentations: list[augment.Augmentation],
        *,
        local_world: int,
        device: torch.device,
        mean: Sequence[float],
        std: Sequence[float],
        patience: float = MAX_FAILURES_IN_A_ROW,
    ) -> None:
        self.wait_seconds = 0.0
        self.stages = Stages()
        self.failures: list[Failure] = []
        self.refusals = Refusals()
        if config.data.decoder == "gpu" and device.type != "cuda":
            raise UserError("data.decoder=gpu needs a CUDA device; set data.decoder=auto or cpu")
        self._dataset, self._config, self._num_batches, self._plans = dataset, config, num_batches, plans
        if device.type == "cuda" and device.index is None:  # so Accelerate calls a machine's only GPU
            device = torch.device("cuda", torch.cuda.current_device())
        self._device, self._side = device, SideStream(device)
        self._cache_share = 1 / local_world
        self._decode_on_gpu = config.data.decoder == "gpu" or (config.data.decoder == "auto" and device.type == "cuda")
        self._threads = config.data.threads or max(1, num_cores() // local_world)
        self._graphs: dict[Lane, Graph] = {}
        self._graph_options: dict[str, Any] = {
            "image_size": config.data.image_size,
            "num_frames": example.frames.shape[1],
            "max_clips": len(example.rows),
            "mean": mean,
            "std": std,
            "device": device,
            "dtype": torch.float32 if config.train.precision == "fp32" or device.type == "cpu" else torch.float16,
            "num_threads": self._threads,
        }
        self._example, self._augmentations = example, augmentations
        self._failures_in_a_row, self._patience = 0, patience
        self._queue: queue.Queue[tuple[Batch, Any] | BaseException | None] = queue.Queue(max(1, config.data.prefetch))
        self._stop = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._produce, name="livetrain-loader", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        """The batches that have not been handed out yet, once: nothing after the last, or after `close`."""
        while not self._ended:
            self.stages.add("ready", self._queue.qsize())
            started = time.perf_counter()
            item = self._queue.get()
            self.wait_seconds += time.perf_counter() - started
            if item is None:
                self._ended = True
                return
            if isinstance(item, BaseException):
                self.close()
                raise item
            batch, ready = item
            self._side.hand_over(ready, (batch.clips, batch.labels, batch.kinds, batch.valid))
            self.failures += batch.failures
            yield batch

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the background work and free the pipelines; what was not yet handed out is dropped."""
        self._stop.set()
        self._ended = True
        while self._thread.is_alive():
            # A producer that waits for room in the queue must get it to see the stop.
            with contextlib.suppress(queue.Empty):
                self._queue.get(timeout=0.02)
        self._graphs.clear()
        self._dataset.prefetch(np.empty(0, np.int64))

    # --- the background thread ----------------------------------------------------------------------------------------

    def _produce(self) -> None:
        try:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)
            decoders = ThreadPoolExecutor(self._threads, thread_name_prefix="livetrain-decode")
            with decoders as pool, self._side.current():
                for batch in self._batches(pool):
                    self._queue.put((batch, self._side.ready()))
                    if self._stop.is_set():
                        return
            self._queue.put(None)
        except BaseException as error:  # handed over: the trainer's thread is where a run can react
            self._queue.put(error)

    def _batches(self, pool: ThreadPoolExecutor) -> Iterator[Batch]:
        """Batches in order. Two windows slide over the plans: media in preparation, and rounds of them inside DALI."""
        plans = self._announced(self._plans()) if self._dataset.is_remote else self._plans()
        preparing: deque[tuple[ClipPlan, list[Future[Any]]]] = deque()
        ready: deque[tuple[_Prepared, Parts, bool]] = deque()  # of a batch a round, and whether it is the last one
        in_graph: deque[tuple[_Prepared, Parts, bool]] = deque()
        while True:
            while len(preparing) <= self._config.data.prefetch and (item := next(plans, None)) is not None:
                preparing.append((item, [pool.submit(self._medium, item, i) for i in range(len(item.rows))]))
            if preparing and not ready and len(in_graph) < DEPTH:
                prepared = self._collect(*preparing.popleft())
                last = len(prepared.rounds) - 1
                ready += [(prepared, parts, number == last) for number, parts in enumerate(prepared.rounds)]
            if ready and len(in_graph) < DEPTH:
                prepared, parts, _ = ready[0]
                for lane in parts:
                    self._push(prepared, lane, parts[lane])
                in_graph.append(ready.popleft())
            elif in_graph:
                prepared, parts, is_last = in_graph.popleft()
                self._pull(prepared, parts)
                if is_last:
                    yield self._finish(prepared)
            else:
                return

    def _announced(self, plans: Iterator[ClipPlan]) -> Iterator[ClipPlan]:
        """The plans, each handed on when the data set knows the rows of it and of those that follow."""
        ahead: deque[ClipPlan] = deque()
        while True:
            while len(ahead) <= self._config.data.download_ahead and (item := next(plans, None)) is not None:
                ahead.append(item)
            if not ahead:
                return
            rows = np.concatenate([item.rows for item in ahead])
            self._dataset.prefetch(rows[rows != PADDING], self._cache_share)
            yield ahead.popleft()

    def _source(self, row: int) -> Source:
        """Which way a sample's frames enter the graph."""
        on_gpu = self._decode_on_gpu and not self.refusals.covers(self._dataset, row)
        return lane_of(self._dataset, row, on_gpu=on_gpu)

    def _medium(self, item: ClipPlan, index: int) -> tuple[Source, Any] | None:
        """What the graph needs of one clip, and which; runs in the thread pool. Raises FetchError, DecodeError."""
        row = int(item.rows[index])
        # What was handed to the pool before a stop must not be downloaded after it.
        if row == PADDING or self._stop.is_set():
            return None
        source = self._source(row)
        with self.stages.timed("prepare_seconds"):
            if source == "jpeg":
                return source, self._dataset.jpeg_bytes(row, item.frames[index])
            return source, self._dataset.video_bytes(row) if source == "video" else self._decode(item, index)

    def _decode(self, item: ClipPlan, index: int) -> NDArray[np.uint8]:
        """The frames of a video file, cropped and resized on the CPU. Raises DecodeError, FetchError."""
        box, size = item.params["box"][index], self._graph_options["image_size"]
        return self._dataset.decode(int(item.rows[index]), item.frames[index], box, size)

    def _collect(self, item: ClipPlan, media: list[Future[Any]]) -> _Prepared:
        prepared = _Prepared(item)
        counts: Counter[Source] = Counter()
        budget = self._config.data.decode_memory_mb * 1e6 / DEPTH  # so many rounds are in the graphs at once
        used = 0
        for position, future in enumerate(media):
            try:
                medium = future.result()
            except (FetchError, DecodeError) as error:
                prepared.failures[position] = str(error)
                continue
            if medium is not None:
                source, content = medium
                # In turn, whatever the lanes are at: which graph a clip takes changes none of its pixels.
                lane = source, counts[source] % self._num_lanes(source)
                counts[source] += 1
                needed = self._decoded_bytes(item, position, source)
                if used and used + needed > budget:
                    prepared.rounds.append({})
                    used = 0
                used += needed
                positions, ready = prepared.rounds[-1].setdefault(lane, ([], []))
                positions.append(position)
                ready.append(content)
        return prepared

    def _decoded_bytes(self, item: ClipPlan, position: int, source: Source) -> int:
        """What a clip takes within DALI before it is resized; those of the CPU's decoder come resized."""
        row, num_frames = int(item.rows[position]), item.frames.shape[1]
        if source == "frames":
            return 3 * int(self._graph_options["image_size"]) ** 2 * num_frames
        return decoded_bytes(self._dataset, row, num_frames)

    def _num_lanes(self, source: Source) -> int:
        """Graphs of a source side by side: NVDEC waits for its pipeline's one CUDA stream at every frame wanted."""
        return self._config.data.nvdec_lanes if source == "video" else 1

    def _push(self, prepared: _Prepared, lane: Lane, part: tuple[list[int], list[Any]]) -> None:
        positions, media = part
        self._graph(lane).push(media, prepared.plan.frames[positions], self._params(prepared.plan, positions, lane[0]))

    def _params(self, item: ClipPlan, positions: list[int], source: Source) -> Params:
        """The graph's inputs for some clips of a plan; of a file that DALI decodes, its colours too."""
        params = {name: values[positions] for name, values in item.params.items()}
        if source == "video":
            params |= colour_params([colours_of(self._dataset, int(item.rows[position])) for position in positions])
        return params

    def _pull(self, prepared: _Prepared, parts: Parts) -> None:
        """Pull a round of a batch out of the graphs, into its clips."""
        size = len(prepared.plan.rows)
        for lane, (positions, media) in parts.items():
            try:
                with self.stages.timed("graph_seconds"):
                    part = self._graph(lane).pull()
            except GraphError:
                part = self._one_by_one(prepared, lane, positions, media)
            if len(positions) == size:
                prepared.clips = part
            else:
                if prepared.clips is None:
                    prepared.clips = part.new_zeros(size, *part.shape[1:])
                prepared.clips[positions] = part

    def _finish(self, prepared: _Prepared) -> Batch:
        """The batch, when all its rounds have been pulled; zeros where nothing came."""
        options, clips = self._graph_options, prepared.clips
        if clips is None:
            side = options["image_size"]
            shape = (len(prepared.plan.rows), prepared.plan.frames.shape[1], 3, side, side)
            clips = torch.zeros(shape, dtype=options["dtype"], device=self._device)
        return self._batch(prepared, clips)

    def _one_by_one(self, prepared: _Prepared, lane: Lane, positions: list[int], media: list[Any]) -> torch.Tensor:
        """A round that DALI refused, clip by clip: what is whole comes through, what is damaged is known by name."""
        source = lane[0]
        options = self._graph_options
        graph = self._make_graph(source)  # the usual one may hold the batches behind this
        second: Graph | None = None  # for what the GPU's decoder refuses
        side = options["image_size"]
        shape = (len(positions), prepared.plan.frames.shape[1], 3, side, side)
        clips = torch.zeros(shape, dtype=options["dtype"], device=self._device)
        for slot, position in enumerate(positions):
            params = self._params(prepared.plan, [position], source)
            try:
                clips[slot] = graph.run([media[slot]], prepared.plan.frames[[position]], params)[0]
            except GraphError as error:
                if source != "video":
                    prepared.failures[position] = str(error)
                    continue
                try:
                    pixels = self._decode(prepared.plan, position)
                except (DecodeError, FetchError) as worse:
                    prepared.failures[position] = str(worse)
                    continue
                # Whole, but nothing for this GPU's decoder: by the CPU from now on.
                self.refusals.note(self._dataset, int(prepared.plan.rows[position]))
                second = second or self._make_graph("frames")
                clips[slot] = second.run([pixels], prepared.plan.frames[[position]], params)[0]
        return clips

    def _batch(self, prepared: _Prepared, clips: torch.Tensor) -> Batch:
        rows = prepared.plan.rows
        keys = [self._key(int(row)) for row in rows]
        failures = []
        for position, row in enumerate(rows.tolist()):
            if position in prepared.failures:
                failure = Failure(self._dataset.shard_name(row), keys[position], prepared.failures[position], row)
                failures.append(failure)
                self._check(failure, int(row))
            elif row != PADDING:
                self._failures_in_a_row = 0
        valid = rows != PADDING
        valid[list(prepared.failures)] = False
        # A masked clip's label must be a number too: NaN times zero is NaN in a gradient.
        labels = np.where(valid, self._dataset.column("label")[rows], 0).astype(np.float32)
        types = self._config.loss.attack_types
        named = [self._dataset.text("attack_type", row) if types and row != PADDING else "" for row in rows.tolist()]
        targets = np.concatenate([labels[:, None], attack_types.one_hot(named, types)], axis=1)
        clips, targets = mixup.apply(clips, targets, valid, prepared.plan.blend)
        on_device = self._side.upload(targets)
        return Batch(
            clips,
            on_device[:, 0],
            on_device[:, 1:],
            self._side.upload(valid),
            rows,
            prepared.plan.frames,
            keys,
            prepared.plan.step,
            failures,
        )

    def _check(self, failure: Failure, row: int) -> None:
        """Raises UserError, MachineFault when the run must not go on; `row`: the clip that failed."""
        what = f"{self._dataset.shard_path(row)}, key {failure.key}: {failure.reason}"
        root = self._dataset.root_of(row)
        self._failures_in_a_row += 1
        if self._config.data.on_error == "stop":
            raise UserError(f"{what}; repair the shard, or set data.on_error=skip to go on without such clips")
        if self._failures_in_a_row >= self._patience:
            advice = f"is the disk there? `python -m shards verify {root}` checks every shard"
            if self._dataset.is_remote:
                advice = f"is {root} still there, and as it was when this run began?"
            raise MachineFault(
                f"{what}; it is the {self._failures_in_a_row}th clip in a row that cannot be had: {advice}"
            )

    def _key(self, row: int) -> str:
        return "" if row == PADDING else self._dataset.text("key", row)

    def _graph(self, lane: Lane) -> Graph:
        if lane not in self._graphs:
            self._graphs[lane] = self._make_graph(lane[0])
        return self._graphs[lane]

    def _make_graph(self, source: Source) -> Graph:
        """A lane of `source`: with its share of the batch, and of the threads."""
        lanes, options = self._num_lanes(source), dict(self._graph_options)
        options["max_clips"] = -(-options["max_clips"] // lanes)
        options["num_threads"] = max(1, options["num_threads"] // lanes)
        example = self._example.params | (colour_params([Colours(RGB, True)]) if source == "video" else {})
        return Graph(source, self._augmentations, example, **options)

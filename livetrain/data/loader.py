"""The loader: runs plans ahead of training through fetch, decode and graph, and yields batches in order.

    plan ─▶ fetch and decode (thread pool, `prefetch` batches ahead) ─▶ graph (DALI) ─▶ queue ─▶ trainer
      └▶ remote shards: announced `download_ahead` batches ahead, and downloaded in the background

One background thread drives it, so the trainer waits only when data is late; `wait_seconds` measures that. A clip that
cannot be fetched or decoded becomes zeros with `valid` False and is listed in `failures` (data.on_error=skip), or ends
the run with an error that names shard and key (data.on_error=stop).
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from livetrain.config import Config
from livetrain.core.errors import MachineFault, UserError
from livetrain.core.machine import num_cores
from livetrain.core.world import World
from livetrain.data import mixup, targets
from livetrain.data.batch import Batch, Clips, Failure, Plans
from livetrain.data.clip_plan import PADDING, ClipPlan
from livetrain.data.crop import Cut
from livetrain.data.dataset import FetchError
from livetrain.data.decode import DecodeError
from livetrain.data.decoders import Decoder, colours_of, decoded_bytes, decoder_of
from livetrain.data.graph import Graph, GraphError, GraphOptions, Params, colour_params, depth
from livetrain.data.loader_stages import Stages
from livetrain.data.nvdec_refusals import Refusals
from livetrain.data.side_stream import SideStream
from shards.format.colour import RGB, Colours

Pipeline = tuple[Decoder, int]  # one of the graphs of a decoder
Parts = dict[Pipeline, tuple[list[int], list[Any]]]  # positions in a batch and their media

# So many consecutive failures are no accident: the disk is gone, or the folder is not what the index says.
MAX_FAILURES_IN_A_ROW = 32


@dataclass
class _Prepared:
    """A planned micro-batch on its way through the graphs.

    rounds: one after the other, what each pipeline decodes; as many as data.decode_memory_mb makes necessary, at least
    one. failures: positions whose clip did not arrive. clips: as far as they are there.
    """

    plan: ClipPlan
    rounds: list[Parts] = field(default_factory=lambda: [{}])
    failures: dict[int, str] = field(default_factory=dict)
    clips: torch.Tensor | None = None


class Loader:
    """Iterates once over micro-batches.

    Made by `train_loader`, `eval_loader` and `files_loader`; use it as a context manager, or call `close()`.
    """

    def __init__(
        self,
        clips: Clips,
        config: Config,
        plans: Plans,
        *,
        world: World,
        mean: Sequence[float],
        std: Sequence[float],
        patience: float = MAX_FAILURES_IN_A_ROW,
    ) -> None:
        self.wait_seconds = 0.0
        self.stages = Stages(clips.cache_reads)
        self.failures: list[Failure] = []
        self.refusals = Refusals()
        device = world.device
        if config.data.decoder == "gpu" and device.type != "cuda":
            raise UserError("data.decoder=gpu needs a CUDA device; set data.decoder=auto or cpu")
        self._clips, self._config, self._plans = clips, config, plans
        if device.type == "cuda" and device.index is None:  # so Accelerate calls a machine's only GPU
            device = torch.device("cuda", torch.cuda.current_device())
        self._device, self._side, self._depth = device, SideStream(device), depth(device)
        self._cache_share = plans.cache_share or 1 / world.local_size
        self._ahead = max(config.data.download_ahead, plans.ahead)
        self._decode_on_gpu = config.data.decoder == "gpu" or (config.data.decoder == "auto" and device.type == "cuda")
        self._threads = config.data.threads or max(1, num_cores() // world.local_size)
        self._graphs: dict[Pipeline, Graph] = {}
        self._graph_options = GraphOptions(
            image_size=config.data.image_size,
            num_frames=plans.example.frames.shape[1],
            max_clips=len(plans.example.rows),
            mean=mean,
            std=std,
            device=device,
            dtype=torch.float32 if config.train.precision == "fp32" or device.type == "cpu" else torch.float16,
            num_threads=self._threads,
        )
        self._failures_in_a_row, self._patience = 0, patience
        self._queue: queue.Queue[tuple[Batch, Any] | BaseException | None] = queue.Queue(max(1, config.data.prefetch))
        self._stop = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._produce, name="livetrain-loader", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return self._plans.num_batches

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
            self._side.hand_over(ready, (batch.clips, batch.labels, batch.kinds, batch.domains, batch.valid))
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
        self._clips.prefetch(np.empty(0, np.int64))

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
        plans = self._announced(self._plans.iterate()) if self._clips.is_remote else self._plans.iterate()
        preparing: deque[tuple[ClipPlan, list[Future[Any]]]] = deque()
        ready: deque[tuple[_Prepared, Parts, bool]] = deque()  # of a batch a round, and whether it is the last one
        in_graph: deque[tuple[_Prepared, Parts, bool]] = deque()
        while True:
            while len(preparing) <= self._config.data.prefetch and (item := next(plans, None)) is not None:
                preparing.append((item, [pool.submit(self._medium, item, i) for i in range(len(item.rows))]))
            if preparing and not ready and len(in_graph) < self._depth:
                prepared = self._collect(*preparing.popleft())
                last = len(prepared.rounds) - 1
                ready += [(prepared, parts, number == last) for number, parts in enumerate(prepared.rounds)]
            if ready and len(in_graph) < self._depth:
                prepared, parts, _ = ready[0]
                for pipeline in parts:
                    self._push(prepared, pipeline, parts[pipeline])
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
            while len(ahead) <= self._ahead and (item := next(plans, None)) is not None:
                ahead.append(item)
            if not ahead:
                return
            rows = np.concatenate([item.rows for item in ahead])
            self._clips.prefetch(rows[rows != PADDING], self._cache_share)
            yield ahead.popleft()

    def _decoder(self, row: int) -> Decoder:
        """Which decoder a sample uses."""
        on_gpu = self._decode_on_gpu and not self.refusals.covers(self._clips, row)
        return decoder_of(self._clips, row, on_gpu=on_gpu)

    def _medium(self, item: ClipPlan, index: int) -> tuple[Decoder, Any] | None:
        """What the graph needs of one clip, and which; runs in the thread pool. Raises FetchError, DecodeError."""
        row = int(item.rows[index])
        # What was handed to the pool before a stop must not be downloaded after it.
        if row == PADDING or self._stop.is_set():
            return None
        decoder = self._decoder(row)
        with self.stages.timed("prepare_seconds"):
            if decoder == "image":
                return decoder, self._clips.jpeg_bytes(row, item.frames[index])
            return decoder, self._clips.video_bytes(row) if decoder == "nvdec" else self._decode(item, index)

    def _decode(self, item: ClipPlan, index: int) -> NDArray[np.uint8]:
        """The frames of a clip, decoded, cropped and resized on the CPU. Raises DecodeError, FetchError."""
        window = item.params["window"][index] if "window" in item.params else None
        cut = Cut(item.params["box"][index], self._graph_options.image_size, window)
        return self._clips.decode(int(item.rows[index]), item.frames[index], cut)

    def _collect(self, item: ClipPlan, media: list[Future[Any]]) -> _Prepared:
        prepared = _Prepared(item)
        counts: Counter[Decoder] = Counter()
        budget = self._config.data.decode_memory_mb * 1e6 / self._depth  # so many rounds are in the graphs at once
        used = 0
        for position, future in enumerate(media):
            try:
                medium = future.result()
            except (FetchError, DecodeError) as error:
                prepared.failures[position] = str(error)
                continue
            if medium is not None:
                decoder, content = medium
                # In turn, whatever the pipelines are at: which graph a clip takes changes none of its pixels.
                pipeline = decoder, counts[decoder] % self._num_pipelines(decoder)
                counts[decoder] += 1
                needed = self._decoded_bytes(item, position, decoder)
                if used and used + needed > budget:
                    prepared.rounds.append({})
                    used = 0
                used += needed
                positions, ready = prepared.rounds[-1].setdefault(pipeline, ([], []))
                positions.append(position)
                ready.append(content)
        return prepared

    def _decoded_bytes(self, item: ClipPlan, position: int, decoder: Decoder) -> int:
        """What a clip takes within DALI before it is resized; those of the CPU's decoder come resized."""
        row, num_frames = int(item.rows[position]), item.frames.shape[1]
        if decoder == "cpu":
            return 3 * self._graph_options.image_size**2 * num_frames
        return decoded_bytes(self._clips, row, num_frames)

    def _num_pipelines(self, decoder: Decoder) -> int:
        """Graphs of a decoder side by side: NVDEC waits for its pipeline's one CUDA stream at every frame wanted."""
        return self._config.data.nvdec_pipelines if decoder == "nvdec" else 1

    def _push(self, prepared: _Prepared, pipeline: Pipeline, part: tuple[list[int], list[Any]]) -> None:
        positions, media = part
        self._graph(pipeline).push(
            media, prepared.plan.frames[positions], self._params(prepared.plan, positions, pipeline[0])
        )

    def _params(self, item: ClipPlan, positions: list[int], decoder: Decoder) -> Params:
        """The graph's inputs for some clips of a plan; of a file that DALI decodes, its colours too."""
        params = {name: values[positions] for name, values in item.params.items()}
        if decoder == "nvdec":
            params |= colour_params([colours_of(self._clips, int(item.rows[position])) for position in positions])
        return params

    def _pull(self, prepared: _Prepared, parts: Parts) -> None:
        """Pull a round of a batch out of the graphs, into its clips."""
        size = len(prepared.plan.rows)
        for pipeline, (positions, media) in parts.items():
            try:
                with self.stages.timed("graph_seconds"):
                    part = self._graph(pipeline).pull()
            except GraphError:
                part = self._one_by_one(prepared, pipeline, positions, media)
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
            side = options.image_size
            shape = (len(prepared.plan.rows), prepared.plan.frames.shape[1], 3, side, side)
            clips = torch.zeros(shape, dtype=options.dtype, device=self._device)
        return self._batch(prepared, clips)

    def _one_by_one(
        self, prepared: _Prepared, pipeline: Pipeline, positions: list[int], media: list[Any]
    ) -> torch.Tensor:
        """A round that DALI refused, clip by clip: what is whole comes through, what is damaged is known by name."""
        decoder = pipeline[0]
        options = self._graph_options
        graph = self._make_graph(decoder)  # the usual one may hold the batches behind this
        second: Graph | None = None  # for what the GPU's decoder refuses
        side = options.image_size
        shape = (len(positions), prepared.plan.frames.shape[1], 3, side, side)
        clips = torch.zeros(shape, dtype=options.dtype, device=self._device)
        for slot, position in enumerate(positions):
            params = self._params(prepared.plan, [position], decoder)
            try:
                clips[slot] = graph.run([media[slot]], prepared.plan.frames[[position]], params)[0]
            except GraphError as error:
                if decoder == "cpu":
                    prepared.failures[position] = str(error)
                    continue
                try:
                    pixels = self._decode(prepared.plan, position)
                except (DecodeError, FetchError) as worse:
                    prepared.failures[position] = str(worse)
                    continue
                # Whole, but nothing for this GPU's decoder: by the CPU from now on.
                self.refusals.note(self._clips, int(prepared.plan.rows[position]))
                second = second or self._make_graph("cpu")
                clips[slot] = second.run([pixels], prepared.plan.frames[[position]], params)[0]
        return clips

    def _batch(self, prepared: _Prepared, clips: torch.Tensor) -> Batch:
        rows = prepared.plan.rows
        keys = [self._key(int(row)) for row in rows]
        failures = []
        for position, row in enumerate(rows.tolist()):
            if position in prepared.failures:
                failure = Failure(self._clips.shard_name(row), keys[position], prepared.failures[position], row)
                failures.append(failure)
                self._check(failure, int(row))
            elif row != PADDING:
                self._failures_in_a_row = 0
        valid = rows != PADDING
        valid[list(prepared.failures)] = False
        given = targets.targets(self._clips, prepared.plan, valid, self._config)
        clips, given = mixup.apply(clips, given, valid, prepared.plan.blend)
        domains = targets.domains(self._clips, prepared.plan, self._config)
        on_device = self._side.upload(np.concatenate([given, domains[:, None]], axis=1, dtype=np.float32))
        return Batch(
            clips,
            on_device[:, 0],
            on_device[:, 1:-1],
            on_device[:, -1].long(),
            self._side.upload(valid),
            rows,
            prepared.plan.frames,
            keys,
            prepared.plan.step,
            failures,
        )

    def _check(self, failure: Failure, row: int) -> None:
        """Raises UserError, MachineFault when the run must not continue; `row`: the clip that failed."""
        what = f"{self._clips.shard_path(row)}, key {failure.key}: {failure.reason}"
        root = self._clips.root_of(row)
        self._failures_in_a_row += 1
        if self._config.data.on_error == "stop":
            raise UserError(f"{what}; repair the shard, or set data.on_error=skip to continue without such clips")
        if self._failures_in_a_row >= self._patience:
            advice = f"is the disk there? `python -m shards verify {root}` checks every shard"
            if self._clips.is_remote:
                advice = f"is {root} still there, and as it was when this run began?"
            raise MachineFault(
                f"{what}; it is the {self._failures_in_a_row}th consecutive clip that failed to load: {advice}"
            )

    def _key(self, row: int) -> str:
        return "" if row == PADDING else self._clips.text("key", row)

    def _graph(self, pipeline: Pipeline) -> Graph:
        if pipeline not in self._graphs:
            self._graphs[pipeline] = self._make_graph(pipeline[0])
        return self._graphs[pipeline]

    def _make_graph(self, decoder: Decoder) -> Graph:
        """A pipeline of `decoder`: with its share of the batch, and of the threads."""
        pipelines, options = self._num_pipelines(decoder), self._graph_options
        options = dataclasses.replace(
            options,
            max_clips=-(-options.max_clips // pipelines),
            num_threads=max(1, options.num_threads // pipelines),
        )
        example = self._plans.example.params | (colour_params([Colours(RGB, True)]) if decoder == "nvdec" else {})
        return Graph(decoder, self._plans.changes, example, options)

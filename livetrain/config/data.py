"""`data:` of the configuration: where clips are, which of them are used, and what the model sees of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from livetrain.config.fields import choice, number


@dataclass
class DataConfig:
    """Which clips, which of their frames, and how they reach the model."""

    shards: str = ""
    """Folder written by `python -m shards build`, or its URL: s3://, gs://, https://."""
    sources: list[str] = field(default_factory=list)
    """Several such folders instead of data.shards: [data/casia_fasd, data/msu_mfsd]."""
    weights: list[float] = field(default_factory=list)
    """Share of each source in training, in their order; empty: every clip once an epoch, whatever its source."""
    cache_dir: str = ""
    """Folder on a disk of the node for downloaded shards, and for the joined index of large data.sources; empty:
    livetrain/shards in $XDG_CACHE_HOME or ~/.cache."""
    cache_gb: float = number(50.0, 0.0)
    """Bound of that folder, 1e9 bytes; best above the size of the data set, else shards are downloaded every epoch."""
    download_ahead: int = number(32, 0)
    """Micro-batches whose shards are downloaded before they are needed, as far as half of the cache holds them."""
    retries: int = number(5, 0, 100)
    """Further attempts after a failed request, with waits of 0.5, 1, 2, 4 … 30 s between them."""
    on_outage: str = choice("fail", "wait")
    """When they fail too: give the file up, or go on asking for it, every 30 s."""
    outage_minutes: float = number(4.0, 0.0)
    """How long to wait at most; train.hang_timeout_seconds must be longer."""
    range_mb: float = number(0.0, 0.0)
    """Clips of at most so many MB are downloaded alone, by a request each, from shards that are not in the cache."""
    order: str = choice("global", "windows")
    """Clips of training come from all shards at any time, or shard after shard, shuffled within windows of some."""
    window_shards: int = number(16, 1)
    """Shards of a window; the cache should hold three times as many for each lane of a node."""
    window_lanes: int = number(1, 1)
    """Parts of the global batch with windows of their own: one a node, then each downloads its own shards alone."""
    num_frames: int = number(8, 1)
    """Frames of a clip that training sees."""
    balance: str = choice("none", "class", "attack", "domain", "domain_class")
    """Train on classes, kinds of attack (beside as many live clips as attacks in all), domains, or domains and the
    classes of each equally often.
    """
    balance_strength: float = number(1.0, 0.0, 1.0)
    """1: equally often; 0: as often as they are there; in between: in proportion to their number ^ (1 - this)."""
    nvdec_pipelines: int = number(4, 1, 16)
    """Pipelines that decode videos in parallel on a GPU."""
    decode_memory_mb: int = number(4096, 1)
    """Decoded pictures, before they are resized, take at most so much of the GPU (or of DALI on the CPU) at a time."""
    sampling: str = choice("segments", "interval", "stride")
    """segments: a frame of each of num_frames equal parts. interval: a fixed time apart. stride: every n-th frame."""
    frame_stride: int = number(1, 1)
    """Frames from one to the next when sampling=stride; 1: all, one after the other."""
    frame_interval_seconds: float = number(0.2, 1e-3)
    """Time between frames when sampling=interval."""
    image_size: int = number(224, 16)
    """Side of the square picture the model sees, pixels."""
    train_split: str = "train"
    """Split that is learned from; fold1+fold2: two; train@zalo+nuaa: of these domains; train@-zalo: of all others;
    train:live+print: of these kinds; train:-replay: of all others."""
    dev_split: str = "dev"
    """Split that chooses the checkpoint and the threshold."""
    test_split: str = "test"
    """Split that is looked at once, at the end; all is every split."""
    fold: str = ""
    """2/5: test on fold2 of shards built with --folds 5, choose on the next, train on the others; 0/5 to 4/5."""
    leave_out: str = ""
    """Domains (A+B) that are tested alone: puts @-A+B behind train_split and dev_split, and @A+B behind test_split."""
    allow_leak: bool = False
    """Continue with people who are in two of the splits; the verdict says so in its first line."""
    fit: str = choice("stretch", "center", "pad")
    """How a frame becomes square in evaluation: stretch the whole of it, cut its centre, or add black bars."""
    crop: str = choice("whole", "face")
    """What the model sees: the whole frame (see data.fit), or a square around the face that `shards faces` found."""
    face_scale: float = number(1.3, 0.5, 10.0)
    """Side of that square over the side of the face, in evaluation; pixels beyond the picture are black."""
    face_multi_scale: list[float] = field(default_factory=list)
    """Several such scales, [1.0, 1.3, 1.8]: evaluation averages their scores, training draws one a clip; empty: one."""
    face_missing: str = choice("whole", "skip", "fail")
    """A clip without a face: seen whole, left out (in evaluation a failure to acquire), or an error at the start."""
    apply_sar: bool = True
    """Cut a square of what a player shows: with pixels as wide as the video says (sample aspect ratio), not square."""
    on_error: str = choice("skip", "stop")
    """A clip that cannot be read or decoded: continue without it and count it, or end the run."""
    max_lost_percent: float = number(1.0, 0.0, 100.0)
    """A run fails when more of its training clips than this failed to load the last time they were requested."""
    prefetch: int = number(2, 1)
    """Micro-batches prepared ahead."""
    threads: int = number(0, 0)
    """Decoding threads of a process; 0: the machine's cores over the processes on it."""
    decoder: str = choice("auto", "cpu", "gpu")
    """auto: NVDEC and nvJPEG on CUDA, libav and libjpeg-turbo elsewhere; cpu: these everywhere."""

"""How fast a run is, how long it takes, and what is the bottleneck.

livetrain plan CONFIG.yaml … [key=value …] --gpus N [--gpus-per-node 8] [--hardware h100|FILE.yaml] [--mfu PERCENT]
livetrain plan --check benchmarks
livetrain plan DIR [--frames 8]        which decoder each clip of a shard folder uses, why, and what each costs
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from livetrain.config import Config, load_config, split_arguments
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.core.files import is_url
from livetrain.planner.formulas import Demand, Prediction, predict

GROWTH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def parser() -> Parser:
    """The command line of `livetrain plan`."""
    parser = Parser(
        "plan",
        "Predicts a run from its FLOPs, gradients, videos and the machine's facts; needs no GPU.\n"
        "`livetrain plan --check DIR` compares the formulas with measurements.",
        usage="livetrain plan CONFIG.yaml … [key=value …] --gpus N [options]\n       livetrain plan DIR [--frames N]",
    )
    parser.add_argument("items", nargs="*", help="the run's YAML files and key=value, as for `livetrain train`")
    parser.add_argument("--gpus", type=int, metavar="N", help="GPUs of the run")
    parser.add_argument("--gpus-per-node", type=int, default=8, metavar="G", help="default 8")
    parser.add_argument("--hardware", default="h100", metavar="NAME", help="h100 (default), h200, b200, a100, l40s, "
                        "l4, t4, or FILE.yaml: `base: h100` and what differs")  # fmt: skip
    parser.add_argument(
        "--mfu", type=float, metavar="PERCENT", help="measured: mfu_percent of metrics.jsonl, of a run on one GPU"
    )
    parser.add_argument("--check", type=Path, metavar="DIR", help="against the benchmarks in DIR; exit code 1 when off")
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="of a shard folder: wanted of a clip")
    return parser


def main(arguments: list[str]) -> int:
    """The command line. Returns the exit code."""
    options = parser().parse(arguments)
    if len(options.items) == 1 and (is_url(options.items[0]) or Path(options.items[0]).is_dir()):
        from livetrain.planner import shard_costs

        print(shard_costs.describe(options.items[0], max(1, options.frames)))
        return 0
    if options.check:
        return _check(options.check)
    if not options.gpus or options.gpus < 1 or options.gpus_per_node < 1:
        raise UserError("livetrain plan needs --gpus N, at least 1, and --gpus-per-node of at least 1")
    if options.mfu is not None and not 0 < options.mfu <= 100:
        raise UserError(f"--mfu {options.mfu:g}: a percentage above 0, up to 100")
    config = load_config(*split_arguments(options.items))
    print(describe(config, options.gpus, options.gpus_per_node, options.hardware, options.mfu))
    return 0


def _check(folder: Path) -> int:
    from livetrain.planner import check

    found = check.check(folder)
    if not found:
        raise UserError(
            f"--check {folder}: no measurement there that the planner predicts; `livetrain bench loader step ddp "
            f"--out {folder}` writes some"
        )
    print(check.format_text(found))
    return int(any(abs(item.error) > check.TOLERANCE for item in found if not item.is_derived))


def describe(config: Config, num_gpus: int, gpus_per_node: int, machine: str, mfu_percent: float | None) -> str:
    """The prediction for `num_gpus`, and a table of growth. Raises UserError."""
    import torch

    from livetrain.data import Dataset, num_train_steps
    from livetrain.data.plan import micro_batch_size
    from livetrain.model import build_model, estimate_memory_bytes
    from livetrain.planner import hardware as facts
    from livetrain.planner import inputs

    hardware = facts.load(machine)
    micro = micro_batch_size(config, num_gpus)
    dataset = Dataset.of(config.data)
    torch.manual_seed(0)
    # Costs do not depend on the values of weights: none are downloaded.
    bare = dataclasses.replace(config.model, pretrained=False, weights="")
    model = build_model(bare, config.loss, config.data.image_size)
    demand = inputs.demand(config, dataset, model)
    num_steps = num_train_steps(len(dataset.rows(config.data.train_split)), config)
    num_clips = num_steps * config.train.global_batch
    clips = micro * config.train.accumulation
    mfu = mfu_percent / 100 if mfu_percent else None

    def at(number: int, clips_per_gpu: float) -> Prediction:
        return predict(
            demand, hardware, num_gpus=number, gpus_per_node=gpus_per_node, clips_per_gpu=clips_per_gpu, mfu=mfu,
            gpu_decoder=config.data.decoder != "cpu",
        )  # fmt: skip

    memory = estimate_memory_bytes(model, config, micro)
    lines = [
        _asked(demand, config, num_clips),
        f"machine     {num_gpus} x {hardware.name}, {gpus_per_node} a node; "
        + (f"MFU {mfu_percent:g} % as measured" if mfu else "speed of the GPU from its data sheet: give --mfu"),
        *_answer(at(num_gpus, clips), demand, gpus_per_node, num_clips),
        f"memory      about {memory / 2**30:.1f} GiB a GPU of {hardware.memory_bytes / 2**30:.0f}"
        + ("" if memory < 0.9 * hardware.memory_bytes else _does_not_fit(memory, demand, num_gpus)),
        "",
        f"Growth with {clips} clips a GPU and update (the global batch grows), and with train.global_batch="
        f"{config.train.global_batch} kept:",
        "",
        _growth(
            [(at(number, clips), _kept(config, number, at)) for number in GROWTH], demand, gpus_per_node, num_clips
        ),
    ]
    return "\n".join(lines)


def _asked(demand: Demand, config: Config, num_clips: int) -> str:
    decoded = f"{demand.decoded_pixels / 1e6:,.1f} M pixels through a GPU decoder" if demand.decoded_pixels else "JPEGs"
    return (
        f"run         {num_clips:,} clips; {config.model.backbone}, {demand.trained_parameters / 1e6:.1f} M trained\n"
        f"a clip      {demand.flops / 1e9:,.1f} GFLOP, {demand.stored_bytes / 1e6:.2f} MB, {decoded}, or "
        f"{demand.core_seconds * 1e3:.1f} ms of a core of this machine on the CPU\n"
        f"gradients   {demand.gradient_bytes_each * demand.trained_parameters / 1e6:.1f} MB an update and GPU"
    )


def _answer(found: Prediction, demand: Demand, gpus_per_node: int, num_clips: int) -> list[str]:
    nodes = math.ceil(found.num_gpus / gpus_per_node)
    rate = found.clips_per_second
    used = sorted(((rate / limit, name) for name, limit in found.limits.items()), reverse=True)
    return [
        f"speed       {rate:,.0f} clips/s, MFU {found.mfu:.0%}; an update takes {found.gpu_seconds:.3f} s of the GPUs",
        f"length      {num_clips / rate / 86400:.3g} days = {num_clips / rate / 3600:.3g} hours",
        f"all-reduce  {found.reduce_seconds * 1e3:.2f} ms an update, {found.exposed_seconds * 1e3:.2f} not hidden",
        f"data        {rate / nodes * demand.stored_bytes / 1e6:,.0f} MB/s a node",
        f"first       {found.first} saturates first; in use: " + ", ".join(f"{name} {use:.0%}" for use, name in used),
    ]


def _does_not_fit(memory: float, demand: Demand, num_gpus: int) -> str:
    """What shards of weights, gradients and two moments leave of it (launch/fsdp2.yaml)."""
    whole = 16 * demand.trained_parameters
    sharded = memory - whole * (1 - 1 / num_gpus)
    return (
        f": too much. launch/fsdp2.yaml: about {sharded / 2**30:.1f} GiB, for 1.5 x the traffic; or "
        "model.grad_checkpointing=true, a larger train.accumulation"
    )


def _kept(config: Config, number: int, at: object) -> Prediction | None:
    """The prediction with the configured global batch, None where it does not divide."""
    assert callable(at)
    each, rest = divmod(config.train.global_batch, number * config.train.accumulation)
    return at(number, each * config.train.accumulation) if each and not rest else None


def _growth(rows: list[tuple[Prediction, Prediction | None]], demand: Demand, per_node: int, num_clips: int) -> str:
    from livetrain.core.tables import markdown

    alone = rows[0][0].clips_per_second
    cells = []
    for found, kept in rows:
        nodes = math.ceil(found.num_gpus / per_node)
        rate = found.clips_per_second
        cells.append((
            found.num_gpus, round(found.num_gpus * found.clips_per_gpu), rate, rate / alone / found.num_gpus * 100.0,
            num_clips / rate / 86400, rate / nodes * demand.stored_bytes / 1e6, found.exposed_seconds * 1e3,
            found.first, kept.clips_per_second if kept else math.nan,
        ))  # fmt: skip
    header = (
        "GPUs", "global batch", "clips/s", "efficiency, %", "days", "MB/s a node", "all-reduce not hidden, ms", "first",
        "clips/s, batch kept",
    )  # fmt: skip
    return markdown(header, cells)

"""Score a finished or stopped run again: its best weights, or a checkpoint of it, on dev and test.

    livetrain evaluate runs/NAME [--checkpoint runs/NAME/checkpoints/step-00000500] [key=value …]
    accelerate launch livetrain/evaluate.py runs/NAME …     the same

Writes scores/, verdict.json and report.html of the run again, with the threshold that is stored beside the weights.
With other data, other weights or other settings they go to RUN/evaluations/<what differs>/ (or to `run_dir=DIR`), and
the run's own record stays as it is.

`data.shards=DIR` scores other shards, which may have no dev split: the threshold stays as it is. Another
`verdict.criterion=`, or another way of scoring (eval.aggregate, eval.num_frames, …), chooses a new threshold on the
run's own dev split, stored with that evaluation, and is refused on other shards until that was done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as in train.py: livetrain/ is first on the path, not its folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from livetrain.config import Config, VerdictConfig, to_dict
from livetrain.core import entrypoint
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.tracking.run_dir import RunDir

# Where the data are: what a dev split is of.
DATA = ("shards", "sources", "weights", "dev_split", "fold", "leave_out")
# What an evaluation's figures depend on.
FIGURES = {
    "data": (
        *DATA,
        "test_split",
        "image_size",
        "fit",
        "crop",
        "face_scale",
        "face_multi_scale",
        "face_missing",
        "apply_sar",
        "sampling",
        "frame_stride",
        "frame_interval_seconds",
    ),
    "eval": ("num_frames", "aggregate", "top_frames", "trim", "tta", "use_ema"),
    "verdict": tuple(item.name for item in dataclasses.fields(VerdictConfig)),
    "train": ("precision",),
}


def evaluate(
    config: Config,
    checkpoint_folder: Path,
    *,
    run_dir: Path | None = None,
    trained: Config | None = None,
    record: Path | None = None,
) -> None:
    """Score dev and test with the weights in `checkpoint_folder` (step-* or best-*) into config.run_dir.

    Every process calls it.

    run_dir, trained: the run's folder and its own configuration (default: config.run_dir, `config`); a threshold may be
    chosen on its own dev split alone.
    record: where a threshold goes that was chosen; None: beside the weights.
    """
    from livetrain.checkpoint import folders
    from livetrain.data import Dataset, face_tracks, leaks
    from livetrain.distributed import collectives, fsdp, load_weights
    from livetrain.evaluation.final import Origin, final_evaluation
    from livetrain.training import resume, setup
    from livetrain.verdict import threshold

    accelerator = setup.make_accelerator(config)
    checkpoint_folder, manifest = collectives.decide_on_rank_zero(
        lambda: (checkpoint_folder, folders.check(checkpoint_folder))
    )
    dataset = Dataset.of(config.data)
    leaks.check(dataset, config)
    run_dir, trained = run_dir or Path(config.run_dir), trained or config
    if config.data.crop == "face" and RunDir(run_dir).faces.exists():
        known = RunDir(run_dir).read_faces()
        face_tracks.check_same(known, dataset.faces.about, f"the faces of {run_dir}", str(dataset.root))
    model = setup.make_model(config, accelerator, with_weights=False)
    if accelerator.is_fsdp2:
        fsdp.to_meta(model)
        fsdp.shard(model, accelerator, config)
    load_weights.load_checked(
        model, checkpoint_folder, manifest, averaged=config.eval.use_ema, what=str(checkpoint_folder)
    )
    if accelerator.is_main_process:
        resume.write_config(config)
    own, scoring = threshold.scoring_of(trained), threshold.scoring_of(config)
    stored = threshold.find(
        run_dir, checkpoint_folder, scoring, trained=own, settings=config.verdict,
        weights_sha256=folders.weights_sha256(checkpoint_folder),
    )  # fmt: skip
    may_fit = all(getattr(config.data, name) == getattr(trained.data, name) for name in DATA)
    origin = Origin(manifest["step"], checkpoint_folder, stored, may_fit, record, home=run_dir)
    final_evaluation(accelerator, config, dataset, model, origin)


def differing(trained: Config, config: Config) -> dict[str, Any]:
    """`section.key` → value of `config`, of the keys that figures depend on and that are not as `trained`."""
    one, other = to_dict(trained), to_dict(config)
    return {
        f"{section}.{key}": other[section][key]
        for section, keys in FIGURES.items()
        for key in keys
        if one[section][key] != other[section][key]
    }


def name_of(differs: Mapping[str, Any]) -> str:
    """A folder's name for an evaluation, from what differs: readable, and another one for other values."""
    words = [f"{key.split('.')[-1]}-{Path(str(value)).name or value}" for key, value in differs.items()]
    readable = re.sub(r"[^\w.+-]+", "_", "_".join(words))[:60]
    return f"{readable}-{hashlib.sha256(json.dumps(differs, sort_keys=True).encode()).hexdigest()[:8]}"


def parser() -> Parser:
    """The command line of `livetrain evaluate`."""
    parser = Parser("evaluate", __doc__)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="other weights than the best ones")
    return parser


def main(arguments: list[str]) -> int:
    """The command line: a run directory, `key=value`. Returns the exit code."""

    def run() -> int:
        # Up to version 0.1 it was written checkpoint=DIR.
        items = [f"--{item}" if item.startswith("checkpoint=") else item for item in arguments]
        if not items or "=" in items[0]:
            raise UserError("name the run directory first: livetrain evaluate runs/NAME [key=value …]")
        options, overrides = parser().parse_some(items)
        folder = options.run
        own = RunDir(folder)
        # The folder is the run's, wherever it was copied from.
        config, trained = own.load_config([f"run_dir={folder}", *overrides]), own.load_config()
        best = own.best()
        chosen = options.checkpoint or best
        if chosen is None:
            raise UserError(f"{folder} has no best checkpoint yet; name one: --checkpoint {folder}/checkpoints/step-…")

        from livetrain.inference.package import check_same_model

        check_same_model(trained, config, chosen)
        differs = differing(trained, config)
        if best is None or chosen.resolve() != best.resolve():
            differs["checkpoint"] = chosen.name
        own_folder = Path(config.run_dir).resolve() == folder.resolve()
        if differs and own_folder and any(item.startswith("run_dir=") for item in overrides):
            raise UserError(
                f"run_dir={folder} holds the run's own verdict, and {next(iter(differs))} differs from the run's; "
                f"leave run_dir out: the evaluation goes to {own.evaluations}/"
            )
        if differs and own_folder:
            config = dataclasses.replace(config, run_dir=str(own.evaluations / name_of(differs)))
            own_folder = False
        record = None if own_folder else Path(config.run_dir)
        evaluate(config, chosen, run_dir=folder, trained=trained, record=record)
        return 0

    return entrypoint.run(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Score a finished or stopped run again: its best weights, or a checkpoint of it, on dev and test.

    accelerate launch livetrain/evaluate.py runs/NAME [checkpoint=runs/NAME/checkpoints/step-00000500] [key=value …]

Writes scores/, verdict.json and report.html of the run again, with the threshold that is stored beside the weights.
`data.shards=DIR` scores other shards, which may have no dev split: the threshold stays as it is; give `run_dir=` too,
so that the run's own verdict stays. Another `verdict.criterion=` chooses a new threshold on the run's own dev split,
and is refused on other shards.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # as in train.py: livetrain/ is first on the path, not its folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from livetrain.config import Config, load_config
from livetrain.engine import entry
from livetrain.errors import UserError


def evaluate(config: Config, checkpoint_folder: Path, *, own_dev: bool = True) -> None:
    """Score dev and test with the weights in `checkpoint_folder` (step-* or best-*). Every process calls it.

    own_dev: the dev split is the run's own, so that a threshold may be chosen on it.
    """
    from livetrain.data import Dataset, leaks
    from livetrain.engine import build, checkpoint, run
    from livetrain.engine.conclude import conclude

    weights, manifest = checkpoint.load_weights(checkpoint_folder, averaged=config.eval.use_ema)
    accelerator = build.make_accelerator(config)
    dataset = Dataset.of(config.data)
    leaks.check(dataset, config)
    model, loss = build.make_model(config, accelerator, with_weights=False)
    build.load_weights(model, weights, str(checkpoint_folder))
    if accelerator.is_main_process:
        run.write_config(config)
    conclude(
        accelerator, config, dataset, model, loss, step=manifest["step"], checkpoint=checkpoint_folder, may_fit=own_dev
    )


def main(arguments: list[str]) -> int:
    """The command line: a run directory, `key=value`. Returns the exit code."""

    def run() -> int:
        if not arguments or "=" in arguments[0]:
            raise UserError("name the run directory first: livetrain evaluate runs/NAME [key=value …]")
        folder = Path(arguments[0])
        named = [item.partition("=")[2] for item in arguments[1:] if item.startswith("checkpoint=")]
        overrides = [item for item in arguments[1:] if not item.startswith("checkpoint=")]
        if not (folder / "config.yaml").exists():
            raise UserError(f"{folder} is no run directory: it has no config.yaml")
        config = load_config([folder / "config.yaml"], overrides, warn=lambda line: None)
        trained = load_config([folder / "config.yaml"], [], warn=lambda line: None).data
        own = (config.data.shards, config.data.dev_split) == (trained.shards, trained.dev_split)
        best = max((folder / "checkpoints").glob("best-*"), default=None)
        if not named and best is None:
            raise UserError(f"{folder} has no best checkpoint yet; name one: checkpoint={folder}/checkpoints/step-…")
        evaluate(config, Path(named[-1]) if named else best, own_dev=own)  # type: ignore[arg-type]
        return 0

    return entry.run(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Train a liveness model.

    accelerate launch livetrain/train.py configs/nuaa.yaml optim.lr=1e-3 name=first
    accelerate launch --config_file launch/eight_gpus.yaml livetrain/train.py configs/base.yaml data.shards=DIR
    accelerate launch livetrain/train.py configs/nuaa.yaml dry_run=true

The same script for one process and for many. Exit codes: 0 done; 2 invalid input (a one-line error); 3
the loss is NaN or Inf (with the step and the clips); 74 a fault of the machine (disk, memory, network);
75 stopped by Ctrl-C, SIGTERM, SIGHUP or SIGUSR1, saved, to be started again; 76 no progress for
train.hang_timeout_seconds (with the rank). `livetrain train …` takes the same arguments, passes the signals on to
the processes, and ends as the script did, without the launcher's own traceback.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

if __name__ == "__main__":  # `accelerate launch livetrain/train.py` puts livetrain/ first on the path, not its folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from livetrain.config import Config, load_config, split_arguments
from livetrain.core import entrypoint
from livetrain.core.files import write_json
from livetrain.distributed.preemption import StopRequest
from livetrain.jobs.launch import follow_launcher


def train(config: Config, stop: StopRequest) -> None:
    """One run, from its configuration to its report. Every process calls it."""
    from livetrain import data
    from livetrain.core.progress import warn_stderr
    from livetrain.distributed import collectives
    from livetrain.evaluation.final import Origin, final_evaluation
    from livetrain.planner import dry_run
    from livetrain.tracking.run_dir import RunDir
    from livetrain.tracking.run_lock import Ownership
    from livetrain.training import face_record, resume, setup
    from livetrain.training.trainer import Trainer

    setup.check_batch(config)
    accelerator = setup.make_accelerator(config)
    warn = warn_stderr if accelerator.is_main_process else (lambda line: None)
    dataset = data.Dataset.of(config.data)
    data.targets.check(dataset, config)
    for notice in [
        *data.leaks.check(dataset, config),
        *data.face_notices(dataset, config, [config.data.train_split]),
        *data.download_cost.notices(dataset, config),
    ]:
        warn(f"warning: {notice}")
    model = setup.make_model(config, accelerator)

    if config.dry_run:
        if accelerator.is_main_process:
            print(dry_run.describe(config, dataset, model.to(accelerator.device), accelerator))
        return

    with contextlib.ExitStack() as held:

        def take() -> None:
            held.callback(Ownership(Path(config.run_dir)).take().release)

        collectives.decide_on_rank_zero(take)
        start = resume.find_start(config, dataset, warn)
        run = RunDir.of(config)
        collectives.decide_on_rank_zero(lambda: face_record.keep(run, config, dataset))
        if accelerator.is_main_process:
            write_json(run.training, {"clips_by_type": data.targets.count_by_type(dataset, config)})
        objects = setup.make_objects(config, accelerator, dataset, model, start)
        with Trainer(config, accelerator, dataset, objects, start, warn, stop) as trainer:
            trainer.train()
            origin = Origin(objects.num_steps, trainer.load_best())
            final_evaluation(accelerator, config, dataset, model, origin, wandb=trainer.log.wandb, hooks=trainer.hooks)
    accelerator.end_training()


def main(arguments: list[str]) -> int:
    """The command line: YAML files and `key=value`. Returns the exit code."""

    def run() -> int:
        files, overrides = split_arguments(arguments)
        train(load_config(files, overrides), stop)
        return 0

    with StopRequest() as stop:
        follow_launcher()
        return entrypoint.run(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

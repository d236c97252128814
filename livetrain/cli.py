"""`livetrain VERB`: one door to the programs; each verb imports only what it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from livetrain.engine import entry
from livetrain.errors import UserError

HELP = """livetrain VERB …

  train [accelerate options] CONFIG.yaml … [key=value …]   train; as `accelerate launch livetrain/train.py …`
  evaluate RUN [checkpoint=DIR] [key=value …]              score a run's checkpoint on dev and test again
  predict --checkpoint C --videos DIR --out FILE.csv       scores of raw videos, as submission.csv and its times
  predict --checkpoint C VIDEO …                           the same of a few files, as JSON
  package RUN [--out DIR]                                  a trained model as one folder that needs nothing else
  consolidate CHECKPOINT --out FILE.safetensors            a checkpoint's weights as one file
  export SOURCE --format onnx|torch|hub [--check DATA]     the same for other programs, compared with the model
  plan CONFIG.yaml … [key=value …] --gpus N                clips/s, days and the bottleneck on N GPUs, predicted
  plan DIR                                                 which way the clips of a shard folder take, and its cost
  browse CONFIG.yaml … | DIR | RUN --step N                what the model sees at an update, as a page
  ensemble RUN RUN … --out DIR                             several models as one, weights fitted on dev
  soup CHECKPOINT CHECKPOINT … --out DIR                   one model, the mean of their weights
  ablate RUN                                               accuracy against cost: frames, views, precision, members
  submit CONFIG.yaml … --nodes N --gpus-per-node G …       the same as a SLURM job that survives preemption
  jobs [RUN …]                                             how submitted jobs go: state, attempts, last update
  cancel RUN …                                             cancel them; a run saves first
  cv CONFIG.yaml … [key=value …]                           each fold tested by a run that has not seen its people
  sweep SWEEP.yaml CONFIG.yaml … [--count N]               many runs over some options, into one table
  report RUN                                               write RUN/report.html again, from what is in RUN
  compare RUN RUN …                                        can the data tell runs apart?
  leaderboard FOLDER                                       all its runs: what differs, cost, figures with intervals
  saliency RUN [clips=8]                                   what the network saw in the worst clips, into the report
  sync-check RUN                                           does W&B show what RUN/metrics.jsonl holds?
  dashboard PROJECT [--entity TEAM]                        save a W&B workspace that shows its runs
  doctor                                                   is this machine fit for a run?
  bench [NAME …] [--quick] [--out DIR]                     livetrain against limits and other programs
  demo DIR                                                 generate a small labelled corpus to try it all on
  shards build|verify|…                                    make and check shards; as `python -m shards …`

`livetrain VERB --help` says more."""


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 a mistake in what was asked, else the program's own."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0
    verb, rest = arguments[0], arguments[1:]
    return entry.run(lambda: _verb(verb)(rest))


def _verb(verb: str) -> Callable[[list[str]], int]:
    verbs = {
        "train": _train,
        "evaluate": _evaluate,
        "predict": _predict,
        "package": _package,
        "consolidate": _consolidate,
        "export": _export,
        "plan": _plan,
        "browse": _browse,
        "ensemble": _ensemble,
        "soup": _soup,
        "ablate": _ablate,
        "submit": _submit,
        "jobs": _jobs,
        "cancel": _cancel,
        "cv": _cv,
        "sweep": _sweep,
        "report": _report,
        "compare": _compare,
        "leaderboard": _leaderboard,
        "saliency": _saliency,
        "sync-check": _sync_check,
        "dashboard": _dashboard,
        "doctor": _doctor,
        "bench": _bench,
        "demo": lambda arguments: _shards(["demo", *arguments]),
        "shards": _shards,
    }
    if verb not in verbs:
        raise UserError(f"unknown verb {verb!r}; there are: {', '.join(verbs)}")
    return verbs[verb]


def _train(arguments: list[str]) -> int:
    if "--help" in arguments:
        import livetrain.train
        from livetrain.config import describe_keys

        print(f"{livetrain.train.__doc__}\nKeys and their defaults:\n\n{describe_keys()}")
        return 0
    from livetrain.engine import launch

    return launch.launch("train.py", arguments)


def _evaluate(arguments: list[str]) -> int:
    import livetrain.evaluate

    if "--help" in arguments:
        print(livetrain.evaluate.__doc__)
        return 0
    from livetrain.engine import launch

    return launch.launch("evaluate.py", arguments)


def _predict(arguments: list[str]) -> int:
    from livetrain import predict

    if not arguments or "--help" in arguments:
        print(predict.__doc__)
        return 0
    arguments = predict.with_ensemble(arguments)
    options, _ = predict.parse(arguments)
    processes = predict.processes_wanted(options) if options.videos else 1
    if processes == 1:
        return predict.main(arguments)
    from livetrain.engine import launch

    return launch.launch_processes("predict.py", processes, arguments)


def _package(arguments: list[str]) -> int:
    from livetrain import package

    return package.main(arguments)


def _consolidate(arguments: list[str]) -> int:
    from livetrain import consolidate

    return consolidate.main(arguments)


def _export(arguments: list[str]) -> int:
    from livetrain.export.main import main

    return main(arguments)


def _plan(arguments: list[str]) -> int:
    from livetrain.planner.main import main

    return main(arguments)


def _browse(arguments: list[str]) -> int:
    from livetrain import browse

    return browse.main(arguments)


def _ensemble(arguments: list[str]) -> int:
    from livetrain import ensemble

    return ensemble.main(arguments)


def _soup(arguments: list[str]) -> int:
    from livetrain import soup

    return soup.main(arguments)


def _ablate(arguments: list[str]) -> int:
    from livetrain import ablate

    return ablate.main(arguments)


def _submit(arguments: list[str]) -> int:
    from livetrain import submit

    return submit.main(arguments)


def _jobs(arguments: list[str]) -> int:
    from livetrain.jobs import status

    return status.jobs(arguments)


def _cancel(arguments: list[str]) -> int:
    from livetrain.jobs import status

    return status.cancel(arguments)


def _cv(arguments: list[str]) -> int:
    from livetrain import cv

    return cv.main(arguments)


def _sweep(arguments: list[str]) -> int:
    from livetrain import sweep

    return sweep.main(arguments)


def _report(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise UserError("usage: livetrain report RUN")
    from livetrain.config import load_config
    from livetrain.data import Dataset
    from livetrain.engine.conclude import clip_pictures
    from livetrain.verdict import report

    run_dir = Path(arguments[0])
    if not (run_dir / "verdict.json").exists():
        raise UserError(f"{run_dir} has no verdict.json; `livetrain evaluate {run_dir}` makes it")
    config = load_config([run_dir / "config.yaml"], [], warn=lambda line: None)
    pictures = None
    try:
        pictures = clip_pictures(Dataset.of(config.data))
    except UserError as error:  # the report is of scores, which are here
        print(f"warning: no pictures in the report: {error}", file=sys.stderr)
    print(report.write(run_dir, pictures=pictures, worst_clips=config.tracking.worst_clips))
    return 0


def _compare(arguments: list[str]) -> int:
    from livetrain import compare

    return compare.main(arguments)


def _leaderboard(arguments: list[str]) -> int:
    from livetrain import compare

    return compare.leaderboard(arguments)


def _saliency(arguments: list[str]) -> int:
    from livetrain.engine import saliency

    return saliency.main(arguments) or _report(arguments[:1])


def _sync_check(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise UserError("usage: livetrain sync-check RUN")
    from livetrain.engine import sync_check

    found = sync_check.compare(Path(arguments[0]))
    print(sync_check.format_text(found))
    return 0 if found.same else 1


def _dashboard(arguments: list[str]) -> int:
    from livetrain import dashboard

    return dashboard.main(arguments)


def _doctor(arguments: list[str]) -> int:
    from livetrain import doctor

    return doctor.main(arguments)


def _bench(arguments: list[str]) -> int:
    from livetrain.bench.main import main

    return main(arguments)


def _shards(arguments: list[str]) -> int:
    import shards.cli

    return shards.cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())

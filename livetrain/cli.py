"""`livetrain VERB`: one door to the programs.

A verb is a line of `VERBS`: the module whose docstring is its help, and the function that runs it. Nothing is imported
before it is needed: torch takes seconds, and help takes none.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from livetrain.core import entrypoint
from livetrain.core.errors import UserError
from livetrain.core.version import VERSION


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    runs: `module:function`, called with the arguments; it returns the exit code. help: the module whose docstring is
    printed for --help; "": the function has a help of its own.
    """

    usage: str
    summary: str
    runs: str
    help: str = ""


GROUPS: dict[str, dict[str, Verb]] = {
    "Data": {
        "demo": Verb("DIR", "generate a small labelled corpus to try it all on", "livetrain.cli:_demo"),
        "shards": Verb("build|verify|…", "make and check shards; as `python -m shards …`", "shards.cli:main"),
        "browse": Verb(
            "CONFIG.yaml … | DIR | RUN", "what the model sees at an update, as a page", "livetrain.report.browse:main"
        ),
    },
    "Training": {
        "train": Verb(
            "[accelerate options] CONFIG.yaml … [key=value …]",
            "train; as `accelerate launch livetrain/train.py …`",
            "livetrain.cli:_train",
        ),
        "challenge": Verb(
            "--videos V --labels L --test T --out FILE.csv",
            "build, train, evaluate and score in one command",
            "livetrain.jobs.challenge:main",
            "livetrain.jobs.challenge",
        ),
        "plan": Verb(
            "CONFIG.yaml … --gpus N | DIR",
            "clips/s, days and the bottleneck on N GPUs; the cost of a shard folder",
            "livetrain.planner.main:main",
        ),
        "cv": Verb(
            "CONFIG.yaml …",
            "each fold tested by a run that has not seen its people",
            "livetrain.jobs.cross_validation:main",
            "livetrain.jobs.cross_validation",
        ),
        "protocol": Verb(
            "ocim --root DIR --out RUNS",
            "train on some data sets, test on another, for each fold of a published protocol",
            "livetrain.jobs.protocol:main",
            "livetrain.jobs.protocol",
        ),
        "sweep": Verb(
            "SWEEP.yaml CONFIG.yaml …",
            "many runs over some options, into one table",
            "livetrain.jobs.sweep:main",
            "livetrain.jobs.sweep",
        ),
    },
    "Clusters": {
        "submit": Verb(
            "CONFIG.yaml … --nodes N …",
            "train as a SLURM job that survives preemption",
            "livetrain.jobs.submit:main",
            "livetrain.jobs.submit",
        ),
        "jobs": Verb("[RUN …]", "how submitted jobs go", "livetrain.jobs.status:jobs", "livetrain.jobs.status"),
        "cancel": Verb(
            "RUN …", "cancel them; a run saves first", "livetrain.jobs.status:cancel", "livetrain.jobs.status"
        ),
        "doctor": Verb("", "is this machine fit for a run?", "livetrain.jobs.doctor:main", "livetrain.jobs.doctor"),
    },
    "Evaluation": {
        "evaluate": Verb(
            "RUN [--checkpoint DIR] [key=value …]",
            "score a run's checkpoint on dev and test again",
            "livetrain.cli:_evaluate",
            "livetrain.evaluate",
        ),
        "report": Verb(
            "RUN",
            "write RUN/report.html again, from what is in RUN",
            "livetrain.report.rebuild:main",
            "livetrain.report.rebuild",
        ),
        "compare": Verb(
            "RUN RUN …", "can the data tell runs apart?", "livetrain.report.compare:main", "livetrain.report.compare"
        ),
        "leaderboard": Verb(
            "FOLDER",
            "all its runs: what differs, cost, figures with intervals",
            "livetrain.report.compare:leaderboard",
            "livetrain.report.compare",
        ),
        "saliency": Verb(
            "RUN [--clips 8]",
            "what the network saw in the worst clips, into the report",
            "livetrain.inference.saliency:main",
            "livetrain.inference.saliency",
        ),
        "ablate": Verb(
            "RUN",
            "accuracy against cost: frames, views, precision, members",
            "livetrain.inference.ablate:main",
            "livetrain.inference.ablate",
        ),
        "sync-check": Verb(
            "RUN",
            "does W&B show what RUN/metrics.jsonl holds?",
            "livetrain.tracking.wandb_check:main",
            "livetrain.tracking.wandb_check",
        ),
        "dashboard": Verb("PROJECT", "save a W&B workspace that shows its runs", "livetrain.tracking.dashboard:main"),
    },
    "Use": {
        "predict": Verb(
            "--checkpoint C --videos DIR --out FILE.csv",
            "scores of raw videos; of a few files, as JSON",
            "livetrain.cli:_predict",
            "livetrain.predict",
        ),
        "package": Verb(
            "RUN [--out DIR]",
            "a trained model as one folder that needs nothing else",
            "livetrain.inference.package:main",
            "livetrain.inference.package",
        ),
        "export": Verb(
            "SOURCE --format onnx|torch|hub",
            "the same for other programs, compared with the model",
            "livetrain.inference.export.main:main",
            "livetrain.inference.export.main",
        ),
        "ensemble": Verb(
            "RUN RUN … --out DIR",
            "several models as one, weights fitted on dev",
            "livetrain.inference.ensemble:main",
            "livetrain.inference.ensemble",
        ),
        "soup": Verb(
            "CHECKPOINT CHECKPOINT … --out DIR",
            "one model, the mean of their weights",
            "livetrain.inference.soup:main",
            "livetrain.inference.soup",
        ),
        "consolidate": Verb(
            "CHECKPOINT --out FILE.safetensors",
            "a checkpoint's weights as one file",
            "livetrain.checkpoint.consolidate:main",
        ),
    },
    "Development": {
        "completion": Verb(
            "bash|zsh|tcsh", "a script that completes verbs and options in your shell", "livetrain.cli:_completion"
        ),
        "bench": Verb(
            "[NAME …] [--quick] [--out DIR]", "livetrain against limits and other programs", "livetrain.bench.main:main"
        ),
    },
}
VERBS = {name: verb for verbs in GROUPS.values() for name, verb in verbs.items()}


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 invalid input, else the program's own."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(overview())
            return 0
        if arguments[0] in ("-V", "--version"):
            print(f"livetrain {VERSION}")
            return 0
        return entrypoint.run(lambda: _run(arguments[0], arguments[1:]))
    except BrokenPipeError:  # `livetrain … | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def overview() -> str:
    """All verbs, a line each, in groups."""
    lines = ["livetrain VERB …", ""]
    for title, verbs in GROUPS.items():
        lines.append(f"{title}:")
        lines += [f"  {f'{name} {verb.usage}'.strip():<56} {verb.summary}" for name, verb in verbs.items()]
        lines.append("")
    return "\n".join([*lines, "`livetrain VERB --help` says more; `livetrain --version` which one this is."])


def _run(name: str, arguments: list[str]) -> int:
    verb = VERBS.get(name)
    if verb is None:
        near = difflib.get_close_matches(name, VERBS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`livetrain --help` lists them"
        raise UserError(f"unknown verb {name!r}; {hint}")
    if verb.help and any(item in ("-h", "--help") for item in arguments):
        print(docstring(verb.help))
        return 0
    return _function(verb.runs)(arguments)


def docstring(module: str) -> str:
    """A module's docstring, without importing it."""
    found = importlib.util.find_spec(module)
    assert found is not None and found.origin is not None, module
    return ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8"))) or ""


def _function(name: str) -> Callable[[list[str]], int]:
    module, _, function = name.partition(":")
    found: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
    return found


def _train(arguments: list[str]) -> int:
    if any(item in ("-h", "--help") for item in arguments):
        from livetrain.config import describe_keys

        print(f"{docstring('livetrain.train')}\n\nKeys and their defaults:\n\n{describe_keys()}")
        return 0
    from livetrain.jobs import launch

    asked = [item for item in arguments if item != "--dry-run"]
    return launch.launch("train.py", asked if len(asked) == len(arguments) else [*asked, "dry_run=true"])


def _evaluate(arguments: list[str]) -> int:
    from livetrain.jobs import launch

    return launch.launch("evaluate.py", arguments)


def _predict(arguments: list[str]) -> int:
    from livetrain import predict

    if not arguments:
        print(predict.__doc__)
        return 0
    arguments = predict.with_ensemble(arguments)
    options, _ = predict.parse(arguments)
    processes = predict.processes_wanted(options) if options.videos else 1
    if processes == 1:
        return predict.main(arguments)
    from livetrain.jobs import launch

    return launch.launch_processes("predict.py", processes, arguments)


def _completion(arguments: list[str]) -> int:
    """Print a completion script, as in `eval "$(livetrain completion bash)"`."""
    import shtab

    from livetrain.core.arguments import Parser

    parser = Parser("completion", 'Print a script for your shell: eval "$(livetrain completion bash)"')
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS)
    options = parser.parse(arguments)  # before every verb's module is imported, which takes seconds
    print(shtab.complete(_all_verbs(), shell=options.shell))
    return 0


def _all_verbs() -> argparse.ArgumentParser:
    """Every verb with its options, as one parser."""
    from shards.cli import parser as shards_parser

    root = argparse.ArgumentParser("livetrain")
    verbs = root.add_subparsers()
    for name, verb in VERBS.items():
        module = importlib.import_module(verb.help or verb.runs.partition(":")[0])
        made = getattr(module, f"{name.replace('-', '_')}_parser", None) or getattr(module, "parser", None)
        own = [made()] if made else [shards_parser()] if name == "shards" else []
        verbs.add_parser(name, help=verb.summary, parents=own, conflict_handler="resolve", add_help=not own)
    return root


def _demo(arguments: list[str]) -> int:
    import shards.cli

    return shards.cli.main(["demo", *arguments])


if __name__ == "__main__":
    sys.exit(main())

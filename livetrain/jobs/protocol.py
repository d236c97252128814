"""A cross-domain protocol: train on some data sets, test on another, for each fold of it; one table of all.

    livetrain protocol NAME --root DIR --out RUNS [CONFIG.yaml …] [key=value …] [--config_file FILE]

    ocim    leave one out of OULU-NPU (O), CASIA-FASD (C), Replay-Attack (I) and MSU-MFSD (M): OCI→M, OMI→C, OCM→I,
            ICM→O
    mi      limited sources: MI→C, MI→O

DIR holds a shard folder of each data set, named oulu_npu, casia_fasd, replay_attack and msu_mfsd, each with a train, a
dev and a test split (`livetrain shards split … --protocol carve_dev` makes a dev split). A fold is a run in
RUNS/OCI-M …: it trains on the train and test splits of its sources, chooses weights and threshold on their dev splits,
and is tested on all of its target. domains.names are its sources. What is finished is not trained again; folds with
other settings are refused.

The table is written twice, into RUNS/protocol.md and protocol.json. The first holds to that. The second does as most
papers do: of all evaluations of a run the one where the target has its lowest EER, at the target's own threshold. It is
for comparison with their figures alone: the target chooses, so it says nothing of another camera. --config_file is
Accelerate's, as for `livetrain train`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from livetrain.config import domains, load_config, split_arguments
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.core.files import write_json, write_text
from livetrain.core.tables import markdown
from livetrain.jobs.cross_validation import train
from livetrain.tracking.metrics_log import read_metrics
from livetrain.tracking.run_dir import RunDir
from livetrain.training.resume import refuse_another
from livetrain.verdict.intervals import format_interval

FOLDERS = {"O": "oulu_npu", "C": "casia_fasd", "I": "replay_attack", "M": "msu_mfsd"}
PROTOCOLS = {"ocim": ("OCI-M", "OMI-C", "OCM-I", "ICM-O"), "mi": ("MI-C", "MI-O")}


@dataclass(frozen=True)
class Fold:
    """A run of a protocol: letters of its sources and of its target."""

    name: str

    @property
    def sources(self) -> list[str]:
        """Names of the shard folders that it trains on."""
        return [FOLDERS[letter] for letter in self.name.partition("-")[0]]

    @property
    def target(self) -> str:
        """The one that it is tested on."""
        return FOLDERS[self.name.partition("-")[2]]

    def overrides(self, root: Path, out: Path) -> list[str]:
        """What makes a configuration this fold's."""
        folders = ",".join(str(root / name) for name in [*self.sources, self.target])
        return [
            f"data.sources=[{folders}]", "data.shards=", f"data.leave_out={self.target}", "data.train_split=train+test",
            "data.test_split=all", f"eval.watch=all@{self.target}", f"run_dir={out / self.name}", f"name={self.name}",
        ]  # fmt: skip


@dataclass(frozen=True)
class Result:
    """The figures of a fold. watched: the record of metrics.jsonl where the target's EER was lowest."""

    fold: Fold
    verdict: dict[str, Any]
    watched: dict[str, Any]


def parser() -> Parser:
    """The command line of `livetrain protocol`."""
    parser = Parser("protocol", __doc__)
    parser.add_argument("protocol", choices=list(PROTOCOLS), metavar="NAME", help=", ".join(PROTOCOLS))
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder of the shard folders")
    parser.add_argument("--out", type=Path, required=True, metavar="RUNS", help="folder of the runs and the table")
    parser.add_argument("--config_file", default="", metavar="FILE", help="Accelerate's configuration, of launch/")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns the exit code of the first run that fails, else 0."""
    options, base = parser().parse_some(arguments)
    from livetrain.data import Dataset, targets

    folds = [Fold(name) for name in PROTOCOLS[options.protocol]]
    missing = sorted({n for fold in folds for n in [*fold.sources, fold.target] if not (options.root / n).is_dir()})
    if missing:
        raise UserError(f"--root {options.root}: has no shard folder {missing[0]}; {options.protocol} needs it")
    launcher = ["--config_file", options.config_file] if options.config_file else []
    own = {fold: _words(fold, base, fold.overrides(options.root, options.out)) for fold in folds}
    for words in own.values():  # all before any is trained
        config = load_config(*split_arguments([*base, *words]))
        dataset = Dataset.of(config.data)
        targets.check(dataset, config)
        refuse_another(config, dataset)
    for number, fold in enumerate(folds, start=1):
        run = RunDir(options.out / fold.name)
        if not run.verdict.exists():
            print(f"[{number}/{len(folds)}] {fold.name}: {run.path}", flush=True)
            if code := train([*launcher, *base, *own[fold]]):
                return code
    results = [read(fold, RunDir(options.out / fold.name)) for fold in folds]
    text = table(options.protocol, results)
    write_json(options.out / "protocol.json", [dataclasses.asdict(result) for result in results])
    write_text(options.out / "protocol.md", text)
    print(text, end="")
    return 0


def _words(fold: Fold, base: Sequence[str], own: list[str]) -> list[str]:
    """`own`, and the fold's domains where the configuration has losses that know of them."""
    names = f"domains.names=[{','.join(fold.sources)}]"
    config = load_config(*split_arguments([*base, *own, names]), warn=lambda line: None)
    return [*own, names] if domains.is_active(config.domains) else own


def read(fold: Fold, run: RunDir) -> Result:
    """The figures of a finished run. Raises UserError where it did not watch its target."""
    watched = [line for line in read_metrics(run.metrics) if line["kind"] == "watch" and line.get("eer") is not None]
    if not watched:
        raise UserError(f"{run.metrics}: has no evaluation of {fold.target}; remove {run.path}, and train it again")
    return Result(fold, run.read_verdict(), min(watched, key=lambda line: (line["eer"], line["step"])))


def table(protocol: str, results: Sequence[Result]) -> str:
    """Both tables, as Markdown."""
    honest, papers = [], []
    for result in results:
        test, bounds = result.verdict["test"], result.verdict["test"]["intervals"]
        rates = [f"{_percent(test[key])} {format_interval(bounds[key])}" for key in ("hter", "apcer_max", "bpcer")]
        auc = f"{_number(test['auc'])} {format_interval(bounds['auc'], percent=False)}"
        honest.append([result.fold.name, f"{test['num_clips']:,}", rates[0], auc, *rates[1:]])
        watched = result.watched
        papers.append([result.fold.name, str(watched["step"]), _percent(watched["eer"]), _number(watched["auc"])])
    tests = [result.verdict["test"] for result in results]
    watches = [result.watched for result in results]
    honest.append(["mean", "", _percent(_mean(tests, "hter")), _number(_mean(tests, "auc")), "", ""])
    papers.append(["mean", "", _percent(_mean(watches, "eer")), _number(_mean(watches, "auc"))])
    return "\n".join([
        f"# Protocol {protocol}", "",
        "Weights and threshold chosen on the dev splits of the sources; the target chose nothing.", "",
        markdown(("fold", "clips", "HTER", "AUC", "APCER, largest", "BPCER"), honest), "",
        "As papers do: **chosen on the target itself**, the best of all evaluations at the target's own threshold "
        "(where HTER is the EER). Flattered, and for comparison with their figures alone.", "",
        markdown(("fold", "update", "HTER", "AUC"), papers), "",
    ])  # fmt: skip


def _mean(figures: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [figure[name] for figure in figures]
    return None if None in values else sum(values) / len(values)


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.2f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"

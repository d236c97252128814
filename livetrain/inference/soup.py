"""One model from several of one architecture: the mean of their weights (a model soup; Wortsman et al., ICML 2022).

    livetrain soup CHECKPOINT CHECKPOINT … --out DIR [--method greedy|uniform] [key=value …]

CHECKPOINT is a run directory, a checkpoint's folder or a package; models must be of one architecture, and should come
from one initialisation. uniform: the mean of all. greedy (default): the checkpoints in order of their dev figure
(eval.criterion); each stays in when the figure is no worse with it. Running statistics of batch norm are averaged too.

The soup costs no more than one model. DIR is a run directory with its checkpoint, scores, verdict and report, for
`livetrain evaluate`, `report`, `predict` and `package`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from livetrain.checkpoint import folders
from livetrain.config import Config, config_from, to_dict
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.inference.package import Trained, check_faces, load, open_shards
from livetrain.tracking.run_dir import RunDir
from livetrain.training import resume
from livetrain.verdict import metrics

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Soup:
    """Which of the models are in it (positions in the order given), its weights, its dev figure (less is better)."""

    members: list[int]
    weights: Weights
    figure: float


def mean_weights(states: Sequence[Weights]) -> Weights:
    """The mean of each tensor, taken in float64; whole numbers (counters) are the first model's."""
    first = states[0]
    return {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in first.items()
    }


def greedy(states: Sequence[Weights], figure_of: Callable[[Weights], float]) -> Soup:
    """The greedy soup: best first, each next one kept when the figure (less is better) is no worse with it."""
    figures = [figure_of(state) for state in states]
    order = sorted(range(len(states)), key=lambda index: (figures[index], index))
    soup = Soup([order[0]], states[order[0]], figures[order[0]])
    for index in order[1:]:
        members = [*soup.members, index]
        weights = mean_weights([states[member] for member in members])
        figure = figure_of(weights)
        if figure <= soup.figure:
            soup = Soup(members, weights, figure)
    return soup


def check_alike(models: Sequence[Trained]) -> None:
    """Raises UserError unless the models are of one architecture and see the same input."""
    shapes = [{name: tuple(t.shape) for name, t in one.model.state_dict().items()} for one in models]
    for one, shape in zip(models[1:], shapes[1:], strict=True):
        if shape != shapes[0]:
            raise UserError(f"{models[0].path} and {one.path} are of different architectures: they have no mean")
        same = (one.model.mean, one.model.std, one.config.data.image_size) == (
            models[0].model.mean,
            models[0].model.std,
            models[0].config.data.image_size,
        )
        if not same:
            raise UserError(f"{models[0].path} and {one.path} see pictures of different size or normalisation")


def make(sources: Sequence[Path], out: Path, method: str, overrides: Sequence[str]) -> Soup:
    """Write the run directory `out` of the soup, with its verdict and report. Raises UserError."""
    from accelerate import Accelerator

    from livetrain.evaluation.evaluator import evaluate
    from livetrain.evaluation.final import Origin, final_evaluation
    from livetrain.evaluation.scoring import mixed_precision

    if len(sources) < 2:
        raise UserError("a soup needs two checkpoints or more: livetrain soup CHECKPOINT CHECKPOINT … --out DIR")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: holds something already; choose a new folder, or remove it first")
    models = [load(source) for source in sources]
    check_alike(models)
    config = _config(models[0], out, overrides)
    dataset = open_shards(config, models[0].path)
    for one in models:
        check_faces(one, dataset)
    accelerator = Accelerator(mixed_precision=mixed_precision(config))
    model = models[0].model.to(accelerator.device)

    def figure_of(weights: Weights) -> float:
        model.load_state_dict(weights)
        found = evaluate(accelerator, config, dataset, config.data.dev_split, model)
        figures = metrics.summary(found.scores)
        if config.eval.criterion == "loss" or figures["eer"] is None or figures["auc"] is None:
            return found.loss
        return figures["eer"] if config.eval.criterion == "eer" else -figures["auc"]

    states = [{name: t.detach().cpu().clone() for name, t in one.model.state_dict().items()} for one in models]
    if method == "greedy":
        soup = greedy(states, figure_of)
    else:
        weights = mean_weights(states)
        soup = Soup(list(range(len(states))), weights, figure_of(weights))
    step = max(int(one.facts.get("step", 0)) for one in models)
    resume.write_config(config)
    figures = {"soup": [str(sources[member]) for member in soup.members], "method": method}
    contiguous = {name: tensor.contiguous() for name, tensor in soup.weights.items()}
    best = folders.save_best(RunDir(out).checkpoints, step, contiguous, figures)
    model.load_state_dict(soup.weights)
    final_evaluation(accelerator, config, dataset, model, Origin(step, best))
    return soup


def _config(first: Trained, out: Path, overrides: Sequence[str]) -> Config:
    """The first model's configuration, in the soup's own directory."""
    values = to_dict(first.config) | {"run_dir": str(out), "name": out.name}
    return config_from(values, str(first.path), overrides, warn=lambda line: None)


def parser() -> Parser:
    """The command line of `livetrain soup`."""
    parser = Parser("soup", __doc__)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", choices=("greedy", "uniform"), default="greedy")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns the exit code."""
    options = parser().parse(arguments)
    sources = [Path(item) for item in options.sources if "=" not in item]
    soup = make(sources, options.out, options.method, [item for item in options.sources if "=" in item])
    print(f"in the soup: {', '.join(str(sources[member]) for member in soup.members)} ({len(sources)} were given)")
    print(options.out, flush=True)
    return 0

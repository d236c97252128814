"""The run directory: the names of everything in it.

run = RunDir(Path("runs/mine"))
run.load_config()          # what it was trained with
run.best()                 # runs/mine/checkpoints/best-00001000

config.yaml  environment.json  metrics.jsonl  checkpoints/  scores/<split>.csv  verdict.json  report.html
robustness.json  evaluations/<what differs>/  wandb/
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from livetrain.config import Config, load_config
from livetrain.core.errors import UserError
from livetrain.verdict.older import upgraded


@dataclass(frozen=True)
class RunDir:
    """A run directory, which need not exist yet."""

    path: Path

    @staticmethod
    def of(config: Config) -> RunDir:
        """The run directory of a configuration."""
        return RunDir(Path(config.run_dir))

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, machine, device and code of the newest attempt."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """See livetrain.tracking.metrics_log."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the step-* and best-* folders; see livetrain.checkpoint.folders."""
        return self.path / "checkpoints"

    @property
    def verdict(self) -> Path:
        """Figures of the test split; see livetrain.verdict.verdict."""
        return self.path / "verdict.json"

    @property
    def robustness(self) -> Path:
        """Figures of the test split under perturbations."""
        return self.path / "robustness.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def evaluations(self) -> Path:
        """Folder of evaluations on other data or with other settings; each is a run directory without checkpoints."""
        from livetrain.verdict.threshold import EVALUATIONS  # NumPy: a second

        return self.path / EVALUATIONS

    def scores(self, split: str) -> Path:
        """Scores of `dev` or `test`, one row a video."""
        return self.path / "scores" / f"{split}.csv"

    def details(self, split: str) -> Path:
        """Clip metadata beside the scores."""
        return self.path / "scores" / f"{split}_details.csv"

    def best(self) -> Path | None:
        """The checkpoint that dev chose; None when there is none yet."""
        return max(self.checkpoints.glob("best-*"), default=None)

    def newest_step(self) -> int:
        """Updates in the newest checkpoint, whole or not; 0 when there is none."""
        steps = [int(path.name.rpartition("-")[2]) for path in self.checkpoints.glob("step-*") if path.is_dir()]
        return max(steps, default=0)

    def load_config(self, overrides: Sequence[str] = (), warn: Callable[[str], None] = lambda line: None) -> Config:
        """The run's configuration with `key=value` overrides. Raises UserError where this is not a run directory."""
        if not self.config.exists():
            raise UserError(f"{self.path} is not a run directory: it has no {self.config.name}")
        return load_config([self.config], overrides, warn=warn)

    @property
    def training(self) -> Path:
        """What it is trained on: clips by attack type."""
        return self.path / "training.json"

    @property
    def faces(self) -> Path:
        """How the faces of its clips were found, with data.crop=face."""
        return self.path / "faces.json"

    def read_faces(self) -> dict[str, Any]:
        """detector, num_frames, upsample and sha256 (of faces.arrow, a folder each) in `faces`.

        Raises UserError where it is damaged.
        """
        try:
            content = json.loads(self.faces.read_text(encoding="utf-8"))
            return {name: content[name] for name in ("detector", "num_frames", "upsample", "sha256")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.faces}: cannot be read ({type(error).__name__}: {error})") from None

    def read_verdict(self) -> dict[str, Any]:
        """verdict.json. Raises UserError where there is none, or a damaged one."""
        try:
            content = upgraded(json.loads(self.verdict.read_text(encoding="utf-8")))
            float(content["threshold"]), content["dev"], content["test"]  # what everybody reads
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{self.verdict}: {reason}; `livetrain evaluate {self.path}` writes it") from None
        assert isinstance(content, dict)
        return content

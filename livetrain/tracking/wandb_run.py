"""What a run tells: metrics.jsonl, the source of truth, and Weights & Biases beside it.

metrics.jsonl has one JSON object a line, in order, and is never rewritten. A run that resumes from a checkpoint
repeats some steps; being the same steps with the same figures, they are not written twice. W&B may fail in any way
without hurting the run: one warning says so, and it is left alone.
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from livetrain.config import Config, to_dict
from livetrain.core.errors import UserError, first_line
from livetrain.core.files import write_text


def wandb_mode(setting: str) -> str:
    """The W&B mode: `tracking.wandb`, with `auto` resolved as W&B resolves it.

    From environment, settings files and netrc: online where it would be and has a key for its server, else offline;
    disabled where it or WANDB_DISABLED says so. Raises UserError for what it does not take, such as half a key.
    """
    if setting != "auto":
        return setting
    if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes"):  # W&B 0.31 reads it no more
        return "disabled"
    import wandb
    from wandb.sdk.lib.wbauth import authenticate_session

    try:
        settings = wandb.setup().settings
        if settings.mode not in ("online", "run"):
            return "offline" if settings.mode == "dryrun" else str(settings.mode)
        found = authenticate_session(host=settings.base_url, source="livetrain", prompt=False, update_session=False)
    except Exception as error:  # W&B promises no common base
        raise UserError(f"W&B does not start: {first_line(error)}; mend that, or set tracking.wandb=offline") from None
    return "online" if found else "offline"


def wandb_host() -> str:
    """Host (and port) of the W&B server, as W&B resolves it."""
    import wandb

    return str(wandb.setup().settings.base_url).split("//")[-1].split("/")[0]


def wandb_id(run_dir: Path, mode: str) -> str:
    """The W&B id of the next attempt of a run.

    Online, all attempts are one W&B run, which continues. Offline they cannot be: segments of one id replace each other
    when they are synced (wandb issue 3841). There each attempt is a run of its own, in one group.
    """
    if os.environ.get("WANDB_RUN_ID"):  # chosen by `wandb agent` or by the user
        return os.environ["WANDB_RUN_ID"]
    path = run_dir / "wandb" / "id"
    if not path.exists():
        write_text(path, secrets.token_hex(4))
    base = path.read_text(encoding="utf-8").strip()
    attempts = len(list((run_dir / "wandb").glob(f"offline-run-*-{base}-*")))
    return base if mode == "online" else f"{base}-{attempts + 1}"


class Wandb:
    """Weights & Biases for one run: charts over `step`, the configuration, the verdict's figures and worst clips."""

    def __init__(self, config: Config, run_dir: Path, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._run: Any = None
        self._try(lambda: self._start(config, run_dir))

    def _start(self, config: Config, run_dir: Path) -> None:
        mode = wandb_mode(config.tracking.wandb)
        if mode == "disabled":
            return
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        self._run = wandb.init(
            mode=mode,  # type: ignore[arg-type]
            id=wandb_id(run_dir, mode),
            resume="allow" if mode == "online" else None,
            dir=str(run_dir),
            project=config.tracking.project,
            entity=config.tracking.entity or None,
            group=config.tracking.group or config.name,
            name=config.name,
            config=to_dict(config),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def send_missing(self, records: Sequence[dict[str, Any]]) -> None:
        """Log what W&B lacks of a resumed run.

        Lines are lost there with a node that dies before they are sent. Online alone: offline, each attempt is a run of
        its own.
        """
        if self._run is None or getattr(self._run, "offline", True):
            return

        def send() -> None:
            last = self._run.summary.get("step")
            missing = [record for record in records if last is None or record["step"] > last]
            for record in missing:
                self.log(record)
            if missing:
                self._warn(f"{len(missing)} lines of before were not in W&B: they are sent again")

        self._try(send)

    def mark_preempting(self) -> None:
        """Have W&B show the run as preempted, not as crashed, when this process ends."""
        if self._run is not None:
            self._try(lambda: self._run.mark_preempting())

    def log(self, record: dict[str, Any]) -> None:
        """A record of metrics.jsonl, as `kind/figure` over `step`."""
        if self._run is None:
            return
        kind = record["kind"]
        figures = {f"{kind}/{key}": value for key, value in record.items() if key not in ("kind", "step", "epoch")}
        self._try(lambda: self._run.log(figures | {"step": record["step"], "epoch": record["epoch"]}))

    @property
    def is_running(self) -> bool:
        """Whether what is logged goes anywhere."""
        return self._run is not None

    def log_verdict(
        self,
        step: int,
        summary: dict[str, Any],
        figures: dict[str, Any],
        tables: Mapping[str, tuple[list[str], list[list[Any]]]],
        worst: Sequence[dict[str, Any]],
        pictures: Callable[[str], list[bytes]],
    ) -> None:
        """Log the verdict: summary, plots, tables, worst clips.

        Summary figures; matplotlib figures and tables (columns, rows) by name; a table of the worst clips with a frame
        of each.
        """
        if self._run is None:
            return

        def send() -> None:
            import wandb
            from PIL import Image

            columns: list[str | int] = ["frame", "key", "p_live", "label", "attack_type", "subject"]
            table = wandb.Table(columns=columns)
            for clip in worst:
                found = pictures(clip["key"])
                image = wandb.Image(Image.open(io.BytesIO(found[0]))) if found else None
                table.add_data(image, *(clip[str(name)] for name in columns[1:]))
            drawn: dict[str, Any] = {name: wandb.Image(_rendered(figure)) for name, figure in figures.items()}
            for name, (names, rows) in tables.items():
                drawn[name] = wandb.Table(columns=list(names), data=rows)
            drawn["worst_clips"] = table
            self._run.log({"step": step, **{f"verdict/{name}": item for name, item in drawn.items()}})
            self._run.summary.update({f"verdict/{name}": value for name, value in summary.items()})

        self._try(send)

    def finish(self, exit_code: int = 0) -> None:
        """Close the run; offline runs can be sent later by `wandb sync`."""
        if self._run is not None:
            self._try(lambda: self._run.finish(exit_code=exit_code))

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # W&B promises no common base; whatever it is, training continues
            self._run = None
            self._warn(f"warning: W&B failed ({type(error).__name__}: {error}); the run continues without it")


def _rendered(figure: Any) -> Any:
    """A matplotlib figure as a Pillow image (W&B's own way needs pyplot and a display backend)."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return Image.open(buffer)

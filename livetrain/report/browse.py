"""What the model sees: one page with the clips of an update, source frames beside augmented ones.

    livetrain browse CONFIG.yaml … [key=value …] --step N     as that run would see them at update N
    livetrain browse DIR --step N                             a shard folder, with the default options
    livetrain browse RUN --step N                             a run directory: its own options

Options: --clips N (default 16), --out FILE (default browse-<step>.html). The page needs no network. The clips come
from the loader that trains, on the CPU: what is shown is what a run gets, before its mean and standard deviation.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.config import Config, load_config, split_arguments
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.core.files import is_url, write_text
from livetrain.core.world import World
from livetrain.tracking.run_dir import RunDir

FRAMES_SHOWN = 4  # of a clip
NOT_SHOWN = ("box", "window", "angle")  # shown as the crop
MAX_VALUES = 6  # of a parameter; a kernel has more


def parser() -> Parser:
    """The command line of `livetrain browse`."""
    parser = Parser("browse", __doc__)
    parser.add_argument("items", nargs="*", metavar="CONFIG|DIR|RUN", help="see above; then key=value")
    parser.add_argument("--step", type=int, default=0, metavar="N", help="update, from 0 (default 0)")
    parser.add_argument("--clips", type=int, default=16, metavar="N", help="at most (default 16)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: browse-N.html, of a run in its folder")
    return parser


def main(arguments: list[str]) -> int:
    """The command line. Returns the exit code."""
    options = parser().parse(arguments)
    if not options.items:
        raise UserError("livetrain browse needs a configuration, a shard folder or a run directory")
    if options.step < 0 or options.clips < 1:
        raise UserError("--step must be 0 or more, --clips 1 or more")
    where = Path(options.items[0])
    folder = where if RunDir(where).config.exists() else Path()
    out = options.out or folder / f"browse-{options.step}.html"
    write_text(out, page(_config(options.items), options.step, options.clips))
    print(out)
    return 0


def page(config: Config, step: int, num_clips: int) -> str:
    """The page of update `step` (the first micro-batch of one process's, so many clips of it), as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("livetrain.report", "."), autoescape=True, undefined=StrictUndefined)
    clips = _clips(config, step, num_clips)
    return environment.get_template("browse.html.j2").render(
        step=step, shards=config.data.shards or " + ".join(config.data.sources), seed=config.seed, clips=clips,
        size=config.data.image_size, augmented=config.augment.enabled,
    )  # fmt: skip


def _config(items: list[str]) -> Config:
    where, rest = Path(items[0]), items[1:]
    if RunDir(where).config.exists():
        return RunDir(where).load_config(rest)
    if is_url(items[0]) or where.is_dir():
        return load_config([], [f"data.shards={items[0]}", *rest], warn=lambda line: None)
    return load_config(*split_arguments(items))


def _clips(config: Config, step: int, num_clips: int) -> list[dict[str, Any]]:
    import torch

    from livetrain.data import Dataset, plan, train_loader
    from livetrain.data.clip_pictures import pictures_of

    dataset = Dataset.of(config.data)
    samples = plan.Samples.of_training(dataset, config)
    planned = plan.plan_train(samples, config, step, 0, 0, 1)
    loader = train_loader(
        dataset, config, world=World(torch.device("cpu")), mean=(0.0,) * 3, std=(1.0,) * 3,
        start_step=step, num_steps=step + 1, samples=samples,
    )  # fmt: skip
    with loader:
        batch = next(iter(loader))
    reasons = {failure.key: failure.reason for failure in batch.failures}
    shown = []
    for index, row in enumerate(planned.rows.tolist()[:num_clips]):
        key = batch.keys[index]
        frames = _some(planned.frames[index])
        seen = (batch.clips[index].permute(0, 2, 3, 1).numpy() * 255).round().clip(0, 255).astype(np.uint8)
        shown.append({
            "key": key,
            "video": dataset.text("video", row),
            "kind": _kind(config, dataset.text("attack_type", row), int(planned.recaptured[index])),
            "split": dataset.text("split", row),
            "label": float(batch.labels[index]),
            "frames": planned.frames[index].tolist(),
            "failure": reasons.get(key, ""),
            "source": []
            if key in reasons
            else [_encoded(picture) for picture in pictures_of(dataset, row, frames, shown_height=200)],
            "seen": [_png(seen[position]) for position in _some(np.arange(len(seen)))],
            "facts": _facts(planned, index),
        })  # fmt: skip
    return shown


def _kind(config: Config, kind: str, recaptured: int) -> str:
    from livetrain.data import recapture

    return f"{kind}, made {recapture.attack_type(config.augment, recaptured)}" if recaptured else kind


def _some(values: NDArray[np.integer]) -> list[int]:
    """At most FRAMES_SHOWN of the values, evenly spaced."""
    wanted = np.linspace(0, len(values) - 1, min(FRAMES_SHOWN, len(values))).round().astype(int)
    return values[wanted].tolist()


def _facts(planned: Any, index: int) -> list[tuple[str, str]]:
    """The clip's parameters by name: those of augmentations that are off are left out."""
    values = {name: np.asarray(array[index]) for name, array in planned.params.items()}
    top, left, bottom, right = values["box"].tolist()
    message = [("crop", f"{left:.0%} to {right:.0%} across, {top:.0%} to {bottom:.0%} down, as stored")]
    if "window" in values:
        height, width = values["window"][0, 2:].tolist()
        message = [("crop", f"{width} x {height} pixels, as stored; around the face or with black bars")]
    if values["angle"]:
        message.append(("turned", f"{-values['angle']:g} degrees clockwise"))
    owner = ""
    for name, value in values.items():
        if name in NOT_SHOWN:
            continue
        if name.endswith("_on"):
            owner = name.removesuffix("_on") if value else "off"
            if value and not any(other.startswith(owner + "_") and other != name for other in values):
                message.append((owner, "on"))
        elif name == "flip":
            message += [("flip", "mirrored")] if value else []
        elif owner != "off":
            numbers = ", ".join(f"{number:.3g}" for number in value.ravel()[:MAX_VALUES].tolist())
            message.append(
                (name, numbers if value.size <= MAX_VALUES else f"{' x '.join(map(str, value.shape))} numbers")
            )
    share = float(planned.blend.shares[index])
    if share < 1:
        how = "cut from" if planned.blend.cuts[index].any() else "mixed with"
        message.append(("blend", f"{1 - share:.0%} {how} its neighbour"))
    return message


def _png(picture: NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return _encoded(buffer.getvalue())


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()

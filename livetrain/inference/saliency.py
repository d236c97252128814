"""What the network looked at in the worst clips of the test split: Grad-CAM, into RUN/saliency/ and the report.

    livetrain saliency RUN [--clips 8] [--checkpoint RUN/checkpoints/step-…]

Grad-CAM (Selvaraju et al., ICCV 2017; captum's LayerGradCam) weighs the channels of the last feature map by the mean
gradient of the log-odds of the decision that was taken, and keeps what speaks for it. A transformer has its patch
tokens before the attention of the last block instead of the map: after it, nothing but the class token may matter.
"""

from __future__ import annotations

import dataclasses
import io
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from livetrain.config import Config
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.core.files import atomic_write, write_json
from livetrain.core.world import World
from livetrain.data import Dataset, Loader
from livetrain.data.batch import Plans
from livetrain.data.plan import Samples, plan_evaluation
from livetrain.model import LivenessModel, live_logit, p_live
from livetrain.report import page
from livetrain.report.rebuild import rebuild
from livetrain.tracking.run_dir import RunDir
from livetrain.verdict import scores

METHOD = "Grad-CAM: below each frame, warm where the last feature map supports the decision that was taken."
MAX_FRAMES = 4
SIDE = 224  # of a frame in the picture, pixels at most


class FeatureMap(nn.Module):
    """A module of the backbone whose output passes through `map` as [N,C,h,w] on its way.

    layout: NCHW, NHWC, or NLC with `num_prefix` tokens before those of the patches, in a square.
    """

    def __init__(self, inner: nn.Module, layout: str, num_prefix: int) -> None:
        super().__init__()
        self.inner, self.layout, self.num_prefix = inner, layout, num_prefix
        self.map = nn.Identity()

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        out = self.inner(*inputs, **options)
        if self.layout == "NCHW":
            return self.map(out)
        if self.layout == "NHWC":
            return self.map(out.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        prefix, patches = out[:, : self.num_prefix], out[:, self.num_prefix :]
        side = math.isqrt(patches.shape[1])
        if side * side != patches.shape[1]:
            raise UserError(f"saliency needs patches in a square, but there are {patches.shape[1]} of them")
        square = self.map(patches.transpose(1, 2).unflatten(2, (side, side)))
        return torch.cat([prefix, square.flatten(2).transpose(1, 2)], dim=1)


def insert_map(model: LivenessModel, name: str, clips: Tensor) -> nn.Module:
    """Put a FeatureMap into the backbone, in place, and return the module that sees the map.

    `name` is the backbone's, for messages; `clips` [1,F,3,S,S] are to find out the layout. Raises UserError for a
    backbone that tells no map.
    """
    backbone = model.backbone
    message: Any = getattr(backbone, "feature_info", None)
    if not message:
        raise UserError(f"saliency is not possible for model.backbone={name}: timm tells no feature map of it")
    path = str(message[-1]["module"])
    if hasattr(backbone.get_submodule(path), "norm1"):
        path += ".norm1"
    inner = backbone.get_submodule(path)
    seen: list[Any] = []
    handle = inner.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model(clips)
    handle.remove()
    if len(seen) != 1 or not isinstance(seen[0], Tensor) or seen[0].ndim not in (3, 4):
        raise UserError(f"saliency is not possible for model.backbone={name}: {path} gives no feature map")
    layout = "NLC" if seen[0].ndim == 3 else str(getattr(backbone, "output_fmt", "NCHW"))
    mapped = FeatureMap(inner, layout, int(getattr(backbone, "num_prefix_tokens", 0)))
    backbone.set_submodule(path, mapped)
    return mapped.map


def grad_cam(model: LivenessModel, layer: nn.Module, clip: Tensor, *, sign: float) -> Tensor:
    """Grad-CAM of a clip [F,3,S,S]: float32 [F,S,S] on the CPU, in [0, 1].

    What supports live (sign 1) or against (-1); the largest value of the clip is 1, unless nothing does.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    def decided(clips: Tensor) -> Tensor:
        return sign * live_logit(model(clips), 1)

    found: Any = LayerGradCam(decided, layer).attribute(clip[None], relu_attributions=True)
    whole: Any = LayerAttribution.interpolate(found, tuple(clip.shape[-2:]), "bilinear")
    maps = whole.detach()[:, 0].float().cpu()
    return maps / maps.max().clamp_min(1e-12)


@dataclass(frozen=True)
class Clip:
    """A clip as the model saw it: RGB float32 [F,S,S,3] in [0, 1], and its map [F,S,S]."""

    pictures: NDArray[np.float32]
    maps: NDArray[np.float32]


def drawing(clip: Clip) -> bytes:
    """Up to MAX_FRAMES frames side by side, below each the same with its map, as JPEG."""
    from matplotlib import colormaps
    from PIL import Image

    chosen = np.unique(np.linspace(0, len(clip.maps) - 1, MAX_FRAMES).round().astype(int))
    plain = np.concatenate(list(clip.pictures[chosen]), axis=1)
    strength = np.concatenate(list(clip.maps[chosen]), axis=1)[..., None]
    warm = colormaps["inferno"](strength[..., 0])[..., :3]
    gray = plain.mean(axis=2, keepdims=True) * 0.7
    both = np.concatenate([plain, gray * (1 - 0.75 * strength) + warm * 0.75 * strength], axis=0)
    picture = Image.fromarray((both.clip(0, 1) * 255).round().astype(np.uint8))
    scale = min(1.0, SIDE / clip.maps.shape[1])
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    out = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(out, format="JPEG", quality=85)
    return out.getvalue()


def write(run_dir: Path, num_clips: int, checkpoint: str = "") -> Path:
    """Write run_dir/saliency/ for the `num_clips` worst clips of test, worst first. Returns the folder.

    Raises UserError without captum, scores or weights, or for a backbone without a feature map.
    """
    try:
        import captum.attr  # noqa: F401
    except ImportError:
        raise UserError("saliency needs captum: pip install 'livetrain[explain]'") from None
    import json

    from livetrain.inference import package

    test = scores.read(RunDir(run_dir).scores("test"))
    threshold = json.loads(RunDir(run_dir).verdict.read_text(encoding="utf-8"))["threshold"]
    worst = page.worst(test, threshold, num_clips)
    trained = package.load(checkpoint or run_dir)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = trained.model.to(device).eval()
    model.frozen = False  # a frozen backbone passes on no gradient, and none is kept here
    dataset = Dataset.of(trained.config.data)
    keys, clips = _clips(dataset, trained.config, model, device, [row["key"] for row in worst])
    folder = run_dir / page.SALIENCY
    shutil.rmtree(folder, ignore_errors=True)
    message = []
    layer = insert_map(model, trained.config.model.backbone, clips[:1]) if len(clips) else nn.Identity()
    of = {row["key"]: row for row in worst}
    for number, (key, clip) in enumerate(zip(keys, clips, strict=True)):
        with torch.no_grad():
            p = float(p_live(model(clip[None]))[0])
        accepted = p >= threshold
        maps = grad_cam(model, layer, clip, sign=1.0 if accepted else -1.0).numpy()
        mean, std = (clip.new_tensor(values).view(3, 1, 1) for values in (model.mean, model.std))
        pictures = (clip * std + mean).permute(0, 2, 3, 1).float().cpu().numpy()
        file = f"{number:03d}.jpg"
        with atomic_write(folder / file) as temporary:
            temporary.write_bytes(drawing(Clip(pictures, maps)))
        kind = "live" if of[key]["label"] >= scores.LIVE_THRESHOLD else of[key]["attack_type"]
        speaks_for = "live" if accepted else "attack"
        message.append({"key": key, "file": file, "kind": kind, "p_live": p, "speaks_for": speaks_for})
    write_json(folder / "saliency.json", {"method": METHOD, "clips": message})
    return folder


def _clips(
    dataset: Dataset, config: Config, model: LivenessModel, device: torch.device, keys: Sequence[str]
) -> tuple[list[str], Tensor]:
    """The clips `keys` as evaluation sees them, those that load: their keys, float32 [n,F,3,S,S]."""
    rows = [row for key in keys if (row := dataset.row_of(key)) is not None]
    if not rows:
        raise UserError(f"{dataset.root} has none of the test clips of the run; set data.shards to where they are")
    split = dataclasses.replace(
        Samples.of(dataset, config.data.test_split, config), rows=np.array(rows, dtype=np.int64)
    )
    all_at_once = dataclasses.replace(config, eval=dataclasses.replace(config.eval, batch_size=len(rows)))
    item = plan_evaluation(split, all_at_once, 0, 0, 1)
    plans = Plans(lambda: iter([item]), 1, item)
    with Loader(dataset, all_at_once, plans, world=World(device), mean=model.mean, std=model.std) as loader:
        (batch,) = list(loader)
    valid = batch.valid.cpu()
    return [key for key, good in zip(batch.keys, valid.tolist(), strict=True) if good], batch.clips[batch.valid].float()


def parser() -> Parser:
    """The command line of `livetrain saliency`."""
    parser = Parser("saliency", __doc__)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--clips", default="8", metavar="N", help="how many of the worst clips (default 8)")
    parser.add_argument("--checkpoint", default="", metavar="DIR", help="other weights than the best ones")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns the exit code."""
    # Up to version 0.1 the options were written clips=8 and checkpoint=DIR.
    items = [f"--{item}" if item.partition("=")[0] in ("clips", "checkpoint") else item for item in arguments]
    options = parser().parse(items)
    if not options.clips.isdigit() or not 1 <= int(options.clips) <= 64:
        raise UserError(f"--clips {options.clips}: a number from 1 to 64")
    if not RunDir(options.run).verdict.exists():
        raise UserError(f"{options.run} has no verdict.json; `livetrain evaluate {options.run}` makes it")
    print(write(options.run, int(options.clips), options.checkpoint))
    print(rebuild(options.run))
    return 0

"""Writing a trained model as ONNX, as a torch.export program, or as a folder in the hub's layout.

What is exported takes clips as livetrain's loader makes them, float32 [clips, frames, 3, size, size], normalised, RGB,
and gives p_live, float32 [clips]; numbers of clips and frames are free. With fp16 the network computes in half
precision between the two. No TorchScript: both formats come from torch.export.
"""

from __future__ import annotations

import copy
import json
import logging
import pprint
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from livetrain.core.errors import UserError, first_line
from livetrain.core.files import atomic_write, save_tensors, write_text
from livetrain.inference import onnx_scorer
from livetrain.inference.export import preprocess_script
from livetrain.inference.model_card import LABELS
from livetrain.inference.onnx_scorer import INPUT, METADATA, OUTPUT
from livetrain.inference.package import TIMM_CONFIG, WEIGHTS, Trained, describe, timm_data_config
from livetrain.model import LivenessModel, p_live
from livetrain.model.pooling import ThumbnailPool


class Scorer(nn.Module):
    """Clips [B,F,3,S,S] float32 → p_live float32 [B]; the network in `dtype`."""

    def __init__(self, model: LivenessModel, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).to(dtype).to(memory_format=torch.contiguous_format).eval()
        self.model.channels_last = False  # a layout for training; other runtimes choose their own
        self.dtype = dtype

    def forward(self, clips: Tensor) -> Tensor:
        """See the class."""
        return p_live(self.model(clips.to(self.dtype)))


def scorer(trained: Trained, precision: str) -> Scorer:
    """The network to export; precision: fp32 or fp16."""
    return Scorer(trained.model, torch.float16 if precision == "fp16" else torch.float32)


def frames_at_once(trained: Trained) -> int:
    """Of how many frames a clip's number must be a multiple."""
    return ThumbnailPool.FRAMES if trained.config.model.pool == "thumbnail" else 1


def example(trained: Trained, num_clips: int = 2, num_frames: int = 3) -> Tensor:
    """Clips of the right shape, with a fixed seed; so many frames of each, or the next number that the model takes."""
    side, step = trained.config.data.image_size, frames_at_once(trained)
    num_frames = -(-num_frames // step) * step
    return torch.randn(num_clips, num_frames, 3, side, side, generator=torch.Generator().manual_seed(0))


def program(trained: Trained, precision: str) -> torch.export.ExportedProgram:
    """The network as torch.export sees it, clips and frames dynamic. Raises UserError for one it cannot take."""
    step = frames_at_once(trained)
    frames = torch.export.Dim("frames", min=1) if step == 1 else step * torch.export.Dim("pictures", min=1)
    dynamic = ({0: torch.export.Dim("clips", min=1), 1: frames},)
    try:
        with torch.no_grad():
            return torch.export.export(
                scorer(trained, precision), (example(trained, num_frames=3 * step),), dynamic_shapes=dynamic
            )
    except Exception as error:  # whatever the tracer meets in a model
        raise UserError(f"{trained.path}: torch.export cannot take this model ({first_line(error)})") from error


def to_torch(trained: Trained, precision: str, out: Path) -> None:
    """Write a torch.export program (.pt2); `torch.export.load(out).module()(clips)` runs it. Raises UserError."""
    if frames_at_once(trained) > 1:  # torch.export would refuse clips of four frames, one picture
        raise UserError(f"{trained.path}: model.pool=thumbnail has no torch.export program; --format onnx takes it")
    exported = program(trained, precision)
    with atomic_write(out) as temporary:
        archive = temporary.with_suffix(".pt2")  # torch insists on the suffix
        torch.export.save(exported, archive, extra_files={"livetrain.json": _facts(trained, precision)})
        archive.replace(temporary)


def to_onnx(trained: Trained, precision: str, out: Path) -> None:
    """Write an ONNX file, weights inside, with what is known of the model in its metadata. Raises UserError."""
    onnx = _import_onnx()
    exported = program(trained, precision)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                exported, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], optimize=True, verbose=False
            )
    except Exception as error:  # an operator that ONNX lacks
        raise UserError(
            f"{trained.path}: ONNX cannot take this model ({first_line(_first_cause(error))}); --format torch does "
            "without it"
        ) from error
    assert made is not None
    proto = made.model_proto
    for name, value in ((METADATA, _facts(trained, precision)), ("labels", json.dumps(LABELS))):
        proto.metadata_props.add(key=name, value=value)
    with atomic_write(out) as temporary:
        onnx.save(proto, str(temporary))
        try:  # an operator with types that ONNX Runtime lacks shows here alone
            onnx_scorer.session(temporary, trained.path, 1)
        except UserError as error:
            raise UserError(f"{error}; --format torch does without it") from error


def write_reference(trained: Trained, out: Path) -> Path:
    """Write the script that makes the input of an exported model: beside a file, in a folder. Returns its path."""
    path = out / "preprocess.py" if out.is_dir() else out.with_name(f"{out.stem}_preprocess.py")
    numbers = describe(trained, "")["preprocessing"]
    text = Path(preprocess_script.__file__).read_text(encoding="utf-8")
    empty = "PREPROCESSING: dict[str, Any] = {}\n"
    assert empty in text
    write_text(path, text.replace(empty, f"PREPROCESSING: dict[str, Any] = {pprint.pformat(numbers, width=110)}\n"))
    return path


def to_hub(trained: Trained, precision: str, out: Path) -> None:
    """Write a folder that `timm.create_model("local-dir:OUT", pretrained=True)` loads.

    It is a classifier of single frames. With model.pool=mean the mean of its outputs over a clip's frames is
    livetrain's logit.
    """
    from timm.models._hub import save_config_for_hf

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: holds something already; choose a new folder, or remove it first")
    network = frame_classifier(trained)
    dtype = torch.float16 if precision == "fp16" else torch.float32
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    save_tensors({name: t.to(dtype) if t.is_floating_point() else t for name, t in weights.items()}, out / WEIGHTS)
    names = LABELS if trained.model.head.out_features == 2 else LABELS[1:]
    facts = {"label_names": names}
    save_config_for_hf(network, str(out / TIMM_CONFIG), model_config=facts, data_config=timm_data_config(trained))
    write_text(out / "livetrain.json", _facts(trained, precision) + "\n")
    write_text(out / "README.md", _hub_card(trained))


def frame_classifier(trained: Trained) -> nn.Module:
    """The backbone with livetrain's head as timm's own classifier: pictures [N,3,S,S] → logits [N, outputs].

    Raises UserError when the backbone's classifier is not a linear layer on its features.
    """
    model = trained.model
    network: Any = copy.deepcopy(model.backbone).to(memory_format=torch.contiguous_format).eval()
    network.reset_classifier(num_classes=model.head.out_features)
    classifier = network.get_classifier()
    if not isinstance(classifier, nn.Linear) or classifier.weight.shape != model.head.weight.shape:
        raise UserError(
            f"model.backbone={trained.config.model.backbone} has no linear classifier to put the head in; "
            "`livetrain package` writes a folder whose backbone timm loads"
        )
    with torch.no_grad():
        classifier.weight.copy_(model.head.weight)
        classifier.bias.copy_(model.head.bias)
        pictures = example(trained, 1, 2)[0]
        expected = model.head(model.features(pictures[None])[0])
        difference = (network(pictures) - expected).abs().max()
    if not difference < 1e-3:
        raise UserError(f"model.backbone={trained.config.model.backbone}: timm's classifier gives other logits")
    return network


def _facts(trained: Trained, precision: str) -> str:
    """What a user of the exported file must know, as JSON."""
    return json.dumps(describe(trained, "") | {"precision": precision, "input": INPUT}, sort_keys=True)


def _hub_card(trained: Trained) -> str:
    content = describe(trained, "")
    pool = trained.config.model.pool
    whole = "the mean of the frames' logits is the clip's" if pool == "mean" else f"livetrain pools features by {pool}"
    return (
        "---\nlibrary_name: timm\npipeline_tag: image-classification\n---\n\n"
        f"# {content['config']['name']}, version {content['version']}\n\n"
        "Live person or presentation attack, from single frames of a video:\n"
        '`timm.create_model("hf-hub:OWNER/NAME", pretrained=True)`. '
        f"Output: {content['output']}; {whole}.\n\nInput:\n\n"
        + "".join(f"- {name}: {value}\n" for name, value in content["preprocessing"].items())
    )


def _first_cause(error: BaseException) -> BaseException:
    """What an exception began with: torch's exporter wraps it in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _import_onnx() -> Any:
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError:
        raise UserError("ONNX export needs more packages: pip install 'livetrain[export]'") from None
    return onnx

"""A trained model on disk: the folder that users hand on, and the other places a model can be loaded from.

    livetrain package runs/NAME [--out DIR] [--version TEXT] [key=value …]

writes a model package, which needs neither the run nor its configuration:

    model.safetensors   the backbone, with timm's names     } timm.create_model("local-dir:DIR", pretrained=True)
    config.json         timm's description of it            }
    head.safetensors    pooling of frames and the linear head
    livetrain.json      labels, threshold, preprocessing, configuration, metrics, version, SHA-256 of the weights
    README.md           the model card

`load` takes a package, a run directory (its best checkpoint), or a checkpoint's folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from livetrain.checkpoint import folders
from livetrain.config import Config, config_from, to_dict
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError, first_line
from livetrain.core.files import file_sha256, fsync_folder, save_tensors, write_json, write_text
from livetrain.core.version import VERSION
from livetrain.data import Dataset, face_tracks
from livetrain.distributed.load_weights import load_weights
from livetrain.inference import preprocessing
from livetrain.inference.model_card import LABELS, model_card
from livetrain.model import LivenessModel, build_model, lora
from livetrain.tracking.run_dir import RunDir
from livetrain.verdict import threshold as stored_threshold
from livetrain.verdict.older import upgraded

FORMAT = 1
DESCRIPTION, WEIGHTS, HEAD, TIMM_CONFIG, CARD = (
    "livetrain.json",
    "model.safetensors",
    "head.safetensors",
    "config.json",
    "README.md",
)
FACTS = ("version", "step", "criterion", "temperature", "metrics", "faces")  # what a package keeps of Trained.facts

# Keys that belong to the machine, the training data or the training, not to the model.
TRAINING_ONLY = ("attack_head.", "domain_head.", "domain_weights")  # weights
NOT_PACKAGED = {
    "data": (
        "shards",
        "sources",
        "weights",
        "leave_out",
        "allow_leak",
        "cache_dir",
        "cache_gb",
        "download_ahead",
        "retries",
        "on_outage",
        "outage_minutes",
        "range_mb",
        "order",
        "window_shards",
        "window_lanes",
        "train_split",
        "dev_split",
        "test_split",
        "on_error",
        "prefetch",
        "threads",
        "decoder",
    ),
    "model": (
        "pretrained",
        "weights",
        "freeze_backbone",
        "freeze",
        "unfreeze_last",
        "lora_rank",
        "lora_alpha",
        "lora_targets",
        "grad_checkpointing",
        "compile",
        "sync_bn",
        "drop_path",
    ),
    "eval": ("criterion", "use_ema", "watch", "shifted_dev", "select_on"),
    "predict": (),
}


@dataclass(frozen=True)
class Trained:
    """A trained model, ready to score: the model on the CPU in evaluation mode, and how its input is made.

    threshold: p_live from which a clip is accepted, chosen on dev; None where none is known. facts: name, step,
    version, criterion, metrics: what is known of where it comes from.
    """

    path: Path
    config: Config
    model: LivenessModel
    threshold: float | None
    facts: dict[str, Any] = field(default_factory=dict)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Trained:
    """Load a package, a run directory or a checkpoint's folder; `overrides` are `key=value` of the configuration.

    Raises UserError when it is none of these, incomplete, damaged, or made by a newer version.
    """
    folder = Path(path)
    if (folder / DESCRIPTION).exists():
        return _load_package(folder, overrides)
    if (folder / folders.MANIFEST).exists():
        return _load_checkpoint(folder.parent.parent, folder, overrides)
    run = RunDir(folder)
    if run.config.exists():
        best = run.best()
        if best is None:
            raise UserError(f"{folder} has no best checkpoint yet; name one: {run.checkpoints}/step-…")
        return _load_checkpoint(folder, best, overrides)
    what = "is none of these" if folder.exists() else "does not exist"
    raise UserError(f"{folder} {what}: a model package, a run directory, a checkpoint's folder")


def weights_sha256(path: Path) -> str:
    """SHA-256 of the weights of what `load` takes, without reading them.

    Of a package that of the list of its files' digests. "" where there are none.
    """
    if (path / DESCRIPTION).exists():
        return hashlib.sha256(json.dumps(_description(path).get("sha256", {}), sort_keys=True).encode()).hexdigest()
    if (path / folders.MANIFEST).exists():
        return folders.weights_sha256(path)
    best = RunDir(path).best()
    return folders.weights_sha256(best) if best else ""


def read_config(path: Path) -> Config:
    """The configuration of what `load` takes, without its weights. Raises UserError."""
    if (path / DESCRIPTION).exists():
        return config_from(_description(path)["config"], str(path / DESCRIPTION), warn=lambda line: None)
    folder = path.parent.parent if (path / folders.MANIFEST).exists() else path
    return RunDir(folder).load_config()


def check_same_model(trained: Config, config: Config, path: Path) -> None:
    """Raises UserError where overrides make another model than the one whose weights are in `path`."""
    one, other = (to_dict(item)["model"] | {"loss.name": item.loss.name} for item in (trained, config))
    differing = [key for key in one if key not in NOT_PACKAGED["model"] and one[key] != other[key]]
    if differing:
        key = differing[0] if "." in differing[0] else f"model.{differing[0]}"
        hint = "; to pool the scores of frames otherwise, set eval.aggregate" if key == "model.pool" else ""
        raise UserError(
            f"{key}={other[differing[0]]} makes another model than {path} was trained as ({one[differing[0]]}); "
            f"leave it out{hint}"
        )


def open_shards(config: Config, path: Path) -> Dataset:
    """The data set of a configuration; `path` names the model it is of. Raises UserError where it has none."""
    if not config.data.shards and not config.data.sources:
        raise UserError(f"{path} does not know its shards; name them: data.shards=DIR")
    return Dataset.of(config.data)


def check_faces(trained: Trained, dataset: Dataset) -> None:
    """Raises UserError where the faces of a data set were not found as those that the model was trained on."""
    known = trained.facts.get("faces")
    if trained.config.data.crop == "face" and known is not None:
        face_tracks.check_same(known, dataset.faces.about, f"the faces of {trained.path}", str(dataset.root))


def write(trained: Trained, out: Path, *, version: str = "") -> Path:
    """Write the package `out`, whole or not at all. `version` is the user's own name for it.

    Raises UserError when `out` holds something already or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: holds something already; choose a new folder, or remove it first")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    except OSError as error:
        raise UserError(f"--out {out}: cannot write there: {error.strerror or error}") from error
    try:
        temporary.chmod(0o777 & ~_umask())
        _write_files(trained, temporary, version)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
        fsync_folder(out.parent)
    except (OSError, RuntimeError) as error:  # safetensors raises RuntimeError for a full disk
        raise UserError(f"--out {out}: cannot be written: {first_line(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def describe(trained: Trained, version: str) -> dict[str, Any]:
    """The content of livetrain.json but for the digests."""
    config, model = trained.config, trained.model
    facts = dict(trained.facts)
    version = version or str(facts.pop("version", "")) or f"{config.name}-{facts.get('step', 0)}"
    return {
        "format": FORMAT,
        "livetrain": VERSION,
        "version": version,
        "labels": LABELS,
        "threshold": trained.threshold,
        "preprocessing": preprocessing.describe(config, model.mean, model.std, trained.facts.get("faces")),
        "output": "logit of live; p_live = sigmoid(logit)"
        if model.head.out_features == 1
        else "logits of attack and live; p_live = softmax(logits)[1]",
        "config": packaged_config(config),
        **facts,
    }


def packaged_config(config: Config) -> dict[str, Any]:
    """The part of the configuration that says what the model is and what it is shown, as nested dicts."""
    values = to_dict(config)
    kept: dict[str, Any] = {
        section: {key: value for key, value in values[section].items() if key not in left_out}
        for section, left_out in NOT_PACKAGED.items()
    }
    return {
        **kept,
        "name": config.name,
        "seed": config.seed,
        "loss": {"name": config.loss.name},
        "train": {"precision": config.train.precision},
    }


def _write_files(trained: Trained, folder: Path, version: str) -> None:
    from timm.models._hub import save_config_for_hf

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in trained.model.state_dict().items()}
    backbone, head = split_weights(weights)
    save_tensors(backbone, folder / WEIGHTS, metadata={"format": "pt"})
    save_tensors(head, folder / HEAD, metadata={"format": "pt"})
    save_config_for_hf(trained.model.backbone, str(folder / TIMM_CONFIG), data_config=timm_data_config(trained))
    description = describe(trained, version)
    description["sha256"] = {name: file_sha256(folder / name) for name in (WEIGHTS, HEAD, TIMM_CONFIG)}
    write_json(folder / DESCRIPTION, description)
    write_text(folder / CARD, model_card(description))


def split_weights(weights: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(the backbone's, with timm's names; the rest) of a LivenessModel's weights."""
    prefix = "backbone."
    backbone = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    return backbone, {name: tensor for name, tensor in weights.items() if not name.startswith(prefix)}


def timm_data_config(trained: Trained) -> dict[str, Any]:
    """What timm's transforms need to know to show the backbone what livetrain shows it."""
    side = trained.config.data.image_size
    return {
        "input_size": (3, side, side),
        "mean": trained.model.mean,
        "std": trained.model.std,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": {"stretch": "squash", "center": "center", "pad": "border"}[trained.config.data.fit],
    }


def _description(folder: Path) -> dict[str, Any]:
    """livetrain.json of a package. Raises UserError."""
    file = folder / DESCRIPTION
    try:
        content = upgraded(json.loads(file.read_text(encoding="utf-8")))
        found = content["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} is not a complete package ({type(error).__name__}: {error}); make it again"
        ) from None
    if found != FORMAT:
        raise UserError(f"{file}: format {found!r}, this version of livetrain reads {FORMAT}; update livetrain")
    return content


def _load_package(folder: Path, overrides: Sequence[str]) -> Trained:
    file = folder / DESCRIPTION
    content = _description(folder)
    try:
        digests, values, shown = content["sha256"], content["config"], content["preprocessing"]
        damaged = [name for name, digest in digests.items() if file_sha256(folder / name) != digest]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} is not a complete package ({type(error).__name__}: {error}); make it again"
        ) from None
    if damaged:
        raise UserError(f"{folder} is damaged: {', '.join(damaged)} is not what was written; make it again")
    config = config_from(values, str(file), overrides, warn=lambda line: None)
    packaged = config_from(values, str(file), warn=lambda line: None)
    check_same_model(packaged, config, folder)
    # timm builds what config.json describes, also where model.backbone named a hub or another folder.
    wanted = config_from(values, str(file), [*overrides, f"model.backbone=local-dir:{folder}"], warn=lambda line: None)
    model = build_model(wanted.model, config.loss, config.data.image_size).eval()
    weights = {f"backbone.{name}": tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    load_weights(model, weights | load_file(folder / HEAD), str(folder))
    model.mean, model.std = tuple(shown["mean"]), tuple(shown["std"])
    facts = {name: content[name] for name in FACTS if name in content}
    chosen, scoring = stored_threshold.scoring_of(packaged), stored_threshold.scoring_of(config)
    return Trained(folder, config, model, stored_threshold.usable(folder, content["threshold"], chosen, scoring), facts)


def _load_checkpoint(run_dir: Path, folder: Path, overrides: Sequence[str]) -> Trained:
    run = RunDir(run_dir)
    config, trained = run.load_config(overrides), run.load_config()
    check_same_model(trained, config, folder)
    config.data.on_error = "skip"
    bare = config_from(packaged_config(config), str(run.config), warn=lambda line: None)
    model = build_model(bare.model, bare.loss, config.data.image_size).eval()
    weights, manifest = folders.load_weights(folder, averaged=config.eval.use_ema)
    load_weights(model, _for_scoring(weights, trained), str(folder))
    facts: dict[str, Any] = {"step": manifest["step"]}
    if run.faces.exists():
        facts["faces"] = {name: value for name, value in run.read_faces().items() if name in face_tracks.KEYS}
    own, scoring = stored_threshold.scoring_of(trained), stored_threshold.scoring_of(config)
    stored = stored_threshold.find(run_dir, folder, scoring, trained=own)
    threshold = None
    if stored is not None:
        threshold = stored_threshold.usable(folder, stored.threshold, stored.scoring, scoring)
    if stored is not None and threshold is not None:
        facts |= {"criterion": stored.criterion, "temperature": stored.temperature}
    if folder.name.startswith("best-") and run.verdict.exists():  # the weights that the verdict is about
        verdict = run.read_verdict()
        if stored is None:  # of a run from before threshold.json
            threshold = stored_threshold.usable(folder, verdict["threshold"], own, scoring)
            facts |= {"criterion": "eer"}
        if scoring == own:  # figures of other scores would not be this model's
            facts |= {"metrics": {split: verdict[split] for split in ("dev", "test")}}
    return Trained(folder, config, model, threshold, facts)


def _for_scoring(weights: Mapping[str, torch.Tensor], trained: Config) -> dict[str, torch.Tensor]:
    """The weights of a model that scores.

    Without what training alone needs (loss.attack_types, domains); what model.lora_rank learned is added where it acts.
    """
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(TRAINING_ONLY)}
    return lora.merged(kept, trained.model)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def parser() -> Parser:
    """The command line of `livetrain package`."""
    parser = Parser("package", __doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--version", default="")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns the exit code."""
    options, overrides = parser().parse_some(arguments)
    trained = load(options.source, overrides)
    out = write(trained, options.out or options.source / "package", version=options.version)
    load(out)  # what cannot be loaded must not leave the house
    print(out)
    return 0

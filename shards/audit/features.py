"""A network's features of the clips' pictures, for candidates that a hash does not see (--embedding NAME)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livetrain.config import ModelConfig
from livetrain.core.progress import progress
from shards.audit.look_table import LookTable

BATCH = 64
SIDE = 160  # pixels


def features_of(looks: LookTable, name: str, weights: str) -> NDArray[np.float32]:
    """Features of each clip's picture and of its mirror image, of length 1: float32 [2, n, d].

    NaN for clips that could not be decoded. name: of a timm model. weights: a file, or "" for timm's own from the hub.
    Raises UserError where there is no such model, or its weights cannot be loaded.
    """
    import torch

    from livetrain.model.backbone import build_backbone, normalization, num_features

    backbone = build_backbone(ModelConfig(backbone=name, weights=weights, pretrained=not weights), SIDE).eval()
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in normalization(backbone, "auto"))
    found = np.full((2, len(looks), num_features(backbone)), np.nan, np.float32)
    rows = [row for row in range(len(looks)) if looks.picture(row)]
    with progress("features", len(rows), "clips") as advance, torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            pixels = torch.from_numpy(np.stack([_pixels(looks.picture(row)) for row in some]))
            pictures = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / deviation
            for side, shown in enumerate((pictures, pictures.flip(-1))):
                vectors: Any = backbone(shown)
                found[side, some] = torch.nn.functional.normalize(vectors, dim=1).numpy()
            advance(len(some))
    return found


def _pixels(jpeg: bytes) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))

"""The configuration: one dataclass a section, read from YAML files and `key=value`.

    config = load_config(["configs/nuaa.yaml"], ["optim.lr=3e-4"])

`schema` holds the keys, their defaults and bounds, and nothing else does; `load` builds a Config; `checks` refuses what
cannot work and warns about keys without effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from livetrain.config.augment import PRESETS, AugmentConfig
from livetrain.config.checks import keys_without_effect
from livetrain.config.data import DataConfig
from livetrain.config.reference import describe_keys
from livetrain.config.schema import (
    Config,
    DdpConfig,
    EvalConfig,
    FsdpConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    PredictConfig,
    RunConfig,
    TrackingConfig,
    TrainConfig,
    VerdictConfig,
    default_of,
    known_keys,
    value_of,
)

if TYPE_CHECKING:
    from livetrain.config.load import RENAMED, RETIRED, config_from, load_config, split_arguments, to_dict, to_yaml

__all__ = [
    "PRESETS",
    "RENAMED",
    "RETIRED",
    "AugmentConfig",
    "Config",
    "DataConfig",
    "DdpConfig",
    "EvalConfig",
    "FsdpConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "PredictConfig",
    "RunConfig",
    "TrackingConfig",
    "TrainConfig",
    "VerdictConfig",
    "config_from",
    "default_of",
    "describe_keys",
    "keys_without_effect",
    "known_keys",
    "load_config",
    "split_arguments",
    "to_dict",
    "to_yaml",
    "value_of",
]


def __getattr__(name: str) -> Any:
    """Names of `load` when they are used: OmegaConf takes a third of a second, and help needs none."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from livetrain.config import load

    return getattr(load, name)

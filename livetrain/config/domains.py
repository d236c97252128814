"""What training makes of the domains that clips come from, and the checks across its keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from livetrain.config.fields import choice, number
from livetrain.core.errors import UserError


@dataclass
class DomainsConfig:
    """Losses that know which data set, camera or site a clip is from, so that what is learned holds on others.

    They act in training alone: a model that scores is not changed by them.
    """

    names: list[str] = field(default_factory=list)
    """Domains that the losses below tell apart: [casia,replay,msu]; clips of others have the plain loss alone."""
    weighting: str = choice("clips", "mean", "dro")
    """Loss of an update: mean over clips, over domains' means, or the worst groups of domain and class first (DRO)."""
    dro_rate: float = number(0.01, 0.0, 10.0)
    """How fast the weights of groups follow their losses (the step size of GroupDRO; Sagawa et al., 2020)."""
    supcon: float = number(0.0, 0.0)
    """Weight of the supervised contrastive loss of clips' features; 0.1 in SA-FAS (Sun et al., 2023)."""
    supcon_temperature: float = number(0.1, 0.001)
    """Its temperature."""
    supcon_classes: str = choice("domain_label", "merge_live")
    """What it draws together: live clips and attacks of each domain, or all live clips and the attacks of each."""
    triplet: float = number(0.0, 0.0)
    """Weight of the batch-hard triplet loss of clips' features (SSDG; Jia et al., 2020)."""
    triplet_margin: float = number(0.1, 0.0)
    """Its margin, between features of length 1."""
    triplet_classes: str = choice("merge_live", "domain_label")
    """As supcon_classes."""
    adversary: float = number(0.0, 0.0)
    """Weight of a second head that learns the domain of live clips while features learn to hide it (SSDG)."""
    adversary_warmup_steps: int = number(1000, 1)
    """Updates in which the reversed gradient grows from 0 to nearly all of it (Ganin et al., 2016)."""


def is_contrastive(config: DomainsConfig) -> bool:
    """Whether a loss compares the features of clips with each other."""
    return config.supcon > 0 or config.triplet > 0


def is_active(config: DomainsConfig) -> bool:
    """Whether any of the losses is on."""
    return is_contrastive(config) or config.adversary > 0 or config.weighting != "clips"


def check(config: DomainsConfig, *, blends: bool) -> None:
    """Raises UserError for losses without domains, and for those that clips which are blended do not allow."""
    names = config.names
    if len(set(names)) < len(names) or "" in names:
        raise UserError(f"domains.names={names} must name domains, each once")
    if is_active(config) and len(names) < 2:
        raise UserError("domains: name at least two domains of the training split in domains.names; dry_run lists them")
    if is_contrastive(config) and blends:
        raise UserError(
            "domains.supcon and domains.triplet compare clips of one class; a clip that augment.mixup or cutmix "
            "blends has two: set those to 0"
        )


def effects(config: DomainsConfig) -> Iterator[tuple[list[str], bool, str]]:
    """(keys, whether they are without effect, because of what)."""
    yield ["domains.names"], not is_active(config), "no loss of `domains` turned on"
    yield ["domains.supcon_temperature", "domains.supcon_classes"], config.supcon == 0, "domains.supcon=0"
    yield ["domains.triplet_margin", "domains.triplet_classes"], config.triplet == 0, "domains.triplet=0"
    yield ["domains.adversary_warmup_steps"], config.adversary == 0, "domains.adversary=0"
    yield ["domains.dro_rate"], config.weighting != "dro", f"domains.weighting={config.weighting}"

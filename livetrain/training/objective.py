"""What an update minimises: the loss of each clip, and what `domains` adds to it, the same on any number of processes.

A loss that compares clips sees those of all processes: their features are gathered, and each process computes the same
loss of all of them, but has a gradient of its own clips alone. DDP adds these up, which is the gradient of the whole.
With `train.accumulation` the clips that are compared are those of one micro-batch, over all processes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from livetrain.config import Config
from livetrain.config.domains import is_contrastive
from livetrain.data import Batch
from livetrain.model import domain_losses
from livetrain.model.liveness import LivenessModel, Outputs
from livetrain.model.losses import Loss, kind_cross_entropy


class Objective:
    """The objective of one micro-batch after the other, of one process's clips."""

    def __init__(self, accelerator: Accelerator, config: Config, loss: Loss, model: LivenessModel) -> None:
        self.accelerator, self.config, self.loss, self.model = accelerator, config, loss, model
        self._weights = torch.empty(0)

    def reversal(self, step: int, device: torch.device) -> Tensor | None:
        """What the model needs to know of the update: how much of the adversary's gradient is reversed."""
        options = self.config.domains
        if not options.adversary:
            return None
        return torch.full((), domain_losses.reversal_strength(step, options.adversary_warmup_steps), device=device)

    def begin(self, batches: Sequence[Batch]) -> None:
        """An update begins: with weighting=mean, the weight of each domain's clips in all of it."""
        if self.config.domains.weighting == "mean":
            domains = torch.cat([torch.where(batch.valid, batch.domains, -1) for batch in batches])
            self._weights = self._balanced(self.accelerator.gather(domains))

    def __call__(self, outputs: Tensor | Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum to minimise, a scalar; loss of each clip [n], to report). Clips that are not valid have none."""
        options = self.config.domains
        found = Outputs.of(outputs)
        losses = self.loss(found.logits.float(), batch.labels)
        if found.kinds is not None:
            losses = losses + self.config.loss.attack_types_weight * kind_cross_entropy(found.kinds, batch.kinds)
        if found.patches is not None:
            losses = losses + self.config.loss.patch_tokens * self._of_patches(*found.patches, batch.labels)
        if options.weighting != "clips":
            losses = losses * self._weights_of(losses.detach(), batch)
        if found.domains is not None:
            named = (batch.domains >= 0) & (batch.labels >= 0.5)
            target = torch.where(named, batch.domains, 0)
            naming = F.cross_entropy(found.domains.float(), target, reduction="none")
            losses = losses + options.adversary * torch.where(named, naming, 0.0)
        # where, not a product: a NaN of a masked clip must not spread
        losses = torch.where(batch.valid, losses, 0.0)
        total = losses.sum()
        if is_contrastive(options) and found.features is not None:
            compared, own = self._contrast(found.features, batch)
            total, losses = total + compared, losses + own
        return total, losses

    def _of_patches(self, logits: Tensor, shares: Tensor, labels: Tensor) -> Tensor:
        """The loss of each clip's patches [n], weighted by their shares: [n,P] or [n,P,2], [n,P], [n] → [n]."""
        every = self.loss(logits.float().flatten(0, 1), labels.repeat_interleave(shares.shape[1]))
        return (every.view(shares.shape) * shares).sum(dim=1)

    def _contrast(self, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses that compare clips: (their sum over all processes, those of this process's clips [n], detached)."""
        options, accelerator = self.config.domains, self.accelerator
        own = torch.where(batch.valid[:, None], features.float(), 0.0)
        gathered = accelerator.gather(own.detach())
        place = slice(accelerator.process_index * len(own), (accelerator.process_index + 1) * len(own))
        everyone = torch.cat([gathered[: place.start], own, gathered[place.stop :]])
        domains = accelerator.gather(torch.where(batch.valid, batch.domains, -1))
        labels = accelerator.gather(batch.labels)
        losses = torch.zeros(len(everyone), device=own.device)
        if options.supcon:
            classes = domain_losses.classes_of(domains, labels, options.supcon_classes)
            drawn = domain_losses.supervised_contrastive(everyone, classes, options.supcon_temperature)
            losses = losses + options.supcon * drawn
        if options.triplet:
            classes = domain_losses.classes_of(domains, labels, options.triplet_classes)
            losses = losses + options.triplet * domain_losses.hard_triplet(everyone, classes, options.triplet_margin)
        return losses.sum(), losses.detach()[place]

    def _weights_of(self, losses: Tensor, batch: Batch) -> Tensor:
        """The weight of each clip's loss [n]; 1 for clips of domains that are not named."""
        named = batch.valid & (batch.domains >= 0)
        if self.config.domains.weighting == "dro":
            self._follow(losses, batch, named)
            places = 2 * batch.domains + (batch.labels >= 0.5)
        else:
            places = batch.domains
        return torch.where(named, self._weights[torch.where(named, places, 0)], 1.0)

    def _balanced(self, domains: Tensor) -> Tensor:
        """Weights of each domain's clips, so that the mean over clips is the mean over the means of domains.

        domains: int [N] of all processes, -1 for none. Returns float32 [number of names].
        """
        counts = _sums(domains, torch.ones_like(domains, dtype=torch.float32), len(self.config.domains.names))
        present = (counts > 0).sum().clamp(min=1)
        return torch.where(counts > 0, counts.sum() / present / counts.clamp(min=1), 0.0)

    def _follow(self, losses: Tensor, batch: Batch, named: Tensor) -> None:
        """GroupDRO: weights of groups grow with the exponential of their mean loss.

        Sagawa et al., "Distributionally robust neural networks", ICLR 2020, algorithm 1. Groups are attack and live of
        each domain; the model keeps their weights, so that they are in its checkpoints.
        """
        place = torch.where(named & losses.isfinite(), 2 * batch.domains + (batch.labels >= 0.5), -1)
        places, values = self.accelerator.gather(place), self.accelerator.gather(losses.float())
        shares = self.model.get_buffer("domain_weights")
        sums, counts = (_sums(places, of, len(shares)) for of in (values, torch.ones_like(values)))
        grown = shares * torch.exp(self.config.domains.dro_rate * sums / counts.clamp(min=1))
        shares.copy_(grown / grown.sum())
        # Over the number of clips as a mean is: a group's clips share its weight evenly.
        self._weights = torch.where(counts > 0, shares * counts.sum() / counts.clamp(min=1), 0.0)


def _sums(places: Tensor, values: Tensor, num: int) -> Tensor:
    """Sum of the values at each place: int [N], -1 for none, float [N] → [num]. Nothing is waited for on a GPU."""
    kept = torch.where(places >= 0, places, num)
    values = torch.where(places >= 0, values, 0.0)  # of clips that do not count, NaN as well
    return torch.zeros(num + 1, device=values.device).index_add_(0, kept, values)[:num]

"""What a trained bottleneck keeps: Rex and H(Y|Z) image by image, in nats, and whether it is right with k samples of z.

    rex               ½ ‖f(x) − μ_y‖² against the learned b(z|y)
    rex_class_means   the same against the class means of f(x) (`class_means`)
    h_y_z             −log c(y|z), mean over k keyed samples of z; h_y_mean at z = f(x), where the paper evaluates

On the images that gave the class means no b(z|y) = N(μ_y, I) has a smaller mean Rex. Where γ is small, or 0, b hardly
learns, and only against those means does Rex say how much is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from helpers import bottleneck, ceb
from helpers.context import eval_mode
from helpers.data import ImageSet
from helpers.noise import Key

COLUMNS = ("rex", "h_y_z", "h_y_mean", "wrong_mean", "wrong_sampled")


def _parts(images: ImageSet, batch_size: int) -> list[ImageSet]:
    rows = torch.arange(len(images), device=images.labels.device)
    return [images.subset(part) for part in rows.split(batch_size)]


@torch.no_grad()
def class_means(network: nn.Module, images: ImageSet, *, batch_size: int) -> Tensor:
    """Mean of f(x) over the images of each class, float32 (K, d): the μ of the b(z|y) = N(μ_y, I) nearest to e(z|x).

    Raises ValueError where a class has no image.
    """
    body = bottleneck.of(network)
    totals = torch.zeros(images.num_classes, body.latent_dim, dtype=torch.float64, device=images.labels.device)
    with eval_mode(network):
        for part in _parts(images, batch_size):
            totals.index_add_(0, part.labels, network.features(part.images()).double())  # type: ignore[operator]
    counts = torch.bincount(images.labels, minlength=images.num_classes)
    if bool((counts == 0).any()):
        raise ValueError(f"expected images of each of {images.num_classes} classes, got counts {counts.tolist()}")
    return (totals / counts[:, None]).float()


def _key(images: ImageSet, seed: int) -> Key:
    return Key(seed, f"latent/{images.split}", images.index)


@torch.no_grad()
def measure(
    network: nn.Module, images: ImageSet, *, n_samples: int, seed: int, batch_size: int, means: Tensor | None = None
) -> dict[str, NDArray[Any]]:
    """Rows of the images, (N,) each: `image` (its place), `y`, and COLUMNS: rex, h_y_z, h_y_mean in nats; wrong_mean
    and wrong_sampled, whether c(y|f(x)) and the mean over `n_samples` draws of c(y|z) are wrong.

    `rex` is the rate against the network's own density (the VIB's: against r(z)); where `means` (K, d) are given,
    `rex_class_means` is ½ ‖f(x) − means_y‖². In eval mode; modes are put back.
    """
    body = bottleneck.of(network)
    found: list[dict[str, Tensor]] = []
    with eval_mode(network):
        for part in _parts(images, batch_size):
            y, mean = part.labels, network.features(part.images())  # type: ignore[operator]
            at_mean = body.classify(mean)
            logits = body.classify(ceb.sample(mean, key=_key(part, seed), n_samples=n_samples))
            rates = {"rex": body.density.expected(mean, y=y)}
            if means is not None:
                rates["rex_class_means"] = ceb.rex(mean, center=means[y])
            h = {"h_y_z": ceb.minus_log_c(logits, y), "h_y_mean": ceb.minus_log_c(at_mean[:, None], y)}
            wrong = {"wrong_mean": at_mean.argmax(1) != y, "wrong_sampled": ceb.log_mean(logits).argmax(1) != y}
            found.append({"image": part.index, "y": y, **rates, **h, **wrong})
    return {name: torch.cat([rows[name] for rows in found]).cpu().numpy() for name in found[0]}


def monitor(network: nn.Module, probes: Mapping[str, ImageSet], *, seed: int, batch_size: int) -> dict[str, float]:
    """One epoch's scalars of a bottleneck for the history, means over each probe ("train", "test") in nats:
    rex_<probe> (of the VIB rate_<probe>) in closed form, and h_y_z_<probe> with one draw of z, the same in every epoch.
    """
    rate = "rex" if isinstance(bottleneck.of(network).density, bottleneck.BackwardEncoder) else "rate"
    found: dict[str, float] = {}
    for name, probe in probes.items():
        rows = measure(network, probe, n_samples=1, seed=seed, batch_size=batch_size)
        found[f"{rate}_{name}"] = float(np.mean(rows["rex"], dtype=np.float64))
        found[f"h_y_z_{name}"] = float(np.mean(rows["h_y_z"], dtype=np.float64))
    return found

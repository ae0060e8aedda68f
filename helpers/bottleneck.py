"""A network with a bottleneck: any backbone as the encoder e(z|x) = N(f(x), I), and what `ceb` wants of z.

    f(x)      the backbone's pooled feature (`latent: pooled`, the paper's listing) or a dense layer on it (`dense`)
    c(y|z)    a linear softmax, or with `consistent` Bayes' rule on b(z|y)
    density   b(z|y) = N(μ_y, I), one mean a class (CEB), or r(z) = N(m, diag s²), one for all (VIB)

`Network.features` is f(x) and the network's logits are those of c(y|f(x)), the mean of z in z's place, as the paper
evaluates: deterministic, and every attack takes it. `Averaged` is the same network with k samples of z.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from helpers import ceb, checks
from helpers.models import Network
from helpers.noise import Key

LATENTS = ("pooled", "dense")
HEADS = ("linear", "linear2", "net.fc")  # where the bodies of `models` keep their classifier
CLASSIFIER_STD = 0.01  # of the listing's first weights of c(y|z)


class BackwardEncoder(nn.Module):
    """b(z|y) = N(μ_y, I): `means` (K, d), learned, at first even within ±√(6 / (K + d)) (Glorot's, the listing's).

    Departs from the listing, whose dense layer on the one-hot label has a bias beside the table: the same functions.
    """

    def __init__(self, num_classes: int, latent_dim: int) -> None:
        super().__init__()
        self.means = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_classes, latent_dim)))

    def sampled(self, z: Tensor, *, mean: Tensor, y: Tensor) -> Tensor:
        """Rex at z (B, n, d), for means of z (B, d): (B, n)."""
        return ceb.rex_sampled(z, mean=mean[:, None], center=self.means[y][:, None])

    def expected(self, mean: Tensor, *, y: Tensor) -> Tensor:
        """E[Rex] = ½ ‖f − μ_y‖², (B,)."""
        return ceb.rex(mean, center=self.means[y])


class Marginal(nn.Module):
    """r(z) = N(m, diag s²) of the VIB: `mean` and `log_std` (d,), learned, at first 0; it does not see the label."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(latent_dim))
        self.log_std = nn.Parameter(torch.zeros(latent_dim))

    def sampled(self, z: Tensor, *, mean: Tensor, y: Tensor) -> Tensor:
        """log e(z|x) − log r(z) at z (B, n, d), for means of z (B, d): (B, n)."""
        return ceb.rate_sampled(z, mean=mean[:, None], center=self.mean, log_std=self.log_std)

    def expected(self, mean: Tensor, *, y: Tensor) -> Tensor:
        """KL(e(z|x) ‖ r(z)), (B,)."""
        return ceb.rate(mean, center=self.mean, log_std=self.log_std)


def headless(body: nn.Module) -> tuple[nn.Module, int]:
    """A body of `models` with its classifier taken off, in place, and the width d of its embed(x); else TypeError."""
    for path in HEADS:
        parent, _, name = path.rpartition(".")
        holder = getattr(body, parent, None) if parent else body
        head = getattr(holder, name, None)
        if isinstance(head, nn.Linear) and hasattr(body, "embed"):
            setattr(holder, name, nn.Identity())
            return body, head.in_features
    raise TypeError(f"expected a body of helpers.models with embed(x) and a classifier, got {type(body).__name__}")


class Bottleneck(nn.Module):
    """The three parts on one backbone, a body for `models.Network`: `embed(x)` is f(x), `classify(z)` is c's logits.

    `latent_dim` None keeps the pooled feature, else a dense layer of that many outputs stands on it. `density` is
    "classes" (b) or "marginal" (r). `consistent` asks for "classes", since it is Bayes' rule on b.
    `log_prior` (K,), a buffer, is log p(y): even until `set_prior` is told the training labels.
    """

    log_prior: Tensor

    def __init__(
        self, backbone: nn.Module, *, num_classes: int, latent_dim: int | None, density: str, consistent: bool
    ) -> None:
        super().__init__()
        if density not in ("classes", "marginal") or (consistent and density != "classes"):
            raise ValueError(
                f"expected density classes, or marginal without consistent, got {density!r}, consistent={consistent}"
            )
        self.backbone, d = headless(backbone)
        self.dense: nn.Module = nn.Identity() if latent_dim is None else nn.Linear(d, latent_dim)
        self.latent_dim = d = latent_dim or d
        self.density = BackwardEncoder(num_classes, d) if density == "classes" else Marginal(d)
        self.linear = None if consistent else nn.Linear(d, num_classes)
        if self.linear is not None:
            nn.init.normal_(self.linear.weight, std=CLASSIFIER_STD)
            nn.init.zeros_(self.linear.bias)
        self.register_buffer("log_prior", torch.full((num_classes,), -math.log(num_classes)))

    def set_prior(self, labels: Tensor) -> None:
        """p(y) from the training labels (N,)."""
        self.log_prior.copy_(ceb.log_label_prior(labels, num_classes=len(self.log_prior)))

    def embed(self, x: Tensor) -> Tensor:
        """f(x), the mean of z: (B, d)."""
        return self.dense(self.backbone.embed(x))  # type: ignore[operator]

    def classify(self, z: Tensor) -> Tensor:
        """Logits of c(y|z): z (…, d) to (…, K)."""
        if self.linear is not None:
            return self.linear(z)
        assert isinstance(self.density, BackwardEncoder)
        return ceb.consistent_logits(z, means=self.density.means, log_prior=self.log_prior)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.embed(x))


def narrowed(network: Network, entry: Mapping[str, Any]) -> Network:
    """A network of `models.build` with the bottleneck that a recipe names, in place; as it is where it names none.

    Raises ValueError for a latent that is neither pooled nor dense, and for a dense one without its width.
    """
    latent, latent_dim = entry.get("latent"), entry.get("latent_dim")
    if latent is None:
        return network
    if latent not in LATENTS or (latent_dim is None) == (latent == "dense"):
        raise ValueError(f"expected latent pooled, or dense with latent_dim, got {latent!r}, latent_dim={latent_dim}")
    network.body = Bottleneck(
        network.body,
        num_classes=network.num_classes,
        latent_dim=latent_dim,
        density="marginal" if entry.get("objective") == "vib" else "classes",
        consistent=bool(entry.get("consistent")),
    )
    return network


def of(network: nn.Module) -> Bottleneck:
    """The bottleneck inside a network, or inside what holds that as `network`; TypeError where there is none."""
    inner = getattr(network, "network", network)
    body = getattr(inner, "body", None)
    if not isinstance(body, Bottleneck):
        raise TypeError(f"expected a network with a bottleneck (recipe key latent), got {type(body or inner).__name__}")
    return body


def terms(network: nn.Module, x: Tensor, y: Tensor, *, key: Key, n_samples: int, estimator: str) -> ceb.Terms:
    """Rate and −log c(y|z) of images x (B, C, H, W) with labels y (B,), z drawn `n_samples` times for each (`key`).

    `estimator` of the rate: "sampled", at the same z (the paper), or "closed_form", its expectation. −log c(y|z) has
    none. In the precision of `network.features`, which training makes float32 also where the backbone computes in
    bfloat16.
    """
    if estimator not in ceb.ESTIMATORS:
        raise ValueError(f"expected estimator among {', '.join(ceb.ESTIMATORS)}, got {estimator!r}")
    body, mean = of(network), network.features(x)  # type: ignore[operator]
    z = ceb.sample(mean, key=key, n_samples=n_samples)
    logits = body.classify(z)
    if estimator == "sampled":
        rate = body.density.sampled(z, mean=mean, y=y).mean(1)
    else:
        rate = body.density.expected(mean, y=y)
    return ceb.Terms(rate, ceb.minus_log_c(logits, y), ceb.log_mean(logits))


class Averaged(nn.Module):
    """log of the mean of c(y|z) over k samples of z, as logits (B, K) of a network: attacks on it average over them.

        f(x)[y] = log 1/k Σ_j softmax(c(·|f(x) + ε_j))[y],    ε_j ~ N(0, I), j = 1 … k, keyed by (seed, purpose, j)

    The k draws are the same for every image and every call: the average is then a function of x alone, so that an
    attack climbs one surface and a verdict does not depend on the batch. Attack with one seed and judge with another,
    or the attack has seen the judge's noise. Logits are log-probabilities, hence E(x) = 0 for every x.

    >>> from helpers import models
    >>> f = models.build("smallcnn", num_classes=3, in_channels=1, image_size=8, width=2).eval()
    >>> f = Averaged(narrowed(f, {"latent": "pooled"}), n_samples=4, seed=0, purpose="doc")
    >>> f(torch.rand(2, 1, 8, 8)).exp().sum(1).allclose(torch.ones(2))
    True
    """

    noise: Tensor

    def __init__(self, network: Network, *, n_samples: int, seed: int, purpose: str) -> None:
        super().__init__()
        self.network, self.num_classes = network, network.num_classes
        n_samples = checks.count(n_samples, "n_samples", minimum=1)
        p, latent_dim = next(network.parameters()), of(network).latent_dim
        key = Key(seed, f"latent/{purpose}", torch.arange(n_samples, device=p.device))
        self.register_buffer("noise", key.normal((latent_dim,), dtype=p.dtype))

    def features(self, x: Tensor) -> Tensor:
        """f(x), (B, d): the mean of z, without noise."""
        return self.network.features(x)

    def forward(self, x: Tensor) -> Tensor:
        z = self.network.features(x)[:, None] + self.noise
        return ceb.log_mean(of(self.network).classify(z))

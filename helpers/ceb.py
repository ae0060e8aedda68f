"""The Conditional Entropy Bottleneck (Fischer & Alemi 2020), term by term, in nats.

    e(z|x) = N(f(x), I)     encoder             z = f(x) + ε,  ε ~ N(0, I)
    b(z|y) = N(μ_y, I)      backward encoder
    c(y|z)                  classifier

    L = γ · Rex + H(Y|Z),    Rex = log e(z|x) − log b(z|y),    H(Y|Z) ≤ E[−log c(y|z)],    γ = exp(−ρ)

E[Rex] ≥ I(X;Z|Y), since no b(z|y) codes z in fewer nats than H(Z|Y). Small ρ compresses; γ = 0 leaves cross-entropy
on a noisy z. The VIB (Alemi et al. 2017) puts one marginal r(z) in b's place, and the weight of its rate is σ(−ρ):

    γ I(X;Z|Y) − I(Y;Z) = (1 + γ) [σ(−ρ) I(X;Z) − I(Y;Z)]      by I(X;Z|Y) = I(X;Z) − I(Y;Z)

`bottleneck` holds the network with these three parts, `information` measures one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers import checks
from helpers.noise import Key

# From this ρ on γ is 0: exp(−100) is below float32's normal numbers, and the listing's anneal starts there.
RHO_OFF = 100.0
LEAST_RHO = -20.0  # γ = 4.9e8
ANNEALS = ("none", "gamma", "rho")
ESTIMATORS = ("sampled", "closed_form")


# The weight of the rate


def gamma(rho: float) -> float:
    """γ = exp(−ρ), the weight of Rex; 0 for ρ ≥ 100. ValueError below ρ = −20.

    >>> [round(gamma(rho), 4) for rho in (-1, 0, 3, 100)]
    [2.7183, 1.0, 0.0498, 0.0]
    """
    rho = checks.number(rho, "rho", minimum=LEAST_RHO)
    return 0.0 if rho >= RHO_OFF else math.exp(-rho)


def matched(weight: float) -> float:
    """The VIB's weight of I(X;Z) that asks for as much compression as CEB's γ: γ / (1 + γ) = σ(−ρ).

    >>> matched(gamma(0.0)), round(matched(gamma(2.0)), 6) == round(1 / (1 + math.e**2), 6)
    (0.5, True)
    """
    weight = checks.number(weight, "weight", minimum=0.0)
    return weight / (1 + weight)


def annealed(share: float, *, rho: float, rho_start: float, anneal: str) -> float:
    """γ when `share` of the anneal is over (1 and more: it is done), on the way from ρ_start to ρ.

        gamma   γ = (1 − t) exp(−ρ_start) + t exp(−ρ)      the paper's listing; at t = ½ its ρ is ρ + ln 2
        rho     γ = exp(−(1 − t) ρ_start − t ρ)            stays near 0 far longer
        none    γ = exp(−ρ)

    >>> [round(annealed(t, rho=1, rho_start=100, anneal="gamma") / gamma(1), 3) for t in (0, 0.5, 1, 2)]
    [0.0, 0.5, 1.0, 1.0]
    >>> [annealed(t, rho=0, rho_start=2, anneal="rho") == gamma(2 * (1 - t)) for t in (0, 0.5, 1)]
    [True, True, True]
    """
    if anneal not in ANNEALS:
        raise ValueError(f"expected anneal among {', '.join(ANNEALS)}, got {anneal!r}")
    t = min(checks.number(share, "share", minimum=0.0), 1.0)
    if anneal == "none" or t == 1:
        return gamma(rho)
    if anneal == "gamma":
        return (1 - t) * gamma(rho_start) + t * gamma(rho)
    return gamma((1 - t) * rho_start + t * rho)


def weight_at(progress: float, entry: Mapping[str, Any]) -> float:
    """The weight of the rate in a recipe's loss after `progress` epochs (with fractions): γ for ceb, γ/(1 + γ) for vib.

    >>> weight_at(1.5, {"objective": "ceb", "rho": 0, "rho_start": 100, "anneal": "gamma", "anneal_epochs": 3})
    0.5
    >>> weight_at(9, {"objective": "vib", "rho": 0})
    0.5
    """
    anneal, rho = entry.get("anneal") or "none", entry["rho"]
    if anneal == "none":
        weight = gamma(rho)
    else:
        share = progress / checks.number(entry["anneal_epochs"], "anneal_epochs", above=0.0)
        weight = annealed(share, rho=rho, rho_start=entry["rho_start"], anneal=anneal)
    return matched(weight) if entry["objective"] == "vib" else weight


# Densities of z, all in nats


def sample(mean: Tensor, *, key: Key, n_samples: int) -> Tensor:
    """z ~ N(mean, I), reparameterised: mean (B, d) to z (B, n, d) = mean + ε, ε keyed by image.

    The gradient of z is that of the mean, as TFP's `sample` has it; PyTorch's `Distribution.sample` would cut it.
    """
    if mean.ndim != 2 or len(mean) != len(key.index):
        raise ValueError(f"expected means of shape ({len(key.index)}, d), one for each image, got {tuple(mean.shape)}")
    n_samples = checks.count(n_samples, "n_samples", minimum=1)
    return mean[:, None] + key.normal((n_samples, mean.shape[1]), dtype=mean.dtype)


def log_normal(z: Tensor, mean: Tensor) -> Tensor:
    """log N(z; mean, I) over the last axis: −½ ‖z − mean‖² − d/2 · ln 2π.

    >>> log_normal(torch.zeros(2), torch.tensor([1.0, 0.0]))
    tensor(-2.3379)
    """
    return -0.5 * (z - mean).square().sum(-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)


def rex_sampled(z: Tensor, *, mean: Tensor, center: Tensor) -> Tensor:
    """Rex at z: log N(z; mean, I) − log N(z; center, I), over the last axis; below 0 where b codes z better.

        ½ (f − μ)·(2z − f − μ)

    the difference of the two squares, factored so that float32 keeps its digits where d is large.

    >>> rex_sampled(torch.tensor([3.0]), mean=torch.tensor([1.0]), center=torch.tensor([0.0]))
    tensor(2.5000)
    """
    return 0.5 * ((mean - center) * (2 * z - mean - center)).sum(-1)


def rex(mean: Tensor, *, center: Tensor) -> Tensor:
    """E[Rex] = KL(N(f, I) ‖ N(μ, I)) = ½ ‖f − μ‖², over the last axis: the sampled one without its noise.

    >>> rex(torch.tensor([3.0, 4.0]), center=torch.zeros(2))
    tensor(12.5000)
    """
    return 0.5 * (mean - center).square().sum(-1)


def rate_sampled(z: Tensor, *, mean: Tensor, center: Tensor, log_std: Tensor) -> Tensor:
    """The VIB's rate at z: log N(z; mean, I) − log N(z; center, diag exp(2 log_std)), over the last axis."""
    scaled = ((z - center) * torch.exp(-log_std)).square() - (z - mean).square()
    return (0.5 * scaled + log_std).sum(-1)


def rate(mean: Tensor, *, center: Tensor, log_std: Tensor) -> Tensor:
    """E of `rate_sampled`: KL(N(f, I) ‖ N(m, diag s²)) = ½ Σ [((f − m)² + 1)/s² − 1] + Σ ln s; on average ≥ I(X;Z).

    >>> rate(torch.tensor([3.0]), center=torch.tensor([1.0]), log_std=torch.zeros(1))
    tensor(2.)
    """
    scaled = ((mean - center).square() + 1) * torch.exp(-2 * log_std) - 1
    return (0.5 * scaled + log_std).sum(-1)


# The consistent classifier


def consistent_logits(z: Tensor, *, means: Tensor, log_prior: Tensor) -> Tensor:
    """cCEB's classifier c(y|z) ∝ b(z|y) p(y): z (…, d), means (K, d), log_prior (K,) to logits (…, K).

        log b(z|k) + log p(k) = μ_k·z − ½ ‖μ_k‖² + log p(k) + what all k share

    so Bayes' rule on b is a linear softmax whose weights are b's means, and has no parameters of its own.

    >>> means = torch.tensor([[2.0], [0.0]])
    >>> consistent_logits(torch.tensor([[1.0]]), means=means, log_prior=torch.zeros(2))
    tensor([[0., 0.]])
    """
    return F.linear(z, means, log_prior - 0.5 * means.square().sum(1))


def log_label_prior(labels: Tensor, *, num_classes: int) -> Tensor:
    """log p(y) of the labels (N,), float32 (K,). ValueError where a class has no image: its log would be −∞.

    >>> log_label_prior(torch.tensor([0, 1, 1, 1]), num_classes=2).exp()
    tensor([0.2500, 0.7500])
    """
    counts = torch.bincount(checks.labels(labels, num_classes=num_classes), minlength=num_classes)
    if bool((counts == 0).any()):
        raise ValueError(f"expected images of each of {num_classes} classes, got counts {counts.tolist()}")
    return (counts.double() / len(labels)).log().float()


# The terms together


class Terms(NamedTuple):
    """Of one image each: rate (B,), Rex or the VIB's; h_y_z (B,), −log c(y|z); both in nats and means over the samples
    of z. log_c (B, K): the log of c(y|z) averaged over them."""

    rate: Tensor
    h_y_z: Tensor
    log_c: Tensor


def minus_log_c(logits: Tensor, y: Tensor) -> Tensor:
    """−log c(y|z), the mean over samples of z, whose expectation bounds H(Y|Z) from above: (B, n, K), (B,) to (B,)."""
    n = logits.shape[1]
    each = F.cross_entropy(logits.flatten(0, 1), y.repeat_interleave(n), reduction="none")
    return each.view(-1, n).mean(1)


def log_mean(logits: Tensor) -> Tensor:
    """log of the mean over samples of softmax: logits (B, n, K) to (B, K), whose exponentials sum to 1.

    >>> log_mean(torch.tensor([[[0.0, 0.0], [0.0, -1e9]]])).exp()
    tensor([[0.7500, 0.2500]])
    """
    return logits.log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])

"""Per-sample terms and weights of the training objectives, shape (B,); `objectives.py` composes them.

Logits are (B, K), labels int64 (B,). Every term is ≥ 0 and differentiable in all its logits:
whoever wants a constant (the natural logits of the inner maximisation) detaches it. Weights
(`weat_weight`, `mail_weight`) are constants: no gradient flows through them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers import checks, energies

__all__ = [
    "boosted_cross_entropy",
    "cross_entropy",
    "doubt",
    "energy_penalty",
    "mail_weight",
    "normalised",
    "probabilistic_margin",
    "trades_kl",
    "weat_weight",
]

PENALTIES = ("abs", "square", "hinge")
NORMALISATIONS = ("none", "mean")


# Terms


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy −log p(y|x) = E(x, y) − E(x), shape (B,). Raises ValueError for a label that is no class.

    >>> import torch
    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2])).exp().round()
    tensor([4.])
    """
    _labelled(logits, y)
    return F.cross_entropy(logits, y, reduction="none")


def trades_kl(logits: Tensor, logits_adv: Tensor) -> Tensor:
    """The TRADES term KL(p(·|x) ‖ p(·|x*)) (ebm, formula 9), shape (B,), without its factor β.

    `logits` are f(x), `logits_adv` are f(x*). In energies: `energies.kl_from_energies`.
    """
    return energies.kl(logits, logits_adv)


def boosted_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """The boosted cross-entropy of MART (Wang et al. 2020, BCE), shape (B,); MART takes it at x*.

        BCE(x, y) = −log p(y|x) − log( 1 − max_{k≠y} p(k|x) )

    Departs from the authors' code: 1 − p is a sum over the other classes, so that nothing needs to be added to it
    (they write 1.0001 − p + 1e-12).

    >>> import torch
    >>> boosted_cross_entropy(torch.zeros(1, 2), torch.tensor([0])).exp().round()
    tensor([4.])
    """
    rival = _without(logits, y).argmax(1)
    others = _without(logits, rival).logsumexp(1)  # log Σ_{k ≠ rival} exp f(x)[k]
    return cross_entropy(logits, y) + (logits.logsumexp(1) - others)


def doubt(logits: Tensor, y: Tensor) -> Tensor:
    """1 − p(y|x), the factor of MART's KL (Wang et al. 2020), shape (B,), in [0, 1].

    Part of MART's loss and differentiable, as in the authors' code; not one of the constant weights below.

    >>> import torch
    >>> doubt(torch.zeros(1, 4), torch.tensor([1]))
    tensor([0.7500])
    """
    return -torch.expm1(-cross_entropy(logits, y))


def energy_penalty(delta: Tensor, *, form: str, margin: float = 0.0) -> Tensor:
    """A Delta Energy Regulariser on ΔE = E(x) − E(x*), shape (B,): one of three forms that are ours.

        abs     |ΔE|            square   ΔE²            hinge   max(0, |ΔE| − m),  m = `margin` in nats

    The follow-up of paper 1 (arXiv 2505.22486) penalises ΔE by such a term; its exact form is not known to us.
    `delta` is `energies.delta` of marginal energies, with gradients into both.

    >>> import torch
    >>> [energy_penalty(torch.tensor([-3.0]), form=form, margin=1.0).item() for form in PENALTIES]
    [3.0, 9.0, 2.0]
    """
    checks.choice(form, PENALTIES, "form")
    checks.number(margin, "margin", minimum=0.0)
    if form == "square":
        return delta.square()
    return delta.abs() if form == "abs" else (delta.abs() - margin).clamp_min(0.0)


# Weights


def weat_weight(energy: Tensor) -> Tensor:
    """WEAT's weight of each image (ebm, formula 12), shape (B,), constant; `energy` is E(x) of the natural image.

        w(x) = 1 / log(1 + exp |E(x)|) = 1 / softplus(|E(x)|)

    Largest, 1/log 2, at E = 0; even in E, so "high energy, high weight" holds where energies are negative.

    >>> import torch
    >>> weat_weight(torch.tensor([0.0, -1.0, -10.0]))
    tensor([1.4427, 0.7615, 0.1000])
    """
    return 1 / F.softplus(checks.per_sample(energy, energy, "energy").detach().abs())


def probabilistic_margin(logits: Tensor, y: Tensor) -> Tensor:
    """PM(x, y) = p(y|x) − max_{k≠y} p(k|x) (Liu et al. 2021), shape (B,), in [−1, 1]; below 0 where misclassified.

    >>> import torch
    >>> probabilistic_margin(torch.zeros(1, 3), torch.tensor([0]))
    tensor([0.])
    """
    p = logits.softmax(1)
    return p.gather(1, y[:, None]).squeeze(1) - _without(p, y).amax(1)


def mail_weight(logits_adv: Tensor, y: Tensor, *, slope: float, bias: float) -> Tensor:
    """MAIL's weight of each image (Liu et al. 2021), shape (B,), in (0, 1), constant; `logits_adv` are f(x*).

        ω = sigmoid( −slope · (PM(x*, y) − bias) )

    so that images that the attack fools, or nearly, weigh most. The authors' code has slope 1, bias −1.5 and
    multiplies by 3; dividing by the batch's mean (`normalised`) needs no such number.

    >>> import torch
    >>> mail_weight(torch.zeros(1, 3), torch.tensor([0]), slope=2.0, bias=0.0)
    tensor([0.5000])
    """
    return torch.sigmoid(-slope * (probabilistic_margin(logits_adv, y).detach() - bias))


def normalised(weights: Tensor, by: str) -> Tensor:
    """Weights as they are ("none") or divided by their mean over the batch ("mean"), so that they average 1; (B,).

    WEAT's weights are about 0.1 at the energies of a trained network, so without it the loss and with it the step
    shrink tenfold.

    >>> import torch
    >>> normalised(torch.tensor([1.0, 3.0]), "mean")
    tensor([0.5000, 1.5000])
    """
    checks.choice(by, NORMALISATIONS, "by")
    return weights if by == "none" else weights / weights.mean()


def _labelled(logits: Tensor, y: Tensor) -> None:
    checks.logits(logits)
    if y.device.type == "cpu":  # on an accelerator the look at the values would wait for its queue
        checks.labels(y, logits, num_classes=logits.shape[1])


def _without(values: Tensor, k: Tensor) -> Tensor:
    """(B, K) with −∞ in place of class k of each row."""
    _labelled(values, k)
    return values.scatter(1, k[:, None], -torch.inf)

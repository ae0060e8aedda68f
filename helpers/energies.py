"""Energies of a classifier's logits f(x), after "Shedding More Light on Robust Classifiers" (ebm).

    E(x, y) = −f(x)[y]                       joint energy
    E(x)    = −log Σ_k exp f(x)[k]           marginal energy
    p(y|x)  = exp(E(x) − E(x, y))

Lower is likelier, everywhere, and every function returns shape (B,). Logits are
(B, K), labels int64 (B,). Differentiable, and in the dtype of the logits.
"""

from __future__ import annotations

from torch import Tensor

from helpers import checks

__all__ = ["cross_entropy", "delta", "joint", "kl", "kl_from_energies", "marginal"]


def marginal(logits: Tensor) -> Tensor:
    """Marginal energy E(x) = −logsumexp_k f(x)[k], shape (B,).

    >>> import torch
    >>> marginal(torch.zeros(1, 2)).item() == -torch.tensor(2.0).log().item()
    True
    """
    return -checks.logits(logits).logsumexp(1)


def joint(logits: Tensor, y: Tensor) -> Tensor:
    """Joint energy E(x, y) = −f(x)[y], shape (B,). Raises ValueError for a label that is no class.

    >>> import torch
    >>> joint(torch.tensor([[1.0, 5.0]]), torch.tensor([1]))
    tensor([-5.])
    """
    checks.logits(logits)
    if y.device.type == "cpu":  # on an accelerator the look at the values would wait for its queue
        checks.labels(y, logits, num_classes=logits.shape[1])
    return -logits.gather(1, y[:, None]).squeeze(1)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy as an energy gap, CE(x, y) = −log p(y|x) = E(x, y) − E(x) ≥ 0 (ebm, formula 4), shape (B,).

    In float32 the gap of two energies of size |E| carries an error of about 1e-7 · |E|;
    `losses.cross_entropy` is the form to train on.
    """
    return joint(logits, y) - marginal(logits)


def kl(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ_k p(k) (log p(k) − log q(k)) of the two softmax distributions, shape (B,).

    With p from a natural image x and q from an adversarial x* it is the TRADES term.

    >>> import torch
    >>> kl(torch.zeros(1, 2), torch.zeros(1, 2))
    tensor([0.])
    """
    _pair(logits_p, logits_q)
    log_p = logits_p.log_softmax(1)
    return (log_p.exp() * (log_p - logits_q.log_softmax(1))).sum(1)


def kl_from_energies(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """The same KL in energies (ebm, Proposition 1), shape (B,).

        KL(p(·|x) ‖ p(·|x*)) = Σ_k p(k|x) (E(x*, k) − E(x, k))  +  E(x) − E(x*)

    The first part is the conditional term, the second the marginal one. `logits_p` are
    f(x), `logits_q` are f(x*). An exact identity for any two logit vectors.
    """
    _pair(logits_p, logits_q)
    conditional = (logits_p.softmax(1) * (logits_p - logits_q)).sum(1)  # E(x*, k) − E(x, k) = f(x)[k] − f(x*)[k]
    return conditional + delta(marginal(logits_p), marginal(logits_q))


def delta(natural: Tensor, adversarial: Tensor) -> Tensor:
    """ΔE = E(x) − E(x*), shape (B,): positive where the attack lowered the energy.

    Takes energies, not logits: both (B,), both marginal or both joint.

    >>> import torch
    >>> delta(torch.tensor([-5.0]), torch.tensor([-8.0]))
    tensor([3.])
    """
    if checks.tensor(natural, "natural").ndim != 1:
        raise ValueError(f"expected natural energies of shape (B,), got {tuple(natural.shape)}")
    return natural - checks.per_sample(adversarial, natural, "adversarial energies")


def _pair(logits_p: Tensor, logits_q: Tensor) -> None:
    if checks.logits(logits_p, "logits_p").shape != checks.logits(logits_q, "logits_q").shape:
        raise ValueError(f"expected logits of one shape, got {tuple(logits_p.shape)} and {tuple(logits_q.shape)}")

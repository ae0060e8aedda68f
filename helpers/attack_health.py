"""What must be true of an attack before its robust accuracy is believed.

A robust accuracy is an upper bound: a weak or blinded attack only makes it look better. Each check
here knows one way in which that happens (Carlini et al. 2019, Athalye et al. 2018, Croce & Hein
2020) and returns a `Finding`, good or bad, with a sentence and its numbers. None proves robustness.

Verdicts are bool (N,): True where the network is still right. They are compared image by image.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers import attacks, checks, energies, losses, margin_losses, victim
from helpers.autoattack import Evaluation
from helpers.data import ImageSet

__all__ = [
    "Attack",
    "Finding",
    "black_box",
    "columns",
    "examine",
    "falls_with_epsilon",
    "gradients",
    "large_radius",
    "logits",
    "of_evaluation",
    "of_named",
    "outputs_repeat",
    "transfer",
    "zero_radius",
]

Attack = Callable[[Tensor, Tensor, float], Tensor]  # (x, y, epsilon) -> x_adv
NOISE = 1e-4  # relative difference between two runs that no rounding explains
GREY = 0.55  # an L∞ radius within which every image can be made the same grey
SHARE = 0.002  # of the images by which a weaker attack may find more than a stronger one, as AutoAttack warns


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: whether it is `ok`, what that means, and the numbers behind it."""

    name: str
    ok: bool
    message: str
    numbers: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'BAD '} {self.name}: {self.message}"


# The network ---------------------------------------------------------------------------------------------------------


def logits(values: Tensor) -> Finding:
    """Outputs (N, K) that are probabilities, or their logarithms, are not the logits that losses and energies need.

    >>> print(logits(torch.tensor([[0.25, 0.75], [0.5, 0.5]])))
    BAD  logits: the outputs are probabilities (rows sum to 1): cross-entropy applies softmax twice, E(x) means nothing
    """
    z = checks.logits(values).detach().double()
    sums = (z.sum(1) - 1).abs().max().item()
    energy = energies.marginal(z).abs().max().item()
    numbers = {"low": z.min().item(), "high": z.max().item(), "row_sum_error": sums, "largest_energy": energy}
    if z.min() >= -1e-5 and sums < 1e-5:
        message = (
            "the outputs are probabilities (rows sum to 1): cross-entropy applies softmax twice, E(x) means nothing"
        )
        return Finding("logits", False, message, numbers)
    if energy < 1e-5:
        message = "the outputs are log-probabilities: attacks work, but E(x) is 0 for every image"
        return Finding("logits", False, message, numbers)
    if not bool(torch.isfinite(z).all()):
        return Finding("logits", False, "some outputs are not finite", numbers)
    return Finding("logits", True, "the outputs are neither probabilities nor their logarithms", numbers)


def gradients(network: nn.Module, x: Tensor, y: Tensor) -> Finding:
    """Images whose gradient is exactly 0 cannot be attacked by it: counted for cross-entropy and for the margin."""
    checks.labels(y, checks.images(x))
    with victim.attacked(network) as seer:
        right = seer.logits(x).argmax(1) == y
        flat = {
            "cross_entropy": seer.look(x, lambda z: losses.cross_entropy(z, y)).gradient,
            "margin": seer.look(x, lambda z: margin_losses.margin(z, y)).gradient,
        }
    n = max(int(right.sum()), 1)
    blind = {name: int((g.flatten(1).abs().amax(1)[right] == 0).sum()) for name, g in flat.items()}
    numbers = {f"zero_share_{name}": count / n for name, count in blind.items()}
    if not any(blind.values()):
        return Finding("gradients", True, "no image has a zero gradient", numbers)
    if blind["margin"]:
        message = (
            f"the margin's gradient is 0 on {blind['margin']} of {n} images: gradient attacks stand still there; "
            f"use Square, or put a differentiable part in place of the one that cuts the gradient"
        )
    else:
        message = (
            f"cross-entropy's gradient is 0 on {blind['cross_entropy']} of {n} images (saturated logits), the margin's "
            f"is not: believe attacks on the margin or DLR, not those on cross-entropy"
        )
    return Finding("gradients", False, message, numbers)


def outputs_repeat(network: nn.Module, x: Tensor, *, n_times: int = 3) -> Finding:
    """A network that answers differently when asked again fools attacks that average over nothing."""
    checks.images(x)
    checks.count(n_times, "n_times", minimum=2)
    with victim.attacked(network) as seer:
        answers = [seer.logits(x) for _ in range(n_times)]
    scale = max(answers[0].abs().max().item(), 1e-30)
    difference = max((a - answers[0]).abs().max().item() for a in answers[1:]) / scale
    changed = max(int((a.argmax(1) != answers[0].argmax(1)).sum()) for a in answers[1:])
    numbers = {"relative_difference": difference, "changed_classes": float(changed)}
    ok = difference <= NOISE and not changed
    message = (
        "the network answers the same when asked again"
        if ok
        else f"the network's outputs are random (relative difference {difference:.1e}, {changed} classes changed): "
        f"attack their mean over many draws"
    )
    return Finding("outputs repeat", ok, message, numbers)


# The attack ----------------------------------------------------------------------------------------------------------


def zero_radius(correct: Tensor, robust: Tensor) -> Finding:
    """Within ε = 0 there is only x: verdicts other than the clean ones come from the evaluation's own path."""
    right, stands = _verdicts(correct, "correct"), _verdicts(robust, "robust", like=correct)
    different = int((right != stands).sum())
    numbers = {"different": float(different), "clean": _percent(right), "robust": _percent(stands)}
    message = (
        "at radius 0 every verdict is the clean one"
        if not different
        else f"at radius 0 {different} of {len(right)} verdicts differ from the clean: the attack leaves the ball, "
        f"or the network is not the same (mode, preprocessing)"
    )
    return Finding("zero radius", not different, message, numbers)


def falls_with_epsilon(robust: Mapping[float, Tensor]) -> Finding:
    """Robust accuracy must fall with the radius: what fools within ε fools within every larger ε too.

    `robust` maps radii to verdicts on the same images. Images that stand at a larger radius and
    fell at a smaller one are counted: at least so many the attack misses.
    """
    if len(robust) < 2:
        raise ValueError(f"expected verdicts at two radii or more, got {len(robust)}")
    radii = sorted(robust)
    tables = [_verdicts(robust[r], f"robust at {r:g}", like=robust[radii[0]]) for r in radii]
    accuracies = [_percent(t) for t in tables]
    missed = max(int((later & ~earlier).sum()) for earlier, later in itertools.pairwise(tables))
    rises = [(a, b) for a, b in itertools.pairwise(radii) if _percent(robust[b]) > _percent(robust[a])]
    flat = len({*accuracies}) == 1 and accuracies[0] > 0
    numbers = {f"robust_at_{r:g}": a for r, a in zip(radii, accuracies, strict=True)} | {"missed": float(missed)}
    ok = not rises and not flat and missed <= SHARE * len(tables[0])
    if rises:
        message = (
            f"robust accuracy rises from radius {rises[0][0]:g} to {rises[0][1]:g}: the attack fails at the larger"
        )
    elif flat:
        message = f"robust accuracy is {accuracies[0]:.1f} % at every radius: the attack does not use its radius"
    elif not ok:
        message = f"{missed} images fall at one radius and stand at the next: the attack misses them there"
    else:
        message = "robust accuracy falls as the radius grows"
    return Finding("falls with radius", ok, message, numbers)


def large_radius(robust: Tensor, *, epsilon: float) -> Finding:
    """Within a radius that holds grey (L∞: 0.5) nothing can stand, unless the attack fails."""
    stands = _verdicts(robust, "robust")
    left = int(stands.sum())
    message = (
        f"nothing stands within {epsilon:g}"
        if not left
        else f"{left} of {len(stands)} images stand within {epsilon:g}, where every image can be made the same grey: "
        f"the attack fails"
    )
    return Finding("large radius", not left, message, {"epsilon": float(epsilon), "robust": _percent(stands)})


def black_box(white: Tensor, black: Tensor, *, name: str = "black box") -> Finding:
    """An attack that sees gradients must find what one that does not see them finds.

    `white` and `black` are the verdicts of the two on the same images.
    """
    by_white, by_black = _verdicts(white, "white"), _verdicts(black, "black", like=white)
    only = int((by_white & ~by_black).sum())
    numbers = {"white": _percent(by_white), "black": _percent(by_black), "only_by_black": float(only)}
    ok = only <= SHARE * len(by_white)
    message = (
        "the white-box attack finds what the other finds"
        if ok
        else f"{only} of {len(by_white)} images stand against the white-box attack and fall to the {name} one: "
        f"its gradients mislead it"
    )
    return Finding(name, ok, message, numbers)


def transfer(white: Tensor, transferred: Tensor) -> Finding:
    """An attack on the network itself must find what adversarial images made for another network find."""
    return black_box(white, transferred, name="transfer")


# Together ------------------------------------------------------------------------------------------------------------


def of_evaluation(evaluation: Evaluation) -> list[Finding]:
    """The checks that an ensemble's own verdicts allow: Square finding what the gradient attacks before it missed."""
    order = list(evaluation.accuracy)
    if "square" not in order or not {"apgd_ce", "apgd_dlr", "apgd_t", "fab_t"} & set(order[: order.index("square")]):
        return []
    by_square = torch.tensor([name == "square" for name in evaluation.broken_by])
    stands = evaluation.robust
    return [black_box(stands | by_square, stands, name="black box (Square)")]


@torch.no_grad()
def examine(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    attack: Attack,
    epsilons: Sequence[float],
    large: float,
    black: Attack | None = None,
    other: nn.Module | None = None,
) -> list[Finding]:
    """All checks of a network and an `attack(x, y, epsilon) -> x_adv` on some images (N, C, H, W) in [0, 1].

    `epsilons` are the radii of the report, `large` one within which nothing can stand. With `black`,
    an attack that uses logits only, and with `other`, a network to transfer from (attacked by its
    own cross-entropy, one signed step, at the largest of `epsilons`), their checks are made as well.
    Attacks run once for each radius: some 50 images are enough to find what is broken.
    """
    checks.labels(y, checks.images(x))
    radii = sorted({checks.radius(e) for e in epsilons})
    if not radii or radii[0] == 0:
        raise ValueError(f"expected radii above 0, got {list(epsilons)}")
    with victim.attacked(network) as seer:
        clean = seer.logits(x)

        def stands(x_adv: Tensor) -> Tensor:
            return (seer.logits(x_adv).argmax(1) == y).cpu()

        correct = (clean.argmax(1) == y).cpu()
        robust = {e: stands(attack(x, y, e)) & correct for e in radii}
        at_zero, at_large = stands(attack(x, y, 0.0)), stands(attack(x, y, large)) & correct
        found = [logits(clean), gradients(network, x, y), outputs_repeat(network, x)]
        found += [zero_radius(correct, at_zero), falls_with_epsilon({0.0: correct, **robust})]
        found += [large_radius(at_large, epsilon=large)]
        if black is not None:
            found.append(black_box(robust[radii[-1]], stands(black(x, y, radii[-1])) & correct))
        if other is not None:
            found.append(transfer(robust[radii[-1]], stands(_signed_step(other, x, y, radii[-1])) & correct))
    return found


def of_named(
    network: nn.Module,
    images: ImageSet,
    *,
    attack: str,
    epsilon: float,
    seed: int,
    batch_size: int,
    other: nn.Module | None = None,
    **options: Any,
) -> dict[str, np.ndarray]:
    """`examine` an attack by its name (L∞, first success) at ε/2 and ε, and at 0.55, where nothing can stand.

    PGD's step grows with the radius beyond ε. The black box is Square; `other` is a network to transfer from. `epsilon`
    is in the scale of [0, 1] images, `options` are those of `attacks.run`. At ε = 0 only the network is examined.
    Returns `columns`.
    """
    x, y = images.images(), images.labels
    given = {"norm": "linf", "returns": "first_success", "seed": seed, "index": images.index, "batch_size": batch_size}
    options = {**options, "n_restarts": 1}

    def attacked(x: Tensor, y: Tensor, radius: float, name: str = attack) -> Tensor:
        step = options["step_size"] * max(1.0, radius / epsilon)
        return attacks.run(name, network, x, y, epsilon=radius, **{**given, **options, "step_size": step})

    if epsilon == 0:
        with victim.attacked(network) as seer:
            found = [logits(seer.logits(x))]
        found += [gradients(network, x, y), outputs_repeat(network, x)]
    else:
        found = examine(
            network, x, y, attack=attacked, epsilons=[epsilon / 2, epsilon], large=GREY,
            black=functools.partial(attacked, name="square"), other=other,
        )  # fmt: skip
    return columns(found)


def columns(findings: Sequence[Finding]) -> dict[str, np.ndarray]:
    """The findings as columns of a table, one entry for each: "check" and "message" (text), "ok" (bool)."""
    return {
        "check": np.array([finding.name for finding in findings], dtype=np.str_),
        "ok": np.array([finding.ok for finding in findings], dtype=bool),
        "message": np.array([finding.message for finding in findings], dtype=np.str_),
    }


def _signed_step(network: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    with victim.attacked(network) as seer:
        seen = seer.look(x, lambda z: losses.cross_entropy(z, y))
    return torch.add(x, seen.gradient.sign(), alpha=epsilon).clamp(0.0, 1.0)


def _verdicts(values: Tensor, name: str, *, like: Tensor | None = None) -> Tensor:
    checks.tensor(values, name)
    if values.dtype != torch.bool or values.ndim != 1 or not len(values):
        raise ValueError(f"expected {name} to be bool verdicts of shape (N,), got {values.dtype} {tuple(values.shape)}")
    if like is not None and len(values) != len(like):
        raise ValueError(f"expected {name} on the same {len(like)} images, got {len(values)}")
    return values.cpu()


def _percent(verdicts: Tensor) -> float:
    return 100.0 * verdicts.float().mean().item()

"""Which training images are left out: the removal experiment of paper 1 (ebm, C6).

A network that was trained on all images, the *reference*, looks at each. Of the N training images n are left out:

    high_energy     of those it classifies rightly the n of highest E(x)
    low_energy      of those it classifies rightly the n of lowest E(x)
    misclassified   n of those it misclassifies, drawn evenly
    random          n of all, drawn evenly

so that the arms differ in which images are missing and not in how many. E(x) is that of the natural image. Where hardly
any natural image is misclassified, right and wrong may be judged under the attack of training instead.
Departs from the paper, of which we know neither the number of images nor by which network they were chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from helpers import attacks, checks, energies, noise
from helpers.context import eval_mode, frozen
from helpers.data import ImageSet
from helpers.objectives import attack_settings

ARMS = ("high_energy", "low_energy", "misclassified", "random")
JUDGED = ("natural", "attacked")


@dataclass(frozen=True)
class Judgement:
    """What the reference says of N images: E(x), float32 (N,), and whether it classifies them rightly, bool (N,)."""

    energy: Tensor
    correct: Tensor


def rows(judgement: Judgement, *, arm: str, n: int, seed: int, index: Tensor) -> Tensor:
    """The n images that an arm of `ARMS` leaves out: rows in ascending order, int64 (n,).

    `index` (N,), the images' places in their data set, keys the draws with `seed`; of equal energies the earlier row
    comes first. Raises ValueError where fewer than n images are of the arm's kind.

    >>> seen = Judgement(torch.tensor([-3.0, -1.0, -2.0]), torch.tensor([True, False, True]))
    >>> rows(seen, arm="high_energy", n=1, seed=0, index=torch.arange(3))
    tensor([2])
    """
    checks.choice(arm, ARMS, "removed")
    energy, correct = judgement.energy, judgement.correct
    if not energy.shape == correct.shape == index.shape or energy.ndim != 1 or correct.dtype != torch.bool:
        got = f"{tuple(energy.shape)}, {tuple(correct.shape)} {correct.dtype}, {tuple(index.shape)}"
        raise ValueError(f"expected energy, correct (bool) and index of one shape (N,), got {got}")
    checks.count(n, "n")
    kind = {"misclassified": ~correct, "random": torch.ones_like(correct)}.get(arm, correct)
    candidates = kind.nonzero().flatten()
    if len(candidates) < n:
        found = f"{len(candidates)} of {len(energy)}"
        raise ValueError(
            f"expected {n} images to leave out as {arm}, got {found}: lower removed_share"
            + (", or judge under attack (removed_judged: attacked)" if arm == "misclassified" else "")
        )
    if arm in ("high_energy", "low_energy"):
        order = energy[candidates].argsort(descending=arm == "high_energy", stable=True)
    else:
        drawn = noise.integers(2**31, seed=seed, purpose=f"removal/{arm}", index=index[candidates])
        order = drawn.argsort(stable=True)
    return candidates[order[:n]].sort().values


@torch.no_grad()
def judge(network: nn.Module, images: ImageSet, *, entry: Mapping[str, Any], seed: int, batch_size: int) -> Judgement:
    """The judgement of `network`, in eval mode, on the CPU.

    Right and wrong as the recipe's `removed_judged` says: on natural images, or under CE-PGD in the recipe's ball with
    its n_steps and start, last iterate. Departs from training with KL-PGD, which this attack is not.
    """
    judged = checks.choice(entry["removed_judged"], JUDGED, "removed_judged")
    found: list[Judgement] = []
    with eval_mode(network), frozen(network):
        for batch in torch.arange(len(images), device=images.labels.device).split(batch_size):
            part = images.subset(batch)
            x, y = part.images(), part.labels
            logits = network(x).float()
            energy = energies.marginal(logits)
            if judged == "attacked":
                start: dict[str, Any] = {name: entry.get(name) for name in ("n_steps", "start", "start_std")}
                x_adv = attacks.pgd(
                    attacks.cross_entropy(network), x, y, **attack_settings(entry), **start, n_restarts=1,
                    returns="last", seed=seed, index=part.index, purpose="removal/attack",
                )  # fmt: skip
                logits = network(x_adv).float()
            found.append(Judgement(energy.cpu(), (logits.argmax(1) == y).cpu()))
    return Judgement(torch.cat([one.energy for one in found]), torch.cat([one.correct for one in found]))


def leave_out(
    images: ImageSet, reference: nn.Module, *, entry: Mapping[str, Any], seed: int, batch_size: int
) -> tuple[ImageSet, dict[str, Any]]:
    """The training images without those that the recipe's `removed` names, and what is to be said of them.

    `reference` is on the device of `images`. n is removed_share · N, rounded. The facts: arm, how many of how many were
    left out, how many the reference misclassified, and the mean E(x) (nat) of those left out and of those kept.
    """
    n = round(entry["removed_share"] * len(images))
    seen = judge(reference, images, entry=entry, seed=seed, batch_size=batch_size)
    gone = rows(seen, arm=entry["removed"], n=n, seed=seed, index=images.index.cpu())
    kept = torch.ones(len(images), dtype=torch.bool)
    kept[gone] = False
    energy = seen.energy.double()
    facts = {
        "arm": entry["removed"],
        "judged": entry["removed_judged"],
        "n": n,
        "of": len(images),
        "misclassified": int((~seen.correct).sum()),
        "misclassified_removed": int((~seen.correct[gone]).sum()),
        "energy_removed": energy[gone].mean().item() if n else None,
        "energy_kept": energy[kept].mean().item(),
    }
    return images.subset(kept.nonzero().flatten().to(images.labels.device)), facts

"""By how much a robust accuracy may be too high, as the checks of its notebook's attacks say (helpers.attack_health).

An attack that could not work leaves images standing, and never fells one too many: a bad check on a network means that
its robust accuracy may be too high, never too low. So that A is more robust than B is shaken, where it holds, by a
check on A and not by one on B, and where it fails, by one on B and not on A; of a bound, what lies above it is shaken
and what lies below is not. All of this comes of one rule (helpers.claims): the interval that decides is widened by the
doubt on the side where the doubt lies, and a verdict that does not survive it is undecided.

Not every bad check is such a doubt. Three say that the attack could not have worked (`blind`):

    check           images that it counts                           of PGD   of several attacks (SEVERAL)
    gradients       right, and the margin's gradient is 0 at them   k of n   k of n: only Square is left, or transfer
    gradients       the same, cross-entropy's alone                 k of n   none: attacks on the margin see
    large radius    stand where each can be made the same grey      k of n   none: PGD alone was tried
    outputs repeat  all, the network is random                      all      all

The doubt is their share: two points for one image of fifty, so that a check that is bad by a hair shakes only what
holds by a hair. The others are no such doubt. That Square or a transferred image fells what PGD does not (black box,
transfer), or PGD itself at a smaller radius (falls with radius), says that it is not the strongest attack; for that
the ensemble stands beside it, which counts what Square fells. An accuracy that is flat over small radii may be
robust. Other verdicts at radius 0, and probabilities in place of logits, are slips without a direction.

The checks are of the first seed of each network and of the first images: their share is taken for all seeds. What was
not examined is not doubted. Energies under attack are not judged here: of one that stands still they say too little,
by an amount that no check bounds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

SEVERAL = ("autoattack", "worst")  # names in a record of what several attacks leave standing, Square among them
COUNT = re.compile(r"(\d+) of (\d+) images")


@dataclass(frozen=True)
class Doubt:
    """A robust accuracy may be too high by `points`, and `why`: network, check and what the check says."""

    points: float
    why: str


def blind(check: str, message: str, *, attack: str | None) -> float:
    """The share of the images on which a bad check says that `attack` (None: PGD) could not have worked; 0: none.

    >>> blind("gradients", "the margin's gradient is 0 on 3 of 4 images: gradient attacks stand still", attack="worst")
    0.75
    >>> blind("black box", "1 of 50 images stand against the white-box attack and fall to the other", attack=None)
    0.0
    """
    several = attack in SEVERAL
    if check == "outputs repeat":
        return 1.0
    if check == "gradients":
        counts = not (several and message.startswith("cross-entropy"))
    else:
        counts = check == "large radius" and not several
    if not counts:
        return 0.0
    found = COUNT.search(message)
    return int(found[1]) / int(found[2]) if found else 1.0


def against(findings: pd.DataFrame, networks: Sequence[str], *, attack: str | None, accuracy: float) -> Doubt | None:
    """The largest doubt that the `findings` (network, check, ok, message) raise on a robust `accuracy` (%), if any.

    It is at most the accuracy itself, below 0 nothing falls.
    """
    bad = findings[~findings["ok"] & findings["network"].isin(networks)]
    worst = None
    for network, check, message in zip(bad["network"], bad["check"], bad["message"], strict=True):
        points = min(100 * blind(check, message, attack=attack), accuracy)
        if points > (worst.points if worst else 0):
            worst = Doubt(points, f"{network}: {check}, {short(message)}")
    return worst


def short(message: str) -> str:
    """What a check says, without what it means.

    >>> short("3 of 10 images stand within 0.55, where every image can be made the same grey: the attack fails")
    '3 of 10 images stand within 0.55'
    """
    return re.split(r"[,:(]", message)[0].strip()

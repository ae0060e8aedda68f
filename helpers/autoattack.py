"""AutoAttack's standard ensemble (Croce & Hein 2020), resumable: which images can be fooled within a radius.

APGD on cross-entropy, APGD on the targeted DLR, FAB-T and Square run in this order, each on the
images that still stand. Every attack stops at an image's first success, since only the verdict
counts. `standard` is the published ensemble, `evaluate` any part or budget of it, which is then
never called AutoAttack. The state of a long evaluation is kept in a folder (run_folder.py).

Departs from the authors' code: draws are keyed by image, so a verdict depends on neither batch
nor order; fooled images leave their batch at once; with K < 10 classes there are K − 1 targets.
With K < 4 the targeted DLR does not exist, as the authors say; its numerator z_t − z_y is raised
instead, and the result's name and notes say so.

With `precision` "bfloat16" APGD's gradients are of bfloat16; what these call fooled is asked of float32, and an image
whose success is denied stays in the search. FAB-T and Square stay in float32, in the fastest layout (`swift`), since in
bfloat16 both fool fewer: what they follow is finer than its logits. So a verdict is a fact of float32 either way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from helpers import apgd, balls, checks, fab, metrics, noise, run_folder, square, swift, victim
from helpers.balls import Norm
from helpers.metrics import Estimate
from helpers.verdicts import PRECISIONS, Precision
from helpers.victim import Cost, Victim

__all__ = ["ATTACKS", "STANDARD", "Budget", "Evaluation", "Progress", "evaluate", "standard"]

ATTACKS = {"apgd_ce": "APGD-CE", "apgd_dlr": "APGD-DLR", "apgd_t": "APGD-T", "fab_t": "FAB-T", "square": "Square"}
LOSSES = {"apgd_ce": "ce", "apgd_dlr": "dlr", "apgd_t": "targeted_dlr"}
STANDARD = ("apgd_ce", "apgd_t", "fab_t", "square")
FORMAT = 1  # of the state; raised when an attack changes, so that old verdicts are not mixed with new
FORWARD_ONLY = 4  # times as many images in a batch of Square, which keeps no graph and so needs less memory for each
CLEAN = "clean"  # what "broke" an image that the network gets wrong as it is


@dataclass(frozen=True)
class Budget:
    """How much each attack may try: steps of APGD and FAB-T for each target, targets, queries of Square."""

    n_steps: int = 100
    n_targets: int = 9
    n_queries: int = 5000


class Progress(NamedTuple):
    """What `callback` sees after each batch: attack, its run (target), images done and to do there, images standing."""

    attack: str
    run: int
    n_runs: int
    done: int
    total: int
    standing: int


@dataclass(frozen=True)
class Evaluation:
    """Verdicts on N images, and what they cost.

    `broken_by[i]` is "clean", the attack that fooled image i, or "" where it stands; `adversarial`
    (N, C, H, W) holds the points that fool, else the image itself. `accuracy` is the robust
    accuracy in percent after each attack, "clean" first; `seconds` and `cost` (images through the
    network) are of each attack, summed over a resumed evaluation.
    """

    name: str
    norm: Norm
    epsilon: float
    broken_by: tuple[str, ...]
    adversarial: Tensor
    accuracy: dict[str, Estimate]
    seconds: dict[str, float]
    cost: dict[str, Cost]
    notes: tuple[str, ...]

    @property
    def robust(self) -> Tensor:
        """Which images stand, bool (N,)."""
        return torch.tensor([not name for name in self.broken_by], dtype=torch.bool)

    @property
    def correct(self) -> Tensor:
        """Which images the network gets right unattacked, bool (N,)."""
        return torch.tensor([name != CLEAN for name in self.broken_by], dtype=torch.bool)

    @property
    def robust_accuracy(self) -> Estimate:
        """The robust accuracy after all attacks, in percent."""
        return list(self.accuracy.values())[-1]

    def rows(self) -> list[dict[str, object]]:
        """One row for each attack, for a table: accuracy after it, seconds, images forward and backward."""
        return [
            {
                "attack": ATTACKS.get(name, name),
                "robust_accuracy": estimate,
                "seconds": self.seconds.get(name, 0.0),
                "forward": self.cost.get(name, Cost()).forward,
                "backward": self.cost.get(name, Cost()).backward,
            }
            for name, estimate in self.accuracy.items()
        ]


class _Stage(NamedTuple):
    """One run of an attack: for a targeted one `run` is the target's rank, from 1."""

    attack: str
    run: int
    n_runs: int


@dataclass
class _Board:
    """The state of the evaluation while it runs."""

    broken_by: list[str]
    adversarial: Tensor
    ranked: Tensor  # classes other than y, likeliest first, (N, K); column 0 is y itself
    seconds: dict[str, float] = field(default_factory=dict)
    cost: dict[str, Cost] = field(default_factory=dict)
    doubts: int = 0

    def standing(self) -> Tensor:
        return torch.tensor([k for k, name in enumerate(self.broken_by) if not name], dtype=torch.int64)

    def enter(self, attack: str, part: dict[str, np.ndarray]) -> None:
        """Take in a finished part."""
        fooled = part["rows"][part["fooled"]]
        for row in fooled:
            self.broken_by[row] = attack
        self.adversarial[torch.from_numpy(fooled)] = torch.from_numpy(part["adversarial"]).to(self.adversarial)
        cost = self.cost.setdefault(attack, Cost())
        cost.forward += int(part["forward"])
        cost.backward += int(part["backward"])
        self.seconds[attack] = self.seconds.get(attack, 0.0) + float(part["seconds"])
        self.doubts += int(part["doubts"])


class _Task(NamedTuple):
    """What is evaluated."""

    x: Tensor
    y: Tensor
    keys: Tensor  # places in the data set, which key the draws
    norm: Norm
    epsilon: float
    budget: Budget
    seed: int
    num_classes: int


class _Seers(NamedTuple):
    judge: Victim  # the network as it decides
    climber: Victim  # as APGD sees it
    other: Victim  # as FAB-T and Square do


# One batch of one stage --------------------------------------------------------------------------------------------


def _search(stage: _Stage, seer: Victim, task: _Task, rows: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The attack's points for `rows`, and where it believes that they fool the network."""
    x, y, norm, epsilon = task.x[rows], task.y[rows], task.norm, task.epsilon
    key = noise.Key(task.seed, f"autoattack/{stage.attack}", task.keys[rows], stage.run)
    if stage.attack == "fab_t":
        near = fab.search(
            seer, x, y, target, norm=norm, epsilon=epsilon, n_steps=task.budget.n_steps, returns="first_success"
        )
        return near.x, near.fooled
    if stage.attack == "square":
        found = square.search(
            seer, x, y, norm=norm, epsilon=epsilon, n_queries=task.budget.n_queries, returns="first_success", key=key
        )
        return found.x, found.fooled
    found = apgd.climb(
        seer, x, y, target, loss=apgd.fitting(LOSSES[stage.attack], task.num_classes), norm=norm, epsilon=epsilon,
        n_steps=task.budget.n_steps, returns="first_success", key=key,
    )  # fmt: skip
    return found.x, found.fooled


def _part(stage: _Stage, seers: _Seers, task: _Task, rows: Tensor, target: Tensor) -> dict[str, np.ndarray]:
    """Attack one batch; what fools must be in the ball and fool the network when it is asked once more."""
    began = time.perf_counter()
    seer, guide = seers.judge, seers.climber if stage.attack in LOSSES else seers.other
    seer.cost = guide.cost = Cost()
    found, believed = _search(stage, guide, task, rows, target)
    wrong = seer.logits(found).argmax(1) != task.y[rows]
    fooled = believed & wrong & balls.inside(found, task.x[rows], norm=task.norm, epsilon=task.epsilon)
    return {
        "rows": rows.cpu().numpy(),
        "fooled": fooled.cpu().numpy(),
        "adversarial": found[fooled].cpu().numpy(),
        "doubts": np.array(int((believed & ~fooled).sum())),
        "forward": np.array(seer.cost.forward),
        "backward": np.array(seer.cost.backward),
        "seconds": np.array(time.perf_counter() - began),
    }


# The whole ---------------------------------------------------------------------------------------------------------


def _clean(seer: Victim, x: Tensor, y: Tensor, batch_size: int) -> _Board:
    """Unattacked: who stands, and the classes in the order of their logits."""
    began = time.perf_counter()
    logits = torch.cat([seer.logits(batch) for batch in x.split(batch_size)])
    checks.labels(y, num_classes=logits.shape[1])
    broken_by = [CLEAN if wrong else "" for wrong in (logits.argmax(1) != y).tolist()]
    ranked = logits.scatter(1, y[:, None], torch.inf).argsort(dim=1, descending=True, stable=True)
    seconds = {CLEAN: time.perf_counter() - began}
    return _Board(broken_by, x.detach().clone(), ranked, seconds, {CLEAN: Cost(len(x), 0)})


def _plan(attacks: Sequence[str], n_targets: int) -> list[_Stage]:
    return [
        _Stage(attack, run, n_runs)
        for attack in attacks
        for n_runs in [n_targets if attack in ("apgd_t", "fab_t") else 1]
        for run in range(1, n_runs + 1)
    ]


def _batches(rows: Tensor, batch_size: int) -> list[Tensor]:
    """As few batches as will do, of nearly equal size."""
    return list(rows.tensor_split(math.ceil(len(rows) / batch_size))) if len(rows) else []


def _run(
    seers: _Seers,
    task: _Task,
    board: _Board,
    plan: Sequence[_Stage],
    *,
    parts: run_folder.Parts | None,
    batch_size: int,
    callback: Callable[[Progress], None] | None,
) -> dict[str, Estimate]:
    """Go through the stages, taking parts that are finished from the state."""
    accuracy = {CLEAN: metrics.wilson(len(board.standing()), len(task.x))}
    for number, stage in enumerate(plan):
        standing, done = board.standing(), 0
        size = batch_size * FORWARD_ONLY if stage.attack == "square" else batch_size
        for k, rows in enumerate(_batches(standing, size)):
            part = None if parts is None else parts.read(number, k, rows.numpy())
            if part is None:
                here = rows.to(task.x.device)
                rank = stage.run if stage.n_runs > 1 else min(1, task.num_classes - 1)
                part = _part(stage, seers, task, here, board.ranked[here, rank])
                if parts is not None:
                    parts.write(number, k, part)
            board.enter(stage.attack, part)
            done += len(rows)
            if callback is not None:
                left = len(board.standing())
                callback(Progress(stage.attack, stage.run, stage.n_runs, done, len(standing), left))
        accuracy[stage.attack] = metrics.wilson(len(board.standing()), len(task.x))
    return accuracy


def _name(attacks: Sequence[str], budget: Budget, num_classes: int) -> str:
    """ "AutoAttack standard" for the whole of it only."""
    full = Budget()
    if tuple(attacks) == STANDARD and budget == full and num_classes >= 4:
        return "AutoAttack standard"
    n_targets = min(budget.n_targets, num_classes - 1)
    each = {
        "apgd_ce": f"{budget.n_steps} steps",
        "apgd_dlr": f"{budget.n_steps} steps",
        "apgd_t": f"{n_targets} × {budget.n_steps} steps",
        "fab_t": f"{n_targets} × {budget.n_steps} steps",
        "square": f"{budget.n_queries} queries",
    }
    less = not set(STANDARD) <= set(attacks) or num_classes < 4
    less = less or any(getattr(budget, name) < getattr(full, name) for name in ("n_steps", "n_targets", "n_queries"))
    kind = "reduced ensemble" if less else "own ensemble"
    return f"{kind} ({', '.join(f'{ATTACKS[a]} {each[a]}' for a in attacks)})"


def _notes(attacks: Sequence[str], budget: Budget, num_classes: int, doubts: int) -> tuple[str, ...]:
    notes = []
    targeted = [ATTACKS[a] for a in attacks if a in ("apgd_t", "fab_t")]
    if targeted and num_classes - 1 < budget.n_targets:
        notes.append(f"{num_classes} classes leave {num_classes - 1} targets for {' and '.join(targeted)}")
    if "apgd_t" in attacks and num_classes < 4:
        notes.append(f"{num_classes} classes have no targeted DLR: APGD-T raised its numerator z_t − z_y")
    if "apgd_dlr" in attacks and num_classes < 3:
        notes.append(f"{num_classes} classes have no DLR: APGD-DLR raised its numerator, the margin")
    if doubts:
        notes.append(f"{doubts} points that fooled the network once did not when it was asked again; they do not count")
    return tuple(notes)


@torch.no_grad()
def evaluate(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    attacks: Sequence[str],
    budget: Budget,
    norm: Norm,
    epsilon: float,
    seed: int,
    index: Tensor,
    batch_size: int,
    precision: Precision = "float32",
    folder: Path | str | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> Evaluation:
    """Run `attacks` (names of `ATTACKS`) in their order with a `budget`, each on the images that still stand.

    x (N, C, H, W) in [0, 1] on the network's device, labels y (N,), ε in the images' scale. `index`
    (N,) are the images' places in their data set: with `seed` they key every draw. With a `folder`
    each finished batch is kept there, and the same call goes on where it was killed; verdicts and
    adversarial images are the same to the bit as without the kill. `callback` sees `Progress` after
    each batch. `precision` of the search: see the module. Network and inputs are left as they were.

    Raises ValueError for bad input and for a folder of another evaluation (difference named),
    RuntimeError while another process uses the folder.
    """
    _check(network, x, y, attacks=attacks, budget=budget, norm=norm, epsilon=epsilon, index=index)
    checks.count(batch_size, "batch_size", minimum=1)
    checks.count(seed, "seed")
    checks.choice(precision, PRECISIONS, "precision")
    config = {
        "format": FORMAT, "network": run_folder.network_digest(network), "images": run_folder.digest(x),
        "labels": run_folder.digest(y), "index": run_folder.digest(index), "norm": norm, "epsilon": epsilon,
        "attacks": list(attacks), **vars(budget), "seed": seed, "batch_size": batch_size,
        **({} if precision == "float32" else {"precision": precision}),
    }  # fmt: skip
    state = nullcontext() if folder is None else run_folder.opened(folder, config)
    with state as parts, victim.attacked(network) as seer:
        board = _clean(seer, x, y, batch_size)
        num_classes = board.ranked.shape[1]
        halved = precision == "bfloat16"
        seers = _Seers(seer, *((swift.Guided(network, x), swift.Swift(network, x)) if halved else (seer, seer)))
        task = _Task(x.detach(), y, index.to(x.device), norm, epsilon, budget, seed, num_classes)
        plan = _plan(attacks, min(budget.n_targets, num_classes - 1))
        accuracy = _run(seers, task, board, plan, parts=parts, batch_size=batch_size, callback=callback)
    return Evaluation(
        _name(attacks, budget, num_classes), norm, epsilon, tuple(board.broken_by), board.adversarial, accuracy,
        board.seconds, board.cost, _notes(attacks, budget, num_classes, board.doubts),
    )  # fmt: skip


def standard(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: Norm,
    epsilon: float,
    seed: int,
    index: Tensor,
    batch_size: int,
    precision: Precision = "float32",
    folder: Path | str | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> Evaluation:
    """AutoAttack standard: APGD-CE, APGD-T, FAB-T (100 steps, 9 targets), Square (5,000 queries); see `evaluate`."""
    return evaluate(
        network, x, y, attacks=STANDARD, budget=Budget(), norm=norm, epsilon=epsilon, seed=seed, index=index,
        batch_size=batch_size, precision=precision, folder=folder, callback=callback,
    )  # fmt: skip


def _check(
    network: nn.Module, x: Tensor, y: Tensor, *, attacks: Sequence[str], budget: Budget, norm: str, epsilon: float,
    index: Tensor,
) -> None:  # fmt: skip
    checks.module(network)
    if not len(checks.images(x)):
        raise ValueError("expected at least one image, got none")
    checks.labels(y, x)
    checks.index(index, x)
    checks.choice(norm, balls.NORMS, "norm")
    checks.radius(epsilon)
    if not attacks or len(set(attacks)) != len(attacks):
        raise ValueError(f"expected attacks to name each attack once, got {list(attacks)}")
    for attack in attacks:
        checks.choice(attack, ATTACKS, "attack")
    checks.count(budget.n_steps, "n_steps", minimum=1)
    checks.count(budget.n_targets, "n_targets", minimum=1)
    checks.count(budget.n_queries, "n_queries", minimum=1)

"""Energies of natural images and of what an attack made of them, as tidy frames (ebm, 2.2 to 2.4).

One row for each network, attack, returned point and image:

    network, seed, attack, returns | image, label | E, E_y, E_adv, E_y_adv | correct, correct_adv, reached

E = E(x), E_y = E(x, y), the same with `_adv` at x*; y is always the true class, also for a targeted attack.
`correct`: the network is right on x, `correct_adv`: on x*; `reached`: x* is where the attack wants it.

Each attack gives two points: where it ends when nobody stops it (`attacks.NAMED[…].final`: the last iterate of PGD and
APGD, the closest point of FAB-T and CW, Square's highest margin), see `at_final`, and its first success.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers import attacks, energies, metrics, parameters, parts, records, style, tables, zoo
from helpers.data import ImageSet
from helpers.parameters import ROOT

if TYPE_CHECKING:
    from helpers.parameters import Parameters

METHOD = ["network", "attack", "returns"]
VIOLINS = ROOT / "params" / "published" / "ebm_violins.csv"
ABOVE = "robust accuracy (%): ours under PGD-CE, or with * the published one under AutoAttack (RobustBench)"
HEADERS = {  # metrics of `summary` that a table shows
    "share_lowered": "E(x) lowered (%)",
    "delta_energy": "mean ΔE(x) (nat)",
    "share_joint_lowered": "E(x, y) lowered (%)",
    "delta_joint_energy": "mean ΔE(x, y) (nat)",
    "robust_accuracy": "robust accuracy (%)",
    "success_rate": "aim reached (%)",
}


def measure(
    network: nn.Module, images: ImageSet, *, attack: str, epsilon: float, seed: int, batch_size: int, **options: Any
) -> dict[str, np.ndarray]:
    """Attack each image once (L∞, one random start); energies where the attack ends and at its first success.

    The first success is the first point, the start included, that has what the attack wants: what it returns when it
    stops as soon as it may. Where there is none, PGD, APGD and Square return their last or best point, FAB-T and CW
    the image itself. FGSM has only "last" (`attacks.both_points`). `epsilon` is in the scale of [0, 1] images;
    `options` are those of `attacks.run`. Returns the columns from "returns" on (see the module), one point after
    the other.
    """
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    settings = {"norm": "linf", "epsilon": epsilon, "seed": seed, "batch_size": batch_size, **options, "n_restarts": 1}
    for rows in torch.arange(len(images), device=images.labels.device).split(batch_size):
        part = images.subset(rows)
        # Laid out as convolutions like them: the same numbers within rounding, a tenth faster.
        x, y = part.images().contiguous(memory_format=torch.channels_last), part.labels
        clean = metrics.predictions(network, x, batch_size=batch_size)
        aim = attacks.aims(attack, network, x, y, seed=seed, index=part.index)
        for point, x_adv in attacks.both_points(attack, network, x, y, index=part.index, **settings).items():
            logits = metrics.predictions(network, x_adv, batch_size=batch_size)
            columns = _columns(part, clean, logits, goal=None if aim is None else aim.cpu())
            found.setdefault(point, []).append({"returns": np.full(len(part), point), **columns})
    blocks = [block for point in found.values() for block in point]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def attacked(
    p: Parameters, wanted: Mapping[str, Sequence[str]], *, images: ImageSet, device: torch.device, **setting: Any
) -> pd.DataFrame:
    """Pairs of each network in `wanted`, each of its seeds, under each of the attacks named for it (see the module).

    `setting` are `measure`'s; each pair of a network and an attack is a part of the run of `p`, so that one that was
    measured before is not measured again.
    """
    blocks = []
    for name, kinds in wanted.items():
        for k in zoo.seeds(name, profile=p.profile):
            net = zoo.get(name, profile=p.profile, seed=k, device=device)
            for kind in kinds:
                given = {"network": net, "images": images, "attack": kind, **setting}
                columns = parts.compute(p, f"{name}-{k}-{kind}", measure, **given)
                blocks.append(pd.DataFrame(columns).assign(network=name, seed=k, attack=kind))
    return pd.concat(blocks, ignore_index=True)


def _columns(part: ImageSet, clean: Tensor, logits: Tensor, *, goal: Tensor | None) -> dict[str, np.ndarray]:
    y = part.labels.cpu()
    right = logits.argmax(1) == y
    columns = {
        "image": part.index.cpu(),
        "label": y,
        "E": energies.marginal(clean),
        "E_y": energies.joint(clean, y),
        "E_adv": energies.marginal(logits),
        "E_y_adv": energies.joint(logits, y),
        "correct": clean.argmax(1) == y,
        "correct_adv": right,
        "reached": ~right if goal is None else logits.argmax(1) == goal,
    }
    return {name: column.numpy() for name, column in columns.items()}


def deltas(pairs: pd.DataFrame) -> pd.DataFrame:
    """The same rows with ΔE(x) = E(x) − E(x*) as "delta_E" and ΔE(x, y) as "delta_E_y"; positive: lowered.

    >>> deltas(pd.DataFrame({"E": [-5.0], "E_adv": [-8.0], "E_y": [-5.0], "E_y_adv": [1.0]}))[["delta_E", "delta_E_y"]]
       delta_E  delta_E_y
    0      3.0       -6.0
    """
    return pairs.assign(delta_E=pairs["E"] - pairs["E_adv"], delta_E_y=pairs["E_y"] - pairs["E_y_adv"])


def at_final(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows, of images or of a record's scalars, at the point where each attack ends when nobody stops it.

    >>> at_final(pd.DataFrame({"attack": ["cw", "cw", "fgsm"], "returns": ["last", "closest", "last"]}))
      attack  returns
    1     cw  closest
    2   fgsm     last
    """
    return frame[frame["returns"] == frame["attack"].map(lambda name: attacks.NAMED[name].final)]


def side_by_side(pairs: pd.DataFrame) -> pd.DataFrame:
    """One row for each image with E(x*) and E(x*, y) of both points: "E_final", "E_first_success", "E_y_final", ….

    Attacks that have one point only (FGSM) are left out.
    """
    key = ["network", "seed", "attack", "image"]
    points = {"final": at_final(pairs), "first_success": pairs[pairs["returns"] == "first_success"]}
    both = [rows.rename(columns={"E_adv": f"E_{point}", "E_y_adv": f"E_y_{point}"}) for point, rows in points.items()]
    kept = [*key, "E_first_success", "E_y_first_success"]
    return both[0].drop(columns="returns").merge(both[1][kept], on=key, validate="one_to_one")


def summary(pairs: pd.DataFrame) -> list[records.Scalar]:
    """Scalars for a record, for each network, attack and point: shares lowered, mean ΔE, accuracies.

    One trained network: Wilson intervals for shares, the mean over images with its normal interval for ΔE. Several
    seeds: the mean over seeds with Student's t, since then the method is measured and not one network.
    """
    return [row for _, method in deltas(pairs).groupby(METHOD, sort=False) for row in _scalars(method)]


def _scalars(method: pd.DataFrame) -> Iterator[records.Scalar]:
    first = method.iloc[0]
    seeds = sorted(int(seed) for seed in method["seed"].unique())
    where: dict[str, Any] = {name: str(first[name]) for name in METHOD} | (
        {"seed": seeds[0]} if len(seeds) == 1 else {}
    )
    n = int((method["seed"] == seeds[0]).sum())
    shares = {
        "share_lowered": method["delta_E"] > 0,
        "share_joint_lowered": method["delta_E_y"] > 0,
        "accuracy": method["correct"],
        "robust_accuracy": method["correct_adv"],
        "success_rate": method["reached"],
    }
    means = {"delta_energy": method["delta_E"], "delta_joint_energy": method["delta_E_y"]}
    for metric, values in {**shares, **means}.items():
        by_seed = [values[method["seed"] == seed].to_numpy() for seed in seeds]
        estimate = _over_seeds(by_seed, share=metric in shares) if len(seeds) > 1 else None
        if estimate is None:
            one = metrics.accuracy if metric in shares else metrics.mean_over_images
            estimate = one(by_seed[0])
        yield records.scalar(metric, estimate, n=n, seeds=seeds, **where)
    spread = [float(method.loc[method["seed"] == seed, "delta_E"].std(ddof=0)) for seed in seeds]
    yield records.scalar("delta_energy_std", float(np.mean(spread)), n=n, seeds=seeds, **where)


def _over_seeds(by_seed: list[np.ndarray], *, share: bool) -> metrics.Estimate:
    values = np.array([block.mean(dtype=np.float64) for block in by_seed])
    estimate = metrics.student_t(100 * values if share else values)
    if not share:
        return estimate
    # t knows no bounds; a share does
    return replace(estimate, low=max(estimate.low, 0.0), high=min(estimate.high, 100.0))


def identities(network: nn.Module, images: ImageSet, *, batch_size: int) -> list[records.Scalar]:
    """`identity_errors` on the network's logits of each image, paired with those of the image before it."""
    logits = metrics.predictions(network, images.images(), batch_size=batch_size)
    return identity_errors((logits, logits.roll(1, 0)), images.labels.cpu())


def identity_errors(pairs_of_logits: tuple[Tensor, Tensor], y: Tensor) -> list[records.Scalar]:
    """How far CE(x, y) = E(x, y) − E(x) and KL in energies (ebm, Proposition 1) are from PyTorch's own CE and KL.

    `pairs_of_logits`: f(x) and f(x*), (B, K) each; `y` (B,). For float64 and float32 the largest deviation over the
    batch divided by max(1, |E|), the largest energy in play being what float32 rounds.
    """
    rows = []
    for dtype in (torch.float64, torch.float32):
        f, g = (logits.to(dtype) for logits in pairs_of_logits)
        scale = torch.maximum(energies.marginal(f).abs(), energies.marginal(g).abs())
        scale = torch.maximum(scale, torch.maximum(energies.joint(f, y).abs(), energies.joint(g, y).abs())).clamp_min(1)
        ce = F.cross_entropy(g, y, reduction="none") - energies.cross_entropy(g, y)
        log_p, log_q = f.log_softmax(1), g.log_softmax(1)
        kl = F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1) - energies.kl_from_energies(f, g)
        for name, gap in {"CE": ce, "KL": kl}.items():
            worst = float((gap.abs() / scale).max())
            rows.append(records.scalar("identity_error", worst, n=len(y), identity=name, dtype=str(dtype)[6:]))
    return rows


def reading(scalars: pd.DataFrame, **where: str) -> str:
    """What a record of `summary` says, a line for each network, attack and point that agrees with `where`."""
    chosen = scalars[scalars["metric"].isin(["share_lowered", "delta_energy"])]
    for column, value in where.items():
        chosen = chosen[chosen[column] == value]
    lines = []
    for key, method in chosen.groupby(METHOD, sort=False):
        rows = {row["metric"]: row for row in method.to_dict("records")}
        share, mean = (
            tables.Interval(*(rows[m][k] for k in ("value", "low", "high"))) for m in ("share_lowered", "delta_energy")
        )
        seeds = rows["delta_energy"]["seeds"]
        over = f"{rows['delta_energy']['n']:g} images" + (f" × {len(seeds)} seeds" if len(seeds) > 1 else "")
        way = "lowered" if (mean.low or 0) > 0 else "raised" if (mean.high or 0) < 0 else "no clear sign"
        name = ", ".join(style.label(part) for part in key)
        lines.append(f"{name}: E(x) lowered on {share} % of {over}; mean ΔE(x) {mean} nat: {way}")
    return "\n".join(lines)


# Violins of several networks --------------------------------------------------------------------------------------


def published_accuracy(names: Sequence[str], *, profile: str) -> dict[str, float]:
    """AutoAttack accuracy in percent, as RobustBench gives it, of those networks that are RobustBench's."""
    accuracy = pd.read_csv(VIOLINS).set_index("model_id")["autoattack"].to_dict()
    ids = {name: parameters.recipe(profile, name).entry.get("model_id") for name in names}
    return {name: float(accuracy[model]) for name, model in ids.items() if model in accuracy}


def above(scalars: pd.DataFrame, names: Sequence[str], *, profile: str) -> dict[str, str]:
    """What is printed over each violin: the published accuracy under AutoAttack with a star, else ours.

    `scalars` are those of `summary` on one attack and point.
    """
    theirs = published_accuracy(names, profile=profile)
    ours = scalars[scalars["metric"] == "robust_accuracy"].set_index("network")["value"]
    return {name: f"{theirs[name]:.1f}*" if name in theirs else f"{ours[name]:.1f}" for name in names}


def spreads(scalars: pd.DataFrame) -> str:
    """The standard deviation of ΔE(x) over images by network, widest first, with our robust accuracy beside it."""
    chosen = scalars[scalars["metric"].isin(["delta_energy_std", "robust_accuracy"])]
    wide = chosen.pivot_table(index="network", columns="metric", values="value", sort=False)
    wide = wide.sort_values("delta_energy_std", ascending=False)
    lines = [
        f"{style.label(name)}: standard deviation of ΔE(x) over images {row['delta_energy_std']:.3g} nat, "
        f"robust accuracy {row['robust_accuracy']:.1f} %"
        for name, row in wide.iterrows()
    ]
    return "\n".join(lines)

"""The curves of mean ΔE(x) that the paper prints, digitised, beside ours of 02_training_dynamics."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from helpers import metrics, style, tables
from helpers.parameters import ROOT

__all__ = ["at_epochs", "beside", "curves", "ending"]

# Figure of the paper → our recipe → name in params/published/ebm_delta_energy_curves.csv.
PUBLISHED = {
    "1a": {"madry": "SAT", "trades": "TRADES"},
    "weighted": {"weat_adv": "WEAT_adv", "weat_nat": "WEAT_nat", "mail_trades": "MAIL-TRADES", "trades": "TRADES"},
}
THEIRS = {"1a": "published, CIFAR-10", "weighted": "published"}  # the second figure does not say its data


def curves() -> pd.DataFrame:
    """The paper's mean ΔE(x) (Fig. 1a, digitised, CIFAR-10, 100 epochs), every third epoch, as `dynamics.curves`.

    Straight lines between the digitised points; network "SAT" and "TRADES", seed 0, epoch, delta_energy.
    """
    points = _published("1a")
    blocks = []
    for name, theirs in points.groupby("method", sort=False):
        epochs = np.arange(theirs["epoch"].min(), theirs["epoch"].max() + 1, 3)
        values = np.interp(epochs, theirs["epoch"], theirs["mean_delta_energy"])
        blocks.append(pd.DataFrame({"network": name, "seed": 0, "epoch": epochs, "delta_energy": values}))
    return pd.concat(blocks, ignore_index=True)


def _published(figure: str) -> pd.DataFrame:
    points = pd.read_csv(ROOT / "params" / "published" / "ebm_delta_energy_curves.csv")
    return points[points["figure"] == figure]


def beside(ours_by_epoch: pd.DataFrame, *, data: str, figure: str = "1a", of: float = 100) -> pd.DataFrame:
    """The paper's curves of mean ΔE(x) (a figure of `PUBLISHED`, digitised, `of` epochs) beside ours on `data`.

    `ours_by_epoch` are `dynamics.curves` of one probe. Each published epoch stands beside the same fraction of our
    training, ours as mean over seeds with Student's t. One row for each method that both have and each published epoch.
    """
    published, rows = _published(figure), []
    for network, method in ours_by_epoch.groupby("network", sort=False):
        name = PUBLISHED[figure].get(str(network).partition("@")[0])
        theirs = published[published["method"] == name]
        at = theirs["epoch"].to_numpy()
        ours = np.array(
            [
                at_epochs(c["epoch"].to_numpy(), c["delta_energy"].to_numpy(), at, of=of)
                for _, c in method.groupby("seed")
            ]
        )
        last = int(method["epoch"].max())
        for k, (epoch, value) in enumerate(zip(at, theirs["mean_delta_energy"], strict=True)):
            row = {"method": f"{name} / {network}", "published epoch": int(epoch), THEIRS[figure]: float(value)}
            row |= {"our epoch": float(max(1.0, epoch / of * last)), f"ours, {data}": metrics.student_t(ours[:, k])}
            rows.append(row)
    return pd.DataFrame(rows)


def at_epochs(epochs: np.ndarray, values: np.ndarray, at: np.ndarray, *, of: float) -> np.ndarray:
    """Read a curve at the same *fraction of training* as another: `at` epochs out of `of`, linearly interpolated.

    Our training is shorter than the published one, so epoch 78 of 100 stands beside 78 % of ours.

    >>> at_epochs(np.arange(11.0), np.arange(11.0) ** 2, np.array([50.0, 98.0]), of=100)
    array([25. , 96.2])
    """
    t = np.asarray(epochs, dtype=float)
    return np.interp(np.asarray(at, dtype=float) / of * float(t.max()), t, np.asarray(values, dtype=float))


def ending(scalars: pd.DataFrame, *, probe: str) -> str:
    """Where the weighted methods end, for a reader: by |mean ΔE(x)| in a record of `dynamics.final`, and published."""
    rows = scalars[(scalars["metric"] == "delta_energy") & (scalars["probe"] == probe)]
    rows = rows.iloc[rows["value"].abs().argsort(kind="stable")]
    ours = [
        f"{style.label(row['network'])} {tables.Interval(row['value'], row['low'], row['high'])}"
        for row in rows.to_dict("records")
    ]
    # Neighbours in this order are told apart where the intervals of their means do not overlap.
    pairs = list(itertools.pairwise(rows[["low", "high"]].to_numpy(dtype=float)))
    apart = sum(bool(a[1] < b[0] or b[1] < a[0]) for a, b in pairs)
    last = _published("weighted").groupby("method", sort=False)["mean_delta_energy"].last()
    theirs = [f"{name} {value:g}" for name, value in last.loc[last.abs().sort_values().index].items()]
    names = [PUBLISHED["weighted"].get(str(name).partition("@")[0]) for name in rows["network"]]
    same = names == [text.partition(" ")[0] for text in theirs]
    told = f"{apart} of {len(pairs)} neighbours in it are told apart by their intervals."
    if rows["seeds"].map(len).max() == 1:
        told = "with one network each there is no interval to tell them apart."
    return (
        f"Ours, {probe} images, by |ΔE|: {', '.join(ours)} nat. Published: {', '.join(theirs)}. "
        f"The order is {'the same' if same else 'another'}; {told}"
    )

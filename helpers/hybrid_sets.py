"""Sample sets of the methods of `hybrid_methods`: made, scored as those of 04_generation are, and put into records.

    ablation, case, network, …knobs, seed | n_images, extractor, …, a column for each number

Set k is drawn by the network of seed k; all methods share classes, start noise and chain noise image by image, so a
difference of two is taken set by set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from helpers import (
    generated,
    generation,
    hybrid_methods,
    image_quality,
    metrics,
    records,
    sample_sets,
    setting_runs,
    style,
    tables,
    zoo,
)
from helpers.data import ImageSet
from helpers.extractors import Extractor
from helpers.generated import as_frame as as_frame
from helpers.generated import protocol as protocol
from helpers.hybrid_methods import Case, Method
from helpers.image_quality import Protocol
from helpers.starts import Start

COLOUR = style.NATURAL  # of all cases of an ablation: they are no methods with colours of their own
Pieces = Mapping[tuple[str, int], Mapping[str, np.ndarray]]  # by the method's key and the number of the set


def network_of(method: Method, number: int, *, profile: str, device: Any) -> nn.Module:
    """The network of sample set `number`: the recipe's seeds in turn."""
    seed = sample_sets.seed_of(number, zoo.seeds(method.network, profile=profile))
    return zoo.get(method.network, profile=profile, seed=seed, device=device)


def measure(
    *,
    network: nn.Module,
    begin: Start,
    method: Method,
    y: Tensor,
    index: Tensor,
    seed: int,
    batch_size: int,
    reference: ImageSet,
    extractor: Extractor,
    feature: str,
    judge: Extractor,
    folder: Path,
) -> dict[str, np.ndarray]:
    """One set of a method, as `sample_sets.sample_set` has it, with `saturation` (%) and `contrast` of its images.

    `begin` is the class Gaussian, where every method's images come from: `moved` is the distance from its draws. For
    parts.compute_in_folder.
    """
    start = hybrid_methods.start_of(method, begin, network)
    found = sample_sets.sample_set(
        network, start, y=y, index=index, seed=seed, batch_size=batch_size, reference=reference, extractor=extractor,
        feature=feature, judge=judge, folder=folder, origin=begin, **method.chain,
    )  # fmt: skip
    images = np.load(folder / generation.IMAGES, mmap_mode="r")
    spread = {"saturation": setting_runs.saturation(images), "contrast": setting_runs.contrast(images)}
    return found | {name: np.array(value) for name, value in spread.items()}


# For the records ----------------------------------------------------------------------------------------------------


def frame(cases: Sequence[Case], pieces: Pieces) -> pd.DataFrame:
    """One row for each case and set; a knob that a method does not take is NaN, or "" where it is a name."""
    rows = []
    for case in cases:
        plain = {key: _filled(key, value) for key, value in case.place.items()}
        for (key, number), piece in pieces.items():
            if key == case.method.key:
                rows.append(plain | {"seed": number} | generated.numbers(piece))
    return pd.DataFrame(rows)


def _filled(key: str, value: Any) -> Any:
    if value is None:
        return "" if key == "chain_energy" else math.nan
    return value


def summary(cases: Sequence[Case], pieces: Pieces) -> list[records.Scalar]:
    """Scalars for a record: each number of each case, the mean over its sets with Student's t interval."""
    rows = []
    for case in cases:
        several = {number: piece for (key, number), piece in pieces.items() if key == case.method.key}
        rows += generated.of_sets(list(several.values()), list(several), **case.place)
    return rows


def first(cases: Iterable[Case], pieces: Pieces, *, ablation: str, n_each: int) -> dict[str, np.ndarray]:
    """The first `n_each` images of each class of set 0, by case: (K · n_each, C, H, W) uint8."""
    chosen = [case for case in cases if case.ablation == ablation]
    return {case.case: sample_sets.by_class(pieces[case.method.key, 0], n_each) for case in chosen}


# For a reader -------------------------------------------------------------------------------------------------------


def against(sets: pd.DataFrame, metric: str, case: str, other: str, *, ablation: str) -> metrics.Estimate:
    """The metric of a case less that of another, set by set, with Student's interval over the sets.

    >>> rows = [{"ablation": "table", "case": case, "seed": k, "kid": v + k} for k in range(3) for case, v in
    ...     {"a": 1.0, "b": 0.5}.items()]
    >>> against(pd.DataFrame(rows), "kid", "a", "b", ablation="table").value
    0.5
    """
    own = sets[sets["ablation"] == ablation]
    values = [own[own["case"] == name].set_index("seed")[metric] for name in (case, other)]
    return metrics.over_sets((values[0] - values[1]).to_numpy())


def headers(protocol: Protocol) -> dict[str, str]:
    """What the columns are called: scores with their extractor, our own numbers with their unit."""
    more = {"saturation": "saturation (%)", "contrast": "contrast"}
    return generated.headers(protocol) | more


def panels(scalars: pd.DataFrame, protocol: Protocol) -> dict[str, str]:
    """The numbers that pictures show, with their axes: those of them that were measured."""
    shown = (image_quality.frechet_name(protocol), "inception_score", "diversity", "saturation")
    named = headers(protocol)
    return {name: named[name] for name in shown if name in set(scalars["metric"])}


def table(scalars: pd.DataFrame, protocol: Protocol, *, ablation: str) -> pd.DataFrame:
    """The cases of an ablation, one row each, with their intervals; a score that was not measured has no column."""
    own = scalars[scalars["ablation"] == ablation]
    named = {name: head for name, head in headers(protocol).items() if name in set(own["metric"])}
    return tables.wide(own, rows=["case"], metrics=list(named)).rename(columns=named)

"""What sets of generated images came to: one row for each set, means with intervals over sets, and what they say.

    network, start, sampler, seed | n_images, extractor, feature, reference, frechet_distance, kid, precision, …

`seed` is the number of the sample set, which is the network's seed where it has as many. In the frame every Fréchet
distance stands under one name, as the claims ask for it, with its extractor beside it; the scalars and the tables name
it by its protocol (FID, FID-64, FD (judge …)).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers import image_quality, metrics, parameters, records, sample_sets, style, tables
from helpers.image_quality import Protocol
from helpers.parameters import ROOT
from helpers.sample_sets import Place

Piece = Mapping[str, np.ndarray]
Pieces = Mapping[tuple[Place, int], Piece]
KEYS = ("network", "start", "sampler")
SAID = {
    "start_only": "start alone",
    "plain": "plain SGLD",
    "momentum": "with momentum",
    "long_step": "longer step",
}
MORE = ("saturation", "contrast")  # numbers of a piece that only some notebooks measure


def way(start: str, sampler: str) -> str:
    """A start and a sampler in words.

    >>> way("class_pca", "momentum"), way("uniform", "start_only")
    ('class PCA, with momentum', 'uniform noise, start alone')
    """
    return f"{style.label(start)}, {SAID[sampler]}"


# For the records


def frame(pieces: Pieces) -> pd.DataFrame:
    """One row for each set; times are left out, since they differ from run to run."""
    rows = []
    for (place, number), piece in pieces.items():
        where = {"network": place.network, "start": place.start, "sampler": place.sampler, "seed": number}
        rows.append(where | numbers(piece))
    return pd.DataFrame(rows)


def numbers(piece: Piece) -> dict[str, Any]:
    """A set's row without what says where it was measured: n_images, the protocol in short, and each number."""
    found = sample_sets.scores_of(piece)
    p = found.protocol
    values = {name: one.value for name, one in found.estimates.items()}
    values["frechet_distance"] = values.pop(image_quality.frechet_name(p))
    own = {name: value for name, value in _own(piece).items() if name != "seconds_per_image"}
    about = {"n_images": p.n, "extractor": p.extractor, "feature": p.feature, "reference": p.reference}
    return about | values | own


def _own(piece: Piece) -> dict[str, float]:
    """What a set is measured by besides its scores; `MORE` where the piece has it."""
    more = {name: float(piece[name]) for name in MORE if name in piece}
    return more | {
        "class_agreement": 100 * float(piece["agrees"].mean()),
        "diversity": sample_sets.diversity_of(piece).value,
        "moved_distance": float(piece["moved"].mean()),
        "joint_energy": float(piece["joint"].mean()),
        "energy": float(piece["marginal"].mean()),
        "seconds_per_image": float(piece["seconds"]) / len(piece["agrees"]),
    }


def _by_place(pieces: Pieces) -> dict[Place, list[Piece]]:
    found: dict[Place, list[Piece]] = {}
    for (place, _), piece in pieces.items():
        found.setdefault(place, []).append(piece)
    return found


def summary(pieces: Pieces) -> list[records.Scalar]:
    """Scalars for a record: of each network, start and sampler the mean over its sets with Student's t interval."""
    rows = []
    for place, several in _by_place(pieces).items():
        where: dict[str, Any] = {"network": place.network, "start": place.start, "sampler": place.sampler}
        rows += of_sets(several, [number for one, number in pieces if one == place], **where)
    return rows


def of_sets(several: Sequence[Piece], seeds: Sequence[int], **where: Any) -> list[records.Scalar]:
    """Scalars of the independent sets of one method: the mean of each number with Student's t interval."""
    found = image_quality.over_sets([sample_sets.scores_of(piece) for piece in several])
    rows, each, n = found.scalars(seeds=seeds, **where), [_own(piece) for piece in several], found.protocol.n
    for name in each[0]:
        estimate = metrics.over_sets([one[name] for one in each], share_of=n if name == "class_agreement" else None)
        if parameters.metrics()[name].unit == "%":
            estimate = metrics.cut(estimate, low=0.0, high=100.0)
        value = estimate.value if name == "seconds_per_image" else estimate  # of a machine: no spread of a method
        rows.append(records.scalar(name, value, n=n, seeds=seeds, sets=len(several), **where))
    return rows


def protocol(pieces: Mapping[tuple[Any, int], Piece]) -> Protocol:
    """The one protocol of all sets, by whatever method and number; ValueError where they differ in it."""
    return image_quality.same_protocol(
        {f"{getattr(place, 'key', place)}-{k}": sample_sets.scores_of(one) for (place, k), one in pieces.items()}
    )


def label(name: str) -> str:
    """What a network or a start is called in text."""
    return style.label(name)


def described(protocol: Protocol) -> str:
    """The protocol in a sentence, for a caption."""
    return image_quality.described(protocol)


def as_frame(protocol: Protocol) -> pd.DataFrame:
    """A protocol for a record: one row for each of its entries, `name` and `value` as text."""
    return pd.DataFrame(list(image_quality.entries(protocol).items()), columns=["name", "value"])


# For a reader


def headers(protocol: Protocol) -> dict[str, str]:
    """What the columns of `table` are called: each score with its extractor, our own measures with their unit."""
    scores = (image_quality.frechet_name(protocol), "kid", "inception_score", "precision", "recall")
    units = {"precision": " (%)", "recall": " (%)"}
    named = {name: image_quality.title(name, protocol) + units.get(name, "") for name in scores}
    return named | {
        "class_agreement": "class agreement (%)",
        "diversity": "diversity",
        "moved_distance": "moved (L2)",
        "seconds_per_image": "s per image",
    }


def axes(protocol: Protocol, *measures: str) -> dict[str, str]:
    """Labels for the axes of `plots.interval_dots`, with the Fréchet distance first, under that name."""
    named = headers(protocol)
    return {"frechet_distance": named[image_quality.frechet_name(protocol)]} | {one: named[one] for one in measures}


def table(scalars: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """A record of `summary`: one row for each network, start and sampler; LPIPS, which is not run, says so.

    A score that the extractor is not enough for has no column.
    """
    measured = set(scalars["metric"])
    named = {name: head for name, head in headers(protocol).items() if name in measured}
    found = tables.wide(scalars, rows=KEYS, metrics=list(named))
    found["network"] = found["network"].map(style.label)
    found["start"] = found["start"].map(style.label)
    found["sampler"] = found["sampler"].map(SAID)
    return found.rename(columns=named).assign(LPIPS="not run")


def beside_published(scalars: pd.DataFrame, protocol: Protocol, *, place: Place) -> pd.DataFrame:
    """Published IS and FID of classifiers that generate, on CIFAR-10, and ours of `place` in columns of its own.

    They are comparable only where ours are Inception's at 2048 features against CIFAR-10's training images.
    """
    theirs = pd.read_csv(ROOT / "params" / "published" / "generation.csv")
    theirs = theirs[~theirs["trust"].isin(list(tables.UNCERTAIN))]
    out = pd.DataFrame(
        {
            "model": theirs["model"],
            "trained to generate": theirs["generative_training"],
            "IS, published": theirs["IS"],
            "FID, published": theirs["FID"],
            "source": theirs["source"],
            "trust": theirs["trust"],
        },
        dtype=object,
    )
    names = {name: f"{title}, ours" for name, title in headers(protocol).items()}
    own = scalars[(scalars[list(KEYS)] == [place.network, place.start, place.sampler]).all(axis=1)]
    line: dict[str, Any] = {"model": f"ours: {style.label(place.network)}, {way(place.start, place.sampler)}"}
    line |= {"trained to generate": "no"}
    for name in ("inception_score", image_quality.frechet_name(protocol)):
        for row in own[own["metric"] == name].to_dict("records"):
            line[names[name]] = interval(row)
    return pd.concat([out, pd.DataFrame([line], dtype=object)], ignore_index=True)


def comparable(protocol: Protocol) -> bool:
    """Whether published IS and FID on CIFAR-10 are of the same kind as scores of this protocol."""
    return protocol.official and protocol.feature == "2048" and protocol.reference == "cifar10/train"


def interval(row: Mapping[Any, Any]) -> tables.Interval:
    """A scalar of a record with its interval, as tables print it."""
    low, high = (None if row[end] is None or pd.isna(row[end]) else float(row[end]) for end in ("low", "high"))
    return tables.Interval(float(row["value"]), low, high)


def marks(record: records.Record, measures: Iterable[str], **where: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The record of `summary` and `frame` for `plots.interval_dots`: its means, and its sets under "seeds".

    Both get the columns `way` (start and sampler), `who` (network and start) and `measure`; a Fréchet distance stands
    under that name, whatever its extractor. `where` lists the values of columns that are meant.
    """
    scalars = record.scalars
    scalars = scalars.assign(measure=scalars["metric"].str.replace(r"^fid(_\d+)?$", "frechet_distance", regex=True))
    keys = [*KEYS, "way", "who", "seed"]
    sets = _named(record.frame("sets")).melt(id_vars=keys, value_vars=list(measures), var_name="measure")
    both = {"means": _named(scalars), "seeds": sets}
    for key, values in where.items():
        both = {name: rows[rows[key].isin(values)] for name, rows in both.items()}
    return both


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    ways = [way(start, sampler) for start, sampler in zip(rows["start"], rows["sampler"], strict=True)]
    who = [f"{name}@{style.label(start)}" for name, start in zip(rows["network"], rows["start"], strict=True)]
    return rows.assign(way=ways, who=who)


def reading(
    sets: pd.DataFrame, metric: str, *, over: str, values: Sequence[str], beside: str = "next", **where: str
) -> str:
    """Each of `values` of the column `over` beside the next, set by set: a line with the difference and its interval.

    With `beside` "first" it is the first of them that stands beside each other.

    `where` says which of the other rows are meant. Pairs are sets of one number: the same seed of the network, the
    same noise.
    """
    chosen = sets
    for key, value in where.items():
        chosen = chosen[chosen[key] == value]
    by = {value: chosen[chosen[over] == value].set_index("seed")[metric] for value in values}
    lines = []
    pairs = itertools.pairwise(values) if beside == "next" else [(values[0], other) for other in values[1:]]
    for one, two in pairs:
        found = metrics.over_sets((by[one] - by[two]).to_list())
        said = metrics.told_apart(found, "higher", "lower")
        names = [SAID.get(value, style.label(value)) for value in (one, two)]
        lines.append(f"{names[0]} − {names[1]}: {found}, {said} ({len(by[one])} sets)")
    return "\n".join(lines)

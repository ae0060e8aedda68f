"""What a reader is told of the methods of Robust JEM: Table 1 with the published rows, and differences in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from helpers import generated, hybrid_sets, image_quality, style, tables
from helpers.hybrid_methods import PUBLISHED, TABLE
from helpers.image_quality import Protocol
from helpers.metrics import told_apart
from helpers.parameters import ROOT

SOURCE = ROOT / "params" / "published" / "rjem_table1.csv"
NOT_RUN = "published only"
WAYS = {
    "start_only": "no step",
    "jempp": "chain on E(x)",
    "jempp_joint": "chain on E(x,y)",
    "robust_classifier": "targeted PGD (L∞)",
    "robust_classifier_l2": "targeted PGD (L2)",
    "robust_jem_energy": "chain on E(x)",
    "robust_jem_energy_joint": "chain on E(x,y)",
    "robust_jem": "PGD → contrast → chain on E(x,y)",
}
OURS = {
    "start_only": "Class Gaussian",
    "jempp_joint": "JEM++",
    "robust_classifier_l2": "Single Robust Classifier",
    "robust_jem_energy_joint": "Robust JEM-Energy",
}
# What each comparison is of: more of these is better, of the Fréchet distance and of KID less.
COMPARED = ("inception_score", "frechet_distance", "kid", "recall", "diversity")


def named(case: str) -> str:
    """A method of Table 1 in words; any other case as it is.

    >>> named("robust_jem_energy"), named("m = 50")
    ('Robust JEM-Energy, chain on E(x)', 'm = 50')
    """
    if case not in WAYS:
        return style.label(case)
    return f"{PUBLISHED[case] or OURS[case]}, {WAYS[case]}"


def table_1(scalars: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """Table 1: the six published rows in their order with ours beside them, then what only we have, a row each.

    Published IS and FID stand in columns of their own; a row that is not run here says so and has no numbers of ours.
    """
    theirs = pd.read_csv(SOURCE).set_index("model")
    ours = hybrid_sets.table(scalars, protocol, ablation=TABLE).set_index("case")
    case_of = {printed: case for case, printed in PUBLISHED.items() if printed}
    rows: list[dict[str, Any]] = []
    for model, published in theirs.iterrows():
        case = case_of.get(str(model))
        rows.append(
            _row(str(model), case, ours) | {"IS, published": published["IS"], "FID, published": published["FID"]}
        )
    rows += [_row(OURS[case], case, ours) for case in PUBLISHED if PUBLISHED[case] is None]
    first = ["model", "images by", "IS, published", "FID, published"]
    return pd.DataFrame(rows, columns=[*first, *ours.columns], dtype=object)


def _row(model: str, case: str | None, ours: pd.DataFrame) -> dict[str, Any]:
    line = {"model": model, "images by": NOT_RUN if case is None else WAYS[case]}
    return line if case is None else line | dict(ours.loc[case])


SHOWN = ("kid", "inception_score", "precision", "recall", "class_agreement", "diversity", "saturation")
ABLATIONS = {
    "sampler": "training × sampler",
    "epsilon": "radius of the attack",
    "contrast": "contrast",
    "chain_steps": "steps of the chain",
    "convention": "step of JEM++'s scripts",
    "variant": "training",
}


def ablations(scalars: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """Every case of every ablation, one row each, with the Fréchet distance and those of SHOWN that were measured."""
    own = scalars[scalars["ablation"] != TABLE]
    heads = hybrid_sets.headers(protocol)
    named = {name: heads[name] for name in (image_quality.frechet_name(protocol), *SHOWN) if name in set(own["metric"])}
    found = tables.wide(own, rows=["ablation", "case"], metrics=list(named)).rename(columns=named)
    found["ablation"] = found["ablation"].map(ABLATIONS)
    found["case"] = found["case"].map(style.label)
    return found


def caption(protocol: Protocol, *, n_sets: int) -> str:
    """What Table 1 is of, and whether its two kinds of scores may be compared."""
    same = "of the same kind" if generated.comparable(protocol) else "of another kind, not to be compared with them"
    return (
        f"Table 1. Published: CIFAR-10, number of images and reference not stated. Ours: means of {n_sets} sets with "
        f"Student's t interval, {same}. {image_quality.described(protocol)}"
    )


def reading(
    sets: pd.DataFrame, pairs: Sequence[tuple[str, str]], *, ablation: str = TABLE, metrics: Sequence[str] = COMPARED
) -> str:
    """For each pair of cases the difference in each of `metrics` that was measured, with its interval over the sets."""
    lines = []
    for one, two in pairs:
        lines.append(f"{named(one)} − {named(two)}:")
        for metric in (name for name in metrics if name in sets):
            found = hybrid_sets.against(sets, metric, one, two, ablation=ablation)
            lines.append(f"  {style.label(metric)} {_signed(found)}, {told_apart(found, 'more', 'less')}")
    return "\n".join(lines)


def against_first(sets: pd.DataFrame, ablation: str, *, metrics: Sequence[str]) -> str:
    """Each case of an ablation against its first, the base setting; "" where the ablation has one case."""
    cases = list(dict.fromkeys(sets.loc[sets["ablation"] == ablation, "case"]))
    return reading(sets, [(case, cases[0]) for case in cases[1:]], ablation=ablation, metrics=metrics)


def _signed(found: Any) -> str:
    return ("+" if found.value > 0 else "") + str(found).replace("-", "\N{MINUS SIGN}")


def published(metric: str) -> Mapping[str, float]:
    """IS or FID of the published rows that are run here, by method.

    >>> published("FID")["robust_jem_energy"]
    41.17
    """
    theirs = pd.read_csv(SOURCE).set_index("model")[metric]
    return {case: float(theirs[printed]) for case, printed in PUBLISHED.items() if printed}

"""The settings of an ablation of image generation: a base setting, and what each ablation changes of it.

A notebook's parameters hold a list for each knob, and the first value of each is the base setting's. An ablation goes
through the lists of its own knobs and leaves the others at their first value, so that a list of one value is one point
of it, with the numbers that the whole ablation has there:

    ablation          knobs that it goes through
    pca               retained_variance × pca_spread            (ebm, figure 2.7)
    momentum          momentum
    step_size         step_size
    momentum_by_step  momentum × step_size
    n_steps           n_steps
    noise             noise_std
    initialiser       initialiser
    energy            energy
    gradient          gradient, the normalised one at steps of its own
    stop              stop
    follow_up         PCA start (the whole class, or n_neighbours of it) × stop     (ebm, 7.1)
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from helpers import initialisers, style

ABLATIONS = {
    "pca": ("retained_variance", "pca_spread"),
    "momentum": ("momentum",),
    "step_size": ("step_size",),
    "momentum_by_step": ("momentum", "step_size"),
    "n_steps": ("n_steps",),
    "noise": ("noise_std",),
    "initialiser": ("initialiser",),
    "energy": ("energy",),
    "gradient": ("gradient", "step_size"),
    "stop": ("stop",),
    "follow_up": ("initialiser", "n_neighbours", "stop"),
}
# Knob → the parameter with its values.
LISTS = {
    "initialiser": "initialisers",
    "retained_variance": "retained_variances",
    "pca_spread": "pca_spreads",
    "n_neighbours": "neighbour_counts",
    "energy": "energy_names",
    "step_size": "step_sizes",
    "momentum": "momenta",
    "noise_std": "noise_stds",
    "n_steps": "step_counts",
    "gradient": "gradients",
    "stop": "stops",
}
# Knob → how it is called beside its value.
WORDS = {
    "initialiser": "start:",
    "retained_variance": "r",
    "pca_spread": "spread",
    "n_neighbours": "neighbours",
    "energy": "energy:",
    "step_size": "step",
    "momentum": "ζ",
    "noise_std": "noise σ",
    "n_steps": "steps",
    "gradient": "gradient:",
    "stop": "stop:",
}
PCA = ("class_pca", "local_class_pca")
_START = frozenset(knob for taken in initialisers.OPTIONS.values() for knob in taken)


@dataclass(frozen=True)
class Setting:
    """One way to generate; a knob that it does not take is None. Names and units are those of params/schema.yaml."""

    initialiser: str
    energy: str
    step_size: float
    momentum: float
    noise_std: float
    n_steps: int
    gradient: str
    stop: str
    retained_variance: float | None = None
    pca_spread: float | None = None
    n_neighbours: int | None = None
    start_noise_std: float | None = None
    energy_tolerance: float | None = None

    @property
    def knobs(self) -> dict[str, Any]:
        """Knob → value, those that it takes."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def start(self) -> dict[str, Any]:
        """The knobs of its start, as `initialisers.fit` takes them."""
        return {name: value for name, value in self.knobs.items() if name in _START}

    @property
    def key(self) -> str:
        """12 hexadecimal digits that tell settings apart; 1 and 1.0 are one number."""
        plain = {name: float(value) if isinstance(value, int) else value for name, value in self.knobs.items()}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Case:
    """A setting in its ablation; `varied` are the knobs that tell it from the ablation's others."""

    ablation: str
    setting: Setting
    varied: tuple[str, ...]

    @property
    def place(self) -> dict[str, Any]:
        """Where a scalar of this case was measured: the ablation, the case in words, and all knobs."""
        return {"ablation": self.ablation, "case": named(self), **self.setting.knobs}


def base(values: Mapping[str, Any]) -> Setting:
    """The setting that all ablations start from: of each list in `values`, a notebook's parameters, the first."""
    first = {knob: values[name][0] for knob, name in LISTS.items()}
    return _made({**first, **{name: values[name] for name in ("start_noise_std", "energy_tolerance")}})


def cases(values: Mapping[str, Any]) -> list[Case]:
    """The cases of the ablations that `values["ablations"]` names, in this order; of each the base setting's first.

    A setting may stand in several ablations: `unique` has each once. ValueError where an ablation of PCA starts has
    none among `initialisers`.
    """
    found = []
    for name in values["ablations"]:
        seen = dict.fromkeys(_made(given) for given in _combinations(name, values))
        found += [Case(name, setting, ABLATIONS[name]) for setting in seen]
    return found


def final(chosen: Case, cases: Iterable[Case]) -> list[Case]:
    """The chosen case and, after it, the base setting that its ablation started from; each as a case of its own."""
    first = next(case for case in cases if case.ablation == chosen.ablation)
    return [Case("chosen", chosen.setting, chosen.varied), Case("base", first.setting, chosen.varied)]


def unique(found: Iterable[Case]) -> dict[str, Setting]:
    """Key → setting, each once."""
    return {case.setting.key: case.setting for case in found}


def _made(given: Mapping[str, Any]) -> Setting:
    """A setting without the knobs that its start and stop do not take."""
    dropped = set(_START) - set(initialisers.OPTIONS[given["initialiser"]])
    if given["stop"] != "energy_within":
        dropped.add("energy_tolerance")
    return Setting(**{name: value for name, value in given.items() if name not in dropped})


def _combinations(ablation: str, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    knobs = {knob: values[name][0] for knob, name in LISTS.items()}
    knobs |= {name: values[name] for name in ("start_noise_std", "energy_tolerance")}
    axes = {knob: values[LISTS[knob]] for knob in ABLATIONS[ablation]}
    if ablation in ("pca", "follow_up"):
        axes["initialiser"] = [name for name in values["initialisers"] if name in PCA][
            : 1 if ablation == "pca" else None
        ]
        if not axes["initialiser"]:
            raise ValueError(f"initialisers: expected one of {', '.join(PCA)} for the ablation {ablation}, got none")
    if ablation == "gradient":
        for gradient in values["gradients"]:
            for step_size in values["l2_step_sizes"] if gradient == "l2" else values["step_sizes"][:1]:
                yield {**knobs, "gradient": gradient, "step_size": step_size}
        return
    for combination in itertools.product(*axes.values()):
        yield {**knobs, **dict(zip(axes, combination, strict=True))}


def named(case: Case) -> str:
    """A case in words: what its ablation varies, for a line or an axis.

    >>> setting = Setting("class_pca", "joint", 0.1, 0.8, 0.001, 50, "plain", "steps", 0.95, 0.7)
    >>> named(Case("noise", setting, ("noise_std",))), named(Case("initialiser", setting, ("initialiser",)))
    ('noise σ 0.001', 'start: class PCA')
    """
    there = case.setting.knobs
    return ", ".join(f"{WORDS[knob]} {_text(there[knob])}" for knob in case.varied if knob in there)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else style.label(value)

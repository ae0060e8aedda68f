"""The ways of making images that Robust JEM compares (Korst & Asadulaev, 2022): Table 1, and what its ablations change.

| method                    | network             | start          | chain                          |
| ------------------------- | ------------------- | -------------- | ------------------------------ |
| `start_only`              | none                | class Gaussian | none                           |
| `jempp`                   | JEM++               | class Gaussian | E(x), `marginal_n_steps`       |
| `jempp_joint`             | JEM++               | class Gaussian | E(x, y), first of `step_counts` |
| `robust_classifier`       | adversarially trained classifier | attacked, L∞ | none                |
| `robust_classifier_l2`    | adversarially trained classifier | attacked, L2 | none                |
| `robust_jem_energy`       | Robust JEM          | class Gaussian | E(x), `marginal_n_steps`       |
| `robust_jem_energy_joint` | Robust JEM          | class Gaussian | E(x, y)                        |
| `robust_jem`              | Robust JEM          | attacked, L∞, less contrast | E(x, y)           |

Chains are proximal SGLD (`samplers.sgld` with a clamp); attacks are those of `attacked_start`. All begin at the same
draws of the class Gaussian. Of every list of parameters the first value is Table 1's; an ablation goes through one:

    sampler            adversarial training off, on × chain alone, attack alone, both
    epsilon            ε of the attack that the chain begins with
    contrast           c of its decrease of contrast
    chain_steps        m, steps of the chain on E(x, y)
    convention         what a step of the public code is (`proximal.inner_step_size`), chain of JEM++ on E(x)
    variant            Robust JEM trained otherwise (other radii, clean images too), where the profile has such networks
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from helpers import attacked_start, jem
from helpers.attacked_start import Attacked
from helpers.data import ImageSet
from helpers.starts import Start

TABLE = "table"  # the ablation that Table 1 is
# Method → how its source's table calls it; None where that table has no such row.
PUBLISHED = {
    "start_only": None,
    "jempp": "JEM++",
    "jempp_joint": None,
    "robust_classifier": "Single Robust Classifier",
    "robust_classifier_l2": None,
    "robust_jem_energy": "Robust JEM-Energy",
    "robust_jem_energy_joint": None,
    "robust_jem": "Robust JEM",
}
SAMPLERS = ("SGLD", "PGD", "PGD + SGLD")
# The parameters that methods are made of.
KNOBS = (
    "jempp_network", "robust_network", "robust_jem_network", "variant_networks", "step_conventions", "marginal_n_steps",
    "step_counts", "n_steps", "epsilons_255", "epsilon_l2", "step_size_l2", "l2_n_steps", "contrast_factors",
)  # fmt: skip


@dataclass(frozen=True)
class Method:
    """A network, where its chains start, and what they descend; lengths in [0, 1], the images' range.

    `n_steps` of the chain and `attack_n_steps` may be 0: no chain, no attack. `max_gradient` None clamps nothing.
    """

    network: str
    energy: str
    n_steps: int
    step_size: float
    max_gradient: float | None
    noise_std: float
    attack_norm: str = "linf"
    epsilon: float = 0.0
    attack_step_size: float = 0.0
    attack_n_steps: int = 0
    contrast_factor: float = 1.0

    @property
    def key(self) -> str:
        """The network and 12 hexadecimal digits that tell methods apart; 1 and 1.0 are one number."""
        plain = {name: float(value) if isinstance(value, int) else value for name, value in asdict(self).items()}
        return f"{self.network}-{hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]}"

    @property
    def knobs(self) -> dict[str, Any]:
        """What a record says of it; ε in 1/255 where it is of an L∞ ball, None for the other kind and for no attack."""
        linf, l2 = (bool(self.attack_n_steps) and self.attack_norm == norm for norm in ("linf", "l2"))
        return {
            "network": self.network, "chain_energy": self.energy if self.n_steps else None, "n_steps": self.n_steps,
            "step_size": self.step_size if self.n_steps else None, "contrast_factor": self.contrast_factor,
            "attack_n_steps": self.attack_n_steps, "epsilon_255": round(255 * self.epsilon, 6) if linf else None,
            "epsilon_l2": self.epsilon if l2 else None,
        }  # fmt: skip

    @property
    def chain(self) -> dict[str, Any]:
        """Its chain as keywords of `sample_sets.sample_set` and `generation.generate`; momentum 0."""
        names = ("energy", "n_steps", "step_size", "max_gradient", "noise_std")
        return {"momentum": 0.0, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class Case:
    """A method in an ablation, in words; the base setting stands in each."""

    ablation: str
    case: str
    method: Method

    @property
    def place(self) -> dict[str, Any]:
        """Where a scalar of this case was measured."""
        return {"ablation": self.ablation, "case": self.case, **self.method.knobs}


def inner_start(entry: Mapping[str, Any], images: ImageSet) -> Start:
    """Where the images of every method come from: the start of a recipe's chains, fitted on training `images`."""
    return jem.start_of(entry, images)


def start_of(method: Method, inner: Start, network: nn.Module) -> Start:
    """Where the method's chains start: `inner`, or it attacked by `network` and with less contrast."""
    if not method.attack_n_steps and method.contrast_factor == 1:
        return inner
    return Attacked(
        inner, network, norm=method.attack_norm, epsilon=method.epsilon,  # type: ignore[arg-type]
        step_size=method.attack_step_size, n_steps=method.attack_n_steps, contrast=method.contrast_factor,
    )  # fmt: skip


# From a notebook's parameters ---------------------------------------------------------------------------------------


def chain_settings(entry: Mapping[str, Any], convention: str) -> dict[str, Any]:
    """step_size, max_gradient and noise_std in [0, 1] of the chains that a network was trained with.

    `entry` is its recipe's (`jem.sampler_settings` says what of it counts), `convention` a name of the public code.
    """
    found = jem.sampler_settings({**entry, "step_convention": convention})
    return {name: found[name] for name in ("step_size", "max_gradient", "noise_std")}


def table(values: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Method]:
    """The methods of Table 1 by their names, from a notebook's parameters `values`.

    `entry` is the recipe of a network whose chains in training all chains here are like, but for their number of steps.
    """
    rule = chain_settings(entry, values["step_conventions"][0])
    whole = {"energy": "marginal", "n_steps": values["marginal_n_steps"], **rule}
    given = {"energy": "joint", "n_steps": values["step_counts"][0], **rule}
    none = given | {"n_steps": 0}
    linf = _linf(values["epsilons_255"][0], values)
    l2 = {"attack_norm": "l2", "epsilon": float(values["epsilon_l2"]), "attack_step_size": values["step_size_l2"]}
    jempp, robust, classifier = (values[f"{one}_network"] for one in ("jempp", "robust_jem", "robust"))
    return {
        "start_only": Method(robust, **none),
        "jempp": Method(jempp, **whole),
        "jempp_joint": Method(jempp, **given),
        "robust_classifier": Method(classifier, **none, **linf),
        "robust_classifier_l2": Method(classifier, **none, **l2, attack_n_steps=values["l2_n_steps"]),
        "robust_jem_energy": Method(robust, **whole),
        "robust_jem_energy_joint": Method(robust, **given),
        "robust_jem": Method(robust, **given, **linf, contrast_factor=float(values["contrast_factors"][0])),
    }


def _linf(epsilon_255: float, values: Mapping[str, Any]) -> dict[str, Any]:
    """An L∞ attack of `n_steps` steps; a radius of 0 is no attack."""
    epsilon, n_steps = epsilon_255 / 255, values["n_steps"] if epsilon_255 else 0
    step_size = attacked_start.linf_step_size(epsilon, n_steps)
    return {"attack_norm": "linf", "epsilon": epsilon, "attack_step_size": step_size, "attack_n_steps": n_steps}


def cases(values: Mapping[str, Any], entry: Mapping[str, Any]) -> list[Case]:
    """Table 1, then every ablation, each beginning with its base setting; arguments as in `table`."""
    named = table(values, entry)
    base, found = named["robust_jem"], [Case(TABLE, name, method) for name, method in named.items()]
    found += _samplers(base, values)
    for epsilon in values["epsilons_255"]:
        found.append(Case("epsilon", f"ε = {epsilon:g}/255", replace(base, **_linf(epsilon, values))))
    for factor in values["contrast_factors"]:
        found.append(Case("contrast", f"c = {factor:g}", replace(base, contrast_factor=float(factor))))
    for n_steps in values["step_counts"]:
        found.append(Case("chain_steps", f"m = {n_steps}", replace(base, n_steps=n_steps)))
    for convention in values["step_conventions"]:
        rule = chain_settings(entry, convention)
        found.append(Case("convention", f"{convention}: α = {rule['step_size']:g}", replace(named["jempp"], **rule)))
    for name in [base.network, *(values["variant_networks"] or [])]:
        found.append(Case("variant", name, replace(base, network=name)))
    return found


def _samplers(base: Method, values: Mapping[str, Any]) -> Iterable[Case]:
    """Training off, on × SGLD, PGD, PGD + SGLD; the attack alone keeps its contrast, as the single classifier does."""
    for word, network in (("off", values["jempp_network"]), ("on", base.network)):
        both = replace(base, network=network)
        alone = {"SGLD": replace(both, **_linf(0, values), contrast_factor=1.0)}
        alone["PGD"] = replace(both, n_steps=0, contrast_factor=1.0)
        for sampler in SAMPLERS:
            yield Case("sampler", f"AT {word}, {sampler}", alone.get(sampler, both))


def unique(found: Iterable[Case]) -> dict[str, Method]:
    """Key → method, each once: a method may stand in several ablations."""
    return {one.method.key: one.method for one in found}

"""The entries of a networks.yaml: merged, checked, complete, and grids expanded. No torch."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from helpers.glossary import ParameterError, ParameterErrors, Term, checked_all, nearest, read_yaml, show

# A checked entry (every key, None where not given) and its seeds.
Checked = tuple[dict[str, Any], tuple[int, ...]]

# (key, value) → the keys that it needs beside it.
_NEEDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("objective", "madry"): ("attack_norm", "n_steps", "start"),
    ("objective", "trades"): ("attack_norm", "n_steps", "start", "beta"),
    ("objective", "weat_nat"): ("attack_norm", "n_steps", "start", "beta", "weight_normalisation"),
    ("objective", "weat_adv"): ("attack_norm", "n_steps", "start", "beta", "weight_normalisation"),
    ("objective", "mail_trades"): (
        *("attack_norm", "n_steps", "start", "beta"),
        *("weight_normalisation", "margin_slope", "margin_bias"),
    ),
    ("objective", "mart"): ("attack_norm", "n_steps", "start", "beta"),
    ("objective", "fgsm_rs"): ("attack_norm", "step_over_epsilon"),
    ("objective", "ceb"): ("latent", "rho"),
    ("objective", "vib"): ("latent", "rho"),
    ("latent", "dense"): ("latent_dim",),
    ("anneal", "gamma"): ("rho_start", "anneal_epochs"),
    ("anneal", "rho"): ("rho_start", "anneal_epochs"),
    ("objective", "jem"): (
        *("clf_input", "p_x_weight", "p_y_given_x_weight", "chain_energy", "chain_start", "chain_n_steps"),
        *("chain_n_inner_steps", "chain_step_size_pm1", "chain_noise_std_pm1", "step_convention"),
        *("buffer_n_per_class", "reinit_freq", "data_noise_std_pm1", "batch_norm_policy"),
        *("divergence_window", "divergence_gap", "divergence_saturation", "divergence_gradient", "max_rollbacks"),
    ),
    ("clf_input", "adv"): ("attack_norm", "n_steps", "start"),
    ("clf_input", "both"): ("attack_norm", "n_steps", "start"),
    ("energy_penalty", "abs"): ("energy_penalty_weight",),
    ("energy_penalty", "square"): ("energy_penalty_weight",),
    ("energy_penalty", "hinge"): ("energy_penalty_weight", "energy_penalty_margin"),
    ("attack_norm", "linf"): ("epsilon_255", "step_size_255"),
    ("attack_norm", "l2"): ("epsilon_l2", "step_size_l2"),
    ("start", "gaussian"): ("start_std",),
    ("schedule", "one_cycle"): ("pct_start",),
    ("schedule", "step"): ("milestones", "decay"),
    ("architecture", "wrn"): ("depth", "width"),
    ("removed_judged", "attacked"): ("attack_norm", "n_steps", "start"),
    **{
        ("removed", arm): ("removed_share", "removed_by", "removed_judged")
        for arm in ("high_energy", "low_energy", "misclassified", "random")
    },
}
# (key, value) → what another key must be beside it, where it is given, and why.
_EXCLUDES: tuple[tuple[tuple[str, str], tuple[str, object, str]], ...] = (
    *((("objective", name), ("energy_penalty", "none", "attacks nothing")) for name in ("standard", "ceb", "vib")),
    (("objective", "vib"), ("consistent", False, "has no b(z|y)")),
    (("latent", "pooled"), ("latent_dim", None, "keeps the width of the backbone")),
)
# What a recipe and the network that judges its training images must share.
SAME_IMAGES = ("source", "dataset", "image_size", "validation_fraction", "split_seed")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


def read(path: Path, terms: Mapping[str, Term], *, where: str, max_seeds: int | None = None) -> dict[str, Checked]:
    """Every recipe of a networks.yaml by name, of its seeds the first `max_seeds`; all faults of all entries are
    raised at once.

    Keys that start with a point are blocks which others merge by `<<:`.
    """
    faults: list[ParameterError] = []
    found: dict[str, Checked] = {}
    for name, entry in read_yaml(path, where=where).items():
        if name.startswith("."):
            continue
        try:
            if not _NAME.fullmatch(name):
                raise ParameterError(where, name, "letters, digits, _ . -", got=repr(name))
            if not isinstance(entry, dict):
                raise ParameterError(where, name, "lines of `name: value`", got=show(entry))
            found.update(_expand(name, entry, terms=terms, where=f"{where}: {name}", max_seeds=max_seeds))
        except ParameterError as fault:
            faults += fault.faults if isinstance(fault, ParameterErrors) else [fault]
    faults += [] if faults else _unfit_references(found, where=where)
    if faults:
        raise faults[0] if len(faults) == 1 else ParameterErrors(faults)
    return found


def _expand(
    name: str, entry: dict[str, Any], *, terms: Mapping[str, Term], where: str, max_seeds: int | None
) -> Iterator[tuple[str, Checked]]:
    """The entry's points of its grid, each checked, under names like `trades@beta=3`."""
    grid = entry.get("grid", {})
    if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
        raise ParameterError(where, "grid", "a name with a list of values on each line", got=show(grid))
    fixed = {key: value for key, value in entry.items() if key != "grid"}
    for point in itertools.product(*grid.values()):
        values = checked_all(
            {"seeds": [0], "source": "train", **fixed, **dict(zip(grid, point, strict=True))}, terms, where=where
        )
        _check_complete(values, terms, where=where)
        seeds = tuple(values.pop("seeds"))
        if len(set(seeds)) < len(seeds):
            raise ParameterError(where, "seeds", "each seed once", got=show(list(seeds)))
        suffix = ",".join(f"{key}={_short(values[key])}" for key in grid)
        complete = {key: values.get(key) for key in terms if key != "seeds"}
        yield (f"{name}@{suffix}" if suffix else name), (complete, seeds[:max_seeds])


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check_complete(values: Mapping[str, Any], terms: Mapping[str, Term], *, where: str) -> None:
    """Refuse an entry that lacks a key which its source, or another of its values, needs."""
    source = values["source"]
    needed = {name: f"{terms[name].expected} (source {source})" for name in terms if source in terms[name].required}
    if source == "train":
        for (key, value), others in _NEEDS.items():
            if values.get(key) == value:
                needed |= {other: f"{terms[other].expected} ({key} {value})" for other in others}
    for name, expected in needed.items():
        if values.get(name) is None:
            raise ParameterError(where, name, expected.replace(" or null", ""), got="nothing")
    for (key, value), (other, only, why) in _EXCLUDES:
        if values.get(key) == value and (got := values.get(other)) not in (None, only):
            expected = f"{json.dumps(only)} ({key} {value} {why})".replace('"', "")
            raise ParameterError(where, other, expected, got=repr(got))


def reference(entry: Mapping[str, Any]) -> str | None:
    """The network whose judgement decides which training images a recipe leaves out; None where it leaves out none.

    >>> reference({"removed": "random", "removed_by": "madry"}), reference({"removed": None, "removed_by": None})
    ('madry', None)
    """
    name: str | None = entry.get("removed_by") if (entry.get("removed") or "none") != "none" else None
    return name


def _unfit_references(found: Mapping[str, Checked], *, where: str) -> list[ParameterError]:
    """Faults of `removed_by`: an unknown network, one that is not trained here on the same images, a circle."""
    faults = []
    for name, (entry, seeds) in found.items():
        wanted = reference(entry)
        if wanted is None:
            continue
        place = f"{where}: {name}"
        if wanted not in found:
            faults.append(ParameterError(place, "removed_by", nearest(wanted, found), got=f"the network {wanted!r}"))
            continue
        theirs, their_seeds = found[wanted]
        if missing := sorted(set(seeds) - set(their_seeds)):
            expected = f"a network with the seeds {list(seeds)}"
            faults.append(ParameterError(place, "removed_by", expected, got=f"{wanted}, which lacks {missing}"))
        if differing := [key for key in SAME_IMAGES if (theirs.get(key) or None) != (entry.get(key) or None)]:
            expected = f"a network trained here on the same images ({', '.join(SAME_IMAGES)})"
            faults.append(ParameterError(place, "removed_by", expected, got=f"{wanted}, another {differing[0]}"))
        if name in (circle := _references_of(name, found)):
            said = " → ".join([name, *circle[: circle.index(name) + 1]])
            faults.append(ParameterError(place, "removed_by", "a network that does not wait for this one", got=said))
    return faults


def _references_of(name: str, found: Mapping[str, Checked]) -> list[str]:
    """The reference of `name`, its reference and so on, each once."""
    chain: list[str] = []
    wanted = reference(found[name][0])
    while wanted is not None and wanted in found and wanted not in chain:
        chain.append(wanted)
        wanted = reference(found[wanted][0])
    return chain

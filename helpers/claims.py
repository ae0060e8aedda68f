"""The claims ledger: each claim of `params/claims.yaml` against the records of a profile (DESIGN, contract 6).

A claim holds when the whole 95 % interval of what decides it lies where the claim says, fails when the whole interval
lies elsewhere, and is undecided when the interval reaches over the bound or there is none. What no record holds is not
run. A claim of several comparisons holds when each does and fails when one does. A verdict on robust accuracies is
undecided, too, where a check says that the attack on one of the networks could not have worked, and the verdict would
not survive what that one's accuracy may be too high by (helpers.doubts).

Intervals of one term are those of its record; a frame's are Student's t over seeds, and for one network Wilson's or the
normal one over images. Seeds that agree to the last digit have a Student's interval without width: a share of images
then has Wilson's over the images, another number none. A difference of terms that share seeds and images is paired:
over seeds by Student's t, over (seed, image) by bootstrap, and of the two the wider end counts on each side, since a
bootstrap of three seeds alone is too narrow. Terms that share nothing are taken as independent (Zou & Donner 2008,
Stat. Med. 27, 1693).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from helpers import ledger, parameters, records, tables
from helpers.contrasts import absolute, difference
from helpers.evidence import NotRun, Results, Sample, measure
from helpers.ledger import Claim, Comparison, Evidence
from helpers.metrics import Estimate

if TYPE_CHECKING:
    from helpers.parameters import Parameters

STATUSES = ("holds", "fails", "undecided", "not run")
SETS = "sets"  # the frames of generated images, whose seeds are numbers of sample sets
WAYS = {
    "wilson": "Wilson",
    "student_t": "Student's t",
    "normal": "normal",
    "paired_bootstrap": "paired bootstrap",
    "bootstrap": "bootstrap",
    "independent": "two independent intervals",
    "exact": "exact",
    "subsets": "spread over KID's subsets",
    "none": "no interval",
}


@dataclass(frozen=True)
class Finding:
    """A claim with its status; `estimate` of `quantity` decided it: of several, what speaks least for the claim.

    `lone`: the record's networks were trained once each, so that the interval is of these networks, not of methods.
    """

    claim: Claim
    status: str
    data: str
    quantity: str = ""
    estimate: Estimate | None = None
    kind: str = "none"
    seeds: tuple[int, ...] = ()
    n_images: int | None = None
    reason: str = ""
    lone: bool = False

    @property
    def said(self) -> str:
        """The status with its data set."""
        return f"{self.status} on {self.data}"


# Comparing


def verdict(estimate: Estimate, *, above: float | None, below: float | None, exact: bool = False) -> str:
    """holds, fails or undecided: whether the interval lies inside the bounds, outside them, or across one.

    >>> verdict(Estimate(2.0, 0.6, 3.4, n=9, kind="normal"), above=0, below=None)
    'holds'
    """
    low, high = (estimate.value, estimate.value) if exact else (estimate.low, estimate.high)
    if math.isnan(low + high):
        return "undecided"
    bottom, top = (-math.inf if above is None else above), (math.inf if below is None else below)
    if bottom < low and high < top:
        return "holds"
    return "fails" if high < bottom or low > top or (exact and not bottom < low < top) else "undecided"


@dataclass(frozen=True)
class _Part:
    """One of the comparisons that a claim consists of; `slack` is how far its interval is inside, in half widths.

    `shaken` says what the checks of an attack have against the status that the interval alone would give, if anything.
    """

    status: str
    slack: float
    quantity: str
    estimate: Estimate
    kind: str
    samples: tuple[Sample, ...]
    shaken: str = ""


def _parts(claim: Claim, samples: list[Sample], *, seed: int) -> list[_Part]:
    c = claim.comparison
    assert c is not None
    if c.absolute:
        samples = [absolute(one) for one in samples]
    names = [f"|{one.label or 'it'}|" if c.absolute else one.label for one in claim.terms]
    above, below = c.above, c.below
    if c.kind == "value":
        rows: list[tuple[str, Estimate, str, tuple[Sample, ...]]] = [
            (n, s.estimate, "exact" if c.exact else s.estimate.kind, (s,)) for n, s in zip(names, samples, strict=True)
        ]
    else:
        above = above if c.kind == "difference" else 0.0
        ids = range(len(samples))
        pairs = {
            "difference": [(0, 1)],
            "order": [(i + 1, i) for i in ids[:-1]],
            "largest": [(0, i) for i in ids[1:]],
            "smallest": [(i, 0) for i in ids[1:]],
        }[c.kind]
        rows = []
        for i, j in pairs:
            estimate, way = difference(samples[i], samples[j], factor=c.factor, seed=seed)
            times = "" if c.factor == 1 else f"{c.factor:g} · "
            rows.append((f"{names[i]} − {times}{names[j]}", estimate, way, (samples[i], samples[j])))
    return [_part(*row, comparison=replace(c, above=above, below=below)) for row in rows]


def _part(
    quantity: str, estimate: Estimate, kind: str, samples: tuple[Sample, ...], *, comparison: Comparison
) -> _Part:  # fmt: skip
    above, below, exact = comparison.above, comparison.below, comparison.exact
    status = verdict(estimate, above=above, below=below, exact=exact)
    half = (estimate.high - estimate.low) / 2
    inside = [estimate.low - above] if above is not None else []
    inside += [below - estimate.high] if below is not None else []
    slack = min(inside) / half if half > 0 else (min(inside) if not math.isnan(half) else -math.inf)
    why = _shaken(status, estimate, samples, comparison)
    kind = "none" if math.isnan(half) and not exact else kind
    return _Part("undecided" if why else status, slack, quantity, estimate, kind, samples, why)


def _shaken(status: str, estimate: Estimate, samples: tuple[Sample, ...], c: Comparison) -> str:
    """What takes the status from an estimate: the doubt of a term that may be too high by more than the verdict bears.

    The first term less its doubt may lie lower, and the second, which is subtracted, leaves room above.
    """
    for k, doubt in enumerate(one.doubt for one in samples):
        if doubt is None:
            continue
        points = c.factor * doubt.points if k else doubt.points
        moved = replace(estimate, high=estimate.high + points) if k else replace(estimate, low=estimate.low - points)
        if verdict(moved, above=c.above, below=c.below, exact=c.exact) != status:
            return f"would {status.removesuffix('s')}, but {doubt.why}"
    return ""


# The ledger


def evaluate(p: Parameters, *, seed: int) -> list[Finding]:
    """Every claim of params/claims.yaml against the records of `p.profile`, in the order of `ordered`.

    What a `$name` of the file is in this profile stands in the parameters of `p`; `seed` is that of the bootstrap.
    """
    results = Results(p)
    return ordered(find(claim.named(p.values), results, seed=seed) for claim in ledger.read())


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """By paper, and in each by status; otherwise as they stand in the file."""
    return sorted(findings, key=lambda one: (ledger.PAPERS.index(one.claim.paper), STATUSES.index(one.status)))


def find(claim: Claim, results: Results, *, seed: int) -> Finding:
    """One claim's finding."""
    data = data_set(claim, results.p.profile)
    if claim.unmeasured:
        return Finding(claim, "not run", data, reason=claim.unmeasured)
    if claim.only_on and claim.only_on != data:
        return Finding(claim, "not run", data, reason=f"a statement about {claim.only_on}")
    bodies = {one.entry.get("architecture") for one in recipes_of(claim, results.p.profile)} - {claim.only_with}
    if claim.only_with and bodies:
        return Finding(claim, "not run", data, reason=f"the value of a {claim.only_with}; here it is another network")
    try:
        samples = [measure(one, results) for one in claim.terms]
    except NotRun as missing:
        return Finding(claim, "not run", data, reason=str(missing))
    parts = _parts(claim, samples, seed=seed)
    status = next((one for one in ("fails", "undecided") if any(p.status == one for p in parts)), "holds")
    told = min((one for one in parts if one.status == status), key=lambda one: one.slack)
    seeds = tuple(sorted({seed for one in told.samples for seed in one.seeds}))
    reason, fewest = told.shaken, min(len(one.seeds) for one in samples)
    if told.kind == "none":
        reason = "no interval: one number, or equal ones, say nothing of chance"
    if fewest < claim.min_seeds:
        status, reason = "undecided", f"{claim.min_seeds} seeds are needed, there are {fewest}"
    counts = [one.n_images for one in told.samples if one.n_images]
    of = results.record(claim.terms[0].notebook, claim.terms[0].record).provenance
    return Finding(
        claim, status, data, told.quantity, told.estimate, told.kind, seeds, min(counts) if counts else None, reason,
        trained_once(of, results.p.profile),
    )  # fmt: skip


def trained_once(provenance: Mapping[str, Any], profile: str) -> bool:
    """Whether none of the networks that a record's parameters name was trained from more than one seed here."""
    there = parameters.recipes(profile)
    named = (there[name] for name in parameters.network_names(provenance["parameters"]) if name in there)
    seeds = [len(one.seeds) for one in named if one.entry["source"] == "train"]
    return bool(seeds) and max(seeds) == 1


def recipes_of(claim: Claim, profile: str) -> list[parameters.Recipe]:
    """The recipes of the networks that a claim names, those that the profile has."""
    there = parameters.recipes(profile)
    named = [value for one in claim.terms for key, value in one.where if key == "network"]
    return [there[name] for name in named if name in there]


def data_set(claim: Claim, profile: str) -> str:
    """The data that the claim's networks were trained on, as networks.yaml names them; else the profile's."""
    there = parameters.recipes(profile)
    sets = [one.entry["dataset"] for one in recipes_of(claim, profile)]
    sets = sets or [one.entry["dataset"] for one in list(there.values())[:1]]
    return next((str(one) for one in sets if one), profile)


def scalars(findings: Iterable[Finding]) -> list[records.Scalar]:
    """One scalar for each claim that names evidence: what decided it, or None with the reason."""
    return [_scalar(one) for one in findings if one.claim.terms]


def _scalar(one: Finding) -> records.Scalar:
    where: dict[str, Any] = {"claim": one.claim.id, "status": one.status, "data": one.data}
    metric, e = one.claim.terms[0].metric, one.estimate
    if e is None:
        return records.scalar(metric, None, **where, reason=f"not run: {one.reason}")
    if one.quantity:
        where["quantity"] = one.quantity
    if one.reason:
        where["reason"] = one.reason
    if not math.isnan(e.low + e.high):
        where |= {"interval": (e.low, e.high), "interval_kind": one.kind, "level": e.level}
    return records.scalar(metric, e.value, n=one.n_images, seeds=one.seeds or None, **where)


HEADERS = {"asked": "holds when", "measured": "measured [95 %]", "of": "which is"}


def table(findings: Iterable[Finding]) -> pd.DataFrame:
    """The ledger as it is printed, one row for each claim: tables.save makes claims.csv of it."""
    rows = []
    for one in findings:
        claim, e = one.claim, one.estimate
        interval = (
            None if e is None else tables.Interval(e.value, *(None if math.isnan(v) else v for v in (e.low, e.high)))
        )
        rows.append(
            {
                "paper": claim.paper,
                "claim": claim.id,
                "statement": claim.statement + (f" ({claim.note})" if claim.note else ""),
                "status": one.said,
                "measured": interval,
                "published": published(claim),
                "asked": asked(claim),
                "of": one.quantity or None,
                "basis": basis(one),
                "evidence": evidence(claim),
            }
        )
    return pd.DataFrame(rows, dtype=object)


def asked(claim: Claim) -> str | None:
    """The comparison in words.

    >>> one = Evidence("01_energy_landscape", "pairs", "share_lowered", label="pgd_ce")
    >>> asked(Claim("C1", "ebm", "…", terms=(one,), comparison=ledger.Comparison("value", above=95)))
    'share_lowered (%) of pgd_ce > 95'
    """
    c = claim.comparison
    if c is None:
        return None
    names = [one.label for one in claim.terms]
    bars = "|" if c.absolute else ""
    unit = parameters.metrics()[claim.terms[0].metric].unit
    what = f"{bars}{claim.terms[0].metric}{bars}" + (f" ({unit})" if unit != "1" else "") + _over(claim.terms[0])
    if c.kind == "order":
        return f"{what}: {' < '.join(names)}"
    if c.kind in ("largest", "smallest"):
        return f"{what}: {names[0]} {c.kind} among {', '.join(names[1:])}"
    if c.kind == "difference":
        what += f": {names[0]} − {'' if c.factor == 1 else f'{c.factor:g} · '}{names[1]}"
    elif any(names):
        what += f" of {', of '.join(names)}"
    ends = [f"> {c.above:g}"] if c.above is not None else []
    ends += [f"< {c.below:g}"] if c.below is not None else []
    return f"{what} {' and '.join(ends)}"


def evidence(claim: Claim) -> str | None:
    """Where the claim's numbers lie: record, and what all its terms have in common.

    >>> one = Evidence("01_energy_landscape", "pairs", "share_lowered", where=(("attack", "pgd_ce"),))
    >>> evidence(Claim("C1", "ebm", "…", terms=(one,)))
    '01_energy_landscape/pairs: attack = pgd_ce'
    """
    if not claim.terms:
        return None
    shared = [pair for pair in claim.terms[0].where if all(pair in one.where for one in claim.terms)]
    said = ", ".join(f"{key} = {value}" for key, value in shared)
    return claim.terms[0].place + (f": {said}" if said else "")


def _over(term: Evidence) -> str:
    """What is taken of a curve, where the terms do not differ in it."""
    if term.epochs is None or "of training" in term.label:
        return ""
    what = {"max": ", largest", "min": ", smallest", "max_abs": ", largest absolute value"}.get(term.take, "")
    ends = "–".join(f"{100 * one:g}" for one in dict.fromkeys(term.epochs))
    return f"{what} at {ends} % of training"


def basis(finding: Finding) -> str:
    """How the interval was had and over what, or why there is no verdict."""
    if finding.estimate is None:
        return finding.reason
    what = "set" if finding.claim.terms[0].frame == SETS else "seed"
    n = [f"{len(finding.seeds)} {what}{'s' * (len(finding.seeds) != 1)}"] if finding.seeds else []
    n += [f"{finding.n_images:,} images"] if finding.n_images else []
    n += ["one network each"] if finding.seeds and finding.lone else []
    agree = " over images, the seeds agree" if finding.kind == "wilson" and len(finding.seeds) > 1 else ""
    return ", ".join([finding.reason or WAYS[finding.kind] + agree, *n])


def published(claim: Claim) -> str | None:
    """The published value with source and tag; one that is not confirmed is not printed."""
    if claim.published is None:
        return None
    there = claim.published
    value = there.value if isinstance(there.value, str) else f"{there.value:g}"
    if there.trust in tables.UNCERTAIN:
        value = "not confirmed, so not printed"
    return f"{value} ({there.source}; {there.trust})"


def counts(findings: Iterable[Finding]) -> str:
    """How many claims have which status, for each paper, a line each."""
    lines = []
    every = list(findings)
    for paper in dict.fromkeys(one.claim.paper for one in every):
        mine = [one for one in every if one.claim.paper == paper]
        said = [f"{sum(one.status == status for one in mine)} {status}" for status in STATUSES]
        data = ", ".join(dict.fromkeys(one.data for one in mine))
        lines.append(f"{paper}: {len(mine)} claim{'s' * (len(mine) != 1)} on {data}: {', '.join(said)}")
    return "\n".join(lines)


def strip(findings: Iterable[Finding]) -> pd.DataFrame:
    """What `plots.status_strip` draws: paper, claim, status."""
    return pd.DataFrame([{"paper": one.claim.paper, "claim": one.claim.id, "status": one.status} for one in findings])

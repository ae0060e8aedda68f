"""The claims of the papers as `params/claims.yaml` states them, read and checked before anything runs. No torch.

An entry says where its evidence lies in the records and which comparison decides; `helpers.claims` evaluates it.

    C1a:                                            # the claim's id, once in the file
      paper: ebm
      statement: what is claimed, in our own words
      evidence: {notebook: …, record: …, metric: …, where: {network: $standard_network, attack: pgd_ce}}
      comparison: {kind: value, above: 0}
      published: {value: …, source: …, trust: high}

Evidence is one scalar of a record, or, with `frame`, rows of one of its frames (the keys of FRAME say which). `health`
names the notebook's record of checks of its attacks, by which a robust accuracy is doubted (helpers.doubts). `over`
lists several values of one key and so makes several terms. A value `$name` is the parameter `name` of 12_claims; where
that is null, the profile has no such network and the claim is not run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from helpers import glossary, parameters
from helpers.glossary import ParameterError, ParameterErrors, Term, nearest, show

NOTEBOOK = "12_claims"
# The notebooks whose numbers are fixed (README); evidence may lie in one that is not written yet.
NOTEBOOKS = (
    "00_start_here", "01_energy_landscape", "02_training_dynamics", "03_weat", "04_generation",
    "05_generation_ablations", "06_robust_jem", "07_hybrid_evaluation", "08_ceb_robustness", "09_ceb_corruptions",
    "10_ceb_calibration", "11_performance",
)  # fmt: skip
PAPERS = ("ebm", "rjem", "ceb")
KINDS = {
    "value": "each term lies above, below or between bounds",
    "difference": "the first term minus `factor` times the second lies above, below or between bounds",
    "order": "the terms rise from each to the next",
    "largest": "the first term is larger than each other",
    "smallest": "the first term is smaller than each other",
}
TRUST = ("high", "medium", "low", "recalled", "unverified", "?")
TAKE = ("mean", "max", "min", "max_abs")
HEALTH = ("health",)  # records of checks, as the notebooks name them: a slip here would be a check that nobody reads
DOUBTED = "robust_accuracy"  # the metric that such checks say something of


def _terms(**facts: dict[str, Any]) -> dict[str, Term]:
    return {name: Term(name, "claims", **{"type": "str", **fact}) for name, fact in facts.items()}


CLAIM = _terms(
    paper={"choices": PAPERS},
    statement={},
    only_on={"optional": True},  # a data set: elsewhere the claim is not run
    only_with={"optional": True},  # the architecture that a value is of: with another the claim is not run
    min_seeds={"type": "int", "minimum": 1, "optional": True},  # with fewer it is undecided
    unmeasured={"optional": True},  # why nothing here measures it; in place of evidence and comparison
    note={"optional": True},
    headline={"type": "bool", "optional": True},  # stands in README's table
)
EVIDENCE = _terms(
    notebook={},
    record={},
    metric={},
    frame={"optional": True},
    epochs={
        "type": "list[float]",
        "minimum": 0,
        "maximum": 1,
        "optional": True,
    },  # first and last, as shares of training
    take={"choices": TAKE, "optional": True},  # of the epochs in that range
    health={"choices": HEALTH, "optional": True},
)
FRAME = ("epochs", "take", "quantiles")
COMPARISON = _terms(
    kind={"choices": tuple(KINDS)},
    above={"type": "float", "optional": True},
    below={"type": "float", "optional": True},
    factor={"type": "float", "exclusive_minimum": 0, "optional": True},
    absolute={"type": "bool", "optional": True},  # |…| of each term, seed by seed
    exact={"type": "bool", "optional": True},  # the number itself is compared: it has no sampling error
)
PUBLISHED = _terms(source={}, trust={"choices": TRUST})


@dataclass(frozen=True)
class Evidence:
    """Where one number, or one number for each seed and image, lies in the records."""

    notebook: str
    record: str
    metric: str
    frame: str | None = None
    where: tuple[tuple[str, Any], ...] = ()
    quantiles: tuple[tuple[str, tuple[float, float]], ...] = ()  # column → share of the images, lowest first
    epochs: tuple[float, float] | None = None
    take: str = "mean"
    health: str | None = None  # the record of checks in the same notebook
    label: str = ""  # what tells this term from the claim's others

    @property
    def place(self) -> str:
        """`notebook/record`, as readers find it."""
        return f"{self.notebook}/{self.record}"


@dataclass(frozen=True)
class Comparison:
    """What decides: a kind of KINDS and its bounds."""

    kind: str
    above: float | None = None
    below: float | None = None
    factor: float = 1.0
    absolute: bool = False
    exact: bool = False


@dataclass(frozen=True)
class Published:
    """The paper's own value, where it was read and how sure it is."""

    value: str | float
    source: str
    trust: str


@dataclass(frozen=True)
class Claim:
    """One entry. `terms` and `comparison` are missing where `unmeasured` says why."""

    id: str
    paper: str
    statement: str
    terms: tuple[Evidence, ...] = ()
    comparison: Comparison | None = None
    published: Published | None = None
    only_on: str | None = None
    only_with: str | None = None
    min_seeds: int = 0
    unmeasured: str | None = None
    note: str | None = None
    headline: bool = False
    roles: frozenset[str] = field(default_factory=frozenset)  # names after a $

    def named(self, roles: Mapping[str, Any]) -> Claim:
        """The claim with each `$name` replaced by `roles[name]`; unmeasured where one is None."""
        if lacking := sorted(name for name in self.roles if roles[name] is None):
            return replace(self, unmeasured=f"this profile names no {' and no '.join(lacking)}")

        def plain(value: Any) -> Any:
            return roles[value[1:]] if _is_role(value) else value

        terms = [
            replace(one, where=tuple((k, plain(v)) for k, v in one.where), label=str(plain(one.label)))
            for one in self.terms
        ]
        return replace(self, terms=tuple(terms))


def path() -> Path:
    """params/claims.yaml."""
    return parameters.ROOT / "params" / "claims.yaml"


def read() -> list[Claim]:
    """Every claim, in the order of the file; ParameterErrors with all its faults."""
    return list(_read(path(), path().stat().st_mtime_ns if path().exists() else 0))


@lru_cache(maxsize=4)
def _read(path: Path, _: int) -> tuple[Claim, ...]:
    where = "params/claims.yaml"
    faults: list[ParameterError] = []
    found = []
    for name, entry in glossary.read_yaml(path, where=where).items():
        if name.startswith("."):
            continue  # a block that others take up by an alias
        try:
            found.append(_claim(name, entry, where=f"{where}: {name}"))
        except ParameterError as fault:
            faults += fault.faults if isinstance(fault, ParameterErrors) else [fault]
    if faults:
        raise faults[0] if len(faults) == 1 else ParameterErrors(faults)
    return tuple(found)


def check(profile: str) -> None:
    """Raise ParameterError(s) where the file is at fault, or uses a `$name` that the profile's 12_claims lacks."""
    values = parameters.read(NOTEBOOK, profile)
    for claim in read():
        for role in sorted(claim.roles - values.keys()):
            where = f"params/claims.yaml: {claim.id}"
            expected = nearest(role, values) + f" of params/{profile}/{NOTEBOOK}.yaml"
            raise ParameterError(where, f"${role}", expected, got=repr(f"${role}"))


def notebooks() -> list[str]:
    """The notebooks in which the claims' evidence lies, in order."""
    return sorted({one.notebook for claim in read() for one in claim.terms})


# One entry


def _fields(given: object, terms: Mapping[str, Term], *, where: str, key: str, others: tuple[str, ...] = ()) -> Any:
    """The values in a block of an entry, checked by `terms`; `others` are names that the caller checks."""
    if not isinstance(given, dict):
        raise ParameterError(where, key or "entry", "lines of `name: value`", got=show(given))
    dot = f"{key}." if key else ""
    for name in given:
        if name not in terms and name not in others:
            raise ParameterError(where, f"{dot}{name}", nearest(name, [*terms, *others]), got=repr(name))
    for name, term in terms.items():
        if name not in given and not term.optional:
            raise ParameterError(where, f"{dot}{name}", term.expected, got="nothing")
    values = {}
    for name in terms.keys() & given.keys():
        values[name] = glossary.checked(replace(terms[name], name=f"{dot}{name}"), given[name], where=where)
    return {name: value for name, value in values.items() if value is not None}


def _claim(name: str, entry: object, *, where: str) -> Claim:
    blocks = ("evidence", "comparison", "published")
    values = _fields(entry, CLAIM, where=where, key="", others=blocks)
    assert isinstance(entry, dict)
    if "published" in entry:
        values["published"] = _published(entry["published"], where=where)
    if "unmeasured" in values:
        for block in [name for name in ("evidence", "comparison") if name in entry]:
            raise ParameterError(where, block, "nothing beside `unmeasured`", got=show(entry[block]))
        return Claim(name, **values)
    for block in ("evidence", "comparison"):
        if block not in entry:
            raise ParameterError(
                where, block, "lines of `name: value` (or the reason, under `unmeasured`)", got="nothing"
            )
    terms = _evidence(entry["evidence"], where=where)
    values["comparison"] = _comparison(entry["comparison"], len(terms), where=where)
    roles = {value[1:] for one in terms for _, value in one.where if _is_role(value)}
    return Claim(name, terms=tuple(terms), roles=frozenset(roles), **values)


def _is_role(value: object) -> bool:
    return isinstance(value, str) and value.startswith("$")


def _published(given: object, *, where: str) -> Published:
    values = _fields(given, PUBLISHED, where=where, key="published", others=("value",))
    assert isinstance(given, dict)
    value = given.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value == "":
        got = "nothing" if "value" not in given else show(value)
        raise ParameterError(where, "published.value", "a number or a short text", got=got)
    return Published(value, **values)


def _evidence(given: object, *, where: str) -> list[Evidence]:
    others = ("where", "quantiles", "over")
    values = _fields(given, EVIDENCE, where=where, key="evidence", others=others)
    assert isinstance(given, dict)
    base = dict(given)
    over = base.pop("over", None)
    if over is None:
        return [_term(values, base, where=where)]
    if (
        not isinstance(over, dict)
        or len(over) != 1
        or not all(isinstance(v, list) and len(v) > 1 for v in over.values())
    ):
        raise ParameterError(where, "evidence.over", "one name with a list of two values or more", got=show(over))
    ((name, several),) = over.items()
    terms = []
    for value in several:
        one = (
            base | {name: value}
            if name in _TERM_FIELDS
            else base | {"where": {**(base.get("where") or {}), name: value}}
        )
        plain = _fields(one, EVIDENCE, where=where, key="evidence", others=others)
        terms.append(replace(_term(plain, one, where=where), label=_label(name, value)))
    if len({term.label for term in terms}) < len(terms):
        raise ParameterError(where, "evidence.over", "each value once", got=show(several))
    return terms


def _term(values: dict[str, Any], given: Mapping[str, Any], *, where: str) -> Evidence:
    """One term; `values` are those that `_fields` has checked."""
    known = parameters.metrics()
    if values["metric"] not in known:
        got = repr(values["metric"])
        raise ParameterError(
            where, "evidence.metric", nearest(values["metric"], known) + " of params/schema.yaml", got=got
        )
    there = {*NOTEBOOKS, *(one.stem for one in (parameters.ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))} - {NOTEBOOK}
    if values["notebook"] not in there:
        raise ParameterError(
            where, "evidence.notebook", nearest(values["notebook"], there), got=repr(values["notebook"])
        )
    for name in FRAME:
        if given.get(name) is not None and "frame" not in values:
            raise ParameterError(where, f"evidence.{name}", "it with `frame` only", got=show(given[name]))
    if "health" in values and values["metric"] != DOUBTED:
        raise ParameterError(where, "evidence.health", f"it with metric {DOUBTED} only", got=repr(values["metric"]))
    epochs = values.pop("epochs", None)
    if epochs is not None and (len(epochs) != 2 or epochs[0] > epochs[1]):
        raise ParameterError(
            where, "evidence.epochs", "first and last, as shares of training from 0 to 1", got=show(epochs)
        )
    pairs = _plain(given, "where", where=where, good=_is_scalar, expected="a text, number or truth value")
    shares = _plain(given, "quantiles", where=where, good=_is_range, expected="two shares from 0 to 1 that rise")
    return Evidence(
        **values,
        where=tuple(pairs),
        quantiles=tuple((name, (float(low), float(high))) for name, (low, high) in shares),
        epochs=None if epochs is None else (epochs[0], epochs[1]),
    )


def _plain(
    block: Mapping[str, Any], key: str, *, where: str, good: Callable[[object], bool], expected: str
) -> Iterator[tuple[str, Any]]:
    """The lines of `name: value` under `key`, each value a good one."""
    given = block.get(key)
    if given is not None and not isinstance(given, dict):
        raise ParameterError(where, f"evidence.{key}", "lines of `name: value`", got=show(given))
    for name, value in (given or {}).items():
        if not good(value):
            raise ParameterError(where, f"evidence.{key}.{name}", expected, got=show(value))
        yield name, value


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float | bool)


def _is_range(value: object) -> bool:
    numbers = isinstance(value, list) and len(value) == 2 and all(type(one) in (int, float) for one in value)
    return numbers and 0 <= value[0] < value[1] <= 1  # type: ignore[index]


_TERM_FIELDS = {one.name for one in fields(Evidence)} - {"where", "label"}


def _label(name: str, value: object) -> str:
    """How a term is called beside its sisters: a network's or attack's name, or a range in per cent of training."""
    if name == "epochs" and isinstance(value, list):
        ends = [f"{100 * one:g}" for one in dict.fromkeys(value) if isinstance(one, int | float)]
        return f"at {'–'.join(ends)} % of training"
    if name == "quantiles" and isinstance(value, dict):
        return ", ".join(f"{column} in its {_share(ends)}" for column, ends in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _share(ends: object) -> str:
    """A range of ranks in words.

    >>> _share([0, 0.25]), _share([0.75, 1]), _share([0.25, 0.5])
    ('lowest 25 %', 'highest 25 %', '25–50 %')
    """
    if not _is_range(ends):
        return str(ends)
    low, high = (100 * one for one in ends)  # type: ignore[attr-defined]
    if low == 0:
        return f"lowest {high:g} %"
    return f"highest {100 - low:g} %" if high == 100 else f"{low:g}–{high:g} %"


def _comparison(given: object, n_terms: int, *, where: str) -> Comparison:
    values = _fields(given, COMPARISON, where=where, key="comparison")
    kind = values["kind"]
    bounded = kind in ("value", "difference")
    bounds = [name for name in ("above", "below") if name in values]
    if bounded != bool(bounds):
        expected = "`above`, `below` or both" if bounded else f"no bound: {kind} compares terms with each other"
        raise ParameterError(where, "comparison", expected, got=" and ".join(bounds) or "neither")
    if len(bounds) == 2 and values["above"] >= values["below"]:
        raise ParameterError(where, "comparison.above", "less than `below`", got=show(values["above"]))
    if "factor" in values and kind != "difference":
        raise ParameterError(where, "comparison.factor", "it with kind difference only", got=show(values["factor"]))
    wanted = {"value": n_terms >= 1, "difference": n_terms == 2}.get(kind, n_terms >= 2)
    if not wanted:
        expected = "two terms" if kind == "difference" else "two terms or more"
        raise ParameterError(where, "evidence.over", f"{expected} for kind {kind}", got=f"{n_terms}")
    return Comparison(**values)

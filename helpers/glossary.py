"""The glossary `params/schema.yaml` and the checking of values against it: types, ranges, choices, nearest names."""

import difflib
import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import yaml

BLOCKS = ("parameters", "recipe", "profile", "metrics")
TYPES = ("int", "float", "bool", "str", "list[int]", "list[float]", "list[str]", "dict[float]")
# YAML 1.1 wants a point in 1.0e-3, so PyYAML hands 1e-3 over as text.
_SCIENTIFIC = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)[eE][+-]?\d+")
_NOUNS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}


class ParameterError(ValueError):
    """One fault in one line: `<file>: <key>: expected <…>, got <…>`."""

    def __init__(self, where: str, key: str, expected: str, *, got: str) -> None:
        super().__init__(f"{where}: {key}: expected {expected}, got {got}")
        self.where, self.key, self.expected, self.got = where, key, expected, got


class ParameterErrors(ParameterError):
    """Several faults at once; `faults` holds them, one line each."""

    def __init__(self, faults: "list[ParameterError]") -> None:
        ValueError.__init__(self, "\n".join(str(fault) for fault in faults))
        self.faults = faults
        first = faults[0]
        self.where, self.key, self.expected, self.got = first.where, first.key, first.expected, first.got


@dataclass(frozen=True)
class Term:
    """One name of the glossary: what a value under that name must be, its unit and its meaning."""

    name: str
    block: str
    type: str = "float"
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: float | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    meaning: str = ""
    optional: bool = False
    recipe: bool = False
    required: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """What a value must be, in words.

        >>> Term("n_steps", "parameters", type="int", minimum=1).expected
        'a whole number >= 1'
        """
        container, _, element = self.type.partition("[")
        words = _NOUNS[element.rstrip("]") or container]
        limits = []
        if self.choices:
            words = "one of " + ", ".join(self.choices)
        if self.exclusive_minimum is not None:
            limits.append(f"> {self.exclusive_minimum:g}")
        if self.minimum is not None:
            limits.append(f">= {self.minimum:g}")
        if self.maximum is not None:
            limits.append(f"<= {self.maximum:g}")
        words = " ".join([words, " and ".join(limits)]).strip()
        if container == "list":
            words = f"a list, each element {words}"
        elif container == "dict":
            words = f"a name with {words} on each line"
        return words + (" or null" if self.optional else "")


def nearest(name: str, known: Iterable[str]) -> str:
    """Words that name the known name closest to `name`, or some of the known ones.

    >>> nearest("n_stepz", ["n_steps", "seed"])
    'a known name (nearest: n_steps)'
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6) or [k for k in known if k.startswith(name)][:3]
    if close:
        return f"a known name (nearest: {', '.join(close)})"
    return f"a known name ({', '.join(known[:8])}{', …' if len(known) > 8 else ''})"


def show(value: object) -> str:
    """A value as it appears in an error: short, with a word on how YAML came to read it so."""
    if isinstance(value, bool):
        return f"{value} (YAML reads yes/on/true as True and no/off/false as False: quote a text)"
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    if isinstance(value, str):
        return f"the text {text}"
    if isinstance(value, list | tuple):
        return f"the list {text}"
    return text


# Reading YAML strictly


# libyaml's parser is ten times as fast as the one in Python, and the glossary is read by every process of a run.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_SafeLoader):
    """PyYAML's safe loader that refuses a key given twice and a key that is not text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = key_node.value, key_node.start_mark.line + 1
            if not isinstance(key, str) or key_node.tag != "tag:yaml.org,2002:str":
                raise ParameterError("", str(key), "a name that YAML reads as text", got=f"{key!r} on line {line}")
            if key in seen:
                raise ParameterError("", key, "each name once", got=f"it on lines {seen[key]} and {line}")
            seen[key] = line
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path, *, where: str) -> dict[str, Any]:
    """The mapping in a YAML file; any fault is a ParameterError that names the file as `where`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParameterError(where, "file", "a YAML file", got="no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(where, "file", "a readable UTF-8 text", got=str(error).splitlines()[0]) from None
    try:
        value = yaml.load(text, Loader=_StrictLoader)
    except ParameterError as error:
        raise ParameterError(where, error.key, error.expected, got=error.got) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}" if mark else "file"
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ParameterError(where, line, "YAML", got=problem) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ParameterError(where, "file", "lines of `name: value`", got=show(value))
    return value


def read_terms(path: Path, *, where: str) -> dict[str, dict[str, Term]]:
    """The glossary: block → name → Term."""
    return _read_terms(path, where, path.stat().st_mtime_ns if path.exists() else 0)


@functools.lru_cache(maxsize=8)
def _read_terms(path: Path, where: str, _: int) -> dict[str, dict[str, Term]]:
    blocks = read_yaml(path, where=where)
    terms: dict[str, dict[str, Term]] = {}
    for block in BLOCKS:
        terms[block] = {}
        for name, facts in (blocks.pop(block, None) or {}).items():
            terms[block][name] = _term(name, block, facts=facts, where=where)
    for block in blocks:
        raise ParameterError(where, block, nearest(block, BLOCKS), got=f"the block {block!r}")
    for name in terms["recipe"].keys() & terms["parameters"].keys():
        raise ParameterError(where, name, "a name once (`recipe: true` under parameters)", got="it in two blocks")
    return terms


def _term(name: str, block: str, *, facts: object, where: str) -> Term:
    if not isinstance(facts, Mapping):
        raise ParameterError(where, name, "type, range, unit and meaning", got=show(facts))
    known = set(Term.__dataclass_fields__) - {"name", "block"}
    for fact in facts:
        if fact not in known:
            raise ParameterError(where, f"{name}.{fact}", nearest(fact, known), got=f"{fact!r}")
    term = Term(
        name,
        block,
        **{**facts, "choices": tuple(facts.get("choices", ())), "required": tuple(facts.get("required", ()))},
    )
    if term.type not in TYPES:
        raise ParameterError(where, f"{name}.type", nearest(term.type, TYPES), got=f"{term.type!r}")
    if not term.meaning:
        raise ParameterError(where, f"{name}.meaning", "text", got="nothing")
    return Term(**{**vars(term), "unit": str(term.unit)})


# Checking values


def checked(term: Term, value: object, *, where: str) -> Any:
    """`value` as a plain int, float, bool, str or list of them; ParameterError where it is not what `term` wants.

    A number in scientific notation that YAML left as text becomes a number; other text does not.

    >>> checked(Term("learning_rate", "recipe"), "1e-3", where="networks.yaml")
    0.001
    >>> checked(Term("epsilon_255", "parameters", minimum=0), "8/255", where="01.yaml")
    Traceback (most recent call last):
    helpers.glossary.ParameterError: 01.yaml: epsilon_255: expected a number >= 0, got the text '8/255'
    """
    if value is None and term.optional:
        return None
    container, _, element = term.type.partition("[")
    element = element.rstrip("]")
    if container == "list" and isinstance(value, list | tuple) and len(value) > 0:
        return [_scalar(term, element, value=item, where=f"{where}: {term.name}[{i}]") for i, item in enumerate(value)]
    if container == "dict" and isinstance(value, Mapping):
        return {str(k): _scalar(term, element, value=v, where=f"{where}: {term.name}.{k}") for k, v in value.items()}
    if element:
        raise ParameterError(where, term.name, term.expected, got=show(value))
    return _scalar(term, container, value=value, where=f"{where}: {term.name}")


def _scalar(term: Term, kind: str, *, value: object, where: str) -> Any:
    """One number, truth value or text; `where` ends with the key."""
    number = _number(value) if kind in ("int", "float") else None
    text = isinstance(value, str) and value != "" and (not term.choices or value in term.choices)
    good: Any = None
    if (kind == "bool" and isinstance(value, bool)) or (kind == "str" and text):
        good = value
    elif number is not None and kind == "float" and _inside(number, term):
        good = float(number)
    elif number is not None and kind == "int" and number == int(number) and _inside(number, term):
        good = int(number)
    if good is None:
        place, _, key = where.rpartition(": ")
        expected = term.expected
        if term.choices and isinstance(value, str):
            close = difflib.get_close_matches(value, term.choices, n=1)
            expected += f" (nearest: {close[0]})" if close else ""
        raise ParameterError(place, key, expected, got="nothing (null)" if value is None else show(value))
    return good


def _number(value: object) -> int | float | None:
    """A finite number, also from text in scientific notation; None for anything else, truth values included."""
    if isinstance(value, str) and _SCIENTIFIC.fullmatch(value):
        value = float(value)
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(float(value)):
        return float(value)
    return None


def _inside(number: int | float, term: Term) -> bool:
    return (
        (term.minimum is None or number >= term.minimum)
        and (term.maximum is None or number <= term.maximum)
        and (term.exclusive_minimum is None or number > term.exclusive_minimum)
    )


def checked_all(
    values: Mapping[str, Any], terms: Mapping[str, Term], *, where: str, complete: bool = False
) -> dict[str, Any]:
    """All values checked, each under a known name; where `complete`, only optional ones may be missing.

    All faults are raised at once (ParameterErrors).
    """
    faults: list[ParameterError] = []
    good: dict[str, Any] = {}
    for name, value in values.items():
        try:
            if name not in terms:
                raise ParameterError(where, name, nearest(name, terms), got=f"{name!r}")
            good[name] = checked(terms[name], value, where=where)
        except ParameterError as fault:
            faults.append(fault)
    if complete:
        missing = [name for name, term in terms.items() if not term.optional and name not in values]
        faults += [ParameterError(where, name, terms[name].expected, got="nothing") for name in missing]
    if faults:
        raise faults[0] if len(faults) == 1 else ParameterErrors(faults)
    return good

"""Which way an attack moves E(x): ours beside the published table of eight attacks (ebm.md 2.3), at two points.

Published for a network trained without attacks: attacks that raise cross-entropy or KL lower E(x), attacks with a
margin, a target or a smallest change raise it. Which public code returns which point differs between the two groups
(`attacks.NAMED[…].public`), so the same table is made where each attack ends and where each would first have stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from helpers import attacks, style
from helpers.parameters import ROOT
from helpers.tables import UNCERTAIN, Interval

PUBLISHED = ROOT / "params" / "published" / "ebm_attack_directions.csv"
FAMILIES = {"ce_kl": "CE and KL", "margin": "margin, target and smallest change"}
OPPOSITE = {"lowered": "raised", "raised": "lowered"}
UNCLEAR = "no clear sign"
Found = Mapping[tuple[str, str], Mapping[str, str]]  # (family, point) -> attack -> direction
HEADERS = {
    "attack": "attack",
    "published": "published: E(x)",
    "modes": "published mode (nat)",
    "trust": "trust",
    "point": "our point",
    "public": "as public code",
    "share_lowered": "E(x) lowered (%)",
    "delta_energy": "mean ΔE(x) (nat)",
    "ours": "ours: E(x)",
    "agrees": "agrees",
}


def published() -> pd.DataFrame:
    """The published directions, one row for each attack by its name here; unconfirmed ones are left out."""
    rows = pd.read_csv(PUBLISHED, keep_default_na=False)
    return rows[~rows["trust"].isin(list(UNCERTAIN))].set_index("attack")


def in_table(names: Sequence[str]) -> list[str]:
    """Those of `names` that the published histograms show, in their order; all of `names` if there are none.

    >>> in_table(["fgsm", "cw", "pgd_ce"]), in_table(["fgsm"])
    (['pgd_ce', 'cw'], ['fgsm'])
    """
    shown = published().query("family != ''").index
    return [name for name in shown if name in names] or list(names)


def direction(share: Interval, mean: Interval) -> str:
    """ "lowered" or "raised" where both intervals lie on one side: the mean ΔE of 0, the share lowered of one half.

    >>> direction(Interval(90, 80, 95), Interval(2, 1, 3)), direction(Interval(90, 80, 95), Interval(-2, -3, -1))
    ('lowered', 'no clear sign')
    """
    if share.low is None or share.high is None or mean.low is None or mean.high is None:
        return UNCLEAR
    if mean.low > 0 and share.low > 50:
        return "lowered"
    return "raised" if mean.high < 0 and share.high < 50 else UNCLEAR


def agreement(ours: str, theirs: str) -> str:
    """Whether our direction is the published one: yes, no, undecided where ours is unclear, a dash without theirs.

    >>> agreement("raised", "lowered"), agreement("no clear sign", "lowered"), agreement("raised", "")
    ('no', 'undecided', '–')
    """
    if not theirs:
        return "–"
    return {theirs: "yes", OPPOSITE[theirs]: "no"}.get(ours, "undecided")


def table(scalars: pd.DataFrame, *, network: str) -> pd.DataFrame:
    """The table of directions of one network: a row for each attack and point, the published attacks first.

    `scalars` are those of `landscape.summary`. Columns: see `HEADERS`; `share_lowered` and `delta_energy` are
    intervals. ValueError where nothing was measured on `network`.
    """
    theirs = published().to_dict("index")
    measured = _measured(scalars, network)
    if not measured:
        raise ValueError(f"network: expected one of {sorted(set(scalars['network']))}, got {network!r}")
    names = list(dict.fromkeys(attack for attack, _ in measured))
    order = [name for name in theirs if name in names] + [name for name in names if name not in theirs]
    lines = [
        _line(name, point, cells, theirs.get(name))
        for name in order
        for (attack, point), cells in measured.items()
        if attack == name
    ]
    return pd.DataFrame(lines, columns=list(HEADERS))


def _measured(scalars: pd.DataFrame, network: str) -> dict[tuple[str, str], dict[str, Interval]]:
    """Share lowered and mean ΔE by (attack, point)."""
    chosen = scalars[(scalars["network"] == network) & scalars["metric"].isin(["share_lowered", "delta_energy"])]
    found: dict[tuple[str, str], dict[str, Interval]] = {}
    for row in chosen.to_dict("records"):
        low, high = (None if pd.isna(row[end]) else row[end] for end in ("low", "high"))
        cells = found.setdefault((row["attack"], row["returns"]), {})
        cells[row["metric"]] = Interval(row["value"], low, high)
    return found


def _line(name: str, point: str, cells: Mapping[str, Interval], theirs: Mapping[Any, Any] | None) -> dict[str, object]:
    ours = direction(cells["share_lowered"], cells["delta_energy"])
    said = "" if theirs is None else str(theirs["direction"])
    return {
        "attack": style.label(name),
        "published": said or None,
        "modes": _modes(theirs) if theirs is not None and theirs["adversarial_mode"] else None,
        "trust": None if theirs is None else theirs["trust"],
        "point": style.label(point),
        "public": "yes" if attacks.NAMED[name].public == point else "no",
        **cells,
        "ours": ours,
        "agrees": agreement(ours, said),
    }


def _modes(theirs: Mapping[Any, Any]) -> str:
    return f"{theirs['natural_mode']} to {theirs['adversarial_mode']}".replace("-", "−")


# Is the split a stopping effect? --------------------------------------------------------------------------------------


def families(scalars: pd.DataFrame, *, network: str) -> dict[tuple[str, str], dict[str, str]]:
    """Our directions by attack, for each (family, "final" or "first_success") of the published histograms."""
    measured = _measured(scalars, network)
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name, row in published().to_dict("index").items():
        for point in ("final", "first_success"):
            cells = measured.get((str(name), attacks.NAMED[str(name)].final if point == "final" else point))
            if row["family"] and cells is not None:
                ways = found.setdefault((row["family"], point), {})
                ways[str(name)] = direction(cells["share_lowered"], cells["delta_energy"])
    return found


def finding(scalars: pd.DataFrame, *, network: str) -> str:
    """What the measurements say of the published split into two families, in words; a line for each sentence.

    Two questions, answered by intervals. Do CE and KL attacks lower E(x) only by going on after their first success?
    And do those of the other attacks that go on too (`final` is not the closest point) raise E(x) all the same?
    """
    found = families(scalars, network=network)
    if any((family, point) not in found for family in FAMILIES for point in ("final", "first_success")):
        return f"{style.label(network)}: both families of attacks are needed to compare them, at both points."
    names = {"final": "where each attack ends", "first_success": "at each attack's first success"}
    lines = [f"{style.label(network)}, {names[point]}: {_counted(found, point)}." for point in names]
    changed = [
        f"{style.label(name)} ({found[family, 'final'][name]} where it ends, {way} at its first success)"
        for family in FAMILIES
        for name, way in found[family, "first_success"].items()
        if way != found[family, "final"][name]
    ]
    lines.append(f"The point changes the direction of: {', '.join(changed) if changed else 'none of them'}.")
    return "\n".join([*lines, _of_lowering(found), _of_raising(found)])


def _counted(found: Found, point: str) -> str:
    parts = []
    for family, said in FAMILIES.items():
        ways = list(found[family, point].values())
        ups, downs = ways.count("raised"), ways.count("lowered")
        unclear = f", unclear for {len(ways) - ups - downs}" if ups + downs < len(ways) else ""
        parts.append(f"of {len(ways)} attacks by {said} {downs} lower E(x) and {ups} raise it{unclear}")
    return "; ".join(parts)


def _of_lowering(found: Found) -> str:
    """Whether CE and KL attacks lower E(x) only after their first success."""
    ends = [name for name, way in found["ce_kl", "final"].items() if way == "lowered"]
    if not ends:
        return "No CE or KL attack lowers E(x) where it ends: there is no lowering to explain."
    still = [name for name in ends if found["ce_kl", "first_success"][name] == "lowered"]
    said = f"{_listed(ends)} lower E(x) where they end"
    if not still:
        return f"{said}, none of them at its first success: that they lower E(x) is an effect of going on."
    if len(still) == len(ends):
        return f"{said}, and at their first success too: that they lower E(x) is no effect of going on."
    return f"{said}, at its first success only {_listed(still)}: going on explains a part."


def _of_raising(found: Found) -> str:
    """Whether those of the other attacks that go on after their first success raise E(x) all the same."""
    on = {name: way for name, way in found["margin", "final"].items() if attacks.NAMED[name].final != "closest"}
    raised = [name for name, way in on.items() if way == "raised"]
    if not on:
        return "None of the other attacks goes on after its first success."
    said = f"Of the other attacks {_listed(list(on))} go on as well"
    if len(raised) == len(on):
        return f"{said} and raise E(x) all the same: their raising is no effect of stopping."
    if not raised:
        return f"{said}, and then none of them raises E(x): their raising is an effect of stopping."
    return f"{said}, and then only {_listed(raised)} raise E(x): stopping explains a part."


def _listed(names: Sequence[str]) -> str:
    """Names as they are printed, joined by commas."""
    return ", ".join(style.label(name) for name in names)


def going_on(scalars: pd.DataFrame, *, network: str, attack: str = "pgd_margin") -> str:
    """Whether an attack on a margin that does not rest at the boundary (κ > 0) keeps E(x) from falling, in words."""
    cells = _measured(scalars, network).get((attack, attacks.NAMED[attack].final))
    if cells is None:
        return f"{style.label(attack)} was not measured on {style.label(network)}."
    way = direction(cells["share_lowered"], cells["delta_energy"])
    said = {
        "lowered": "so it is not the margin that keeps E(x) from falling where an attack goes on",
        "raised": "so going on does not lower E(x) here",
    }.get(way, "which decides nothing")
    return (
        f"{style.label(network)}, {style.label(attack)}, whose margin goes on growing beyond the boundary: E(x) "
        f"lowered on {cells['share_lowered']} %, mean ΔE(x) {cells['delta_energy']} nat: {way}, {said}."
    )

"""README's results, made from what is committed: `python -m helpers.readme` writes them, a test compares.

    params/shipped/<profile>/<network>/card.json               accuracies of the networks that ship
    figures/measured/<profile>/…/12_claims/claims.json         the ledger of a run: status and value of each claim
    figures/measured/<profile>/…/<notebook>/finished.json      what the notebooks of that run cost
    figures/measured/<profile>/…/runs/*.json                   what whole runs cost
    params/published/ebm_robust_accuracy.csv, params/claims.yaml   published values, with their trust

They stand in README.md between two marks. What no record holds is "not run".
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from helpers import claims, files, ledger, metrics, parameters, records, report, run_log, tables
from helpers.ledger import Claim
from helpers.metrics import Estimate
from helpers.robustness import METHODS
from helpers.tables import MISSING, Interval

BEGIN = "<!-- results: written by `python -m helpers.readme` -->"
END = "<!-- end of results -->"
NOT_RUN = "not run"
PUBLISHED = "ebm_robust_accuracy.csv"
LARGE = "cifar10"  # the profile that trains networks of the published size


# What there is


def measured() -> Path:
    """The folder of committed results."""
    return parameters.ROOT / "figures" / "measured"


def ledgers() -> dict[str, records.Record]:
    """The committed ledger of each profile that has one; ValueError for a profile with two."""
    found: dict[str, records.Record] = {}
    for path in sorted(measured().glob(f"**/{ledger.NOTEBOOK}/claims.json")):
        record = records.load(path)
        profile = str(record.content["profile"])
        if profile in found:
            raise ValueError(f"expected one ledger of {profile}, got {found[profile].path} and {path}")
        found[profile] = record
    return found


def cards() -> list[dict[str, Any]]:
    """The cards of the networks that ship, in the order of their recipes."""
    found = []
    for profile in parameters.profiles():
        for name, recipe in parameters.recipes(profile).items():
            homes = [parameters.ROOT / "params" / "shipped" / profile / f"{name}-seed{seed}" for seed in recipe.seeds]
            found += [card for home in homes if (card := files.read_json(home / "card.json"))]
    return found


# The claims


def statuses(record: records.Record) -> dict[str, tuple[str, str | None]]:
    """Claim → its status, and what was measured: value with interval and unit, of what."""
    frame = record.frame("claims")
    found: dict[str, tuple[str, str | None]] = {
        str(claim): (str(status), None) for claim, status in zip(frame["claim"], frame["status"], strict=True)
    }
    for row in record.content["scalars"]:
        if row["value"] is None:
            continue
        unit = "" if row["unit"] in ("1", None) else f" {row['unit']}"
        said = f"{Interval(row['value'], row['low'], row['high'])}{unit}"
        found[row["claim"]] = (row["status"], f"{said} ({row['quantity']})" if row.get("quantity") else said)
    return found


def _published(claim: Claim) -> str:
    there = claim.published
    if there is None:
        return MISSING
    if there.trust in tables.UNCERTAIN:
        return "not confirmed, so not printed"
    return there.value if isinstance(there.value, str) else f"{there.value:g}"


def claims_table() -> pd.DataFrame:
    """The headline claims with the published value and, of each profile with a ledger, status and value."""
    found = {profile: statuses(record) for profile, record in ledgers().items()}
    rows = []
    for claim in ledger.read():
        if not claim.headline:
            continue
        row = {"claim": claim.id, "statement": claim.statement, "published": _published(claim)}
        for profile, known in found.items():
            status, said = known.get(claim.id, (NOT_RUN, None))
            row[profile] = f"{status}: {said}" if said and status != NOT_RUN else status
        rows.append(row)
    return pd.DataFrame(rows, dtype=object)


def outcome(record: records.Record) -> str:
    """How many claims of the whole ledger have which status, in words."""
    frame = record.frame("claims")
    return ", ".join(f"{int((frame['status'] == status).sum())} {status}" for status in claims.STATUSES)


# The networks


def _accuracy(stored: Mapping[str, Any] | None) -> Interval | None:
    return Interval(stored["value"], stored["low"], stored["high"]) if stored else None


def _over_seeds(several: Sequence[Mapping[str, Any]], kind: str) -> Interval | None:
    """An accuracy of one network, or the mean over its seeds with Student's interval; None where there is none."""
    stored = [card["accuracy"][kind] for card in several if kind in card["accuracy"]]
    if not stored:
        return None
    keys = ("value", "low", "high", "n", "kind", "level")
    found = metrics.over_seeds([Estimate(**{key: one[key] for key in keys}) for one in stored], low=0.0, high=100.0)
    return Interval(found.value, found.low, found.high)


def asked_for() -> dict[str, list[str]]:
    """Network → the numbers of the notebooks that look at it, in the profiles with networks that ship."""
    found: dict[str, list[str]] = {}
    for profile in dict.fromkeys(card["profile"] for card in cards()):
        for notebook in (name for name in parameters.notebooks(profile) if name != ledger.NOTEBOOK):
            for name in parameters.network_names(parameters.read(notebook, profile)):
                found.setdefault(name, []).append(notebook[:2])
    return {name: list(dict.fromkeys(numbers)) for name, numbers in found.items()}


def _trained(several: Sequence[Mapping[str, Any]]) -> str:
    """What was trained, for how long and on how many images."""
    if not several:
        return NOT_RUN
    entry, n = several[0]["entry"], len(several)
    body = " ".join(str(entry[key]) for key in ("architecture", "depth", "width") if key in entry)
    images = several[0]["data"]["n_train"]
    return f"{body}, {entry['epochs']} epochs of {images:,} images" + (f", {n} seeds" if n > 1 else "")


def networks_table() -> pd.DataFrame:
    """The networks that ship: first those of paper 1's table beside the published ones of a ResNet-18 and ours of that
    size, then the others by the first notebook that asks for them; several seeds are one row."""
    theirs = pd.read_csv(parameters.ROOT / "params" / "published" / PUBLISHED)
    theirs = theirs[(theirs["dataset"] == "CIFAR-10") & ~theirs["trust"].isin(list(tables.UNCERTAIN))]
    values = {(row.method, row.metric): row.value for row in theirs.itertuples()}
    every: dict[str, list[dict[str, Any]]] = {}
    for card in cards():
        every.setdefault(card["name"], []).append(card)
    rows, wanted = [], asked_for()
    printed = [name for name, method in METHODS.items() if (method, "AutoAttack") in values]
    rest = sorted(every, key=lambda name: wanted.get(name, ["99"])[0])
    for name in dict.fromkeys([*printed, *rest]):
        several, method = every.get(name, []), METHODS.get(name)
        rows.append(
            {
                "network": name,
                "trained": _trained(several),
                "notebooks": ", ".join(wanted.get(name, [])) or None,
                "clean": _over_seeds(several, "clean"),
                "pgd": _over_seeds(several, "pgd"),
                "ball": report.ball(several[0]["accuracy"].get("pgd")) if several else None,
                "published_pgd": values.get((method, "PGD")),
                "published_ensemble": values.get((method, "AutoAttack")),
                "large": _large(name) if name in printed else None,
            }
        )
    return pd.DataFrame(rows, dtype=object)


def _large(name: str) -> Interval | str:
    """Our accuracy under AutoAttack of a network of the published size, from the committed record of 03_weat."""
    path = measured() / LARGE / "03_weat" / "robustness.json"
    rows = records.load(path).content["scalars"] if path.is_file() else []
    asked = {"metric": "robust_accuracy", "network": name, "attack": "autoattack"}
    found = [row for row in rows if all(row.get(key) == value for key, value in asked.items())]
    return _accuracy(found[0]) or NOT_RUN if len(found) == 1 else NOT_RUN


NETWORK_HEADERS = {
    "notebooks": "shown in",
    "clean": "clean (%)",
    "pgd": "under PGD-20 (%)",
    "ball": "in",
    "published_pgd": "published, ResNet-18: PGD (%)",
    "published_ensemble": "published: AutoAttack (%)",
    "large": f"ours, ResNet-18 (`{LARGE}`): AutoAttack (%)",
}


# What a run cost


def costs(record: records.Record) -> str:
    """Minutes of each notebook of the run whose ledger this is, their sum, and on what."""
    homes = [path.parent for path in sorted(record.path.parent.parent.glob("[0-9][0-9]_*/finished.json"))]
    made = {home.name: files.read_json(home / "finished.json")["provenance"] for home in homes}
    minutes = {name: one["wall_seconds"] / 60 for name, one in made.items()}
    each = ", ".join(f"{name[:2]} {took:.1f}" for name, took in minutes.items())
    threads = ", ".join(dict.fromkeys(str(one["threads"]) for one in made.values()))
    commits = ", ".join(dict.fromkeys(f"`{one['commit'][:7]}`" for one in made.values()))
    device = ", ".join(dict.fromkeys(one["device"] for one in made.values()))
    return (
        f"Minutes of its notebooks by the clock: {each}; one after the other {sum(minutes.values()):.1f}, "
        f"with {threads} thread(s) on {device}, commit {commits}."
    )


def _asked(run: Mapping[str, Any], profile: str) -> str:
    """Which notebooks a run was for, in words."""
    numbers = [str(name)[:2] for name in run["notebooks"]]
    usual = [name[:2] for name in parameters.named(profile, [])]
    seeds = f", {run['max_seeds']} seed(s) a network" if run["max_seeds"] else ""
    return ("all" if numbers == usual else ", ".join(numbers)) + seeds


def runs_table() -> pd.DataFrame:
    """The committed runs of `./run_all.sh` that ended well: what ran, for how long, and on what."""
    rows = []
    for profile, record in ledgers().items():
        for run in run_log.read([record.path.parent.parent / "runs"]):
            kinds = [job["kind"] for job in run["jobs"]]
            if run["status"] == 0:
                rows.append(
                    {
                        "profile": f"`{profile}`",
                        "notebooks": _asked(run, profile),
                        "ran": f"{kinds.count('network')} × network, {kinds.count('notebook')} × notebook",
                        "clock": f"{run['wall_seconds']:,.0f}",
                        "work": f"{sum(job['seconds'] or 0.0 for job in run['jobs']):,.0f}",
                        "memory": f"{max(job['peak_memory_mb'] or 0 for job in run['jobs']):,.0f}",
                        "cores": str(run["cores"]),
                        "device": run["device"],
                        "commit": f"`{run['commit'][:7]}`",
                    }
                )
    return pd.DataFrame(rows, dtype=object)


RUN_HEADERS = {
    "notebooks": "notebooks asked for",
    "clock": "by the clock (s)",
    "work": "sum of its jobs (s)",
    "memory": "largest job (MB)",
}


# The page


def _parts() -> Iterator[str]:
    found = ledgers()
    rest = [profile for profile in parameters.profiles() if profile not in found]
    yield BEGIN
    n = {card["accuracy"]["clean"]["n"] for card in cards()}
    yield (
        f"Networks that ship, rounded to bfloat16, on {' and '.join(f'{one:,}' for one in sorted(n))} test images "
        "(Wilson's 95 % interval, Student's t over several seeds; PGD with one start, last iterate: an upper bound). "
        "Published are larger networks, trained for longer."
    )
    yield tables.readme(networks_table(), headers=NETWORK_HEADERS)
    yield (
        "Claims that readers come for, with the published value and ours; all are in `12_claims`. "
        + (f"No committed run of {', '.join(f'`{one}`' for one in rest)}: {NOT_RUN}." if rest else "")
    )
    yield tables.readme(claims_table(), headers={profile: f"`{profile}`" for profile in found})
    for profile, record in found.items():
        folder = record.path.parent.parent.relative_to(parameters.ROOT).as_posix()
        yield f"`{profile}` ([records]({folder})): {outcome(record)}. {costs(record)}"
    runs = runs_table()
    if len(runs):
        yield (
            "What runs of `./run_all.sh` took in fresh clones, packages installed; machines of one name differ, and so "
            "do days."
        )
        yield tables.readme(runs, headers=RUN_HEADERS)
    yield END


def block() -> str:
    """What stands between the marks, with them."""
    return "\n\n".join(_parts())


def replaced(text: str, new: str) -> str:
    """`text` with what stands between its marks replaced; ValueError where it has not one pair of them."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"expected one pair of marks, {BEGIN} and {END}, got {len(pattern.findall(text))}")
    return pattern.sub(lambda _: new, text)


def main() -> int:
    """Write the results into README.md."""
    path = parameters.ROOT / "README.md"
    try:
        files.write_text(path, replaced(path.read_text("utf-8"), block()))
    except (ValueError, OSError) as error:
        print(f"helpers.readme: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

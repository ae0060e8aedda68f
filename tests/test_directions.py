"""The table of directions and the verdict on stopping, on scalars that are made up for each case."""

import pandas as pd
import pytest

from helpers import attacks, directions, records, style
from helpers.tables import Interval

FAMILY = {"ce_kl": ["pgd_ce", "pgd_kl", "apgd_ce"], "margin": ["apgd_t", "apgd_dlr", "fab_t", "square", "cw"]}
LOWERED, RAISED, MIXED = (2.0, 90.0), (-2.0, 10.0), (0.1, 50.0)


def scalars(ways, network="standard"):
    """Scalars as `landscape.summary` makes them; `ways` maps (attack, point) to (mean ΔE, share lowered)."""
    rows = []
    for (attack, point), (mean, share) in ways.items():
        where = {"network": network, "attack": attack, "returns": point}
        for metric, value, reach in (("delta_energy", mean, 1.0), ("share_lowered", share, 5.0)):
            interval = {"interval": (value - reach, value + reach), "interval_kind": "student_t"}
            rows.append(records.scalar(metric, value, n=100, seeds=[0, 1, 2], **interval, **where))
    return pd.DataFrame(rows)


def everywhere(*, final, first):
    """Both families at both points: `final` and `first` are (CE and KL, the others)."""
    ways = {}
    for at, kinds in (("final", final), ("first_success", first)):
        for family, way in zip(FAMILY, kinds, strict=True):
            for name in FAMILY[family]:
                ways[name, attacks.NAMED[name].final if at == "final" else at] = way
    return ways


def test_the_published_table_names_attacks_of_ours_in_two_families():
    theirs = directions.published()
    assert set(theirs.index) <= set(attacks.NAMED)
    shown = theirs[theirs["family"] != ""]
    assert {family: list(rows.index) for family, rows in shown.groupby("family", sort=False)} == FAMILY
    assert set(shown.loc[FAMILY["ce_kl"], "direction"]) == {"lowered"}
    assert set(shown.loc[FAMILY["margin"], "direction"]) == {"raised"}
    for row in shown.itertuples():  # the direction is that of the modes
        assert (float(row.adversarial_mode) < float(row.natural_mode)) == (row.direction == "lowered")
    assert set(theirs["trust"]) <= {"high", "medium"}


def test_directions_that_nobody_confirmed_are_left_out(tmp_path, monkeypatch):
    text = directions.PUBLISHED.read_text("utf-8").replace("read off,medium", "read off,recalled", 1)
    (tmp_path / "table.csv").write_text(text, "utf-8")
    monkeypatch.setattr(directions, "PUBLISHED", tmp_path / "table.csv")
    assert "pgd_ce" not in directions.published().index
    assert "pgd_kl" in directions.published().index


@pytest.mark.parametrize(
    ("share", "mean", "expected"),
    [
        ((60, 51, 69), (2, 0.1, 4), "lowered"),
        ((40, 31, 49), (-2, -4, -0.1), "raised"),
        ((60, 49, 71), (2, 0.1, 4), "no clear sign"),  # the share's interval holds one half
        ((60, 51, 69), (2, -0.1, 4), "no clear sign"),  # the mean's holds 0
        ((90, 80, 95), (-2, -3, -1), "no clear sign"),  # most are lowered, the mean is raised
        ((40, 31, 49), (-0.5, -1.5, 0.5), "no clear sign"),
        ((60, None, None), (2, 1, 3), "no clear sign"),
        ((60, 51, 69), (2, None, None), "no clear sign"),
    ],
)
def test_a_direction_needs_both_intervals_on_one_side(share, mean, expected):
    assert directions.direction(Interval(*share), Interval(*mean)) == expected


def test_the_table_has_a_row_for_each_point_and_agrees_by_intervals():
    ways = {
        ("fgsm", "last"): RAISED, ("cw", "closest"): RAISED, ("cw", "first_success"): MIXED,
        ("pgd_ce", "last"): LOWERED, ("pgd_ce", "first_success"): RAISED,
        ("square", "max_loss"): LOWERED, ("square", "first_success"): RAISED,
    }  # fmt: skip
    found = directions.table(scalars(ways), network="standard")
    said = {(row.attack, row.point): (row.ours, row.agrees, row.public) for row in found.itertuples()}
    names = [style.label(name) for name in ("pgd_ce", "square", "cw", "fgsm")]
    assert list(dict.fromkeys(found["attack"])) == names  # the published order, then the rest
    assert said == {
        ("PGD-CE", "last iterate"): ("lowered", "yes", "yes"),
        ("PGD-CE", "first success"): ("raised", "no", "no"),
        ("Square", "largest loss"): ("lowered", "no", "no"),
        ("Square", "first success"): ("raised", "yes", "yes"),
        ("CW (L2)", "closest point"): ("raised", "yes", "yes"),
        ("CW (L2)", "first success"): ("no clear sign", "undecided", "no"),
        ("FGSM", "last iterate"): ("raised", "–", "yes"),
    }
    assert list(found.columns) == list(directions.HEADERS)
    row = found.iloc[0]
    assert (row["modes"], row["trust"], row["share_lowered"]) == ("−14 to −28", "medium", Interval(90.0, 85.0, 95.0))
    assert found[found["attack"] == "FGSM"][["published", "modes", "trust"]].isna().all(axis=None)
    with pytest.raises(ValueError, match=r"network: expected one of \['standard'\], got 'madry'"):
        directions.table(scalars(ways), network="madry")


LOW = "PGD-CE, PGD-KL (TRADES), APGD-CE lower E(x) where they end"
ON = "Of the other attacks APGD-T, APGD-DLR, Square go on as well"


@pytest.mark.parametrize(
    ("final", "first", "lowering", "raising"),
    [
        (
            (LOWERED, RAISED),
            (RAISED, RAISED),
            f"{LOW}, none of them at its first success: that",
            "raise E(x) all the same",
        ),
        (
            (LOWERED, RAISED),
            (MIXED, RAISED),
            f"{LOW}, none of them at its first success: that",
            "raise E(x) all the same",
        ),
        ((LOWERED, RAISED), (LOWERED, RAISED), f"{LOW}, and at their first success too", "is no effect of stopping"),
        ((LOWERED, LOWERED), (RAISED, RAISED), "is an effect of going on", "none of them raises E(x)"),
        ((RAISED, RAISED), (RAISED, RAISED), "there is no lowering to explain", "raise E(x) all the same"),
    ],
)
def test_the_finding_on_stopping(final, first, lowering, raising):
    text = directions.finding(scalars(everywhere(final=final, first=first)), network="standard")
    *_, changed, of_lowering, of_raising = text.splitlines()
    assert lowering in of_lowering
    assert of_raising.startswith(ON)
    assert raising in of_raising
    assert ("PGD-CE (" in changed) == (final[0] != first[0])
    assert ("Square (" in changed) == (final[1] != first[1])
    assert ("none of them" in changed) == (final == first)


def test_the_finding_counts_directions_and_one_attack_that_differs_is_a_part():
    ways = everywhere(final=(LOWERED, RAISED), first=(RAISED, RAISED))
    ways |= {("pgd_kl", "first_success"): LOWERED, ("square", "max_loss"): MIXED}
    lines = directions.finding(scalars(ways), network="standard").splitlines()
    assert "of 3 attacks by CE and KL 3 lower E(x) and 0 raise it; of 5 attacks" in lines[0]
    assert lines[0].endswith("0 lower E(x) and 4 raise it, unclear for 1.")
    assert "of 3 attacks by CE and KL 1 lower E(x) and 2 raise it" in lines[1]
    assert lines[3] == f"{LOW}, at its first success only PGD-KL (TRADES): going on explains a part."
    assert lines[4] == f"{ON}, and then only APGD-T, APGD-DLR raise E(x): stopping explains a part."


def test_attacks_that_look_for_the_closest_point_do_not_go_on():
    ways = everywhere(final=(LOWERED, RAISED), first=(RAISED, RAISED))
    ways = {key: way for key, way in ways.items() if key[0] in ("pgd_ce", "fab_t", "cw")}
    text = directions.finding(scalars(ways), network="standard")
    assert text.endswith("None of the other attacks goes on after its first success.")


def test_without_both_families_there_is_no_verdict():
    text = directions.finding(
        scalars({("pgd_ce", "last"): LOWERED, ("pgd_ce", "first_success"): RAISED}), network="standard"
    )
    assert text == "Standard: both families of attacks are needed to compare them, at both points."


@pytest.mark.parametrize(
    ("way", "words"),
    [
        (LOWERED, "so it is not the margin"),
        (RAISED, "going on does not lower E(x) here"),
        (MIXED, "which decides nothing"),
    ],
)
def test_a_margin_attack_that_goes_on(way, words):
    text = directions.going_on(scalars({("pgd_margin", "last"): way}), network="standard")
    assert words in text
    assert "not measured" in directions.going_on(scalars({("pgd_ce", "last"): way}), network="standard")


def test_attacks_of_the_figure_are_in_the_published_order():
    assert directions.in_table(list(attacks.NAMED)) == [*FAMILY["ce_kl"], *FAMILY["margin"]]

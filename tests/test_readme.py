"""README's results are what the committed records say, and say "not run" of all else."""

import json
import re
import shutil

import numpy as np
import pytest

from helpers import claims, files, ledger, parameters, readme, records, tables
from helpers.parameters import ROOT


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with what the results are made from, for a test to change."""
    for folder in ("params", "figures/measured"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.png", "*.gif", "*.csv.gz"))
    shutil.copy(ROOT / "README.md", tmp_path / "README.md")
    monkeypatch.setattr(parameters, "ROOT", tmp_path)
    return tmp_path


def test_readme_says_what_the_records_say():
    text = (ROOT / "README.md").read_text("utf-8")
    assert readme.replaced(text, readme.block()) == text, "run python -m helpers.readme"


def test_a_changed_record_changes_it(root):
    path = sorted((root / "params" / "shipped").glob("*/*/card.json"))[0]
    card = json.loads(path.read_text("utf-8"))
    card["accuracy"]["clean"]["value"] += 1
    path.write_text(json.dumps(card), "utf-8")
    text = (root / "README.md").read_text("utf-8")
    assert readme.replaced(text, readme.block()) != text
    assert readme.main() == 0
    assert readme.replaced(text, readme.block()) == (root / "README.md").read_text("utf-8") != text


def test_every_status_and_value_is_that_of_the_ledger():
    table = readme.claims_table().set_index("claim")
    assert len(readme.ledgers()) >= 1
    for profile, record in readme.ledgers().items():
        scalars = record.scalars.set_index("claim")
        known = record.frame("claims").set_index("claim")["status"]
        for claim, said in table[profile].items():
            assert said.split(":")[0] == known.get(claim, readme.NOT_RUN)
            if ":" in said:
                shown = re.search(r": (-?[\d.e+-]+)", said).group(1)
                last = 10.0 ** -len(shown.partition(".")[2])  # the digit that the interval lets be said
                assert float(shown) == pytest.approx(scalars.loc[claim, "value"], rel=0, abs=0.51 * last)
                assert tables.text(scalars.loc[claim, "value"])


RUN = {
    "format": "run/1",
    "profile": "digits",
    "notebooks": ["00_start_here", "01_energy_landscape"],
    "wall_seconds": 1234.5,
    "status": 0,
    "jobs": [
        {"job": "network madry", "kind": "network", "seconds": 100.0, "peak_memory_mb": 700},
        {"job": "00_start_here", "kind": "notebook", "seconds": 20.0, "peak_memory_mb": 900},
        {"job": "01_energy_landscape", "kind": "notebook", "seconds": 3.0, "peak_memory_mb": None},
    ],
    "max_seeds": "1",
    "cores": 2,
    "device": "a processor",
    "commit": "0123456789" * 4,
}


def test_what_a_run_took_is_what_it_kept_and_a_failed_one_is_left_out(root):
    folder = readme.ledgers()["digits"].path.parent.parent / "runs"
    shutil.rmtree(folder, ignore_errors=True)
    files.write_json(folder / "1.json", RUN)
    files.write_json(folder / "2.json", RUN | {"status": 1})
    table = readme.runs_table()
    table = table[table["profile"] == "`digits`"]
    assert len(table) == 1
    assert dict(table.iloc[0]) == {
        "profile": "`digits`",
        "notebooks": "00, 01, 1 seed(s) a network",
        "ran": "1 × network, 2 × notebook",
        "clock": "1,234",
        "work": "123",
        "memory": "900",
        "cores": "2",
        "device": "a processor",
        "commit": "`0123456`",
    }
    assert "by the clock (s)" in readme.block()


def test_what_no_record_holds_is_not_run(root):
    shutil.rmtree(root / "figures" / "measured")
    shutil.rmtree(root / "params" / "shipped")
    table = readme.networks_table()
    assert list(table["network"]) == ["madry", "trades", "mail_trades", "weat_nat", "weat_adv"]
    assert set(table["trained"]) == set(table["large"]) == {readme.NOT_RUN}
    assert table.loc[0, "published_ensemble"] == 45.37
    assert set(readme.claims_table().columns) == {"claim", "statement", "published"}
    assert all(f"`{profile}`" in readme.block() for profile in parameters.profiles())


def test_networks_stand_by_what_they_are_for_and_seeds_are_one_row(root):
    table = readme.networks_table()
    names = list(table["network"])
    assert names[:5] == ["madry", "trades", "mail_trades", "weat_nat", "weat_adv"]
    assert len(names) == len(set(names))
    firsts = [str(said)[:2] for said in table["notebooks"][5:]]
    assert firsts == sorted(firsts)
    row = table.set_index("network").loc["madry_few"]
    cards = [card for card in readme.cards() if card["name"] == "madry_few"]
    assert len(cards) == 3
    assert row["trained"].endswith("40 epochs of 1,000 images, 3 seeds")
    values = [card["accuracy"]["pgd"]["value"] for card in cards]
    assert row["pgd"].value == pytest.approx(sum(values) / 3)
    half = 4.3027 * np.std(values, ddof=1) / 3**0.5  # Student's t at 2 degrees of freedom
    assert row["pgd"].high - row["pgd"].value == pytest.approx(half, rel=1e-3)


def test_an_unconfirmed_value_is_not_printed():
    claim = ledger.Claim("A", "ebm", "s", published=ledger.Published("12.3", "recalled by somebody", "recalled"))
    assert "12.3" not in readme._published(claim)
    assert "12.3" not in str(claims.published(claim))


def test_two_ledgers_of_one_profile_are_refused(root):
    there = sorted((root / "figures" / "measured").glob("**/12_claims"))[0]
    shutil.copytree(there, there.parent / "again" / "12_claims")
    with pytest.raises(ValueError, match="expected one ledger of"):
        readme.ledgers()


def test_marks_are_asked_for():
    with pytest.raises(ValueError, match="expected one pair of marks"):
        readme.replaced("nothing", "new")
    with pytest.raises(ValueError, match="got 2"):
        readme.replaced(f"{readme.BEGIN}{readme.END}" * 2, "new")


def test_profiles_of_the_table_have_the_minutes_of_their_profile_yaml():
    text = (ROOT / "README.md").read_text("utf-8")
    rows = {profile: row for profile in parameters.profiles() for row in re.findall(rf"^\| `{profile}`.*$", text, re.M)}
    assert set(rows) == set(parameters.profiles())
    for profile, row in rows.items():
        said = re.search(r"about ([\d.]+) minutes", row)
        assert said is None or float(said.group(1)) == parameters.profile_facts(profile)["minutes"]


def test_measured_folders_say_what_they_cost():
    for record in readme.ledgers().values():
        assert re.search(r"one after the other \d+\.\d", readme.costs(record))
        assert records.load(record.path).provenance["dirty"] is False

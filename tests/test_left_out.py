"""What networks were trained without, from their cards."""

import pandas as pd
import pytest

from helpers import left_out


def card(seed, arm=None, *, removed=-4.0, kept=-6.0, wrong=0):
    entry = {"objective": "madry"} | ({} if arm is None else {"removed": arm})
    facts = {"n": 20, "of": 100, "judged": "attacked", "misclassified_removed": wrong}
    facts |= {"energy_removed": removed, "energy_kept": kept}
    return {"seed": seed, "entry": entry, "data": {} if arm is None else {"removed": facts}}


def test_each_arm_over_its_seeds():
    cards = [card(0), card(0, "high_energy"), card(1, "high_energy", removed=-3.0), card(0, "misclassified", wrong=20)]
    assert [left_out.arm(one) for one in cards] == ["none", "high_energy", "high_energy", "misclassified"]
    found = {row["id"]: row for row in left_out.summary(cards)}
    gap = found["energy_gap[judged=attacked,removed=high_energy]"]
    assert (gap["value"], gap["seeds"], gap["interval_kind"]) == (2.5, [0, 1], "student_t")
    assert found["share_removed_misclassified[judged=attacked,removed=misclassified]"]["value"] == 100
    assert not any("removed=none" in name for name in found)
    said = left_out.reading(pd.DataFrame(found.values())).splitlines()
    assert len(said) == 2
    assert said[0].startswith("high E(x), correct: 20 of 100 images left out, right and wrong judged under attack")
    assert "mean E(x) is 2.5 [-3.9, 8.9] nat above" in said[0]
    assert "mean E(x) is 2 nat above" in said[1]


def test_a_network_that_saw_all_has_nothing_to_say():
    assert left_out.summary([card(0)]) == []
    with pytest.raises(KeyError):
        left_out.summary([{"seed": 0, "entry": {"removed": "random"}, "data": {}}])

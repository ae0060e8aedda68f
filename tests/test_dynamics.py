"""Known breaks, the rate of false ones, and the published curve."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers import dynamics, published_dynamics


def _broken(t: np.ndarray, *, breaks: tuple[float, ...], slopes: tuple[float, ...]) -> np.ndarray:
    value = slopes[0] * t
    for at, before, after in zip(breaks, slopes[:-1], slopes[1:], strict=True):
        value = value + (after - before) * np.maximum(t - at, 0)
    return value


def test_breaks_and_slopes_of_an_exact_curve_are_recovered():
    t = np.arange(1.0, 41.0)
    found = dynamics.phases(t, 0.5 + _broken(t, breaks=(9, 31), slopes=(-0.02, 0.001, -0.05)))
    assert found.found
    assert found.chosen.breaks == (9.0, 31.0)
    np.testing.assert_allclose(found.chosen.slopes, (-0.02, 0.001, -0.05), rtol=1e-9)
    np.testing.assert_allclose(found.chosen.fitted, 0.5 + _broken(t, breaks=(9, 31), slopes=(-0.02, 0.001, -0.05)))


def test_one_break_is_not_split_into_two():
    t = np.arange(40.0)
    found = dynamics.phases(t, _broken(t, breaks=(15,), slopes=(-0.1, 0.0)))
    assert found.chosen.pieces == 2
    assert found.chosen.breaks == (15.0,)


def test_breaks_of_noisy_curves_lie_where_they_were_put():
    # A break between slopes that differ by Δ, noise σ, m epochs on each side: the standard error of its place is of
    # order 2σ/(Δ√m) = 2·0.01/(0.02·√10) = 0.3 epochs, so four of them and half an epoch of the grid is within 2.
    t = np.arange(40.0)
    rng = np.random.default_rng(0)
    curve = _broken(t, breaks=(10, 30), slopes=(-0.02, 0.0, -0.03))
    for _ in range(10):
        found = dynamics.phases(t, curve + 0.01 * rng.standard_normal(len(t)))
        assert found.chosen.pieces == 3
        np.testing.assert_allclose(found.chosen.breaks, (10, 30), atol=2)


def test_a_noisy_straight_line_has_no_phases():
    # Measured on 2,000 lines of 30 epochs: 0.1 % false breaks. 200 lines, at most 4: P(> 4 | 0.5 %) = 0.4 %.
    t = np.arange(30.0)
    rng = np.random.default_rng(1)
    found = [dynamics.phases(t, 0.1 * t + rng.standard_normal(30), max_pieces=2).found for _ in range(200)]
    assert sum(found) <= 4


def test_statement_says_what_was_found_and_what_it_gained():
    t = np.arange(30.0)
    rng = np.random.default_rng(2)
    line = dynamics.phases(t, rng.standard_normal(30))
    assert line.statement().startswith("no phase found")
    broken = dynamics.phases(t, _broken(t, breaks=(12,), slopes=(0.0, -0.1)) + 0.01 * rng.standard_normal(30))
    assert broken.statement().startswith("2 phases, breaks at epoch 12,")
    assert "below 1 piece," in broken.statement()


def test_the_criterion_counts_breaks_and_coefficients():
    # k pieces: k + 1 coefficients and k − 1 breaks.
    t = np.arange(30.0)
    v = np.random.default_rng(4).standard_normal(30)
    for k, fit in enumerate(dynamics.phases(t, v).tried, start=1):
        assert fit.rss == pytest.approx(((v - fit.fitted) ** 2).sum())
        assert fit.bic == pytest.approx(30 * np.log(fit.rss / 30) + 2 * k * np.log(30))


def test_squared_error_never_grows_with_the_number_of_pieces():
    t = np.arange(25.0)
    rng = np.random.default_rng(3)
    for _ in range(5):
        rss = [fit.rss for fit in dynamics.phases(t, rng.standard_normal(25)).tried]
        assert rss == sorted(rss, reverse=True)


def test_breaks_of_the_published_curve_are_those_of_the_paper():
    # Fig. 1(a) marks epochs 10 and 78 for SAT; the digitised points are read every third epoch, hence 4.
    found = dynamics.table(published_dynamics.curves(), value="delta_energy").set_index("network").loc["SAT"]
    np.testing.assert_allclose([found["break_1"], found["break_2"]], (10, 78), atol=4)


def test_table_has_a_row_for_each_seed_and_for_their_mean():
    t = np.arange(30)
    curves = pd.concat(
        pd.DataFrame(
            {"network": name, "seed": seed, "epoch": t, "delta": _broken(t, breaks=(at,), slopes=(-0.1 - seed, 0.0))}
        )
        for name, at, seeds in [("madry", 10, (0, 1)), ("trades", 20, (0,))]
        for seed in seeds
    )
    table = dynamics.table(curves.sample(frac=1, random_state=0), value="delta").set_index(["network", "curve"])
    assert set(table.index) == {("madry", "seed 0"), ("madry", "seed 1"), ("madry", "mean"), ("trades", "seed 0")}
    assert table["break_1"].groupby("network").unique().to_dict() == {"madry": [10], "trades": [20]}
    assert table["break_2"].isna().all()
    assert table.loc[("madry", "mean"), "slope_1"] == pytest.approx(-0.6)
    assert (table["bic_gain"] > dynamics.BIC_MARGIN).all()
    rows = dynamics.breaks(table.reset_index())
    starts = [(r["network"], r["curve"], r["phase"], r["value"]) for r in rows if r["metric"] == "phase_start"]
    assert starts[-1] == ("trades", "seed 0", 2, 20)
    counted = [(r["network"], r["value"], r["low"], r["seeds"]) for r in rows if r["metric"] == "phases"]
    assert counted == [("madry", 2, 2, [0, 1]), ("trades", 2, None, [0])]  # without the mean curve


def test_a_curve_of_too_few_epochs_is_not_asked_for_phases():
    t = np.arange(1, 41)
    bent = _broken(t, breaks=(20,), slopes=(-1, 0))
    curves = [
        pd.DataFrame({"network": name, "seed": 0, "epoch": t[:n], "delta": bent[:n]})
        for name, n in [("madry", 4), ("madry_few", 40)]
    ]
    table = dynamics.table(pd.concat(curves), value="delta")
    assert table["phases"].isna().tolist() == [True, False]
    assert table["statement"][0] == "not asked for phases: 4 epochs are too few, 9 are needed"
    assert dynamics.told(table, network="madry") == "too few epochs to look for phases"
    assert dynamics.told(table, network="madry_few") == "1 break(s) found in its one seed"
    assert dynamics.marks(table[:1]) == []
    assert {row["network"] for row in dynamics.breaks(table)} == {"madry_few"}


def test_one_seed_is_given_no_interval_and_no_verdict():
    frame = dynamics.curves({("madry", 0): _history(probe_shift=0)})
    frame[["energy", "pgd_error"]] = frame[["delta_energy", "clean_error"]].to_numpy()
    rows = dynamics.final(frame)
    said = dynamics.reading(pd.DataFrame(rows))
    assert "moves E(x)" in said
    assert "in one network, so without an interval" in said
    ends = _ends({"trades": -0.4, "weat_adv": -0.1}, 0.01)
    ends["seeds"] = [[0]] * len(ends)
    assert "told apart by" not in published_dynamics.ending(ends, probe="train")
    assert "no interval to tell them apart" in published_dynamics.ending(ends, probe="train")


def test_where_the_curves_end():
    frame = dynamics.curves({("madry", seed): _history(probe_shift=seed) for seed in (0, 1, 2)})
    frame[["energy", "pgd_error"]] = frame[["delta_energy", "clean_error"]].to_numpy()
    rows = {row["id"]: row for row in dynamics.final(frame)}
    end = rows["delta_energy[network=madry,probe=test]"]
    # Seeds end at 97, 98, 99: mean 98, t = 4.303 at 2 degrees of freedom, s = 1.
    assert (end["value"], end["n"], end["seeds"], end["interval_kind"]) == (98, 3, [0, 1, 2], "student_t")
    assert end["high"] - 98 == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert "raises E(x)" not in dynamics.reading(pd.DataFrame(rows.values())).splitlines()[1]


def test_published_values_stand_beside_the_same_fraction_of_our_training():
    t = np.arange(1, 31)
    curves = pd.DataFrame({"network": "madry", "seed": 0, "epoch": t, "delta_energy": -0.01 * t})
    table = published_dynamics.beside(curves, data="digits").set_index("published epoch")
    assert table.loc[90, "published, CIFAR-10"] == -0.513
    assert table.loc[90, "our epoch"] == 27
    assert table.loc[90, "ours, digits"].value == pytest.approx(-0.27)
    assert table.loc[1, "ours, digits"].value == pytest.approx(-0.01)  # before our first epoch: the first


def test_reading_at_a_fraction_of_training():
    epochs = np.arange(1, 31)
    got = published_dynamics.at_epochs(epochs, 2.0 * epochs, np.array([50, 100]), of=100)
    np.testing.assert_allclose(got, [30.0, 60.0])


@pytest.mark.parametrize(
    ("epochs", "values", "expected"),
    [
        (np.arange(30), np.zeros(29), "one length"),
        (np.zeros(30), np.zeros(30), "increase"),
        (np.arange(30), np.r_[np.zeros(29), np.nan], "finite, got 1"),
        (np.arange(8), np.zeros(8), "at least 9 epochs, got 8"),
    ],
)
def test_what_cannot_be_fitted_is_refused(epochs, values, expected):
    with pytest.raises(ValueError, match=expected):
        dynamics.phases(epochs, values)


def _history(*, attacked: bool = True, n_epochs: int = 4, n: int = 5, probe_shift: float = 0.0) -> SimpleNamespace:
    scalars = {"epoch": list(range(1, n_epochs + 1)), "train_loss": [1.0] * n_epochs}
    arrays = {}
    for probe, offset in (("train", 0.0), ("test", 100.0)):
        scalars |= {f"clean_error_{probe}": [offset + e for e in range(n_epochs)]}
        if attacked:
            scalars |= {f"delta_energy_{probe}": [offset + probe_shift - e for e in range(n_epochs)]}
        for k, name in enumerate(("E", "E_y", "E_adv", "E_y_adv")):
            arrays[f"{probe}/{name}"] = offset + 10 * k + np.arange(n_epochs * n).reshape(n_epochs, n)
        arrays[f"{probe}/index"] = 7 + np.arange(n)
    return SimpleNamespace(scalars=scalars, arrays=arrays)


def test_curves_have_a_row_for_each_network_seed_probe_and_epoch():
    frame = dynamics.curves({("madry", 0): _history(), ("madry", 1): _history(), ("trades", 0): _history()})
    assert len(frame) == 3 * 2 * 4
    row = frame[(frame["network"] == "madry") & (frame["seed"] == 1) & (frame["probe"] == "test")].iloc[2]
    assert (row["epoch"], row["clean_error"], row["delta_energy"]) == (3, 102, 98)
    assert "train_loss" not in frame


def test_curves_of_a_network_that_was_not_attacked_are_refused():
    with pytest.raises(ValueError, match="standard without an attack"):
        dynamics.curves({("standard", 0): _history(attacked=False)})


def test_plane_keeps_each_image_with_its_energies():
    frame = dynamics.plane(_history(), probe="train", n_shown=3)
    assert len(frame) == 4 * 3
    row = frame[(frame["epoch"] == 2) & (frame["image"] == 9)].iloc[0]  # second epoch, third image: place 5 + 2
    assert row[["E", "E_y", "E_adv", "E_y_adv"]].tolist() == [7, 17, 27, 37]
    assert frame["epoch"].tolist() == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert frame["E"].tolist() == [0, 1, 2, 5, 6, 7, 10, 11, 12, 15, 16, 17]


def test_curves_that_belong_to_no_probe_stand_with_both():
    frame = dynamics.curves({("madry", 0): _history()}, also=["train_loss"])
    assert frame.groupby("probe")["train_loss"].sum().to_dict() == {"train": 4.0, "test": 4.0}


def _ends(values: dict[str, float], half: float) -> pd.DataFrame:
    rows = [
        {"metric": "delta_energy", "probe": "train", "network": name, "value": v, "low": v - half, "high": v + half}
        | {"seeds": [0, 1, 2]}
        for name, v in values.items()
    ]
    return pd.DataFrame([*rows, {"metric": "energy", "probe": "train", "network": "trades", "value": 0.0}])


def test_the_order_of_the_weighted_methods_is_said_with_what_is_certain_of_it():
    published = {"trades": -0.4, "weat_adv": -0.1, "mail_trades": 0.3, "weat_nat": -0.2}
    said = published_dynamics.ending(_ends(published, 0.06), probe="train")
    assert said.index("WEAT (adversarial)") < said.index("WEAT (natural)") < said.index("MAIL-TRADES")
    assert "WEAT_adv -0.005, WEAT_nat -0.022, MAIL-TRADES -0.031, TRADES -0.044" in said
    assert "The order is the same; 2 of 3 neighbours" in said  # −0.1 and −0.2 overlap; the signs of 0.3 part the rest
    other = {**published, "weat_adv": -0.9}
    assert "The order is another" in published_dynamics.ending(_ends(other, 0.01), probe="train")


def test_the_weighted_methods_stand_beside_their_own_figure():
    t = np.arange(1, 31)
    curves = pd.DataFrame({"network": "weat_adv", "seed": 0, "epoch": t, "delta_energy": -0.01 * t})
    table = published_dynamics.beside(curves, data="digits", figure="weighted").set_index("published epoch")
    assert table["published"].to_dict() == {10: 0.009, 60: 0.007, 99: -0.005}
    assert table.loc[60, "ours, digits"].value == pytest.approx(-0.18)

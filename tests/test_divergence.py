"""Signs of divergence: each by itself raises, a healthy course never, and a checkpoint goes on as it would have."""

import json
import math

import pytest

from helpers.divergence import N_RISING, Diverged, Limits, Step, Watch

LIMITS = Limits(gap=20, saturation=50, gradient=100, window=5, chance=math.log(10))


def step(**changes: float) -> Step:
    return Step(**{"gap": 0.5, "saturation": 0.0, "gradient": 2.0, "classification": 1.0, **changes})


def seen(steps, watch=None):
    """(number of the step that raised, reason, value), None where none did."""
    watch = watch or Watch(LIMITS)
    for k, one in enumerate(steps):
        try:
            watch.see(one)
        except Diverged as error:
            return k + 1, error.reason, error.value
    return None


def test_a_healthy_course_is_none():
    course = [step(gap=(-1) ** k * 0.5 * k % 3, gradient=1 + k % 7, classification=2.3 / (1 + k)) for k in range(200)]
    assert seen(course) is None


@pytest.mark.parametrize(
    ("sign", "reason", "value"),
    [
        ({"gap": 21.0}, "energy gap", 21.0),
        ({"gap": -21.0}, "energy gap", 21.0),
        ({"saturation": 51.0}, "saturation", 51.0),
        ({"gradient": 101.0}, "gradient norm", 101.0),
        ({"gap": 0.0, "classification": 2.3}, "dead network", 2.3),
    ],
    ids=["above", "below", "saturation", "gradient", "dead"],
)
def test_each_sign_tells_once_it_lasts_a_window(sign, reason, value):
    found = seen([step()] * 20 + [step(**sign)] * 5)
    assert found is not None
    assert found[0] == 25
    assert found[1] == reason
    assert found[2] == pytest.approx(value)


def test_a_spike_is_averaged_over_the_window():
    assert seen([step()] * 10 + [step(gap=97.0)] + [step()] * 10) is None
    assert seen([step()] * 10 + [step(gap=99.0)] + [step()] * 10) == (11, "energy gap", pytest.approx((99 + 2) / 5))


def test_nothing_is_said_before_a_window_is_full():
    assert seen([step(gap=1e6)] * 4) is None


def test_a_gap_that_rises_in_four_windows_tells_at_a_quarter_of_the_limit():
    windows = [1.0, 2.0, 4.0, 5.1]
    rising = [step(gap=gap) for gap in windows for _ in range(5)]
    assert seen(rising) == (5 * N_RISING, "gap rises", pytest.approx(5.1))
    assert seen([step(gap=gap) for gap in [2.0, 1.0, 4.0, 5.1] for _ in range(5)]) is None
    assert seen([step(gap=gap / 1.1) for gap in windows for _ in range(5)]) is None


def test_collapse_is_a_loss_back_at_chance_after_learning():
    slow = [step(classification=2.4)] * 50
    assert seen(slow) is None
    found = seen([step(classification=1.0)] * 5 + slow)
    assert found is not None
    assert found[1] == "collapse"


@pytest.mark.parametrize("cut", [1, 7, 19])
def test_a_watch_out_of_a_checkpoint_goes_on_as_the_other(cut):
    rising = [step(gap=gap, classification=1.0) for gap in [1.0, 2.0, 4.0, 5.1] for _ in range(5)]
    first = Watch(LIMITS)
    assert seen(rising[:cut], first) is None
    again = Watch.restored(LIMITS, json.loads(json.dumps(first.facts())))
    assert again == first
    found = seen(rising[cut:], again)
    assert found is not None
    assert found[0] + cut == 20


def test_limits_are_the_recipes():
    entry = {"divergence_gap": 3, "divergence_saturation": 4, "divergence_gradient": 5, "divergence_window": 6}
    assert Limits.of(entry, num_classes=10) == Limits(3, 4, 5, 6, math.log(10))
    with pytest.raises(ValueError, match="divergence_gap"):
        Limits.of({**entry, "divergence_gap": 0}, num_classes=10)

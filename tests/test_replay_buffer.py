"""The replay buffer: slots of classes, what is written where, fresh draws, the same bits after a restart."""

import math

import pytest
import torch

from helpers import noise, starts
from helpers.replay_buffer import ReplayBuffer

K, PER_CLASS = 5, 8
SHAPE = (1, 2, 3)


class Recorder:
    """A start whose images tell the class in their first pixel; it notes what was asked for."""

    name = "recorder"

    def __init__(self):
        self.asked = []

    def draw(self, y, key):
        self.asked.append((y.tolist(), key.index.tolist(), key.step, key.seed))
        x = starts.Uniform(shape=SHAPE, num_classes=K).draw(y, key)
        x[:, 0, 0, 0] = y / 10
        return x


def buffer(**changes):
    given = {"start": Recorder(), "num_classes": K, "n_per_class": PER_CLASS, "reinit_freq": 0.25, "seed": 3}
    given |= {"device": "cpu", "batch_size": 7} | changes
    return ReplayBuffer.filled(given.pop("start"), **given)


def classes(x):
    return (10 * x[:, 0, 0, 0]).round().long()


def restored(state, **changes):
    given = {"start": Recorder(), "num_classes": K, "reinit_freq": 0.25, "seed": 3, "device": "cpu"} | changes
    return ReplayBuffer.restored(state, **given)


# Slots


def test_the_fill_is_in_class_order_and_does_not_depend_on_its_batches():
    found = buffer()
    assert len(found) == K * PER_CLASS
    assert found.n_per_class == PER_CLASS
    assert classes(found.images).tolist() == [k for k in range(K) for _ in range(PER_CLASS)]
    assert len(found.images.flatten(1).unique(dim=0)) == len(found)
    assert all(step > 0 for _, _, step, _ in found.start.asked)  # generation draws its starts at step 0
    assert buffer(batch_size=100).images.equal(found.images)
    assert not buffer(seed=4).images.equal(found.images)


def test_a_draw_is_of_different_slots_with_their_images_and_classes():
    found = buffer(reinit_freq=0.0)
    for n in (1, 9, len(found)):
        drawn = found.draw(n)
        assert len(drawn.slots) == len(drawn.slots.unique()) == n
        assert drawn.x.equal(found.images[drawn.slots])
        assert drawn.y.equal(classes(drawn.x))
        assert not drawn.fresh.any()
    drawn.x.zero_()
    assert found.images.any()  # a draw is a copy


def test_rows_of_a_class_get_slots_of_that_class():
    found, y = buffer(), torch.tensor([4, 0, 4, 4, 2, 0] + [1] * PER_CLASS)
    for _ in range(50):
        drawn = found.draw_of(y)
        assert drawn.y.equal(y)
        assert (drawn.slots // PER_CLASS).equal(y)
        assert classes(drawn.x).equal(y)  # also of the fresh ones
        assert len(drawn.slots.unique()) == len(y)


@pytest.mark.parametrize("conditional", [False, True])
def test_every_slot_is_as_likely(conditional):
    found, n, times = buffer(), 10, 1000
    y, count = torch.arange(n) % K, torch.zeros(K * PER_CLASS)
    for _ in range(times):
        count[(found.draw_of(y) if conditional else found.draw(n)).slots] += 1
    share = n / len(found)  # of the draws that have a given slot, in both ways
    error = math.sqrt(share * (1 - share) / times)
    assert ((count / times - share).abs() < 4 * error).all()
    assert count.std() > 0.5 * error * times  # and drawn, not dealt out in turn


# Fresh draws


def test_fresh_draws_are_asked_for_the_chosen_slots_alone_and_of_their_class():
    found = buffer()
    asked, before = found.start.asked, found.images.clone()
    for _ in range(30):
        asked.clear()
        drawn = found.draw(12)
        if not drawn.fresh.any():
            assert not asked
            continue
        ((y, slots, step, seed),) = asked
        assert slots == drawn.slots[drawn.fresh].tolist()
        assert y == [s // PER_CLASS for s in slots]
        assert step > 0
        assert seed == 3
        assert drawn.x[~drawn.fresh].equal(before[drawn.slots[~drawn.fresh]])
        assert (drawn.x[drawn.fresh] != before[drawn.slots[drawn.fresh]]).flatten(1).any(1).all()
    assert found.images.equal(before)  # only a write changes the buffer


@pytest.mark.parametrize("reinit_freq", [0.05, 0.25])
def test_reinit_share(reinit_freq):
    found, n, times = buffer(reinit_freq=reinit_freq), 20, 1000
    fresh = torch.stack([found.draw(n).fresh for _ in range(times)]).double()
    error = math.sqrt(reinit_freq * (1 - reinit_freq) / (n * times))
    assert abs(fresh.mean().item() - reinit_freq) < 4 * error
    assert fresh.sum(1).var().item() == pytest.approx(  # each slot by itself, not batches as a whole
        n * reinit_freq * (1 - reinit_freq), rel=4 * math.sqrt(2.5 / times)
    )


def test_reinit_never_and_always():
    assert not buffer(reinit_freq=0.0).draw(40).fresh.any()
    found = buffer(reinit_freq=1.0)
    first, second = found.draw(40), found.draw(40)
    assert first.fresh.all()
    a, b = first.x[first.slots.argsort()], second.x[second.slots.argsort()]
    assert (a != b).flatten(1).any(1).all()  # new at each draw
    assert (a != found.images).flatten(1).any(1).all()  # and not the fill again


# Writing


def test_what_is_written_lies_in_the_slots_it_was_drawn_from_and_nowhere_else():
    found = buffer()
    before = found.images.clone()
    drawn = found.draw(9)
    new = (drawn.slots / 100)[:, None, None, None].expand(9, *SHAPE)  # a picture of the slot's number
    found.write(drawn.slots, new)
    rest = torch.ones(len(found), dtype=torch.bool)
    rest[drawn.slots] = False
    assert found.images[rest].equal(before[rest])
    for slot in drawn.slots.tolist():
        assert found.images[slot].unique().tolist() == pytest.approx([slot / 100])
    again = [found.draw(len(found)) for _ in range(3)][-1]
    kept = ~again.fresh & ~rest[again.slots]
    assert kept.any()
    assert torch.allclose(again.x[kept][:, 0, 0, 0], again.slots[kept] / 100)


def test_classes_stay_in_their_slots_through_many_rounds():
    found = buffer()
    for k in range(60):
        drawn = found.draw(11) if k % 2 else found.draw_of(torch.tensor([3, 3, 0]))
        found.write(drawn.slots, drawn.x)
    assert classes(found.images).tolist() == [k for k in range(K) for _ in range(PER_CLASS)]
    assert not found.images.equal(buffer().images)


# Checkpoints


def work(found, n):
    """Some rounds of draws, steps and writes; all that came out."""
    out = []
    for k in range(n):
        drawn = found.draw(11) if k % 2 else found.draw_of(torch.tensor([3, 3, 0]))
        chain = noise.Key(0, "chain", drawn.slots).normal(SHAPE)
        found.write(drawn.slots, (drawn.x + 0.01 * chain).clamp(0, 1))
        out.append((drawn.slots, drawn.x, drawn.y, drawn.fresh))
    return out


def same(a, b):
    return all(s.equal(t) for one, other in zip(a, b, strict=True) for s, t in zip(one, other, strict=True))


def test_goes_on_bit_for_bit_after_a_restart():
    whole, cut = buffer(), buffer()
    expected = work(whole, 20)
    assert same(work(cut, 8), expected[:8])
    state = cut.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    other = restored(state)
    assert not other.start.asked  # nothing is drawn anew
    work(cut, 2)
    assert same(work(other, 12), expected[8:])
    assert other.images.equal(whole.images)
    assert other.n_draws == whole.n_draws == 20
    assert all(state[name].equal(kept[name]) for name in kept)  # a state does not follow its buffer
    elsewhere = restored(kept, seed=4)
    assert elsewhere.images.equal(kept["images"])
    assert not elsewhere.draw(11).slots.equal(expected[9][0])


def test_a_draw_without_a_write_also_counts():
    found = buffer()
    assert not found.draw(20).slots.equal(found.draw(20).slots)
    assert found.state()["n_draws"].item() == 2
    assert found.state()["n_draws"].dtype == torch.int64


def test_nothing_touches_the_global_generator():
    before = torch.get_rng_state()
    work(buffer(), 4)
    assert torch.get_rng_state().equal(before)


# What is refused


def test_bad_writes_leave_the_buffer_as_it_was():
    found = buffer()
    before, x, slots = found.images.clone(), torch.zeros(2, *SHAPE), torch.tensor([1, 2])
    for bad_slots, bad_x, message in (
        (torch.tensor([1, 1]), x, "different slots"),
        (torch.tensor([1, len(found)]), x, "different slots below 40"),
        (torch.tensor([1]), x, "one entry for each of 2 rows"),
        (slots, x[:, :, :1], "expected x to be float32 of shape"),
        (slots, x.double(), "expected x to be float32 of shape"),
        (slots, x + 1.5, r"expected x in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            found.write(bad_slots, bad_x)
    with pytest.raises(FloatingPointError, match="x is not finite at step 0: nan for image 2"):
        found.write(slots, torch.stack([x[0], x[1] + math.nan]))
    assert found.images.equal(before)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="reinit_freq"):
        buffer(reinit_freq=1.5)
    with pytest.raises(ValueError, match="n_per_class"):
        buffer(n_per_class=0)
    found = buffer()
    with pytest.raises(ValueError, match="expected n to be a whole number >= 1 and <= 40, got 41"):
        found.draw(41)
    with pytest.raises(ValueError, match=r"expected 1 to 8 rows of a class.*got up to 9"):
        found.draw_of(torch.zeros(9, dtype=torch.int64))
    with pytest.raises(ValueError, match="below 5"):
        found.draw_of(torch.tensor([5]))
    with pytest.raises(ValueError, match="expected a state with images and n_draws, got images"):
        restored({"images": found.images})
    with pytest.raises(ValueError, match="as many images for each of 7 classes"):
        restored(found.state(), num_classes=7)
    with pytest.raises(ValueError, match="float32"):
        restored(found.state() | {"images": found.images.double()})
    assert found.n_draws == 0

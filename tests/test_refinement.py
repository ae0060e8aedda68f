"""Refinement: what is corrupted, which energy a chain descends, who judges, and that the answer helps when given."""

import judges
import numpy as np
import pytest
import torch

from helpers import noise, parameters, records, refinement

ATTACK = {"std": 0.2, "epsilon": 0.1, "step_size": 0.05, "n_steps": 4}
CHAIN = {"step_size": 0.05, "momentum": 0.0, "noise_std": 0.0, "n_steps": 3}


@pytest.fixture(scope="module")
def images():
    pixels = judges.noise(24, seed=3)
    y = pixels.reshape(24, -1)[:, :4].argmax(1)  # the toy is right on all of them
    return judges.image_set(pixels, y, split="test")


@pytest.fixture(scope="module")
def done(images):
    net, judge = judges.Nested(gain=4.0), judges.Nested(gain=1.0)
    given = {"attack": ATTACK, "chain": CHAIN, "seed": 0, "batch_size": 10}
    return refinement.refined(net, judge, images, **given)


def test_noise_is_keyed_and_clipped_and_the_attack_stays_in_its_ball(images):
    found = refinement.corrupted(judges.Nested(gain=4.0), images, **ATTACK, seed=0, batch_size=10)
    x = images.images()
    xi = noise.Key(0, "refinement/noise", images.index).tabled().normal(x.shape[1:])
    assert torch.equal(found["noisy"], (x + 0.2 * xi).clamp(0, 1))
    assert (found["adversarial"] - x).abs().max() <= 0.1 + 1e-6
    assert (found["adversarial"] - x).abs().max() > 0.09


def test_before_a_chain_images_are_judged_as_they_are(images, done):
    found = refinement.corrupted(judges.Nested(gain=4.0), images, **ATTACK, seed=0, batch_size=10)
    seen = found["adversarial"].flatten(1)[:, :4].argmax(1)
    right = (seen == images.labels).numpy()
    assert np.array_equal(done["adversarial none itself"], right)
    assert np.array_equal(done["adversarial none another network"], right), "a toy of another gain sees the same"
    assert 0 < right.mean() < 1


def test_the_chain_on_the_joint_energy_raises_the_pixel_of_the_true_class(images, done):
    # E(x, y) = −4 x_y: three steps of 0.05 raise that pixel by 0.6, as far as there is room, and no other.
    begun, ended = (done[f"adversarial {name} pictures"].reshape(4, -1) / 255 for name in ("none", "joint"))
    rows = np.arange(4)
    room = 1 - begun[rows, rows]
    assert ended[rows, rows] - begun[rows, rows] == pytest.approx(np.minimum(0.6, room), abs=1.5 / 255)
    begun[rows, rows] = ended[rows, rows] = 0
    assert np.array_equal(begun, ended)
    assert done["adversarial joint itself"].mean() > done["adversarial none itself"].mean()


def test_the_chain_on_the_marginal_energy_uses_no_label(images, done):
    turned = judges.image_set(images.pixels.numpy(), (images.labels.numpy() + 1) % 4, split="test")
    given = {"attack": ATTACK | {"epsilon": 0.0, "std": 0.0}, "chain": CHAIN, "seed": 0, "batch_size": 10}
    ends = []
    for those in (images, turned):
        net = judges.Nested(gain=4.0)
        x = refinement.corrupted(net, those, **given["attack"], seed=0, batch_size=10)["noisy"]
        ends.append(refinement._descended(net, "marginal", x, those, chain=CHAIN, seed=0, batch_size=24))
    assert torch.equal(ends[0], ends[1])


def test_chains_run_in_batches_with_each_images_own_noise(images):
    sizes, x = [], images.images()

    class Counting(judges.Nested):
        def forward(self, batch):
            sizes.append(len(batch))
            return super().forward(batch)

    noisy = CHAIN | {"noise_std": 0.1}
    ends = [
        refinement._descended(Counting(gain=4.0), "marginal", x, images, chain=noisy, seed=0, batch_size=size)
        for size in (24, 10)
    ]
    assert torch.allclose(*ends, atol=1e-6)
    assert max(sizes[len(sizes) // 2 :]) == 10


def test_classes_that_the_images_lack_have_no_picture(images):
    some = images.subset((images.labels != 2).nonzero().squeeze(1))
    net = judges.Nested(gain=4.0)
    found = refinement.refined(net, net, some, attack=ATTACK, chain=CHAIN, seed=0, batch_size=10)
    firsts = [int((some.labels == k).nonzero()[0]) for k in (0, 1, 3)]
    assert np.array_equal(found["originals"], some.pixels[firsts].numpy())
    assert found["noisy joint pictures"].shape == found["originals"].shape


def test_accuracies_over_seeds_and_pictures(images, done, tmp_path):
    p = parameters.Parameters("07_hybrid_evaluation", "digits", values={}, folder=tmp_path)
    record = records.save(p, "refinement", scalars=refinement.summary({0: done, 1: done}, network="madry"))
    value = record.value("refined_accuracy", start="adversarial", chain="none", judge="itself")
    assert value == pytest.approx(100 * done["adversarial none itself"].mean())
    table = refinement.table(record.scalars)
    assert len(table) == 6
    assert list(table.columns) == ["start", "", "right by itself (%)", "right by another network (%)"]
    blocks = refinement.pictures(done)
    assert [one.shape for one in blocks.values()] == [(16, 1, 2, 3)] * 2
    firsts = [int((images.labels == k).nonzero()[0]) for k in range(4)]
    assert np.array_equal(blocks["noisy"][:4], images.pixels[firsts].numpy())
    assert len(refinement.row_labels()) == 4

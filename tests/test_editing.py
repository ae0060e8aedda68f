"""Inpainting keeps what is known and moves the rest; morphing stays in its ball and arrives at the other class."""

import pytest
import torch
from torch import nn

from helpers import balls, editing, energies, noise, samplers

B, SHAPE = 6, (2, 4, 4)
SETTINGS = {"step_size": 0.1, "momentum": 0.5, "noise_std": 0.02, "n_steps": 8, "gradient": "plain"}


def rand(seed, n=B, shape=SHAPE):
    return noise.uniform(shape, seed=seed, purpose="images", index=torch.arange(n))


def key(n=B):
    return noise.Key(0, "edit", torch.arange(n) * 3)


def to(aim):
    """An energy with a minimum: images `aim` (K, C, H, W), one for each class."""
    return lambda x, y: (x - aim[y]).square().sum((1, 2, 3)) / 2


Y = torch.arange(B) % 3
AIM = rand(7, n=3)


def inpaint(known, x=None, energy=None, y=Y, **changes):
    x = rand(1) if x is None else x
    return editing.inpaint(energy or to(AIM), x, y, known=known, key=key(len(x)), **SETTINGS | changes)


def morph(x=None, energy=None, y=Y, **changes):
    x = rand(1) if x is None else x
    return editing.morph(energy or to(AIM), x, y, key=key(len(x)), **SETTINGS | changes)


@pytest.mark.parametrize("shape", [(B, *SHAPE), (B, 1, 4, 4), SHAPE, (4, 4)])
@pytest.mark.parametrize("gradient", samplers.GRADIENTS)
def test_known_pixels_are_kept_and_the_others_move(shape, gradient):
    known = (
        noise.uniform(shape[-3:] if len(shape) > 2 else (1, 4, 4), seed=2, purpose="mask", index=torch.arange(B)) > 0.5
    )
    known = known if len(shape) == 4 else known[0].reshape(shape)
    x = rand(1)
    kept = x.clone()
    result = inpaint(known, x, gradient=gradient)
    everywhere = known.expand(x.shape)
    assert result[everywhere].equal(x[everywhere])
    assert (result != x)[~everywhere].all()
    assert x.equal(kept)


def test_free_pixels_go_where_the_energy_of_the_composite_leads():
    # E = ‖z − a‖²/2: z_k − a = (1 − α)ᵏ (z_0 − a) in free pixels, without noise and momentum.
    known, x = torch.arange(4) < 2, rand(1)
    result = inpaint(known, x, momentum=0.0, noise_std=0.0, n_steps=5)
    expected = torch.where(known, x, AIM[Y] + 0.9**5 * (x - AIM[Y]))
    assert torch.allclose(result, expected, atol=1e-6)
    # a known pixel pulls on no free one in this energy, nor does it lengthen the normalised step
    walked = inpaint(known, x, gradient="l2", momentum=0.0, noise_std=0.0, n_steps=1)
    assert torch.allclose((walked - x).flatten(1).norm(dim=1), torch.full((B,), 0.1))


def test_the_energy_sees_the_composite_and_noise_stays_out_of_known_pixels():
    seen = []
    known, x = torch.arange(4) < 2, rand(1)

    def energy(z, y):
        seen.append(z.detach())
        return to(AIM)(z, y)

    inpaint(known, x, energy)
    assert len(seen) == 8
    assert all(z[..., :2].equal(x[..., :2]) for z in seen)
    assert not seen[1][..., 2:].equal(x[..., 2:])


@pytest.mark.parametrize(
    "edit", [lambda **more: inpaint(torch.arange(4) < 1, **more), lambda **more: morph(epsilon_l2=0.8, **more)]
)
def test_frozen_chains_keep_their_own_image_and_class(edit):
    def coupled(x, y):  # a known pixel pulls on every free one, so it matters whose it is
        return to(AIM)(x, y) + x.sum((1, 2, 3)).square() / 64

    x = rand(1)
    whole = edit(energy=coupled, n_steps=30, noise_std=0.0)
    target = coupled(x, Y).where(torch.arange(B) % 2 == 0, -1.0)  # every other chain is at its target at once
    some = edit(energy=coupled, n_steps=30, noise_std=0.0, stop="energy", target=target)
    assert some[::2].equal(x[::2])
    assert torch.allclose(some[1::2], whole[1::2], atol=1e-6)
    assert ((some - x)[1::2].flatten(1).norm(dim=1) > 0.1).all()


def test_frames_lead_from_the_image_to_the_result():
    for edit in (lambda **more: inpaint(torch.arange(4) < 2, **more), lambda **more: morph(epsilon_l2=0.3, **more)):
        frames, E = [], []
        result = edit(callback=lambda k, x, e, frames=frames, E=E: (frames.append(x), E.append(e)))
        assert len(frames) == 9
        assert frames[0].equal(rand(1))
        assert frames[-1].equal(result)
        assert all(torch.allclose(e, to(AIM)(frame, Y)) for frame, e in zip(frames, E, strict=True))


def test_a_morph_stays_in_its_ball_and_without_one_arrives():
    x = rand(1)
    for epsilon in (0.25, 0.5):
        frames = []
        result = morph(x, epsilon_l2=epsilon, n_steps=40, callback=lambda k, z, E, frames=frames: frames.append(z))
        assert all(balls.inside(frame, x, norm="l2", epsilon=epsilon).all() for frame in frames)
        assert (balls.distance(result, x, norm="l2") > 0.9 * epsilon).all()
    free = morph(x, epsilon_l2=None, n_steps=200, noise_std=0.0)
    assert torch.allclose(free, AIM[Y], atol=1e-5)
    assert morph(x, epsilon_l2=0.0).equal(x)


def test_a_network_s_class_changes_towards_the_target():
    network = nn.Sequential(nn.Flatten(), nn.Linear(32, 3, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(rand(5, n=3).flatten(1) - 0.5)
    energy, x = samplers.energy_of(network, "joint"), rand(1)
    y = (network(x).argmax(1) + 1) % 3
    result = morph(x, energy, y, epsilon_l2=2.0, step_size=0.2, n_steps=20)
    assert (network(result).argmax(1) == y).all()
    assert (energies.joint(network(result), y) < energies.joint(network(x), y)).all()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda: inpaint(torch.zeros(4, 4)), "known to be bool, got torch.float32"),
        (lambda: inpaint(torch.zeros(5, dtype=torch.bool)), r"known of shape \(6, 2, 4, 4\), .*got \(5,\)"),
        (lambda: inpaint(torch.zeros(4, 4, dtype=torch.bool), 2 * rand(1)), r"x in \[0, 1\]"),
        (lambda: inpaint(torch.zeros(4, 4, dtype=torch.bool), y=Y[:2]), "one label for each of 6 rows"),
        (lambda: morph(epsilon_l2=-1.0), "epsilon_l2"),
        (lambda: morph(2 * rand(1), epsilon_l2=1.0), r"x in \[0, 1\]"),
        (lambda: morph(epsilon_l2=1.0, y=Y[:2]), "one label for each of 6 rows"),
    ],
)
def test_bad_input_is_refused(edit, message):
    with pytest.raises(ValueError, match=message):
        edit()

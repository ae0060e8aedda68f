"""Sample sets of toy images, made as the notebook makes them."""

import tempfile

import judges
import numpy as np
import torch

from helpers import noise, sample_sets, starts

PLACES = {
    "alone": sample_sets.Place("net", "uniform", "start_only"),
    "plain": sample_sets.Place("net", "uniform", "plain"),
    "momentum": sample_sets.Place("net", "uniform", "momentum"),
}
RULE = {"step_size": 0.05, "momentum": 0.5, "n_steps": 2}
REFERENCE = judges.image_set(judges.noise(40, seed=9), np.arange(40) % 4, split="test")
START = starts.Uniform(shape=(1, 2, 3), num_classes=4)


def piece(sampler="plain", number=0, folder=None, **changes):
    """One set of 16 images of four classes by a toy network."""
    judge = judges.judge()
    given = {
        **sample_sets.drawn(number, n=16, num_classes=4), "seed": 3, "energy": "joint", "noise_std": 0.0,
        "batch_size": 8, "reference": REFERENCE, "extractor": judge, "feature": "penultimate", "judge": judge,
        "folder": folder or tempfile.mkdtemp(), **sample_sets.steps(sampler, **RULE), **changes,
    }  # fmt: skip
    return sample_sets.sample_set(judges.Nested(gain=2.0), START, **given)


def pieces(n_sets=3):
    """Sets 0 … of each of PLACES."""
    return {(place, k): piece(place.sampler, k) for place in PLACES.values() for k in range(n_sets)}


def first_images(number=0):
    """x_0 of a set's images, (16, 1, 2, 3) in [0, 1]."""
    asked = sample_sets.drawn(number, n=16, num_classes=4)
    return START.draw(asked["y"], noise.Key(3, "any", asked["index"])).double() + torch.zeros(1)

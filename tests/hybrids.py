"""Methods of Robust JEM with toy networks: parameters as a notebook has them, and what a recipe says of its chains."""

import tempfile
from pathlib import Path

import judges
import sets

from helpers import hybrid_methods, hybrid_sets, sample_sets

VALUES = {
    "jempp_network": "jempp", "robust_network": "madry", "robust_jem_network": "robust_jem", "marginal_n_steps": 4,
    "step_counts": [2, 3], "n_steps": 5, "epsilons_255": [63.75, 25.5], "epsilon_l2": 0.5, "step_size_l2": 0.2,
    "l2_n_steps": 3, "contrast_factors": [0.8, 1], "step_conventions": ["train", "eval"],
    "variant_networks": None,
}  # fmt: skip
# The published flags of JEM++.
ENTRY = {
    "chain_n_steps": 10, "chain_n_inner_steps": 5, "chain_step_size_pm1": 0.2, "chain_noise_std_pm1": 0.0,
    "chain_max_gradient_pm1": 1.0, "step_convention": "train",
}  # fmt: skip
# The toys' gains: E(x, y) = −gain · x_y. Above 2 a chain's bound on the gradient cuts.
NETWORKS = {"jempp": 1.5, "madry": 3.0, "robust_jem": 2.5}


def network(name):
    return judges.Nested(gain=NETWORKS[name])


def cases(**changes):
    return hybrid_methods.cases({**VALUES, **changes}, ENTRY)


def table():
    return hybrid_methods.table(VALUES, ENTRY)


def piece(method, number=0):
    """One set of 16 images of four classes."""
    judge = judges.judge()
    return hybrid_sets.measure(
        network=network(method.network), begin=sets.START, method=method, seed=3, batch_size=8,
        reference=sets.REFERENCE, extractor=judge, feature="penultimate", judge=judge,
        folder=Path(tempfile.mkdtemp()), **sample_sets.drawn(number, n=16, num_classes=4),
    )  # fmt: skip


def pieces(chosen, n_sets=3):
    """Sets 0 … of each method of some cases."""
    return {(key, k): piece(one, k) for key, one in hybrid_methods.unique(chosen).items() for k in range(n_sets)}

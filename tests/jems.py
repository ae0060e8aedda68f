"""A recipe of a joint energy-based model whose steps take milliseconds, for tests of objective and training."""

from typing import Any

ENTRY: dict[str, Any] = {
    "objective": "jem",
    "clf_input": "clean",
    "p_x_weight": 1.0,
    "p_y_given_x_weight": 1.0,
    "schedule": "constant",
    "momentum": 0.9,
    "chain_energy": "marginal",
    "chain_start": "class_gaussian",
    "chain_n_steps": 3,
    "chain_n_inner_steps": 5,
    "chain_step_size_pm1": 0.2,
    "chain_max_gradient_pm1": 1.0,
    "chain_noise_std_pm1": 0.0,
    "step_convention": "train",
    "buffer_n_per_class": 4,
    "reinit_freq": 0.05,
    "data_noise_std_pm1": 0.03,
    "batch_norm_policy": "alltrain1",
    "divergence_window": 2,
    "divergence_gap": 20.0,
    "divergence_saturation": 50.0,
    "divergence_gradient": 100.0,
    "max_rollbacks": 1,
    "attack_norm": "linf",
    "epsilon_255": 12.75,
    "step_size_255": 4.0,
    "n_steps": 3,
    "start": "uniform",
}

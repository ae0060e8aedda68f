"""A copy of the project with parameters that take seconds, for tests that start real processes."""

import os
import shutil
import sys
from pathlib import Path

import yaml

from helpers.parameters import ROOT

PARTS = ("helpers", "notebooks", "params")
FILES = ("pyproject.toml", "Snakefile", "run_all.sh", "requirements.lock")
NETWORK = {"epochs": 5, "width": 4, "batch_size": 128, "n_steps": 2, "monitor_n_images": 12, "monitor_n_steps": 2}
NETWORK |= {"seeds": [0, 1], "checkpoint_every": 20, "chain_n_steps": 2, "buffer_n_per_class": 13, "anneal_epochs": 2}
KEPT = ("standard", "judge", "madry", "trades", "fgsm_rs_large", "madry_without", "jempp", "robust_jem")
KEPT += ("xent", "xent_noise", "ceb", "cceb")
ATTACKS = ["fgsm", "pgd_ce", "pgd_kl", "apgd_t", "fab_t", "square", "cw", "pgd_ce_targeted"]
NOTEBOOK = {
    "00_start_here": {"n_steps": 3, "own_epochs": 1},
    "01_energy_landscape": {
        "attacks": ATTACKS,
        "n_images": 40,
        "n_steps": 3,
        "n_targets": 2,
        "n_queries": 10,
        "cw_n_steps": 3,
        "n_shown": 20,
        "n_health": 8,
        "networks": ["standard", "madry"],
        "violin_networks": ["madry", "trades"],
    },
    "02_training_dynamics": {
        "n_shown": 6,
        "weighted_networks": ["trades"],
        "overfitting_networks": ["madry"],
        "single_step_networks": ["fgsm_rs_large", "madry"],
    },
    "03_weat": {
        "networks": ["trades", "madry"],
        "ablation_networks": ["trades", "madry"],
        "removal_networks": ["madry", "madry_without@removed=random", "madry_without@removed=misclassified"],
        "n_images": 40,
        "n_steps": 3,
        "ensemble_n_images": 20,
        "ensemble_n_steps": 3,
        "n_targets": 1,
        "n_queries": 10,
        "n_health": 20,
    },
    "04_generation": {
        "networks": ["madry", "trades"],
        "n_generated": 40,
        "n_sets": 2,
        "n_steps": 4,
        "n_shown": 4,
        "n_chains": 10,
    },
    "05_generation_ablations": {
        "ablations": ["pca", "noise", "gradient", "stop", "follow_up"],
        "retained_variances": [0.95, 0.8],
        "pca_spreads": [1, 0.354],
        "neighbour_counts": [10],
        "noise_stds": [0.001, 0],
        "l2_step_sizes": [0.1],
        "step_counts": [3],
        "n_generated": 80,
        "n_shown": 2,
    },
    "06_robust_jem": {
        "robust_network": "madry",
        "stability_networks": ["jempp", "robust_jem"],
        "step_conventions": ["train"],
        "marginal_n_steps": 3,
        "step_counts": [2],
        "epsilons_255": [12.75, 31.875],
        "l2_n_steps": 2,
        "contrast_factors": [0.9, 1],
        "n_generated": 40,
        "n_sets": 2,
        "n_shown": 4,
        "n_chains": 10,
    },
    "07_hybrid_evaluation": {
        "networks": ["standard", "jempp"],
        "robust_network": "jempp",
        "n_images": 60,
        "n_bins": 5,
        "outside_sets": ["letters", "noise", "svhn"],
        "outside_n_images": 40,
        "curve_n_images": 40,
        "curve_epsilons_255": [12.75],
        "curve_epsilons_l2": [0.5],
        "n_steps": 2,
        "ensemble_n_images": 10,
        "ensemble_n_steps": 2,
        "n_targets": 1,
        "n_queries": 5,
        "n_health": 8,
        "sample_n_steps": 2,
        "n_generated": 20,
        "refine_n_steps": 2,
    },
    "08_ceb_robustness": {
        "networks": ["xent", "xent_noise", "ceb@rho=2", "ceb@rho=0", "madry"],
        "other_networks": ["xent", "ceb@rho=2"],
        "attacked_networks": ["xent", "ceb@rho=0", "madry"],
        "n_images": 20,
        "n_steps": 2,
        "n_samples": 2,
        "curve_n_images": 20,
        "curve_epsilons_255": [12.75],
        "curve_epsilons_l2": [0.5],
        "attack_step_counts": [1, 2],
        "attacks": ["pgd_margin"],
        "ensemble_n_images": 10,
        "ensemble_n_steps": 2,
        "n_targets": 1,
        "n_queries": 5,
        "sample_counts": [2],
        "n_health": 8,
    },
    "09_ceb_corruptions": {
        "networks": ["xent", "ceb@rho=2", "cceb@rho=2"],
        "table_networks": ["xent", "ceb@rho=2", "cceb@rho=2"],
        "n_images": 40,
        "attack_n_images": 20,
        "n_steps": 2,
    },
    "10_ceb_calibration": {
        "networks": ["xent", "ceb@rho=2", "ceb@rho=0"],
        "n_images": 40,
        "n_bins": 5,
        "corruption_names": ["gaussian_noise", "fog"],
        "severities": [1, 5],
    },
    "11_performance": {
        "speed_rows": ["attack_step", "class_pca", "training"],
        "speed_width": 2,
        "rounds": 2,
        "step_n_images": 10,
        "batch_size": 10,
        "n_images": 20,
        "n_generated": 20,
        "single_n_images": 2,
        "train_batch_size": 10,
        "inner_n_steps": 1,
        "batch_sizes": [2, 4],
        "step_counts": [1, 2],
    },
    "12_claims": {
        "overfitting_network": "madry",
        "overfitting_der_network": "madry",
        "single_step_network": "fgsm_rs_large",
        "single_step_der_network": "fgsm_rs_large",
        "norm_network": "xent",
        "no_norm_network": "xent_noise",
    },
}


def tiny(folder: Path) -> Path:
    """The tree as it is now, in `folder` (which may have a space in its name), its digits profile cut down."""
    for name in PARTS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in FILES:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / name)
    networks = yaml.safe_load((ROOT / "params" / "digits" / "networks.yaml").read_text("utf-8"))
    kept = {name: _cut(entry) for name, entry in networks.items() if name in KEPT}
    (folder / "params" / "digits" / "networks.yaml").write_text(yaml.safe_dump(kept), "utf-8")
    for name, values in NOTEBOOK.items():
        path = folder / "params" / "digits" / f"{name}.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text("utf-8")) | values), "utf-8")
    return folder


def _cut(entry: dict) -> dict:
    few = {"removed_share": 0.02} if "removed_share" in entry else {}  # a network this small gets few right
    few |= {"epochs": 2, "milestones": [1]} if entry.get("objective") == "jem" else {}
    return entry | {name: value for name, value in NETWORK.items() if name in entry} | few


def environment(tree: Path) -> dict[str, str]:
    """One thread, no PDFs, and helpers from the copy: nothing of the reader's settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COMPANION_", "JPY_", "VSCODE_", "PEERS"))
    }
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COMPANION_THREADS": "1", "MPLBACKEND": "Agg"}
    return kept | threads | {"PYTHONPATH": str(tree), "COMPANION_FIGURES": "png"}


PYTHON = sys.executable

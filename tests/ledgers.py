"""A small project whose claims.yaml is for a test to write."""

import tiny
import yaml

from helpers import parameters

ROLES = {"standard_network": "standard", "robust_network": "madry", "overfitting_network": None}


def project(folder, monkeypatch):
    """The glossary and a profile `tiny` that has 01 and 12, in `folder`, taken for the project."""
    tiny.profile(folder)
    there = folder / "params" / "tiny"
    (there / "01_energy_landscape.yaml").write_text("n_steps: 3\n")
    (there / "12_claims.yaml").write_text(yaml.safe_dump(ROLES | {"seed": 0}))
    monkeypatch.setattr(parameters, "ROOT", folder)
    return folder


def write(root, text):
    """Make `text` the project's claims."""
    (root / "params" / "claims.yaml").write_text(text, "utf-8")

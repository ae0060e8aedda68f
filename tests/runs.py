"""A stand-in for `helpers.parameters.Parameters`: what records, parts, plots and tables read of it."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Run:
    folder: Path
    profile: str = "digits"
    notebook: str = "01_energy_landscape"
    values: dict = field(default_factory=lambda: {"epsilon_255": 8.0, "n_steps": 20, "seeds": [0, 1, 2]})
    digest: str = "0123456789ab"

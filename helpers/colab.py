"""Fetch what the notebooks need on Colab, without touching the torch and NumPy that Colab brings.

The first cell of each notebook clones the repository and runs this file; it needs only the standard library and pip.
A requirement that is there and new enough is left alone. The packages of `KEPT` are pinned to what is installed, so
that nothing else that is fetched can replace them (Colab's torch fits its driver; another one may not).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

KEPT = ("torch", "torchvision", "torchaudio", "triton", "numpy", "scipy", "pandas")
EXTRA = ("ipywidgets", "torch-fidelity")  # of the notebooks' own requirements, what a notebook opened by hand uses


def requirements(pyproject: Path) -> list[str]:
    """The project's dependencies and those of `EXTRA`, as pip takes them."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extra = [line for line in project["optional-dependencies"]["notebooks"] if line.startswith(EXTRA)]
    return [*project["dependencies"], *extra]


def constraints() -> list[str]:
    """`name==version` for each package of `KEPT` that is installed."""
    lines = []
    for name in KEPT:
        try:
            lines.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return lines


def main() -> int:
    """Install what is missing; pip's exit code, after saying in words what its failure may mean."""
    needed, kept = requirements(Path(__file__).resolve().parent.parent / "pyproject.toml"), constraints()
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "constraints.txt"
        pins.write_text("\n".join([*kept, ""]), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(pins)]
        code = subprocess.run([*command, *needed], check=False).returncode
    if code:
        print(
            f"The requirements were not installed (pip ended with {code}, its message is above). Kept as they are: "
            f"{', '.join(kept) or 'nothing'}. Where one of these is too old, choose a newer runtime version in "
            "Runtime > Change runtime type; where a download failed, run this cell again.",
            file=sys.stderr,
        )
    return code


if __name__ == "__main__" and main():
    raise SystemExit("this notebook's requirements are not complete")

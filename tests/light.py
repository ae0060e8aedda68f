"""A copy of the project with a profile that needs no torch, and ways to run it as a reader would."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

PROFILE = """
title: nothing at all
minutes: 0.1
memory_gb: 0.1
disk_gb: 0
download_gb: 0
threads: 1
seeds_per_job: all
notebook_minutes: {91_one: 0.05}
"""
NETWORKS = """
plain:
  {dataset: digits, architecture: smallcnn, objective: standard, optimizer: sgd, learning_rate: 1e-3,
   schedule: constant, epochs: 1, batch_size: 32, seeds: [0, 1]}
"""
ZOO = """
import sys, time
from helpers import files, parameters
recipe = parameters.recipe(sys.argv[2], sys.argv[3])
if recipe.entry["epochs"] > 100:
    raise FloatingPointError("step 7: loss is nan")
if recipe.entry["epochs"] == 50:
    time.sleep(4)
for seed in recipe.seeds:
    files.write_json(recipe.folder(seed) / "card.json", {"seed": seed})
"""
REPORT = """
import sys
from helpers import files, parameters
files.write_text(parameters.ROOT / "figures" / sys.argv[1] / "index.html", "<p>report</p>")
"""
HELPER = """
def tell(p):
    return p.n_steps
"""
RECORD = """
files.write_json(p.folder / "value.json", {"value": answer.tell(p)})
"""
FINISH = """
outputs = [{"kind": "record", "name": "value"}] if (p.folder / "value.json").exists() else []
files.write_json(p.folder / "finished.json", {"outputs": outputs})
"""


def _hear_interrupts() -> None:
    """A shell starts its background jobs deaf to SIGINT, and so would be what these tests start in one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class Tree:
    """The copy. `run` is ./run_all.sh with the packages of this Python."""

    folder: Path
    profile: str = "light"
    running: list[subprocess.Popen] = field(default_factory=list)

    def fill(self) -> None:
        """Write the profile, its notebooks and the stand-ins."""
        self.write("params/light/profile.yaml", PROFILE)
        self.write("params/light/networks.yaml", NETWORKS)
        self.write("params/light/91_one.yaml", "networks: [plain]\nn_steps: 3\n")
        self.write("params/light/92_two.yaml", "n_steps: 4\n")
        self.write("helpers/zoo.py", ZOO)
        self.write("helpers/report.py", REPORT)
        self.write("helpers/answer.py", HELPER)
        self.notebook("91_one", ["networks", "n_steps"], [RECORD, FINISH])
        self.notebook(
            "92_two", ["n_steps"], ["files.write_json(p.folder / 'value.json', {'value': p.n_steps})", FINISH]
        )

    def write(self, name: str, text: str) -> Path:
        """Write one file of the copy."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def notebook(self, name: str, names: list[str], cells: list[str]) -> None:
        """Write a notebook: imports, parameters, setup, then `cells`. Only 91_one imports helpers.answer."""
        imports = "import os, time\nfrom helpers import files, parameters" + (", answer" if name == "91_one" else "")
        head = [imports, "\n".join(["profile = 'digits'", *(f"{n} = None" for n in names)])]
        head.append(f"p = parameters.load('{name}', globals())\np")
        sources = [text.strip() for text in [*head, *cells]]
        made = [
            {"cell_type": "code", "id": f"c{i}", "metadata": {}, "outputs": [], "execution_count": None, "source": text}
            for i, text in enumerate(sources)
        ]
        made[1]["metadata"] = {"tags": ["parameters"]}
        title = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": f"# {name}\n\n$E(x)$"}
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        content = {"cells": [title, *made], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
        self.write(f"notebooks/{name}.ipynb", json.dumps(content))

    def environment(self, **settings: str) -> dict[str, str]:
        """This Python's packages, and none of the reader's own settings."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("COMPANION_", "PYTHONPATH", "JPY_", "PYTEST"))}
        return kept | {"COMPANION_PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1"} | settings

    def start(self, *arguments: str, cwd: Path | None = None, **settings: str) -> subprocess.Popen:
        """Start ./run_all.sh in a process group of its own."""
        process = subprocess.Popen(
            [str(self.folder / "run_all.sh"), *arguments],
            cwd=cwd or self.folder,
            env=self.environment(**settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_hear_interrupts,
        )
        self.running.append(process)
        return process

    def run(self, *arguments: str, cwd: Path | None = None, **settings: str) -> tuple[int, str]:
        """Run ./run_all.sh to its end: its status and everything it said."""
        process = self.start(*arguments, cwd=cwd, **settings)
        said, _ = process.communicate(timeout=300)
        return process.returncode, said

    def execute(self, *arguments: str, **settings: str) -> tuple[int, str]:
        """Run one job: its status and what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "helpers.execute", *arguments],
            cwd=self.folder,
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, done.stdout + done.stderr

    def figures(self, name: str = "") -> Path:
        """A path under figures/<profile>."""
        return self.folder / "figures" / self.profile / name

    def value(self, name: str) -> object:
        """What a notebook wrote."""
        return json.loads(self.figures(f"{name}/value.json").read_text())["value"]

    def status(self, name: str) -> dict:
        """How a notebook went, as `helpers.execute` wrote it."""
        return json.loads(self.figures(f"notebooks/{name}.run.json").read_text())

    def end(self) -> None:
        """Kill what a failed test has left running."""
        for process in self.running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

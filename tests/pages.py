"""A folder of results as a run leaves it, made without torch, for the tests of the report page."""

import json

import numpy as np
import pandas as pd
from runs import Run

from helpers import plots, records, tables

NASTY = '<script>window.broken = 1</script><img src=x onerror="window.broken = 1">&amp;\'"{{ 7 * 7 }}'


def pairs(n=60):
    rng = np.random.default_rng(0)
    blocks = []
    for attack, mean in {"fgsm": -17.0, "pgd_ce": -28.0}.items():
        E, E_adv = rng.normal(-14, 2, n), rng.normal(mean, 2, n)
        energies = {"E": E, "E_y": E + rng.exponential(0.2, n), "E_adv": E_adv, "E_y_adv": E_adv + rng.normal(25, 2, n)}
        blocks.append(pd.DataFrame({"image": np.arange(n), "attack": attack, **energies}))
    return pd.concat(blocks, ignore_index=True)


def curves(n=20, epochs=4):
    rng = np.random.default_rng(1)
    blocks = []
    for epoch in range(epochs):
        E = rng.normal(-3 - epoch, 1, n)
        columns = {"E": E, "E_y": E + 1, "E_adv": E + 0.2, "E_y_adv": E + 2}
        blocks.append(pd.DataFrame({"epoch": epoch, "image": np.arange(n), **columns}))
    return pd.concat(blocks, ignore_index=True)


def status(folder, name, **facts):
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    (folder / "notebooks" / f"{name}.run.json").write_text(json.dumps({"notebook": name, **facts}), "utf-8")
    (folder / "notebooks" / f"{name}.html").write_text("<p>executed</p>", "utf-8")


def results(folder):
    """01 done (two figures, a table, an animation, hostile texts), 02 failed after one figure, others not run."""
    p = Run(folder / "01_energy_landscape")
    found = [
        records.scalar("accuracy", 91.73, n=1000, interval=(89.9, 93.3), interval_kind="wilson", network="standard"),
        records.scalar("robust_accuracy", None, reason=NASTY, network=NASTY),
    ]
    record = records.save(p, "attacks", scalars=found, frames={"pairs": pairs(), "curves": curves()})
    frame = record.frame("pairs")
    plots.save(plots.paired_histogram(frame, columns="attack"), p, "histograms", record, caption=f"Energies. {NASTY}",
               alt=NASTY)  # fmt: skip
    plots.save(plots.energy_plane(frame, panels="attack"), p, "plane", record, caption="The plane.")
    wide = pd.DataFrame({NASTY: [NASTY], **{f"a long column {i}": [f"{i} [50.1, 54.5]"] for i in range(12)}})
    tables.save(wide, p, "summary", record, caption="A wide table.")
    animation = plots.energy_plane_animation(record.frame("curves"))
    plots.save_animation(animation, p, "dynamics", record, caption="Over epochs.")
    records.finish(p)
    status(folder, p.notebook, outcome="ok", seconds=12.34, peak_memory_mb=678, error=None)
    q = Run(folder / "02_training_dynamics", notebook="02_training_dynamics")
    second = records.save(q, "curves", scalars=[records.scalar("delta_energy", -0.16, n=100, seeds=[0, 1, 2])])
    plots.save(plots.image_grid(np.zeros((4, 1, 8, 8)), n_columns=2), q, "grid", second, caption="A grid.")
    status(folder, q.notebook, outcome="failed", seconds=3.2, peak_memory_mb=500, error=f"cell 7: ValueError: {NASTY}")
    return folder

"""How figures look: one style, one colour for each concept, one printed name for each thing.

Colours are told apart with the common kinds of colour blindness (natural and adversarial: Okabe & Ito 2008; the rest
after Paul Tol's qualitative schemes), and what they tell is also told by place, line style or label.
"""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

NATURAL = "#0072B2"
ADVERSARIAL = "#D55E00"
MARGINAL = "#332288"  # E(x) where it stands beside E(x, y)
JOINT = "#88CCEE"
NEUTRAL = "#767676"

# Substring of a network's or method's name → colour; the first that fits.
METHODS = {
    "fgsm_rs_der": "#44AA99",
    "fgsm": "#004488",
    "madry_few_der": "#EE7733",
    "madry_long_der": "#EE7733",
    "weat_nat": "#CCBB44",
    "weat_adv": "#EE99AA",
    "mail": "#66CCEE",
    "mart": "#997700",
    "trades": "#228833",
    "madry": "#C0458C",
    "sat": "#C0458C",  # as paper 1 calls Madry's training
    "xent_noise": "#6699CC",
    "gamma0": "#6699CC",
    "xent": "#333333",
    "cceb": "#EE7733",
    "ceb": "#CC3311",
    "vib": "#009988",
    "jempp": "#882255",
    "jem++": "#882255",
    "robust jem-energy": "#44AA99",
    "single robust": "#C0458C",  # trained as madry is
    "standard": "#333333",
    "robust": "#6699CC",
    "jem": "#997700",  # after all that are called so and more
}
DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
OTHERS = ("#6699CC", "#997700", "#994455", "#004488", "#EECC66", "#44AA99", "#882255", "#DDCC77")

LABELS = {
    "fgsm": "FGSM",
    "pgd_ce": "PGD-CE",
    "pgd_ce_targeted": "PGD-CE, random target",
    "pgd_ce_least_likely": "PGD-CE, least likely",
    "pgd_kl": "PGD-KL (TRADES)",
    "pgd_margin": "PGD-margin",
    "pgd_margin_targeted": "PGD-margin, random target",
    "pgd_dlr": "PGD-DLR",
    "pgd_dlr_targeted": "PGD-DLR, random target",
    "pgd_energy": "HE-PGD",
    "apgd_ce": "APGD-CE",
    "apgd_dlr": "APGD-DLR",
    "apgd_t": "APGD-T",
    "fab_t": "FAB-T",
    "square": "Square",
    "cw": "CW (L2)",
    "closest": "closest point",
    "last": "last iterate",
    "first_success": "first success",
    "max_loss": "largest loss",
    "standard": "Standard",
    "madry": "Madry AT",
    "trades": "TRADES",
    "weat_nat": "WEAT (natural)",
    "weat_adv": "WEAT (adversarial)",
    "weat_adv_mean": "WEAT (adversarial), w / mean(w)",
    "weat_adv_beta": "WEAT (adversarial)",
    "mail_trades": "MAIL-TRADES",
    "mart": "MART",
    "fgsm_rs": "FGSM-RS",
    "fgsm_rs_large": "FGSM-RS, large step",
    "fgsm_rs_few": "FGSM-RS, few images",
    "fgsm_rs_der": "FGSM-RS + DER",
    "madry_long": "Madry AT, long",
    "madry_long_der": "Madry AT + DER, long",
    "madry_wide": "Madry AT, wide ball",
    "madry_l2_small": "Madry AT, L2 0.5",
    "madry_few": "Madry AT, few images",
    "madry_few_der": "Madry AT + DER, few images",
    "high_energy": "high E(x), correct",
    "low_energy": "low E(x), correct",
    "uniform": "uniform noise",
    "class_gaussian": "class Gaussian",
    "class_pca": "class PCA",
    "local_class_pca": "local class PCA",
    "class_mean": "class mean",
    "beta": "β",
    "energy_penalty": "penalty",
    "jem": "JEM",
    "jempp": "JEM++",
    "robust_jem": "Robust JEM",
    "robust_classifier": "Robust classifier",
    "xent": "XEnt",
    "xent_dense": "XEnt, dense layer",
    "xent_noise": "XEnt, noise on z (γ = 0)",
    "xent_rate": "XEnt",
    "xent_shift": "XEnt, shifts",
    "xent_norm": "XEnt, batch norm",
    "xent_plain": "XEnt, crops and flips",
    "xent_augmented": "XEnt, AutoAugment",
    "xent_no_norm": "XEnt, no norm",
    "xent_noise_no_norm": "XEnt, noise on z (γ = 0), no norm",
    "gamma0": "noise on z (γ = 0)",
    "ceb": "CEB",
    "ceb_shift": "CEB, shifts",
    "ceb_norm": "CEB, batch norm",
    "ceb_plain": "CEB, crops and flips",
    "ceb_augmented": "CEB, AutoAugment",
    "ceb_no_norm": "CEB, no norm",
    "ceb_at_once": "CEB without anneal",
    "ceb_pooled": "CEB, pooled feature",
    "cceb": "cCEB",
    "vib": "VIB",
    "rho": "ρ",
    "learning_rate": "rate",
    "kid": "KID",
    "inception_score": "Inception score",
    "frechet_distance": "Fréchet distance",
    "class_agreement": "class agreement (%)",
    "diversity": "diversity (real: 1)",
    "saturation": "saturation (%)",
    "pca": "PCA start",
    "momentum_by_step": "momentum × step size",
    "n_steps": "steps",
    "follow_up": "PCA start × stop",
    "energy_within": "near the energy",
    "chosen": "chosen setting",
    "base": "base setting",
    "real": "real images",
    "linf": "L∞",
    "l2": "L2",
}

RC: dict[str, Any] = {
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "savefig.facecolor": "white",
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "text.color": "#1A1A1A",
    "axes.labelcolor": "#1A1A1A",
    "axes.edgecolor": "#4D4D4D",
    "xtick.color": "#4D4D4D",
    "ytick.color": "#4D4D4D",
    "font.family": "DejaVu Sans",  # comes with Matplotlib, so figures are the same everywhere
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "patch.linewidth": 0.6,
    "pdf.fonttype": 42,  # letters, not outlines: text in the PDF can be searched
    "axes.unicode_minus": True,
}


class Picture(Figure):
    """A figure that no window manager knows of: it is shown where it is the last value of a cell, and never leaks."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with in_style():
            FigureCanvasAgg(self).print_png(buffer, metadata={"Software": None})
        return buffer.getvalue()


@contextlib.contextmanager
def in_style() -> Iterator[None]:
    """The style in force inside, Matplotlib's settings as they were outside, whatever the reader has set."""
    with matplotlib.style.context(["default", RC]):
        yield


def canvas(width: float, height: float) -> Picture:
    """An empty figure of `width` × `height` inches, arranged without overlaps; call it inside `in_style()`."""
    figure = Picture(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def label(name: object) -> str:
    """How a name of YAML or of a frame is printed in a figure.

    >>> label("pgd_ce_targeted"), label("trades@beta=3@test images"), label("resnet20")
    ('PGD-CE, random target', 'TRADES, β = 3, test images', 'resnet20')
    """
    base, *points = str(name).split("@")
    parts = [LABELS.get(base, base.replace("_", " "))]
    for part in ",".join(points).split(",") if points else ():
        key, equals, value = part.partition("=")
        parts.append(f"{LABELS.get(key, key)} = {value}" if equals else key)
    return ", ".join(parts)


def _base(name: str) -> str | None:
    """The colour of the method that a name belongs to, None where it belongs to none that is known."""
    return next((colour for key, colour in METHODS.items() if key in name.lower()), None)


def colours(names: Iterable[object]) -> dict[str, str]:
    """One colour for each network or method, the same in every figure; no two of `names` share one.

    Several of one method (`trades@beta=3`, `trades@beta=6`) get lighter and lighter shades of its colour.

    >>> colours(["standard", "trades"]) == {"standard": METHODS["standard"], "trades": METHODS["trades"]}
    True
    """
    chosen: dict[str, str] = {}
    for name in map(str, names):
        start = zlib.crc32(name.encode()) % len(OTHERS)
        base = _base(name)
        wanted = [_lighter(base, step) for step in range(4)] if base else []
        wanted += [*OTHERS[start:], *OTHERS[:start]]
        chosen[name] = next((colour for colour in wanted if colour not in chosen.values()), wanted[0])
    return chosen


def _lighter(colour: str, step: int) -> str:
    """`colour` brought a third nearer to white `step` times."""
    if step == 0:
        return colour
    red, green, blue = (1 - (1 - channel) * (2 / 3) ** step for channel in to_rgb(colour))
    return to_hex((red, green, blue))


def lines(names: Iterable[object]) -> dict[str, Any]:
    """One line style for each name: solid for the first of each method, then dashed, dotted and dash-dotted.

    >>> [style == "-" for style in lines(["madry", "trades", "madry@beta=1"]).values()]
    [True, True, False]
    """
    seen: dict[str, int] = {}
    chosen = {}
    for name in map(str, names):
        key = _base(name) or name
        chosen[name] = DASHES[seen.get(key, 0) % len(DASHES)]
        seen[key] = seen.get(key, 0) + 1
    return chosen


def quantity(text: str, unit: str = "nat") -> str:
    """An axis label: quantity and unit.

    >>> quantity("$E(x)$")
    '$E(x)$ (nat)'
    """
    return f"{text} ({unit})" if unit else text

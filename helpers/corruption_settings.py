"""The corruptions by name and group, and their constants at severities 1 … 5 for three sizes of image.

A profile is one published ladder: "imagenet" is ImageNet-C's (224 pixels), "cifar" CIFAR-10-C's (32 pixels), both
from the code of Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (ICLR 2019). Each line holds five entries, one a severity; what the numbers of an entry mean is
said by the function of that name in corruption_noise.py, _blur.py, _weather.py and _digital.py.
Lengths are in pixels.

"digits" is ours, for 16 pixels and one channel, made by one rule: the distance of an image to its corrupted copy in
units of its own contrast, ‖x' − x‖ / ‖x − x̄‖, averaged over images, is that of ImageNet-C's constants on real
photographs of 224 pixels, severity by severity (`DIGITS_LADDER`; in ascending order, since elastic, frost and glass
do not rise with severity there). One constant of each corruption was moved to meet it on digits of the training split,
to two figures. So an image is as much disturbed as in the papers' table, not as hard to classify: that is measured.
Glass blur cannot come as low (its least shuffle is 0.34) and pixelate only in whole sizes; both rise from there.
"""

from __future__ import annotations

from typing import Literal, get_args

from helpers import checks

__all__ = [
    "CONSTANTS",
    "DIGITS_LADDER",
    "GROUPS",
    "PROFILES",
    "SEVERITIES",
    "STORED_QUALITY",
    "Profile",
    "constants",
    "names",
]

Profile = Literal["imagenet", "cifar", "digits"]
Constants = tuple[float, ...]

PROFILES: tuple[Profile, ...] = get_args(Profile)
SEVERITIES = (1, 2, 3, 4, 5)

# The order of the papers' tables; only the first four groups, 15 corruptions, enter mCE.
GROUPS: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}

# ImageNet-C's files are JPEGs of this quality, so all of its corruptions carry a second compression.
STORED_QUALITY: dict[Profile, int | None] = {"imagenet": 85, "cifar": None, "digits": None}


def _singles(*values: float) -> tuple[Constants, ...]:
    return tuple((value,) for value in values)


def _elastic(size: int, *entries: Constants) -> tuple[Constants, ...]:
    """Entries in fractions of `size` to pixels."""
    return tuple(tuple(size * value for value in entry) for entry in entries)


IMAGENET: dict[str, tuple[Constants, ...]] = {
    "gaussian_noise": _singles(0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": _singles(60, 25, 12, 5, 3),
    "impulse_noise": _singles(0.03, 0.06, 0.09, 0.17, 0.27),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom_blur": ((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "brightness": _singles(0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": _singles(0.4, 0.3, 0.2, 0.1, 0.05),
    # 244 is the original's slip for 224; kept, since it is what the files were made with.
    "elastic_transform": _elastic(
        244, (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)
    ),
    "pixelate": _singles(0.6, 0.5, 0.4, 0.3, 0.25),
    "jpeg_compression": _singles(25, 18, 15, 10, 7),
    "speckle_noise": _singles(0.15, 0.2, 0.35, 0.45, 0.6),
    "gaussian_blur": _singles(1, 2, 3, 4, 6),
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
}

CIFAR: dict[str, tuple[Constants, ...]] = {
    "gaussian_noise": _singles(0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": _singles(500, 250, 100, 75, 50),
    "impulse_noise": _singles(0.01, 0.02, 0.03, 0.05, 0.07),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "zoom_blur": ((7, 0.01), (12, 0.01), (16, 0.01), (21, 0.01), (26, 0.01)),
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "brightness": _singles(0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": _singles(0.75, 0.5, 0.4, 0.3, 0.15),
    "elastic_transform": _elastic(
        32, (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)
    ),
    "pixelate": _singles(0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": _singles(80, 65, 58, 50, 40),
    "speckle_noise": _singles(0.06, 0.1, 0.12, 0.16, 0.2),
    "gaussian_blur": _singles(0.4, 0.6, 0.7, 0.8, 1),
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
}

# Ours: see the rule above. No saturate, since grey has none.
DIGITS: dict[str, tuple[Constants, ...]] = {
    "gaussian_noise": _singles(0.09, 0.13, 0.2, 0.28, 0.41),
    "shot_noise": _singles(41, 17, 7.8, 3.1, 1.6),
    "impulse_noise": _singles(0.033, 0.063, 0.095, 0.17, 0.28),
    "defocus_blur": ((1, 0.6), (1, 0.8), (1.5, 0.8), (2, 0.6), (2, 1)),
    "glass_blur": ((0.55, 1, 1), (0.65, 1, 1), (0.75, 1, 1), (0.85, 1, 1), (0.95, 1, 1)),
    "motion_blur": ((3, 0.87), (3, 1.1), (3, 1.3), (3, 1.5), (3, 1.6)),
    "zoom_blur": ((11, 0.022), (11, 0.029), (11, 0.033), (11, 0.038), (11, 0.043)),
    "snow": (
        (0.15, 0.3, 1.25, 0.55, 4, 2, 0.8),
        (0.29, 0.3, 1.25, 0.55, 4, 2, 0.8),
        (0.3, 0.3, 1.25, 0.55, 4, 2, 0.8),
        (0.35, 0.3, 1.25, 0.55, 4, 2, 0.8),
        (0.39, 0.3, 1.25, 0.55, 4, 2, 0.8),
    ),
    "frost": ((1, 0.41), (0.8, 0.58), (0.7, 0.64), (0.65, 0.68), (0.6, 0.69)),
    "fog": ((1.3, 2), (2.1, 2), (2.2, 2), (2.3, 2), (3.5, 2)),
    "brightness": _singles(0.078, 0.15, 0.21, 0.27, 0.34),
    "contrast": _singles(0.41, 0.31, 0.21, 0.11, 0.064),
    "elastic_transform": ((3.6, 1, 0.3), (3.9, 1, 0.3), (4.1, 1, 0.3), (7.8, 1, 0.3), (12, 1, 0.3)),
    "pixelate": _singles(15 / 16, 13 / 16, 11 / 16, 10 / 16, 9 / 16),
    "jpeg_compression": _singles(13, 11, 10, 7, 6),
    "speckle_noise": _singles(0.18, 0.24, 0.44, 0.59, 0.87),
    "gaussian_blur": _singles(0.69, 0.93, 1.1, 1.2, 1.4),
    "spatter": (
        (0.5, 0.3, 1, 0.65, 0.6, 1),
        (0.54, 0.3, 1, 0.65, 0.6, 1),
        (0.56, 0.3, 1, 0.65, 0.6, 1),
        (0.61, 0.3, 1, 0.65, 0.6, 1),
        (0.63, 0.3, 1, 0.65, 0.6, 1),
    ),
}

# The rule's distances, measured with ImageNet-C's constants on scikit-learn's two photographs (shorter side 256, middle
# 224 pixels), eight draws each.
DIGITS_LADDER: dict[str, Constants] = {
    "gaussian_noise": (0.251, 0.365, 0.524, 0.718, 0.967),
    "shot_noise": (0.260, 0.388, 0.541, 0.792, 0.982),
    "impulse_noise": (0.351, 0.495, 0.605, 0.832, 1.049),
    "defocus_blur": (0.183, 0.214, 0.262, 0.294, 0.320),
    "glass_blur": (0.211, 0.216, 0.293, 0.312, 0.313),
    "motion_blur": (0.213, 0.272, 0.337, 0.394, 0.429),
    "zoom_blur": (0.327, 0.382, 0.413, 0.451, 0.485),
    "snow": (0.562, 0.896, 0.917, 1.091, 1.253),
    "frost": (0.800, 0.990, 1.072, 1.105, 1.107),
    "fog": (0.716, 0.873, 0.897, 0.911, 0.988),
    "brightness": (0.244, 0.463, 0.652, 0.834, 1.007),
    "contrast": (0.591, 0.690, 0.788, 0.887, 0.936),
    "elastic_transform": (0.360, 0.389, 0.405, 0.671, 0.911),
    "pixelate": (0.125, 0.138, 0.171, 0.200, 0.219),
    "jpeg_compression": (0.133, 0.149, 0.158, 0.183, 0.211),
    "speckle_noise": (0.238, 0.309, 0.513, 0.636, 0.788),
    "gaussian_blur": (0.122, 0.194, 0.239, 0.271, 0.316),
    "spatter": (0.085, 0.185, 0.232, 0.418, 0.541),
}

CONSTANTS: dict[str, dict[str, tuple[Constants, ...]]] = {"imagenet": IMAGENET, "cifar": CIFAR, "digits": DIGITS}


def names(*groups: str) -> tuple[str, ...]:
    """The corruptions of these groups in the papers' order; without groups the 15 that enter mCE.

    >>> names("noise")
    ('gaussian_noise', 'shot_noise', 'impulse_noise')
    >>> len(names()), len(names(*GROUPS))
    (15, 19)
    """
    chosen = groups or tuple(group for group in GROUPS if group != "extra")
    return tuple(name for group in chosen for name in GROUPS[checks.choice(group, GROUPS, "group")])


def constants(name: str, *, severity: int, profile: Profile) -> Constants:
    """The constants of one corruption at one severity.

    >>> constants("fog", severity=5, profile="cifar")
    (1.5, 1.75)
    """
    table = CONSTANTS[checks.choice(profile, PROFILES, "profile")]
    entries = table[checks.choice(name, table, f"name (with profile {profile!r})")]
    checks.count(severity, "severity", minimum=SEVERITIES[0], maximum=SEVERITIES[-1])
    return entries[severity - 1]

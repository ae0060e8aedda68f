"""The Inception-v3 that FID is defined on, as torch-fidelity ships it: where its weights lie, and how far they reach.

Network, resizing to 299×299 and pooling are torch-fidelity's (`FeatureExtractorInceptionV3`); here its weights are
found, checked and loaded, also where a file holds only the first layers.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from helpers import foreign

VARIABLE = "INCEPTION_WEIGHTS"
# Of torch-fidelity's file; its name carries the first eight digits, 6726825d, as torch.hub's convention has it.
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
LOGITS = "logits_unbiased"  # what IS is defined on
# The layers that each feature needs beyond those before it.
NEEDS = {
    "64": ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"),
    "192": ("Conv2d_3b_1x1", "Conv2d_4a_3x3"),
    "768": ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    "2048": ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
    LOGITS: ("fc",),
}


def locate(path: Path | None, *, download: bool) -> Path:
    """The weights file: `path`, else that of INCEPTION_WEIGHTS, else the downloaded one; FileNotFoundError says all."""
    given = path or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if given is not None:
        if not given.is_file():
            raise FileNotFoundError(f"expected Inception's weights at {given}, got no such file")
        return given
    name = URL_INCEPTION_V3.rsplit("/", 1)[-1]
    there = foreign.folder() / name
    if not there.exists() and not download:
        raise FileNotFoundError(
            f"expected Inception's weights in the file that {VARIABLE} names, or as {there}, got neither. "
            f"extractors.inception(download=True) fetches them there (96 MB) from {URL_INCEPTION_V3}."
        )
    return foreign.locate({"source": "url", "url": URL_INCEPTION_V3, "file": name, "sha256": SHA256})


def read(path: Path, digest: str) -> dict[str, Tensor]:
    """The tensors of a weights file with SHA-256 `digest`; a .pth that is not the published one is refused."""
    if path.suffix != ".safetensors" and digest != SHA256:
        raise ValueError(
            f"expected torch-fidelity's Inception weights (SHA-256 {SHA256}) or a .safetensors file at {path}, "
            f"got SHA-256 {digest}: {foreign.describe(path)}"
        )
    return foreign.read(path)


def what_was_checked(digest: str) -> str:
    """In words, for the record: what the file's SHA-256 was compared with."""
    if digest == SHA256:
        return "SHA-256 is that of torch-fidelity's release"
    return "SHA-256 recorded; names and shapes are Inception's; no published hash to compare it with"


class Inception(FeatureExtractorInceptionV3):
    """torch-fidelity's network with the layers that `tensors` hold; `provides` are the features these are enough for.

    Called with uint8 images (B, 3, H, W) and the names of features, it runs as far as the last of them needs.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, where: Path) -> None:
        self_contained = io.BytesIO()  # what torch-fidelity loads are bytes that were written here, on this line
        torch.save(dict(tensors), self_contained)
        self_contained.seek(0)
        self._where = where
        with torch.random.fork_rng(devices=[]):  # layers are initialised before they are loaded
            super().__init__(
                "inception-v3-compat", list(NEEDS), feature_extractor_weights_path=self_contained, verbose=False
            )

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> Any:
        """Load what is there; layers without weights are taken out, so that nothing can run through them."""
        expected = {n: t for n, t in self.state_dict().items() if not n.endswith("num_batches_tracked")}
        wrong = [n for n, t in state_dict.items() if n in expected and expected[n].shape != t.shape]
        absent = {n.split(".")[0] for n in expected if n not in state_dict}
        layers = {feature: [layer for layer in needed if layer in absent] for feature, needed in NEEDS.items()}
        reached = next((k for k, lacking in enumerate(layers.values()) if lacking), len(NEEDS))
        unknown = sorted(n for n in state_dict if n not in self.state_dict())
        if wrong or unknown or not reached:
            raise ValueError(
                f"expected the weights of torch-fidelity's Inception in {self._where}, at least up to Conv2d_2b_3x3, "
                f"got shapes that differ: {wrong[:3]}, unknown names: {unknown[:3]}, "
                f"layers without weights: {sorted(absent)[:3]}"
            )
        self.provides = tuple(list(NEEDS)[:reached])
        self.missing = f"the weights in {self._where} lack {', '.join(sorted(absent))}" if absent else ""
        done = super().load_state_dict(dict(state_dict), strict=False, assign=assign)
        for layer in [layer for needed in list(NEEDS.values())[reached:] for layer in needed]:
            delattr(self, layer)
        return done

    def forward(self, x: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Features by name, (B, 64 | 192 | 768 | 2048 | 1008) float32; returns after the last layer that is needed."""
        self.features_list = list(names)
        return dict(zip(names, super().forward(x), strict=True))

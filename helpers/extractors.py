"""What looks at images for a score: uint8 images to named features, by Inception or by a network of ours.

    judge = extractors.of_network(zoo.get("judge", seed=0), name="judge")
    found = judge.extract(images, ["penultimate"], batch_size=500)          # {"penultimate": (N, d) float32}

Inception is torch-fidelity's (`helpers/inception.py`): FID is defined by its weights of 2015-12-05 and its way of
resizing. A score from another extractor is named after it ("FD (judge 3f2a9c1e)") and never "FID".
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from helpers import checks, context, files, fits

Pixels = np.ndarray | Tensor  # (N, C, H, W) uint8; a memmap is an array
DIGITS = 8  # of a hash, where it is part of a name
PENULTIMATE, LOGITS = "penultimate", "logits"


def pixels(images: Pixels, name: str = "images") -> Pixels:
    """Expect uint8 images (N, C, H, W) with C of 1 or 3, as an array, a memory map or a tensor.

    Float images are refused and never rounded here: a picture of 0 … 1 read as 0 … 255 is black.

    >>> pixels(np.zeros((2, 1, 4, 4), np.uint8)).shape
    (2, 1, 4, 4)
    """
    if not isinstance(images, np.ndarray | Tensor):
        raise ValueError(f"expected {name} to be an array or tensor, got {type(images).__name__}")
    if images.dtype not in (np.uint8, torch.uint8):
        raise ValueError(f"expected {name} to be uint8 pixels from 0 to 255, got {images.dtype}")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(f"expected {name} of shape (N, C, H, W) with C 1 or 3, got {tuple(images.shape)}")
    return images


def batch(images: Pixels, start: int, stop: int) -> Tensor:
    """Rows `start` … `stop` − 1 as a uint8 tensor; of a memory map only these are read."""
    piece = images[start:stop]
    return piece if isinstance(piece, Tensor) else torch.from_numpy(np.array(piece))


def sha256_of(images: Pixels, *, batch_size: int = 1000) -> str:
    """SHA-256 over shape and pixels, read in batches: 64 hexadecimal digits."""
    digest = hashlib.sha256(repr(tuple(images.shape)).encode())
    for start in range(0, len(images), batch_size):
        digest.update(batch(images, start, start + batch_size).cpu().numpy().tobytes())
    return digest.hexdigest()


def weights_sha256(network: nn.Module) -> str:
    """SHA-256 over a network's weights and buffers, each with name, type and shape: its identity as an extractor.

    >>> one = nn.Linear(2, 1)
    >>> weights_sha256(one) == weights_sha256(one), weights_sha256(one) == weights_sha256(nn.Linear(2, 1))
    (True, False)
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(checks.module(network).state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network that looks at images, with its name and what is known of its weights.

    `name` holds the first digits of `sha256`. `provides` are the features that can be asked for. `module(x, names)`
    maps uint8 images (B, C, H, W) to a dict of float (B, d). `channels` is the C that it takes (None: any; where it
    takes 3, a grey picture is shown to it three times). `num_classes` is that of its logits where they are those of
    the images' own classes, else None. `official` marks the weights that FID is defined on; `checked` says in words
    what was compared.
    """

    name: str
    sha256: str
    provides: tuple[str, ...]
    module: nn.Module
    channels: int | None
    num_classes: int | None
    logits: str
    official: bool
    checked: str

    @functools.cached_property
    def _known(self) -> dict[tuple[str, str], Tensor]:
        """Features of reference sets seen before, by the SHA-256 of their pixels and the feature's name."""
        return {}

    @property
    def device(self) -> torch.device:
        """Where its weights are, and each batch goes."""
        return next(self.module.parameters()).device

    def asked(self, feature: str) -> str:
        """`feature` if it is provided; ValueError says which are."""
        if feature not in self.provides:
            missing = getattr(self.module, "missing", "")
            raise ValueError(
                f"expected a feature of {self.name} among {', '.join(self.provides)}, got {feature!r}"
                + (f": {missing}" if missing else "")
            )
        return feature

    @torch.no_grad()
    def extract(self, images: Pixels, features: Sequence[str], *, batch_size: int) -> dict[str, Tensor]:
        """Features of uint8 images (N, C, H, W) by name, each (N, d) float32 on the CPU, in the order of the images.

        Images are read `batch_size` at a time, so that a memory map is never in memory as a whole; what is kept is
        4·N·d bytes a feature. Nothing is drawn, and the network gets its mode back.
        """
        checks.count(batch_size, "batch_size", minimum=1)
        names = [self.asked(feature) for feature in features]
        c = pixels(images).shape[1]
        if self.channels not in (None, c) and (self.channels, c) != (3, 1):
            raise ValueError(f"expected images of {self.channels} channels for {self.name}, got {c}")
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        with context.eval_mode(self.module):
            for start in range(0, len(images), batch_size):
                x = batch(images, start, start + batch_size).to(self.device)
                shown = x.repeat(1, 3, 1, 1) if (self.channels, c) == (3, 1) else x
                for name, found in self.module(shown, names).items():
                    parts[name].append(found.to("cpu", torch.float32))
        return {name: torch.cat(found) for name, found in parts.items()}

    def kept(
        self, images: Pixels, features: Sequence[str], *, batch_size: int, folder: Path | None, in_memory: bool
    ) -> dict[str, Tensor]:
        """`extract`, once: what was found is kept in `folder` where one is given, and with this extractor `in_memory`
        (for a reference, which many sets are compared with).

        Known images are recognised by their SHA-256; the files are those of `fits.kept`, a file for the features asked
        for together.
        """
        names = list(dict.fromkeys(self.asked(feature) for feature in features))
        key = sha256_of(pixels(images))
        lacking = [name for name in names if (key, name) not in self._known]
        found: dict[str, Tensor] = {}
        if lacking:
            place = f"features-{self.sha256[:16]}-{'+'.join(lacking)}-{key[:16]}"
            identity = {"weights": self.sha256, "images": key, "features": lacking}
            make = functools.partial(self.extract, images, lacking, batch_size=batch_size)
            found = fits.kept(folder, place, identity=identity, make=make)
        out = {name: found[name] if name in found else self._known[key, name] for name in names}
        if in_memory:
            self._known.update({(key, name): value for name, value in out.items()})
        return out


# ---- a network of ours ----


class _OfNetwork(nn.Module):
    """uint8 images to the penultimate layer and the logits of a `models.Network`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        scaled, out = x.float() / 255, {}
        for name in names:
            out[name] = self.network(scaled) if name == LOGITS else self.network.features(scaled)  # type: ignore[operator]
        return out


def of_network(network: nn.Module, *, name: str) -> Extractor:
    """A trained network (`models.Network`) as extractor: features `penultimate` (its last layer but one) and `logits`.

    `name` is what the record calls it; the first digits of the SHA-256 of its weights are added. A network of which
    the penultimate layer is not known (a body without `embed`) provides its logits only. It must not be the one
    that made the images, which would be asked whether it likes its own work (`likeness.agreement` refuses it).

    >>> from helpers import models
    >>> f = models.build("smallcnn", num_classes=10, in_channels=1, image_size=16, width=2)
    >>> judge = of_network(f, name="judge")
    >>> judge.name == f"judge {judge.sha256[:8]}", judge.provides
    (True, ('penultimate', 'logits'))
    """
    if not name or not isinstance(name, str):
        raise ValueError(f"expected a name for the extractor, got {name!r}")
    digest = weights_sha256(network)
    filters = [p for p in network.parameters() if p.ndim == 4]
    body = getattr(network, "body", None)
    embeds = callable(getattr(network, "features", None)) and callable(getattr(body, "embed", None))
    return Extractor(
        name=f"{name} {digest[:DIGITS]}",
        sha256=digest,
        provides=(PENULTIMATE, LOGITS) if embeds else (LOGITS,),
        module=_OfNetwork(network),
        channels=int(filters[0].shape[1]) if filters else None,
        num_classes=getattr(network, "num_classes", None),
        logits=LOGITS,
        official=False,
        checked="SHA-256 over the weights in memory",
    )


# ---- Inception ----


def inception(
    path: Path | str | None = None, *, download: bool = False, device: torch.device | str = "cpu"
) -> Extractor:
    """torch-fidelity's Inception-v3 of 2015-12-05, with the features that its weights file is enough for.

    The file is `path`, else the environment's INCEPTION_WEIGHTS, else the one that was downloaded before; with
    `download=True` it is fetched once (96 MB, torch-fidelity's own release) into the folder CHECKPOINTS. It is
    torch-fidelity's .pth, read without running anything in it, whose SHA-256 must be the published one, or a
    .safetensors with the same names, whose SHA-256 is recorded. A file that ends early, at Mixed_6e say, provides
    the features before that: `64`, `192`, `768`, and runs no further than the feature asked for. Needs torch-fidelity.

    All images are resized to 299×299: one core was measured to bring 22 of 32×32 a second to `64`, 14 to `192` and 6
    to `768`.
    FileNotFoundError says where it was looked for; ValueError what was expected of a file and what came.
    """
    from helpers import inception as weights  # torch-fidelity is imported only where it is used

    where = weights.locate(None if path is None else Path(path), download=download)
    digest = files.sha256(where)
    module = weights.Inception(weights.read(where, digest), where=where).to(device)
    return Extractor(
        name=f"Inception {digest[:DIGITS]}",
        sha256=digest,
        provides=module.provides,
        module=module,
        channels=3,
        num_classes=None,
        logits=weights.LOGITS,
        official=True,
        checked=weights.what_was_checked(digest),
    )

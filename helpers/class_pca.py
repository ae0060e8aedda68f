"""Starts from the principal components of a class, or of a neighbourhood in it (ebm, section 4.1 and follow-up 7.1).

    x_0 = clip(μ + spread · Σ_{i<m} z_i std_i U_i, 0, 1),    z ~ N(0, I)

U_i and std_i are the directions and standard deviations of the class's images in pixel space. The paper writes the
same with singular values, s_i = √(n−1) std_i, and α_i = σ_PCA z_i: σ_PCA = spread/√(n−1). A spread of 1 is the
Gaussian that the class has along its first m directions.

Draws from one fit are the same bits in any batch and on any device. Fits made anew by another linear algebra library
agree within rounding; so do neighbourhoods, whose eigenvectors are found at each draw: there, equal bits across devices
or libraries are likely (their rounding is far below the grid of `exact_products`), not certain.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from helpers import checks, exact_products, fits, noise, starts
from helpers.data import ImageSet

VERSION = 1  # of what is fitted and how: another number makes every kept fit anew
KEPT_VARIANCE = 0.99  # share of the variance whose directions a fit keeps at least, so that a sweep over r fits once
_PIXELS_AT_ONCE = 1 << 23  # of neighbourhoods, float64: 64 MiB


def n_components(share: np.ndarray, retained_variance: float) -> int:
    """m, how many components the paper keeps: the 0-based place of the first cumulative `share` that reaches r.

    One fewer than scikit-learn keeps, so what is kept stays just below r.

    >>> n_components(np.array([0.6, 0.3, 0.1]), 0.8), n_components(np.array([0.6, 0.3, 0.1]), 0.95)
    (1, 2)
    """
    return int((np.cumsum(share) < retained_variance).sum())


@dataclass(frozen=True, eq=False)
class ClassPCA:
    """Class-wise PCA start, see the module.

    `mean` (K, d) float64; `directions` (K, M, d) float32, std_i U_i in [0, 1] units, largest first and zero from
    `n_components` (K,) on; `n_images` (K,) of each class. The first z_i of an image are the same for every r, so more
    variance adds to the image that less of it gives.
    """

    name: ClassVar[str] = "class_pca"
    mean: Tensor
    directions: Tensor
    n_components: Tensor
    n_images: Tensor
    shape: tuple[int, int, int]
    retained_variance: float
    pca_spread: float

    @property
    def sigma_pca(self) -> Tensor:
        """The paper's σ_PCA = spread/√(n−1) of each class, (K,) float64."""
        return self.pca_spread / (self.n_images - 1).double().sqrt()

    def draw(self, y: Tensor, key: noise.Key) -> Tensor:
        """First images (B, C, H, W); see `starts.Start.draw`."""
        key = starts.own_key(self, y, key, "z", num_classes=len(self.mean))
        x = torch.empty(len(y), *self.shape, device=y.device)
        for k, batch in starts.by_class(y):
            m = int(self.n_components[k])
            z = starts.grid_normal(key.rows(batch), m)
            offset = exact_products.product(z, self.directions[k, :m].to(y.device))
            x[batch] = starts.as_images(self.mean[k].to(y.device) + self.pca_spread * offset, self.shape)
        return x


@dataclass(frozen=True, eq=False)
class LocalClassPCA:
    """PCA start of a neighbourhood: the `n_neighbours` images of class y nearest to a random one of them.

    Departs from the paper (follow-up 7.1), whose neighbourhoods are not known to us: ours are nearest in the L2
    distance of pixels, the random image among them (ties: the earlier image), and at least one component is kept.

    With X (n, d) the neighbourhood less its mean and P the projection on the first m eigenvectors of X Xᵀ,
    spread · Xᵀ P z / √(n−1), z ~ N(0, I_n), has the distribution of the module's sum and needs no d × d matrix and no
    signs of eigenvectors. `pixels` (N_y, C, H, W) uint8 of each class; `neighbours` (N_y, n), places among them.
    """

    name: ClassVar[str] = "local_class_pca"
    pixels: tuple[Tensor, ...]
    neighbours: tuple[Tensor, ...]
    retained_variance: float
    pca_spread: float

    @property
    def sigma_pca(self) -> Tensor:
        """The paper's σ_PCA = spread/√(n−1) with n = `n_neighbours`, the same for each class: (K,) float64."""
        n = self.neighbours[0].shape[1]
        return torch.full((len(self.pixels),), self.pca_spread / math.sqrt(n - 1), dtype=torch.float64)

    def draw(self, y: Tensor, key: noise.Key) -> Tensor:
        """First images (B, C, H, W); see `starts.Start.draw`."""
        centre = starts.own_key(self, y, key, "centre", num_classes=len(self.pixels))
        z = starts.own_key(self, y, key, "z", num_classes=len(self.pixels))
        x = torch.empty(len(y), *self.pixels[0].shape[1:], device=y.device)
        n = self.neighbours[0].shape[1]
        at_once = max(1, _PIXELS_AT_ONCE // (n * math.prod(self.pixels[0].shape[1:])))
        for k, batch in starts.by_class(y):
            for rows in batch.split(at_once):
                chosen = self._neighbourhoods(k, centre.rows(rows).integers(len(self.pixels[k])))
                x[rows] = self._around(chosen.to(y.device), starts.grid_normal(z.rows(rows), n))
        return x

    def _neighbourhoods(self, k: int, centre: Tensor) -> Tensor:
        """Pixels (B, n, C, H, W) uint8 of the neighbours of images `centre` (B,) of class k."""
        return self.pixels[k][self.neighbours[k][centre.to(self.neighbours[k].device)].long()]

    def _around(self, pixels: Tensor, z: Tensor) -> Tensor:
        """Draws (B, C, H, W) from the PCA of each neighbourhood (B, n, C, H, W) with noise z (B, n)."""
        flat = pixels.flatten(2).double()
        scale = self.pca_spread / math.sqrt(z.shape[1] - 1)
        weights = exact_products.on_grid(_project(flat, z, self.retained_variance), bits=exact_products.NOISE_BITS)
        mean = exact_products.mean_of(flat)
        along = exact_products.combination(weights[:, None], flat, mean=mean)[:, 0]
        return starts.as_images(mean + scale * along, (pixels.shape[2], pixels.shape[3], pixels.shape[4]))


def _project(pixels: Tensor, z: Tensor, retained_variance: float) -> Tensor:
    """P z (B, n) for neighbourhoods (B, n, d) float64, P the projection on the components kept, seen by neighbours."""
    gram = pixels @ pixels.mT  # whole numbers below 2⁵³: exact
    gram = gram - gram.mean(1, keepdim=True) - gram.mean(2, keepdim=True) + gram.mean((1, 2), keepdim=True)
    variance, vectors = torch.linalg.eigh(gram)
    variance, vectors = variance.clamp_min(0).flip(1), vectors.flip(2)
    kept = variance.cumsum(1) < retained_variance * variance.sum(1, keepdim=True)
    kept[:, 0] = True
    along = (vectors.mT @ z[..., None]) * kept[..., None]
    return (vectors @ along)[..., 0]


# ---- fits ----


def fit_class_pca(
    images: ImageSet, *, retained_variance: float, pca_spread: float, folder: Path | None = None
) -> ClassPCA:
    """PCA of each class in float64 (`decompose`), kept class by class in `folder`.

    `retained_variance` r in (0, 1); ValueError where r keeps no component of a class (r given in percent of a percent,
    as the paper's code does, would silently start every chain at the mean), or a class's images are all alike.
    """
    r = _share(retained_variance)
    checksum = images.checksum
    pixels = starts.pixels_by_class(images, at_least=2)
    found = [_fitted(p, name, checksum, r, folder) for p, name in zip(pixels, images.classes, strict=True)]
    counts = [n_components(fit["share"].numpy(), r) for fit in found]
    for name, m, fit in zip(images.classes, counts, found, strict=True):
        if m == 0:
            raise ValueError(
                f"expected retained_variance to keep a component of class {name!r}, whose first has "
                f"{float(fit['share'][0]):.3g} of the variance, got {r:g}"
            )
    directions = torch.zeros(len(found), max(counts), math.prod(images.shape))
    for k, (m, fit) in enumerate(zip(counts, found, strict=True)):
        directions[k, :m] = fit["directions"][:m]
    device = images.pixels.device
    return ClassPCA(
        mean=torch.stack([fit["mean"] for fit in found]).to(device),
        directions=directions.to(device),
        n_components=torch.tensor(counts),
        n_images=torch.tensor([int(fit["n_images"]) for fit in found]),
        shape=images.shape,
        retained_variance=r,
        pca_spread=checks.number(pca_spread, "pca_spread", minimum=0),
    )


def fit_local_class_pca(
    images: ImageSet, *, n_neighbours: int, retained_variance: float, pca_spread: float, folder: Path | None = None
) -> LocalClassPCA:
    """The neighbours of every image within its class, kept class by class in `folder`; PCA is done where one is drawn.

    `n_neighbours` from 2 to the size of the smallest class, the image itself among them; r in (0, 1).
    """
    pixels = starts.pixels_by_class(images, at_least=checks.count(n_neighbours, "n_neighbours", minimum=2))
    checksum = images.checksum
    found = []
    for name, here in zip(images.classes, pixels, strict=True):
        identity = _identity("neighbours", checksum, name, n_neighbours=n_neighbours)
        found.append(_kept(folder, identity, partial(_neighbour_table, here, n_neighbours)))
    return LocalClassPCA(
        pixels=pixels,
        neighbours=tuple(fit["neighbours"].to(images.pixels.device) for fit in found),
        retained_variance=_share(retained_variance),
        pca_spread=checks.number(pca_spread, "pca_spread", minimum=0),
    )


def nearest(pixels: Tensor, n: int) -> Tensor:
    """Places (N, n) int32 of the n rows of `pixels` (N, d) uint8 nearest to each row in L2, itself among them.

    Nearest first, and of two at the same distance the earlier; squared distances are whole numbers, so exact.

    >>> nearest(torch.tensor([[0], [3], [1]], dtype=torch.uint8), 2).tolist()
    [[0, 2], [1, 2], [2, 0]]
    """
    x = pixels.double()
    square = x.square().sum(1)
    place = torch.arange(len(x), device=x.device)
    found = []
    for rows in place.split(512):
        distance = square[rows, None] + square - 2 * (x[rows] @ x.T)
        order = distance.long() * len(x) + place
        found.append(order.topk(n, dim=1, largest=False, sorted=True).indices.int())
    return torch.cat(found)


def _neighbour_table(pixels: Tensor, n_neighbours: int) -> dict[str, Tensor]:
    return {"neighbours": nearest(pixels.flatten(1), n_neighbours)}


def _fitted(
    pixels: Tensor, name: str, checksum: str, retained_variance: float, folder: Path | None
) -> dict[str, Tensor]:
    """What `decompose` finds for a class, with directions for at least r, kept in `folder`."""
    identity = _identity("class_pca", checksum, name, kept=max(KEPT_VARIANCE, retained_variance))
    return _kept(folder, identity, lambda: decompose(pixels.flatten(1), kept=identity["kept"]))


def decompose(pixels: Tensor, *, kept: float, solver: str = "leading") -> dict[str, Tensor]:
    """PCA of one class's `pixels` (n, d) uint8 in float64; ValueError where all images are alike.

    `mean` (d,) float64, `share` of the variance (M,) float64 of every component, `directions` std_i U_i (m, d) on
    the grid of `exact_products`, so float32 holds them exactly, m up to the first cumulative share ≥ `kept`, and
    `n_images` (). `solver` "leading" finds the directions that are kept (`helpers.leading`), any other name is one of
    scikit-learn's; with fewer images than pixels it is always scikit-learn's "full" one, and M = n, else d.
    """
    if bool((pixels == pixels[0]).all()):
        raise ValueError(f"expected images of a class that differ, got {len(pixels)} that are all alike")
    solver = "full" if solver == "leading" and len(pixels) < pixels.shape[1] else solver
    variance, unit = (_leading if solver == "leading" else partial(_sklearn, solver=solver))(pixels, kept)
    share = variance / variance.sum()
    directions = np.sqrt(variance[: len(unit), None]) * unit
    return {
        "mean": exact_products.mean_of(pixels).cpu(),
        "share": torch.from_numpy(share.copy()),
        "directions": exact_products.on_grid(torch.from_numpy(directions), bits=exact_products.DIRECTION_BITS).float(),
        "n_images": torch.tensor(len(pixels)),
    }


def _n_kept(variance: np.ndarray, kept: float) -> int:
    """Components up to the first cumulative share of the variance that reaches `kept`."""
    return min(n_components(variance / variance.sum(), kept) + 1, len(variance))


def _leading(pixels: Tensor, kept: float) -> tuple[np.ndarray, np.ndarray]:
    from helpers import leading

    covariance = leading.covariance(pixels.cpu().double().numpy())
    return leading.components(covariance, first=partial(_n_kept, kept=kept))


def _sklearn(pixels: Tensor, kept: float, *, solver: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.decomposition import PCA

    pca = PCA(svd_solver=solver).fit(pixels.cpu().double().numpy() / 255)
    return pca.explained_variance_, pca.components_[: _n_kept(pca.explained_variance_, kept)]


def _share(retained_variance: float) -> float:
    r = checks.number(retained_variance, "retained_variance", above=0, maximum=1)
    if r == 1:
        raise ValueError("expected retained_variance to be below 1, where the last component is rounding alone, got 1")
    return r


def _identity(kind: str, checksum: str, name: str, **options: float) -> dict[str, Any]:
    return {"kind": kind, "version": VERSION, "images": checksum, "class": name, **options}


def _kept(
    folder: Path | None, identity: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """A fit from its file, which is named after its kind and a digest of all that it is of."""
    mark = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return fits.kept(folder, f"{identity['kind']}-{mark[:16]}", identity=identity, make=make)

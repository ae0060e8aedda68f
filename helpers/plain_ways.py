"""The plain ways of public code, in our words: something to compare with where no peer is.

PGD that calls `backward` (and so fills the parameters' gradients too), adversarial training around it, class Gaussians
from torch's MultivariateNormal one image at a time, and PCA starts as a sum over the components of one image.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from helpers import batch_norm

__all__ = ["class_gaussian", "class_pca", "gaussians", "layered", "pgd", "training_step"]


def layered(network: nn.Module) -> nn.Module:
    """A copy whose batch norms are layers of their own, as everywhere else: ours are folded into the convolutions in
    eval mode."""
    network = copy.deepcopy(network)
    found = batch_norm.layers(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if any(child is one for one in found):
                setattr(parent, name, nn.Sequential(child))
    return network


def pgd(network: nn.Module, x: Tensor, y: Tensor, *, epsilon: float, step_size: float, n_steps: int) -> Tensor:
    """L∞-PGD on cross-entropy from an even start, last iterate (Madry et al. 2018), by `backward`."""
    delta = torch.empty_like(x).uniform_(-epsilon, epsilon)
    delta = ((x + delta).clamp(0, 1) - x).requires_grad_()
    for _ in range(n_steps):
        F.cross_entropy(network(x + delta), y).backward()
        assert delta.grad is not None
        with torch.no_grad():
            moved = (delta + step_size * delta.grad.sign()).clamp(-epsilon, epsilon)
            delta.copy_((x + moved).clamp(0, 1) - x)
        delta.grad.zero_()
    return (x + delta).detach()


def training_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    step_size: float,
    n_steps: int,
) -> float:
    """One step of adversarial training in float32: PGD in eval mode, then the optimiser on CE(x*, y)."""
    network.eval()
    x_adv = pgd(network, x, y, epsilon=epsilon, step_size=step_size, n_steps=n_steps)
    network.train()
    optimizer.zero_grad()
    loss = F.cross_entropy(network(x_adv), y)
    loss.backward()
    optimizer.step()
    return loss.item()


def gaussians(pixels: Sequence[Tensor], *, jitter_std: float, device: torch.device) -> list[MultivariateNormal]:
    """A normal law for each class from its pixels (N_y, C, H, W) uint8, float32, its covariance factored once."""
    laws = []
    for one in pixels:
        flat = one.flatten(1).to(device).float() / 255
        mean = flat.mean(0)
        covariance = (flat - mean).T @ (flat - mean) / len(flat)
        covariance += jitter_std**2 * torch.eye(len(mean), device=device)
        laws.append(MultivariateNormal(mean, covariance_matrix=covariance, validate_args=False))
    return laws


def class_gaussian(laws: Sequence[MultivariateNormal], y: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """One draw after another, (B, C, H, W) in [0, 1]."""
    return torch.stack([laws[k].sample().view(shape).clamp(0, 1) for k in y.tolist()])


def class_pca(mean: Tensor, directions: Tensor, counts: Tensor, y: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """μ_y + Σ_i z_i std_i U_i, one image and one component after another; `directions` (K, M, d), `counts` (K,)."""
    images = []
    for k in y.tolist():
        x = mean[k].float().clone()
        for i in range(int(counts[k])):
            x += torch.randn(()) * directions[k, i]
        images.append(x.clamp(0, 1).view(shape))
    return torch.stack(images)

"""Components of the class PCA start and the paper's σ_PCA, beside the published counts."""

import pandas as pd
import pytest
import torch

from helpers import components, data, initialisers, records


def test_counts_and_sigma_are_those_of_the_start():
    images = data.load("digits", "train")
    start = initialisers.fit("class_pca", images, folder=None, retained_variance=0.9, pca_spread=1.5)
    rows = components.summary(start, images.classes)
    found = {
        metric: [row["value"] for row in rows if row["metric"] == metric] for metric in ("n_components", "sigma_pca")
    }
    assert found["n_components"] == start.n_components.tolist()
    n = torch.bincount(images.labels)
    assert found["sigma_pca"] == pytest.approx((1.5 / (n - 1).double().sqrt()).tolist())
    assert "Published counts are of CIFAR-10" in components.reading(pd.DataFrame(rows), dataset="digits")


def test_published_counts_are_compared_on_cifar10_only():
    rows = pd.DataFrame(
        records.scalar(metric, value, n=5000, retained_variance=0.95, **{"class": name})
        for name, m in (("airplane", 163), ("cat", 170))
        for metric, value in (("n_components", m), ("sigma_pca", 0.01))
    )
    said = components.reading(rows, dataset="cifar10")
    assert "airplane 163, cat 170; σ_PCA = 0.0100. As many as published: 1 of 2 classes." in said
    assert "Published counts are of CIFAR-10" in components.reading(rows, dataset="cifar100")


def test_another_start_has_none():
    images = data.load("digits", "train")
    assert components.summary(initialisers.fit("uniform", images, folder=None), images.classes) == []
    assert components.reading(pd.DataFrame(), dataset="digits") == ""

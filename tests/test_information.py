"""What a bottleneck keeps: rows against their definitions, the best b(z|y), and no image that depends on its batch."""

import math

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F

from helpers import bottleneck, information, kept, models, noise

LIVE = {"objective": "ceb", "latent": "pooled"}


@pytest.fixture(scope="module")
def network() -> models.Network:
    torch.manual_seed(0)
    f = models.build("smallcnn", num_classes=10, in_channels=1, image_size=16, width=2)
    f = bottleneck.narrowed(f, LIVE)
    with torch.no_grad():
        bottleneck.of(f).linear.weight.normal_(std=0.5)
    return f.train()


@pytest.fixture(scope="module")
def images():
    return tiny.sets().train


def test_rows_are_what_they_say(network, images):
    n = 3
    rows = information.measure(network, images, n_samples=n, seed=4, batch_size=7)
    assert network.training
    f = network.eval()
    x, y, body = images.images(), images.labels, bottleneck.of(network)
    with torch.no_grad():
        mean = f.features(x)
        eps = noise.normal((n, 16), seed=4, purpose="latent/train", index=images.index)
        c = torch.stack([body.linear(mean + eps[:, j]).softmax(1) for j in range(n)], 1)
        at_mean = f(x)
    network.train()
    picked = c[torch.arange(len(y)), :, y]
    expected = {
        "rex": 0.5 * (mean - body.density.means[y]).square().sum(1),
        "h_y_z": -picked.log().mean(1),
        "h_y_mean": F.cross_entropy(at_mean, y, reduction="none"),
    }
    for name, values in expected.items():
        assert rows[name] == pytest.approx(values.detach().numpy(), rel=1e-4, abs=1e-5), name
    assert (rows["wrong_mean"] == (at_mean.argmax(1) != y).numpy()).all()
    assert (rows["wrong_sampled"] == (c.mean(1).argmax(1) != y).numpy()).all()
    assert (rows["image"] == images.index.numpy()).all()
    assert (rows["y"] == y.numpy()).all()


def test_an_images_row_depends_on_nobody_else(network, images):
    whole = information.measure(network, images, n_samples=2, seed=0, batch_size=96)
    part = information.measure(network, images.subset(torch.tensor([50, 3])), n_samples=2, seed=0, batch_size=96)
    for name in information.COLUMNS:
        assert part[name] == pytest.approx(whole[name][[50, 3]], rel=1e-4), name


def test_the_class_means_are_the_best_backward_encoder(network, images):
    means = information.class_means(network, images, batch_size=40)
    measured = {"n_samples": 1, "seed": 0, "batch_size": 96}
    rows = information.measure(network, images, means=means, **measured)
    best = rows["rex_class_means"].mean()
    assert (rows["rex"] == information.measure(network, images, **measured)["rex"]).all(), "its own b, all the same"
    assert best < rows["rex"].mean()
    for moved in (means * 1.01, means + 0.05):
        assert best < information.measure(network, images, means=moved, **measured)["rex_class_means"].mean()
    only = images.subset(torch.nonzero(images.labels == 3).flatten())
    with pytest.raises(ValueError, match="images of each of 10 classes"):
        information.class_means(network, only, batch_size=40)


def test_a_network_that_has_collapsed_knows_nothing(images):
    """f(x) the same for all: c can do no better than the prior, and no nat of x is kept."""
    f = bottleneck.narrowed(models.build("smallcnn", num_classes=10, in_channels=1, image_size=16, width=2), LIVE)
    body = bottleneck.of(f)
    body.set_prior(images.labels)
    with torch.no_grad():
        body.backbone.hidden.weight.zero_()
        body.backbone.hidden.bias.fill_(1.0)
        body.density.means.fill_(1.0)
        body.linear.weight.zero_()
        body.linear.bias.copy_(body.log_prior)
    rows = information.measure(f, images, n_samples=2, seed=0, batch_size=96)
    most = kept.label_entropy(images.labels.numpy())
    assert rows["rex"].mean() == 0
    assert rows["h_y_z"].mean() == pytest.approx(most, abs=1e-5)
    assert most == pytest.approx(math.log(10), abs=0.05)


def test_the_vib_is_measured_against_its_marginal(images):
    f = models.build("smallcnn", num_classes=10, in_channels=1, image_size=16, width=2)
    f = bottleneck.narrowed(f, {**LIVE, "objective": "vib"}).eval()
    rows = information.measure(f, images, n_samples=1, seed=0, batch_size=96)
    with torch.no_grad():
        expected = 0.5 * f.features(images.images()).square().sum(1)  # KL(N(f, I) ‖ N(0, I)), r as it begins
    assert rows["rex"] == pytest.approx(expected.numpy(), rel=1e-4)
    scalars = information.monitor(f, {"test": images}, seed=0, batch_size=96)
    assert scalars.keys() == {"rate_test", "h_y_z_test"}
    assert scalars["rate_test"] == pytest.approx(np.mean(rows["rex"]))

"""The network with a bottleneck: its parts, the objectives on it, samples of z at test time, any backbone, resume."""

import math
from pathlib import Path

import pytest
import tiny
import torch
import torch.nn.functional as F
from test_objectives import images
from torch import Tensor, nn

from helpers import attacks, bottleneck, ceb, halved, models, noise, objectives, parameters, train
from helpers.context import eval_mode

ENTRY = {"objective": "ceb", "latent": "pooled", "rho": 1.0}
KINDS: dict[str, dict[str, object]] = {
    "ceb": {},
    "dense": {"latent": "dense", "latent_dim": 5},
    "cceb": {"consistent": True},
    "vib": {"objective": "vib"},
}
# (kind, version of its objective): losses of four fixed images; see test_objectives.
GOLDEN: dict[tuple[str, int], list[float]] = {
    ("ceb", 1): [8.703758142, 11.35008881, 13.14060721, 14.49429996],
    ("dense", 1): [3.855185503, 2.81026925, 3.556369656, 2.986741477],
    ("cceb", 1): [6.295544424, 12.61912948, 14.94562579, 9.710679424],
    ("vib", 1): [9.893240454, 13.39234167, 10.16725859, 20.7101119],
}


def entry(kind: str = "ceb", **changes: object) -> dict[str, object]:
    return {**ENTRY, **KINDS[kind], **changes}


def network(kind: str = "ceb", **changes: object) -> models.Network:
    """Weights that are a formula, in float64."""
    f = models.build("smallcnn", num_classes=3, in_channels=1, image_size=8, width=2)
    f = bottleneck.narrowed(f, entry(kind, **changes)).double()
    with torch.no_grad():
        for k, p in enumerate(f.parameters()):
            p.copy_(torch.sin(torch.arange(p.numel(), dtype=torch.float64) * 0.7 + k).view_as(p) * 0.6 + (k % 3 == 1))
    bottleneck.of(f).set_prior(torch.tensor([0, 0, 0, 1, 1, 2]))
    return f.train()


def outcome(kind: str, f: nn.Module | None = None, *, epoch: int = 1, seed: int = 2, **changes: object):
    x, y, index = images()
    given = entry(kind, **changes)
    f = network(kind) if f is None else f
    return objectives.evaluate(f, x, y, entry=given, seed=seed, index=index, epoch=epoch)


def latents(f: models.Network, *, n: int = 1, epoch: int = 1) -> tuple[Tensor, Tensor]:
    """f(x) (B, d) and z (B, n, d), the noise drawn here as the objective must draw it."""
    x, _, index = images()
    mean = f.features(x)
    shape = (n, mean.shape[1])
    eps = noise.normal(shape, seed=2, purpose="train/latent", index=index, step=epoch, dtype=torch.float64)
    return mean, mean[:, None] + eps


# The objectives


@pytest.mark.parametrize("kind", KINDS)
def test_golden_losses_belong_to_the_version(kind):
    version = parameters.OBJECTIVE_VERSIONS[str(entry(kind)["objective"])]
    assert (kind, version) in GOLDEN, f"no golden losses for version {version} of {kind}"
    assert outcome(kind).loss.tolist() == pytest.approx(GOLDEN[kind, version], rel=1e-6)


def test_ceb_is_its_equation_by_torch_distributions():
    f = network()
    mean, z = latents(f, n=3)
    _, y, _ = images()
    body = bottleneck.of(f)
    e, b = torch.distributions.Normal(mean, 1.0), torch.distributions.Normal(body.density.means[y], 1.0)
    rex = torch.stack([(e.log_prob(z[:, j]) - b.log_prob(z[:, j])).sum(1) for j in range(3)], 1).mean(1)
    h = torch.stack([F.cross_entropy(body.linear(z[:, j]), y, reduction="none") for j in range(3)], 1).mean(1)
    found = outcome("ceb", n_samples=3, rho=2.0)
    assert found.loss.allclose(math.exp(-2) * rex + h)
    assert found.terms["rex"].allclose(rex)
    assert found.terms["h_y_z"].allclose(h)
    kl = torch.distributions.kl_divergence(e, b).sum(1)
    for estimator, rate in (("sampled", rex), ("closed_form", kl)):
        loss = outcome("ceb", f, n_samples=3, rho=2.0, rate_estimator=estimator).loss
        assert loss.allclose(math.exp(-2) * rate + h)
        # The rate pulls at the encoder as well as at b.
        ours = torch.autograd.grad(loss.sum(), list(f.parameters()))
        wanted = (math.exp(-2) * rate + h).sum()
        theirs = torch.autograd.grad(wanted, list(f.parameters()), retain_graph=True)
        assert all(a.allclose(t, atol=1e-10) for a, t in zip(ours, theirs, strict=True))


def test_the_vib_is_its_equation_by_torch_distributions():
    f = network("vib")
    mean, z = latents(f)
    _, y, _ = images()
    body = bottleneck.of(f)
    with torch.no_grad():
        body.density.log_std.mul_(0.5)
    e = torch.distributions.Normal(mean, 1.0)
    r = torch.distributions.Normal(body.density.mean, body.density.log_std.exp())
    rate = (e.log_prob(z[:, 0]) - r.log_prob(z[:, 0])).sum(1)
    h = F.cross_entropy(body.linear(z[:, 0]), y, reduction="none")
    found = outcome("vib", f, rho=1.0)
    assert found.loss.allclose(rate / (1 + math.e) + h)
    assert found.terms["rate"].allclose(rate)
    ours = torch.autograd.grad(found.loss.sum(), list(f.parameters()))
    theirs = torch.autograd.grad((rate / (1 + math.e) + h).sum(), list(f.parameters()))
    assert all(a.allclose(t, atol=1e-10) for a, t in zip(ours, theirs, strict=True))
    kl = torch.distributions.kl_divergence(e, r).sum(1)
    assert outcome("vib", f, rate_estimator="closed_form").terms["rate"].allclose(kl)


@pytest.mark.parametrize("kind", KINDS)
def test_without_compression_the_loss_is_cross_entropy_on_a_noisy_z(kind):
    f = network(kind)
    _, z = latents(f)
    logits = bottleneck.of(f).classify(z[:, 0])
    found = outcome(kind, rho=100.0)
    assert found.loss.equal(F.cross_entropy(logits, images()[1], reduction="none"))
    assert found.wrong.equal(logits.argmax(1) != images()[1])
    noiseless = F.cross_entropy(f(images()[0]), images()[1], reduction="none")
    assert not found.loss.allclose(noiseless, atol=1e-3)


def test_plain_cross_entropy_is_the_same_network_under_the_standard_objective():
    f = network()
    x, y, _ = images()
    body = bottleneck.of(f)
    expected = F.cross_entropy(body.linear(f.features(x)), y, reduction="none")
    assert outcome("ceb", f, objective="standard").loss.equal(expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("estimator", ceb.ESTIMATORS)
def test_gradients_reach_every_part(kind, estimator):
    f = network(kind)
    outcome(kind, f, rate_estimator=estimator).loss.mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for name, p in f.named_parameters() if "norm" not in name)
    body = bottleneck.of(f)
    if kind in ("ceb", "dense"):
        # ∂L/∂μ_k is that of γ Rex alone: γ (μ − f − ε) or γ (μ − f), summed over the class.
        mean, z = latents(network(kind))
        _, y, _ = images()
        residual = body.density.means[y] - (z[:, 0] if estimator == "sampled" else mean)
        expected = torch.zeros_like(body.density.means).index_add_(0, y, math.exp(-1) * residual / 4)
        assert body.density.means.grad.allclose(expected)


def test_noise_is_keyed_by_image_epoch_and_seed():
    a = outcome("ceb").loss
    assert a.equal(outcome("ceb").loss)
    assert not a.equal(outcome("ceb", epoch=2).loss)
    assert not a.equal(outcome("ceb", seed=3).loss)
    x, y, index = images()
    f = network().eval()
    given = {"key": noise.Key(0, "k", index), "n_samples": 2, "estimator": "sampled"}
    rows = torch.tensor([3, 1])
    whole = bottleneck.terms(f, x, y, **given)
    part = bottleneck.terms(f, x[rows], y[rows], **{**given, "key": given["key"].rows(rows)})
    assert all(p.allclose(w[rows], rtol=0, atol=1e-12) for p, w in zip(part, whole, strict=True))


def test_bad_settings_name_what_was_expected():
    with pytest.raises(ValueError, match="expected estimator among sampled, closed_form, got 'mean'"):
        outcome("ceb", rate_estimator="mean")
    with pytest.raises(ValueError, match="expected latent pooled, or dense with latent_dim"):
        network(latent="dense")
    with pytest.raises(ValueError, match="expected latent pooled, or dense with latent_dim"):
        network(latent_dim=4)
    with pytest.raises(ValueError, match="marginal without consistent"):
        network("vib", consistent=True)
    plain = models.build("smallcnn", num_classes=3, in_channels=1, image_size=8, width=2)
    with pytest.raises(TypeError, match="a network with a bottleneck"):
        outcome("ceb", plain)
    with pytest.raises(TypeError, match="expected a body of helpers"):
        bottleneck.headless(nn.Flatten())


# The network


def test_the_consistent_network_is_bayes_rule_with_the_training_labels_prior():
    f = network("cceb").eval()
    body = bottleneck.of(f)
    assert body.log_prior.exp().tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    z = f.features(images()[0])
    log_b = torch.stack([ceb.log_normal(z, mu) for mu in body.density.means], 1)
    assert f(images()[0]).log_softmax(1).allclose((log_b + body.log_prior).log_softmax(1))
    free = sum(p.numel() for p in network("ceb").parameters())
    assert free - sum(p.numel() for p in f.parameters()) == 3 * 16 + 3  # the tied classifier's weights and biases


@pytest.mark.parametrize(
    ("architecture", "settings", "d"),
    [
        ("smallcnn", {"width": 4}, 32),
        ("resnet18", {"width": 4, "norm": "none"}, 32),
        ("wrn", {"depth": 10, "width": 2, "norm": "none"}, 128),
        ("wrn", {"depth": 28, "width": 10}, 640),
        ("resnet20", {}, 64),
        ("resnet2b", {"norm": "none"}, 100),
        ("torchvision_resnet50", {}, 2048),
        ("torchvision_resnet152_x2", {}, 4096),
        ("torchvision_wide_resnet50_2", {}, 2048),
    ],
)
def test_any_backbone_takes_it_and_loses_its_classifier(architecture, settings, d):
    with torch.device("meta"):
        f = models.build(architecture, num_classes=10, in_channels=3, image_size=32, **settings)
        before = sum(p.numel() for p in f.parameters())
        f = bottleneck.narrowed(f, entry()).eval()
        x = torch.empty(2, 3, 32, 32)
        assert f(x).shape == (2, 10)
        assert f.features(x).shape == (2, d)
    # Its classifier goes; b's means and c come.
    assert sum(p.numel() for p in f.parameters()) == before - 10 * (d + 1) + 10 * d + 10 * (d + 1)


def test_a_dense_latent_stands_on_the_pooled_feature():
    f, x = network("dense").eval(), images()[0]
    body = bottleneck.of(f)
    assert f.features(x).allclose(F.linear(body.backbone.embed(x), body.dense.weight, body.dense.bias))
    assert f.features(x).shape == (4, 5)
    assert (f.features(x) < 0).any()  # no ReLU after it


# Samples of z at test time


def test_the_average_over_samples_is_a_network_that_attacks_take():
    f = network().eval()
    x, y, index = images()
    averaged = bottleneck.Averaged(f, n_samples=5, seed=1, purpose="judge").eval()
    z = f.features(x)[:, None] + averaged.noise
    c = torch.stack([bottleneck.of(f).classify(z[:, j]).softmax(1) for j in range(5)], 1).mean(1)
    assert averaged(x).exp().allclose(c)
    assert averaged.num_classes == 3
    assert averaged(x[2:3]).allclose(averaged(x)[2:3], rtol=0, atol=1e-12)
    other = bottleneck.Averaged(f, n_samples=5, seed=2, purpose="judge").eval()
    assert not averaged.noise.eq(other.noise).any()
    settings = {"norm": "linf", "epsilon": 0.1, "step_size": 0.05, "n_steps": 3, "start": "none", "start_std": None}
    x_adv = attacks.pgd(
        attacks.cross_entropy(averaged), x, y, **settings,
        n_restarts=1, returns="last", seed=0, index=index, purpose="test",
    )  # fmt: skip
    assert (F.cross_entropy(averaged(x_adv), y, reduction="none") > F.cross_entropy(averaged(x), y)).any()
    with pytest.raises(ValueError, match="n_samples"):
        bottleneck.Averaged(f, n_samples=0, seed=1, purpose="judge")


def test_with_many_samples_the_average_is_the_expectation():
    """c(y|z) linear-Gaussian: with two classes the mean of σ(w·z + b) over z, by quadrature."""
    f = models.build("smallcnn", num_classes=2, in_channels=1, image_size=8, width=2).double().eval()
    f = bottleneck.narrowed(f, entry()).double()
    x = images()[0]
    body = bottleneck.of(f)
    with torch.no_grad():
        body.linear.weight.copy_(torch.linspace(-1, 1, 32, dtype=torch.float64).view(2, 16) / 3)
    w, b = body.linear.weight[1] - body.linear.weight[0], body.linear.bias[1] - body.linear.bias[0]
    t = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = torch.exp(-0.5 * t.square()) / math.sqrt(2 * math.pi)
    margin = f.features(x) @ w + b
    expected = (torch.sigmoid(margin[:, None] + w.norm() * t) * density).sum(1) * (t[1] - t[0])
    n = 4000
    p = bottleneck.Averaged(f, n_samples=n, seed=0, purpose="test")(x).exp()[:, 1]
    assert (p - expected).abs().max() < 4.5 * 0.5 / math.sqrt(n)


# Training


class Stop(Exception):
    """Thrown by a callback, as a kill would."""


def fit(folder: Path, kind: str = "ceb", stop: int | None = None, **changes: object) -> tuple[nn.Module, train.History]:
    def callback(p: train.Progress) -> None:
        if p.step == stop:
            raise Stop

    given = {"rho_start": 100.0, "anneal": "gamma", "anneal_epochs": 1.5, "epochs": 2, **entry(kind), **changes}
    recipe = tiny.recipe(**{"attack_norm": None, "augment": "none", **given})
    return train.fit(recipe, 0, folder=folder, device="cpu", callback=callback, sets=tiny.sets())


@pytest.mark.parametrize("kind", ["cceb", "vib"])
def test_a_stopped_run_ends_with_the_same_bits(kind, tmp_path, capsys):
    expected, curves = fit(tmp_path / "a", kind)
    with pytest.raises(Stop):
        fit(tmp_path / "b", kind, stop=4)
    again, resumed = fit(tmp_path / "b", kind)
    assert "going on after step 4" in capsys.readouterr().err
    assert tiny.same(again, expected)
    assert resumed.scalars == curves.scalars


def test_the_history_follows_the_terms_in_nats(tmp_path):
    f, h = fit(tmp_path, epochs=2, monitor_n_images=10, ema=0.0)
    for name in ("rex", "h_y_z", "rex_train", "rex_test", "h_y_z_train", "h_y_z_test"):
        assert len(h.scalars[name]) == 2, name
    probe = tiny.sets().test.first(10)
    with eval_mode(f):
        mean = f.features(probe.images())
    body = bottleneck.of(f)
    rex = 0.5 * (mean - body.density.means[probe.labels]).square().sum(1).mean()
    assert h.scalars["rex_test"][-1] == pytest.approx(rex.item(), rel=1e-5)
    assert body.log_prior.exp().sum().item() == pytest.approx(1)
    counts = torch.bincount(tiny.sets().train.labels, minlength=10)
    assert body.log_prior.exp().mul(96).round().long().equal(counts)
    # Until the anneal is over the weight moves; after it the loss is γ Rex + H(Y|Z).
    whole = fit(tmp_path / "c", anneal="none", epochs=1)[1].scalars
    assert whole["train_loss"][0] == pytest.approx(math.exp(-1) * whole["rex"][0] + whole["h_y_z"][0], rel=1e-5)


def test_the_weight_moves_with_every_step_of_the_anneal(tmp_path, monkeypatch):
    seen = []
    weight_at = ceb.weight_at
    monkeypatch.setattr(ceb, "weight_at", lambda progress, e: seen.append(progress) or weight_at(progress, e))
    fit(tmp_path, monitor_n_images=None)
    assert seen == pytest.approx([0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3])


def test_in_bfloat16_the_densities_are_float32():
    f = bottleneck.narrowed(models.build("smallcnn", num_classes=3, in_channels=1, image_size=8, width=2), entry())
    seen = halved.InBfloat16(f, torch.device("cpu"))
    x, y, index = images()
    found = objectives.evaluate(seen, x.float(), y, entry=entry(), seed=0, index=index, epoch=0)
    assert found.loss.dtype == torch.float32
    mean = seen.features(x.float())
    assert mean.equal(mean.bfloat16().float())
    found.loss.mean().backward()
    assert all(p.grad is not None for p in f.parameters())

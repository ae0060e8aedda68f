"""Extractors: names with hashes, features in order and cached, Inception's weights found, checked and cut short."""

import os

import numpy as np
import pytest
import torch
import torch_fidelity
from judges import image_set, judge, noise
from safetensors.torch import save_file
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

from helpers import extractors, files, foreign, image_quality, inception, models, parts

STEM = {"Conv2d_1a_3x3": (32, 3, 3, 3), "Conv2d_2a_3x3": (32, 32, 3, 3), "Conv2d_2b_3x3": (64, 32, 3, 3)}
NEXT = {"Conv2d_3b_1x1": (80, 64, 1, 1), "Conv2d_4a_3x3": (192, 80, 3, 3)}


def layers(shapes):
    """Random weights of convolutions, named as torch-fidelity's file names them."""
    generator, out = torch.Generator().manual_seed(0), {}
    for name, shape in shapes.items():
        out[f"{name}.conv.weight"] = torch.randn(shape, generator=generator) / 10
        for entry in ("weight", "bias", "running_mean", "running_var"):
            out[f"{name}.bn.{entry}"] = torch.rand(shape[0], generator=generator) + 0.5
    return out


@pytest.fixture
def stem(tmp_path):
    save_file(layers(STEM), tmp_path / "stem.safetensors")
    return tmp_path / "stem.safetensors"


# ---- images ----


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 1, 4, 4), np.float32), "expected images to be uint8 pixels from 0 to 255, got float32"),
        (torch.zeros(2, 1, 4, 4), "expected images to be uint8 pixels from 0 to 255, got torch.float32"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.int64), "got torch.int64"),
        (np.zeros((2, 2, 4, 4), np.uint8), r"with C 1 or 3, got \(2, 2, 4, 4\)"),
        (np.zeros((0, 1, 4, 4), np.uint8), r"got \(0, 1, 4, 4\)"),
        ([[0]], "expected images to be an array or tensor, got list"),
    ],
)
def test_only_uint8_images_are_looked_at(images, message):
    with pytest.raises(ValueError, match=message):
        judge().extract(images, ["penultimate"], batch_size=2)


def test_the_hash_of_images_sees_pixels_and_shape():
    one = noise(10, seed=0)
    assert extractors.sha256_of(one, batch_size=3) == extractors.sha256_of(torch.from_numpy(one))
    changed = one.copy()
    changed[9, 0, 1, 2] ^= 1
    assert extractors.sha256_of(changed) != extractors.sha256_of(one)
    assert extractors.sha256_of(one.reshape(10, 1, 3, 2)) != extractors.sha256_of(one)


# ---- a network of ours ----


def test_a_networks_features_and_logits_are_its_own():
    network = models.build("smallcnn", num_classes=10, in_channels=1, image_size=16, width=2)
    images = noise(11, seed=0, shape=(1, 16, 16))
    found = extractors.of_network(network, name="judge").extract(images, ["logits", "penultimate"], batch_size=4)
    x = torch.from_numpy(images).float() / 255
    with torch.no_grad():
        network.eval()
        assert torch.allclose(found["penultimate"], network.features(x), atol=1e-6)
        assert torch.allclose(found["logits"], network(x), atol=1e-6)


def test_a_network_keeps_its_mode_and_weights():
    network = models.build("smallcnn", num_classes=10, in_channels=1, image_size=16, width=2).train()
    extractor = extractors.of_network(network, name="judge")
    extractor.extract(noise(8, seed=0, shape=(1, 16, 16)), ["logits"], batch_size=4)
    assert network.training
    assert extractors.weights_sha256(network) == extractor.sha256
    assert all(p.requires_grad for p in network.parameters())


def test_the_name_holds_the_weights_hash_and_another_weight_is_another_name():
    one, two = judge(), judge(shift=0.25)
    assert one.name == f"judge {one.sha256[:8]}"
    assert one.name == judge().name
    assert one.name != two.name
    with pytest.raises(ValueError, match="expected a name"):
        extractors.of_network(one.module, name="")


def test_colours_must_fit():
    network = models.build("smallcnn", num_classes=10, in_channels=3, image_size=16, width=2)
    colour = extractors.of_network(network, name="judge")
    grey = noise(3, seed=0, shape=(1, 16, 16))
    shown = colour.extract(grey, ["penultimate"], batch_size=3)["penultimate"]
    thrice = colour.extract(np.repeat(grey, 3, axis=1), ["penultimate"], batch_size=3)["penultimate"]
    assert torch.equal(shown, thrice)
    network = models.build("smallcnn", num_classes=10, in_channels=1, image_size=16, width=2)
    with pytest.raises(ValueError, match=r"expected images of 1 channels for judge .*, got 3"):
        extractors.of_network(network, name="judge").extract(np.repeat(grey, 3, axis=1), ["logits"], batch_size=3)


def test_a_body_without_embed_gives_logits_only():
    network = foreign.wrap(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 4)), num_classes=4)
    extractor = extractors.of_network(network, name="own")
    assert extractor.provides == ("logits",)
    with pytest.raises(ValueError, match=r"expected a feature of own .* among logits, got 'penultimate'"):
        extractor.extract(noise(3, seed=0), ["penultimate"], batch_size=3)


def test_an_extractor_can_be_an_input_of_a_part():
    def fed(extractor):
        import hashlib

        digest = hashlib.sha256()
        parts._feed(digest, extractor, "extractor")
        return digest.hexdigest()

    one = judge()
    before = fed(one)
    one.kept(noise(5, seed=0), ["penultimate"], batch_size=5, folder=None, in_memory=True)
    assert one._known
    assert fed(one) == before == fed(judge())
    assert fed(judge(shift=0.5)) != before


# ---- the reference's features ----


def counted(extractor, monkeypatch):
    """How many images its module looks at."""
    seen, forward = [], extractor.module.forward
    monkeypatch.setattr(extractor.module, "forward", lambda x, names: seen.append(len(x)) or forward(x, names))
    return seen


def test_features_of_a_reference_are_computed_once(monkeypatch, tmp_path):
    first, reference = judge(), noise(20, seed=0)
    seen = counted(first, monkeypatch)
    given = {"batch_size": 8, "folder": tmp_path, "in_memory": True}
    found = first.kept(reference, ["penultimate"], **given)
    first.kept(torch.from_numpy(reference), ["penultimate"], **given | {"folder": None})
    assert sum(seen) == 20
    again = judge()
    seen = counted(again, monkeypatch)
    stored = again.kept(reference, ["penultimate"], **given)
    assert not seen
    assert torch.equal(stored["penultimate"], found["penultimate"])
    again.kept(noise(20, seed=1), ["penultimate"], **given)
    other = judge(shift=0.5)
    assert not torch.equal(other.kept(reference, ["penultimate"], **given)["penultimate"], found["penultimate"])
    both = again.kept(reference, ["logits", "penultimate"], **given)
    assert list(both) == ["logits", "penultimate"]
    assert sum(seen) == 20 + 20  # the second set, and the logits of the first


def test_features_of_made_images_are_kept_in_the_folder_only(monkeypatch, tmp_path):
    extractor = judge()
    seen = counted(extractor, monkeypatch)
    given = {"batch_size": 8, "in_memory": False}
    for folder in (tmp_path, tmp_path, None):
        extractor.kept(noise(20, seed=0), ["penultimate"], folder=folder, **given)
    assert sum(seen) == 40
    assert not extractor._known


@pytest.mark.parametrize("damage", ["cut", "exchanged", "altered"])
def test_damaged_features_are_set_aside_and_made_again(damage, tmp_path, capsys):
    def kept(extractor):
        given = {"batch_size": 8, "folder": tmp_path, "in_memory": True}
        return extractor.kept(noise(20, seed=0), ["penultimate"], **given)["penultimate"]

    good = kept(judge())
    (path,) = tmp_path.glob("features-*.safetensors")
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-5])
    elif damage == "altered":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        kept(judge(shift=0.5))
        (other,) = set(tmp_path.glob("features-*.safetensors")) - {path}
        path.write_bytes(other.read_bytes())
    assert torch.equal(kept(judge()), good)
    assert "Set aside" in capsys.readouterr().err
    assert path.with_name(path.name + ".damaged-1").exists()


class Watched(np.ndarray):
    """An array that notes how many rows are read at a time."""

    reads: list[int] = []  # noqa: RUF012

    def __getitem__(self, rows):
        found = super().__getitem__(rows)
        self.reads.append(len(found))
        return np.asarray(found)


def test_images_are_read_in_batches_never_as_a_whole():
    images = noise(50, seed=0).view(Watched)
    judge().extract(images, ["penultimate"], batch_size=8)
    assert max(images.reads) == 8
    assert sum(images.reads) == 50


# ---- Inception ----


def test_weights_that_end_early_provide_the_features_before(stem, tmp_path):
    short = extractors.inception(stem)
    assert short.provides == ("64",)
    assert short.name == f"Inception {files.sha256(stem)[:8]}"
    assert "no published hash" in short.checked
    save_file(layers(STEM | NEXT), tmp_path / "next.safetensors")
    longer = extractors.inception(tmp_path / "next.safetensors")
    assert longer.provides == ("64", "192")
    images = noise(3, seed=0, shape=(3, 8, 8))
    for order in (["192", "64"], ["64", "192"]):
        found = longer.extract(images, order, batch_size=2)
        assert [(name, tuple(value.shape)) for name, value in found.items()] == [(n, (3, int(n))) for n in order]
    assert torch.equal(found["64"], short.extract(images, ["64"], batch_size=2)["64"])


@pytest.mark.parametrize(
    ("given", "missing"),
    [({"feature": "2048"}, "2048"), ({"feature": "64", "families": ["inception_score"]}, "logits_unbiased")],
)
def test_what_the_weights_are_not_enough_for_is_named(stem, given, missing):
    images = noise(20, seed=0, shape=(3, 8, 8))
    short = extractors.inception(stem)
    with pytest.raises(ValueError, match=rf"among 64, got '{missing}': the weights in .*stem.* lack .*Mixed_7c.*fc"):
        image_quality.scores(
            images, image_set(images), extractor=short, seed=0, batch_size=4, selection="fresh", **given
        )


def test_inception_is_torch_fidelitys_network_with_these_weights(stem):
    tensors = layers(STEM)
    x = torch.from_numpy(noise(2, seed=0, shape=(3, 8, 8)))
    network = torch_fidelity.FeatureExtractorInceptionV3.__new__(torch_fidelity.FeatureExtractorInceptionV3)
    network.__dict__.update(extractors.inception(stem).module.__dict__)
    network.features_list = ["64"]
    assert torch.equal(network.Conv2d_1a_3x3.conv.weight, tensors["Conv2d_1a_3x3.conv.weight"])
    found = extractors.inception(stem).extract(x, ["64"], batch_size=2)["64"]
    assert torch.equal(network(x)[0], found)


def test_grey_images_are_shown_to_inception_in_three_equal_channels(stem):
    grey, short = noise(2, seed=0, shape=(1, 8, 8)), extractors.inception(stem)
    found = short.extract(grey, ["64"], batch_size=2)["64"]
    assert torch.equal(found, short.extract(np.repeat(grey, 3, axis=1), ["64"], batch_size=2)["64"])


def test_loading_inception_draws_nothing(stem):
    state = torch.get_rng_state()
    extractors.inception(stem)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("damage", ["shape", "unknown", "nothing"])
def test_other_weights_are_refused(damage, tmp_path):
    tensors = layers(STEM)
    if damage == "shape":
        tensors["Conv2d_1a_3x3.conv.weight"] = torch.zeros(1)
    elif damage == "unknown":
        tensors["conv1.weight"] = torch.zeros(1)
    else:
        tensors.pop("Conv2d_2b_3x3.bn.bias")
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"expected the weights of torch-fidelity's Inception in .*other.safetensors"):
        extractors.inception(tmp_path / "other.safetensors")


def test_a_pth_must_have_the_published_hash_and_is_never_run(tmp_path):
    torch.save({"a": 1}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=f"SHA-256 {inception.SHA256}.*got SHA-256"):
        extractors.inception(tmp_path / "weights.pth")
    assert f"-{inception.SHA256[:8]}.pth" in URL_INCEPTION_V3  # torch-fidelity's own name for the file agrees


def test_missing_weights_say_where_they_were_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("CHECKPOINTS", str(tmp_path))
    monkeypatch.delenv("INCEPTION_WEIGHTS", raising=False)
    with pytest.raises(
        FileNotFoundError, match=r"INCEPTION_WEIGHTS names, or as .*6726825d.pth, got neither.*download=True"
    ):
        extractors.inception()
    monkeypatch.setenv("INCEPTION_WEIGHTS", str(tmp_path / "nowhere.safetensors"))
    with pytest.raises(
        FileNotFoundError, match=r"expected Inception's weights at .*nowhere.safetensors, got no such file"
    ):
        extractors.inception()


def test_weights_are_downloaded_once_and_checked(monkeypatch, tmp_path):
    asked = []

    def arrive(entry):
        asked.append(entry)
        path = tmp_path / entry["file"]
        path.write_bytes(b"not the weights")
        foreign._check(path, expected=entry["sha256"], source=entry["source"])

    monkeypatch.setenv("CHECKPOINTS", str(tmp_path))
    monkeypatch.delenv("INCEPTION_WEIGHTS", raising=False)
    monkeypatch.setattr(foreign, "locate", arrive)
    with pytest.raises(ValueError, match=f"expected .*6726825d.pth with SHA-256 {inception.SHA256}, got"):
        extractors.inception(download=True)
    assert [entry["url"] for entry in asked] == [URL_INCEPTION_V3]


def test_the_variable_names_the_weights(monkeypatch, stem):
    monkeypatch.setenv("INCEPTION_WEIGHTS", str(stem))
    assert extractors.inception().sha256 == files.sha256(stem)


@pytest.mark.skipif(not os.environ.get("INCEPTION_WEIGHTS"), reason="needs INCEPTION_WEIGHTS")
def test_inceptions_real_features_tell_noise_from_a_ramp():
    extractor = extractors.inception()
    ramp = np.arange(0, 256, 8, dtype=np.uint8) + np.arange(12, dtype=np.uint8)[:, None, None, None] // 2
    ramp = np.broadcast_to(ramp, (12, 3, 32, 32)).copy()
    static = noise(12, seed=0, shape=(3, 32, 32))
    given = {"feature": "64", "families": ["frechet"], "seed": 0, "batch_size": 6, "selection": "fresh"}
    apart = image_quality.scores(static, image_set(ramp), extractor=extractor, **given).estimates
    alike = image_quality.scores(static[:6], image_set(static[6:]), extractor=extractor, **given).estimates
    assert set(apart) == {"fid_64"}
    assert apart["fid_64"].value > 10 * alike["fid_64"].value
    assert extractor.provides[:3] == ("64", "192", "768")

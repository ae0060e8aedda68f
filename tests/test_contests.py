"""What a row's ways are asked to do."""

import pytest
import torch

from helpers import autoattack, contests, data, models, verdicts

VALUES = {
    "n_images": 6, "ensemble_n_images": 6, "rounds": 2, "batch_size": 3, "epsilon_255": 8, "step_radii": 0.25,
    "seed": 0,
}  # fmt: skip


@pytest.fixture
def setting():
    images = data.load("digits", "test").first(8)
    torch.manual_seed(0)
    net = models.build("smallcnn", num_classes=10, in_channels=1, image_size=images.shape[1], width=2, depth=3).eval()
    return contests.Setting(VALUES, "digits", torch.device("cpu"), images, images, net, net)


@pytest.mark.parametrize(
    ("row", "module", "name"), [("pgd_2", verdicts, "standing"), ("autoattack", autoattack, "standard")]
)
def test_the_way_in_bfloat16_is_in_bfloat16(setting, monkeypatch, row, module, name):
    asked = []
    plain = getattr(module, name)

    def noted(*args, precision="float32", **options):
        asked.append(precision)
        return plain(*args, precision=precision, **options)

    monkeypatch.setattr(module, name, noted)
    monkeypatch.setattr(autoattack, "Budget", lambda: Small)
    for way in (contests.OURS, contests.HALVED):
        found = contests.ours(row, setting, way)(1)
        assert found.shape == (3,)
        assert found.dtype == torch.bool
    assert asked == ["float32", "bfloat16"]


Small = autoattack.Budget(n_steps=2, n_targets=1, n_queries=2)

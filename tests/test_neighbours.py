import judges
import numpy as np
import pytest

from helpers import neighbours, parameters, records


@pytest.fixture(scope="module")
def parts():
    training = judges.image_set(judges.noise(40, seed=0), np.arange(40) % 4)
    held_out = judges.image_set(judges.noise(40, seed=1), np.arange(40) % 4, split="test")
    images = np.concatenate([training.pixels.numpy()[:8], judges.noise(8, seed=2)])  # the first eight are copies
    found = neighbours.search(images, held_out, training, judge=judges.judge(), batch_size=5)
    return images, held_out, training, found


def test_copies_are_found_in_both_spaces(parts):
    images, _, training, found = parts
    flat, known = images.reshape(16, -1) / 255, training.pixels.numpy().reshape(40, -1) / 255
    distances = np.linalg.norm(flat[:, None] - known[None], axis=2)
    for space in neighbours.SPACES:  # the toy's features are its pixels
        assert found[f"made {space} row"].tolist() == distances.argmin(axis=1).tolist()
        assert found[f"made {space} distance"] == pytest.approx(distances.min(axis=1), abs=1e-6)
        assert found[f"made {space} distance"][:8].tolist() == pytest.approx([0.0] * 8, abs=1e-6)


def test_what_is_too_near_is_counted_and_said(parts, tmp_path):
    found = parts[3]
    p = parameters.Parameters("04_generation", "digits", values={}, folder=tmp_path)
    record = records.save(p, "nearest", scalars=neighbours.summary(found))
    limit = np.quantile(found["held out pixels distance"], neighbours.QUANTILE)
    share = 100 * np.mean(found["made pixels distance"] < limit)
    assert record.value("share_too_near", space="pixels") == pytest.approx(share)
    assert share >= 50
    assert "more than real images would" in neighbours.reading(record.scalars).splitlines()[0]
    table = neighbours.table(record.scalars)
    assert list(table["space"]) == ["pixels", "features"]
    assert table.loc[0, "distance, held out"].value == pytest.approx(found["held out pixels distance"].mean())


def test_each_picture_has_its_neighbours_under_it(parts):
    images, held_out, training, found = parts
    blocks = neighbours.pictures(found, images, np.arange(16) % 4, held_out, training)
    made = blocks["made"]
    assert made.shape == (12, 1, 2, 3)
    assert np.array_equal(made[:4], images[:4])
    assert np.array_equal(made[4:8], images[:4]), "a copy's nearest image is itself"
    near = training.pixels.numpy()[found["held out features row"][:4]]
    assert np.array_equal(blocks["held out"][8:], near)

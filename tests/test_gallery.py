import judges
import numpy as np
import pytest
import sets

from helpers import gallery, noise


@pytest.fixture(scope="module")
def done():
    images = judges.image_set(judges.noise(8, seed=5, top=128), np.arange(8) % 4, split="test")
    found = gallery.edited(
        judges.Nested(gain=2.0), images, sets.START, energy="joint", step_size=0.05, momentum=0.0, noise_std=0.0,
        n_steps=4, seed=0, device="cpu",
    )  # fmt: skip
    return images, found


def test_only_the_right_half_is_filled_in_and_begins_as_a_draw_of_the_start(done):
    images, found = done
    image, start, end = (found[gallery.INPAINTED][4 * k : 4 * k + 4] for k in range(3))
    assert np.array_equal(image, images.pixels[:4].numpy())
    for row in (start, end):
        assert np.array_equal(row[..., :1], image[..., :1]), "a width of three: one column is the left half"
    drawn = sets.START.draw(images.labels[:4], noise.Key(0, "gallery", images.index[:4]).tabled())
    assert start[..., 1:] / 255 == pytest.approx(drawn[..., 1:].numpy(), abs=0.5 / 255 + 1e-6)
    # E = −2 x_y: of the four classes' pixels (0, 0), (0, 1), (0, 2), (1, 0) the second and third are free.
    raised = (end.astype(int) - start).reshape(4, -1)[np.arange(4), np.arange(4)] / 255
    room = 1 - start.reshape(4, -1)[np.arange(4), np.arange(4)] / 255
    assert raised == pytest.approx(np.minimum(room, 0.4) * [0, 1, 1, 0], abs=1.5 / 255)


def test_morphing_raises_the_pixel_of_the_next_class(done):
    image, half, end = (done[1][gallery.MORPHED][4 * k : 4 * k + 4].reshape(4, -1) for k in range(3))
    towards = (np.arange(4) + 1) % 4
    rows = np.arange(4)
    assert (half.astype(int) - image)[rows, towards] / 255 == pytest.approx([0.2] * 4, abs=1.5 / 255)
    assert (end.astype(int) - image)[rows, towards] / 255 == pytest.approx([0.4] * 4, abs=1.5 / 255)
    others = np.ones_like(image, bool)
    others[rows, towards] = False
    assert np.array_equal(end[others], image[others])

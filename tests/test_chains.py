import judges
import numpy as np
import pytest
import sets
import torch

from helpers import chains, energies, parameters, plots, records, sample_sets

WAYS = [("uniform", "plain"), ("uniform", "momentum")]
NAMES = ["plain", "momentum"]
RULE = {"step_size": 0.05, "momentum": 0.5, "n_steps": 3}


@pytest.fixture(scope="module")
def found():
    return chains.follow(
        judges.Nested(gain=2.0), {"uniform": sets.START}, WAYS, n_chains=8, num_classes=4, energy="joint",
        noise_std=0.0, seed=3, **RULE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def real():
    images = judges.image_set(judges.noise(10, seed=1), np.arange(10) % 4, split="test")
    return images, chains.of_real(judges.Nested(gain=2.0), {"test": images, "train": images.first(6)}, batch_size=4)


def test_chains_are_those_of_set_0(found):
    frame = chains.frame(found, NAMES)
    plain = frame[frame["way"] == "plain"]
    assert len(plain) == (RULE["n_steps"] + 1) * 8
    made = sets.piece("plain", n_steps=RULE["n_steps"])
    ends = plain.loc[plain["step"] == RULE["n_steps"], "joint"]
    assert ends.to_numpy() == pytest.approx(made["joint"][:8], abs=2 / 255)  # the set's are rounded to pixels
    begun = sample_sets.drawn(0, n=8, num_classes=4)["y"].numpy()
    first = -2 * sets.first_images()[:8].reshape(8, -1).numpy()[np.arange(8), begun]
    assert plain.loc[plain["step"] == 0, "joint"].to_numpy() == pytest.approx(first, abs=1e-5)
    assert (frame["cross_entropy"] - (frame["joint"] - frame["marginal"])).abs().max() < 1e-5


def test_a_film_is_of_one_chain_a_class(found):
    film = chains.films(found, NAMES)["plain"]
    assert film.shape == (4, 4, 1, 2, 3)
    assert found["picture_step"].tolist() == [0, 1, 2, 3]
    assert film[0] / 255 == pytest.approx(sets.first_images()[:4].numpy(), abs=0.5 / 255 + 1e-6)


def test_real_images_have_the_energies_of_their_own_labels(real):
    images, frame = real
    logits = judges.Nested(gain=2.0)(images.images()).detach()
    rows = frame[frame["split"] == "test"]
    assert rows["joint"].to_numpy() == pytest.approx(energies.joint(logits, images.labels).numpy(), abs=1e-6)
    assert rows["marginal"].to_numpy() == pytest.approx(torch.logsumexp(logits, 1).neg().numpy(), abs=1e-6)
    assert (frame["split"] == "train").sum() == 6


def test_the_reading_counts_chains_below_real_images(found, real):
    frame = chains.frame(found, NAMES)
    level = real[1].loc[real[1]["split"] == "test", "joint"].mean()
    frame.loc[(frame["way"] == "plain") & (frame["step"] == 3), "joint"] = [level - 0.1] * 6 + [level + 0.1] * 2
    said = chains.reading(frame, real[1]).splitlines()
    assert said[1].startswith(f"plain: ends at a mean of {level - 0.05:.1f} nat; below that of real images: 75 ")


def test_curves_show_mean_middle_and_real_images(found, real):
    panels = {"joint": "E(x, y) (nat)", "marginal": "E(x) (nat)"}
    frame = chains.frame(found, NAMES)
    figure = plots.energy_by_step(frame, real[1], by="way", panels=panels)
    ax = figure.axes[0]
    curve = next(line for line in ax.lines if len(line.get_xdata()) == 4)
    plain = frame[frame["way"] == "plain"]
    assert curve.get_ydata() == pytest.approx(plain.groupby("step")["joint"].mean().to_numpy())
    levels = {round(float(line.get_ydata()[0]), 5) for line in ax.lines if len(line.get_xdata()) == 2}
    assert levels == {round(float(mean), 5) for mean in real[1].groupby("split")["joint"].mean()}
    with pytest.raises(ValueError, match="expected columns"):
        plots.energy_by_step(frame.drop(columns="joint"), real[1], by="way", panels=panels)


def test_a_film_becomes_a_gif_with_a_frame_for_each_step(found, tmp_path):
    p = parameters.Parameters("04_generation", "digits", values={}, folder=tmp_path)
    films = chains.films(found, NAMES)
    record = records.save(p, "chains", arrays=films)
    film = plots.chain_animation(films, found["picture_step"].tolist(), column_labels=list("abcd"))
    plots.save_animation(film, p, "chain", record, caption="Chains.")
    from PIL import Image

    with Image.open(tmp_path / "chain.gif") as gif:
        assert gif.n_frames == 4
    film._func(3)  # the last frame: what the axes show are the last pictures
    shown = [ax.images[0].get_array() for ax in film._fig.axes]
    assert np.allclose(np.array(shown)[:4, :, :, 0] * 255, films["plain"][3][:, 0])
    with pytest.raises(ValueError, match="expected shapes"):
        plots.chain_animation(films, [0, 1])

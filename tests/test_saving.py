import json
import os
import re

import numpy as np
import pages
import pytest
from matplotlib.figure import Figure
from PIL import Image
from runs import Run

from helpers import plots, records


@pytest.fixture
def p(tmp_path):
    return Run(tmp_path / "01_energy_landscape")


@pytest.fixture
def record(p):
    return records.save(p, "attacks", frames={"pairs": pages.pairs()})


def figure():
    return plots.energy_plane(pages.pairs())


def test_files_and_what_they_say_of_their_origin(p, record):
    plots.save(figure(), p, "plane", record, caption="What is seen.", alt="Dots and arrows.")
    with Image.open(p.folder / "plane.png") as png:
        assert png.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        text = png.text
    assert text["Title"] == "plane"
    assert text["Source"] == f"01_energy_landscape/attacks.json sha256={record.content['npz']['sha256']}"
    assert text["Description"].startswith("What is seen. From attacks.json, commit ")
    assert record.provenance["commit"] in text["Description"]
    pdf = (p.folder / "plane.pdf").read_bytes()
    assert b"/Title (plane)" in pdf
    assert b"/CreationDate" not in pdf
    side = json.loads((p.folder / "plane.figure.json").read_text("utf-8"))
    assert side["files"] == ["plane.png", "plane.pdf"]
    assert (side["caption"], side["alt"]) == ("What is seen.", "Dots and arrows.")
    assert side["record"][0]["sha256"] == record.content["npz"]["sha256"]
    assert sorted(path.name for path in p.folder.iterdir()) == [
        "attacks.json",
        "attacks.npz",
        "plane.figure.json",
        "plane.pdf",
        "plane.png",
    ]


def test_the_pdf_is_the_pngs_picture_and_the_figure_can_be_laid_out_again(p, record, monkeypatch):
    fig, placed = figure(), {}
    engine, write = fig.get_layout_engine(), Figure.savefig

    def savefig(self, path, **given):
        write(self, path, **given)
        placed["pdf" if "CreationDate" in given["metadata"] else "png"] = [
            one.get_position().bounds for one in self.axes
        ]

    monkeypatch.setattr(Figure, "savefig", savefig)
    plots.save(fig, p, "plane", record, caption="c")
    assert placed["pdf"] == placed["png"]
    assert fig.get_layout_engine() is engine


def test_a_reader_may_do_without_pdfs_and_an_old_one_does_not_stay(p, record, monkeypatch):
    plots.save(figure(), p, "plane", record, caption="c")
    monkeypatch.setenv("COMPANION_FIGURES", "png")
    plots.save(figure(), p, "plane", record, caption="c")
    assert json.loads((p.folder / "plane.figure.json").read_text("utf-8"))["files"] == ["plane.png"]
    assert not (p.folder / "plane.pdf").exists()
    monkeypatch.setenv("COMPANION_FIGURES", "svg")
    with pytest.raises(ValueError, match="expected COMPANION_FIGURES to be png or png,pdf, got 'svg'"):
        plots.save(figure(), p, "plane", record, caption="c")


def test_the_same_figure_gives_the_same_bytes(p, record, monkeypatch):
    contents = []
    for name in ("a", "a"):
        plots.save(figure(), p, name, record, caption="c")
        contents.append([(p.folder / f"a.{kind}").read_bytes() for kind in ("png", "pdf", "figure.json")])
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert contents[0] == contents[1]


def test_save_returns_the_figure_so_that_a_cell_shows_it(p, record):
    drawn = figure()
    assert plots.save(drawn, p, "plane", record, caption="c") is drawn


def test_several_records_are_all_named(p, record):
    other = records.save(p, "more", scalars=[])
    plots.save(figure(), p, "plane", [record, other], caption="c")
    side = json.loads((p.folder / "plane.figure.json").read_text("utf-8"))
    assert [one["file"] for one in side["record"]] == ["attacks.json", "more.json"]


@pytest.mark.parametrize(("name", "caption", "message"), [("../a", "c", "name: expected"), ("a", "", "caption")])
def test_nothing_is_written_without_name_and_caption(p, record, name, caption, message):
    before = sorted(p.folder.iterdir())
    with pytest.raises(ValueError, match=message):
        plots.save(figure(), p, name, record, caption=caption)
    assert sorted(p.folder.iterdir()) == before


@pytest.mark.parametrize("origin", [None, [], "attacks", [1]])
def test_a_figure_without_its_record_is_refused(p, record, origin):
    with pytest.raises(ValueError, match="plane: expected the record"):
        plots.save(figure(), p, "plane", origin, caption="c")


def test_a_write_that_fails_keeps_the_old_figure(p, record, monkeypatch):
    plots.save(figure(), p, "plane", record, caption="c")
    before = (p.folder / "plane.png").read_bytes()

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=re.escape("plane.png")):
        plots.save(plots.image_grid(np.zeros((1, 1, 2, 2)), n_columns=1), p, "plane", record, caption="c")
    assert (p.folder / "plane.png").read_bytes() == before
    assert not [path for path in p.folder.iterdir() if path.name.startswith(".")]

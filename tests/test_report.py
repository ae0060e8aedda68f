import base64
import html.parser
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field

import pages
import pytest
from PIL import Image

from helpers import embedding, report
from helpers.parameters import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pages.results(tmp_path_factory.mktemp("a folder") / "digits")


@pytest.fixture(scope="module")
def page(folder):
    return report.write("digits", folder=folder).read_text("utf-8")


class Seen(html.parser.HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_asks_nothing_of_others(page):
    seen = Seen(page)
    assert not seen.all("script")
    assert not seen.all("iframe")
    assert [one["href"] for one in seen.all("link")] == ["data:,"]
    assert all(one["src"].startswith("data:image/") for one in seen.all("img"))
    assert not re.search(r"https?://|@import|url\(", page)
    policy = next(one["content"] for one in seen.all("meta") if "http-equiv" in one)
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_texts_of_files_stay_texts(page):
    seen = Seen(page)
    assert not [one for _, attributes in seen.tags for one in attributes if one.startswith("on")]
    words = "".join(seen.words)
    assert words.count(pages.NASTY) >= 5, "caption, table head, table cell, error and number"
    assert next(one["alt"] for one in seen.all("img")) == pages.NASTY


def test_links_lead_to_files(folder, page):
    targets = [one["href"] for one in Seen(page).all("a")]
    inside = {one.get("id") for _, one in Seen(page).tags}
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in inside
        else:
            assert (folder / target).is_file(), target
    for name in ("histograms.png", "histograms.pdf", "summary.csv", "summary.tex", "attacks.json", "dynamics.gif"):
        assert f"01_energy_landscape/{name}" in targets
    assert "notebooks/01_energy_landscape.html" in targets


def test_runs_are_listed_with_time_memory_and_result(page):
    words = " ".join(Seen(page).words)
    assert re.search(r"01_energy_landscape\s+done\s+12.3\s+678 MiB", words)
    assert re.search(r"02_training_dynamics\s+failed\s+3.2\s+500 MiB", words)
    assert "cell 7: ValueError" in words
    assert "did not come to its end" in words


def test_exhibits_come_in_the_order_in_which_they_were_made(page):
    names = [one["id"] for one in Seen(page).all("figure")]
    first = [f"01_energy_landscape-{name}" for name in ("histograms", "plane", "summary", "dynamics")]
    assert names == [*first, "02_training_dynamics-grid"]


def test_provenance_stands_at_each_exhibit(page):
    words = " ".join(Seen(page).words)
    assert words.count("Where this comes from") == 5
    assert "epsilon_255 = 8.0, n_steps = 20" in words
    assert "91.7 [89.9, 93.3]" in words


def test_what_has_not_run_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(report.parameters, "notebooks", lambda profile: ["00_start_here"])
    (tmp_path / "digits").mkdir()
    words = " ".join(Seen(report.write("digits", folder=tmp_path / "digits").read_text("utf-8")).words)
    assert "This notebook has not run in this profile." in words
    assert "0 of 1 notebooks done" in words


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere: expected the results of a run.*run_all.sh digits"):
        report.write("digits", folder=tmp_path / "nowhere")


def copy(folder, tmp_path):
    import shutil

    return shutil.copytree(folder, tmp_path / "digits", ignore=shutil.ignore_patterns("index.html"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("histograms.png", None, "histograms.png is missing."),
        ("histograms.png", b"<html>not found</html>", "histograms.png: expected a whole PNG or GIF"),
        ("dynamics.gif", b"GIF89a", "dynamics.gif: expected a whole PNG or GIF"),
        ("dynamics.gif", -2000, "dynamics.gif: expected a whole PNG or GIF"),
        ("histograms.png", -2000, "histograms.png: expected a whole PNG or GIF"),
        ("plane.figure.json", b'{"caption": ', "plane.figure.json is missing or damaged."),
        ("summary.table.json", b"[]", "summary.table.json is missing or damaged."),
        ("attacks.npz", b"", "attacks.npz: expected SHA-256"),
        ("attacks.json", b"{", "attacks.json: expected a whole JSON record"),
        ("finished.json", b"{", "did not come to its end"),
    ],
)
def test_damage_is_said_and_the_rest_is_shown(folder, tmp_path, name, content, said):
    there = copy(folder, tmp_path)
    path = there / "01_energy_landscape" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:content] if isinstance(content, int) else content)
    words = " ".join(Seen(report.write("digits", folder=there).read_text("utf-8")).words)
    assert said in words
    assert "A grid." in words
    assert str(tmp_path) not in words


def test_left_overs_are_named_and_not_shown(folder, tmp_path):
    there = copy(folder, tmp_path)
    home = there / "01_energy_landscape"
    (home / "old.figure.json").write_bytes((home / "plane.figure.json").read_bytes())
    text = report.write("digits", folder=there).read_text("utf-8")
    assert "Left by an earlier run and not shown: old." in text
    assert 'id="01_energy_landscape-old"' not in text


def test_names_cannot_lead_out_of_the_folder(folder, tmp_path):
    there = copy(folder, tmp_path)
    (tmp_path / "secret.json").write_text('{"provenance": {"commit": "s3cret"}}')
    side = there / "01_energy_landscape" / "plane.figure.json"
    content = json.loads(side.read_text("utf-8"))
    content["files"], content["record"] = ["../../secret.json"], [{"notebook": "..", "file": "secret.json"}]
    side.write_text(json.dumps(content))
    text = report.write("digits", folder=there).read_text("utf-8")
    assert "s3cret" not in text
    assert not [one for one in Seen(text).all("a") if "secret" in one["href"]]


def test_a_finished_notebook_without_a_status_counts_as_done(folder, tmp_path):
    there = copy(folder, tmp_path)
    (there / "notebooks" / "01_energy_landscape.run.json").unlink()
    words = " ".join(Seen(report.write("digits", folder=there).read_text("utf-8")).words)
    assert re.search(r"01_energy_landscape\s+done\s+–\s+–", words)


@dataclass
class Recipe:
    name: str = "trades"
    seeds: tuple = (0, 1)
    entry: dict = field(default_factory=dict)

    def digest(self, seed):
        return f"abc{seed}"


def test_networks_of_the_recipes_in_force_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(report.parameters, "recipes", lambda profile: {"trades": Recipe()})
    accuracy = {"value": 52.3, "low": 50.1, "high": 54.5, "n": 360, "kind": "wilson", "level": 0.95}
    pgd = accuracy | {"attack": "pgd_ce", "n_steps": 20, "returns": "last", "attack_norm": "linf", "epsilon_255": 8.0}
    card = {"entry": {"architecture": "smallcnn", "objective": "trades"}, "accuracy": {"clean": accuracy, "pgd": pgd}}
    for digest in ("abc0", "old1"):
        home = tmp_path / "digits" / "networks" / "trades" / f"seed0-{digest}"
        home.mkdir(parents=True)
        (home / "card.json").write_text(json.dumps(card | {"provenance": {"seconds": 9.87}}))
    found = report.networks("digits", tmp_path / "digits")
    value = "52.3 [50.1, 54.5]"
    assert found["rows"] == [["trades", "0", "smallcnn", "trades", value, value, "L∞ 8/255", "360", "9.9"]]
    assert len(found["columns"]) == len(found["numeric"]) == len(found["rows"][0])
    assert found["attack"] == "pgd_ce with 20 steps, returns = last"
    assert "smallcnn" in report.write("digits", folder=tmp_path / "digits").read_text("utf-8")


def test_pictures_are_made_small_and_keep_their_shape(folder):
    path = folder / "01_energy_landscape" / "histograms.png"
    found = embedding.picture(path)
    data = base64.b64decode(found["image"].partition(",")[2])
    with Image.open(path) as full, Image.open(io.BytesIO(data)) as small:
        assert len(data) < path.stat().st_size
        assert small.width / small.height == pytest.approx(full.width / full.height, rel=0.02)
        assert found["width"] == pytest.approx(full.width * 110 / 200, abs=1)


def test_a_picture_of_absurd_size_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    Image.new("1", (100, 100)).save(path)
    monkeypatch.setattr(embedding, "MOST_PIXELS", 9_999)
    with pytest.raises(ValueError, match=r"bomb.png: expected a whole PNG or GIF, got: 100 × 100 pixels"):
        embedding.picture(path)


def test_command_line(folder, tmp_path, monkeypatch, capsys):
    assert report.main(["no-such-profile"]) == 1
    assert "expected the results of a run" in capsys.readouterr().err
    there = copy(folder, tmp_path)
    monkeypatch.setattr(report.parameters, "ROOT", tmp_path)
    (tmp_path / "figures").mkdir()
    there.rename(tmp_path / "figures" / "digits")
    assert report.main(["digits"]) == 0
    assert capsys.readouterr().out == "figures/digits/index.html\n"


def test_the_report_starts_without_torch():
    code = "import sys; from helpers import report; print('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "False"

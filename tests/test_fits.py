"""Fits on disk: made once, and damage, alteration or other data never used in silence."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import checkpoints, fits

IDENTITY = {"kind": "test", "images": "abc", "kept": 0.99}


class Maker:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"mean": torch.arange(3, dtype=torch.float64), "directions": torch.ones(2, 3) / 3}


@pytest.fixture
def make():
    return Maker()


def kept(folder, make, **changes):
    return fits.kept(folder, "fit", identity=IDENTITY | changes, make=make)


def same(a, b):
    return a.keys() == b.keys() and all(a[key].equal(b[key]) and a[key].dtype == b[key].dtype for key in a)


def test_a_fit_is_made_once_and_read_back_bit_for_bit(tmp_path, make, capsys):
    first = kept(tmp_path / "deep", make)
    assert same(first, kept(tmp_path / "deep", make))
    assert same(first, make())
    assert make.calls == 2  # ours just now is the second
    assert not any(path.name.startswith(".tmp-") for path in (tmp_path / "deep").iterdir())
    assert capsys.readouterr().err == ""


def test_without_a_folder_nothing_is_kept(make):
    kept(None, make)
    kept(None, make)
    assert make.calls == 2


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def exchange(path):
    _, facts = checkpoints.load(path)
    checkpoints.save(path, {"mean": torch.zeros(3)}, facts)


def strip(path):
    save_file(load_file(path), path)


def html(path):
    path.write_text("<!DOCTYPE html><title>404</title>")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "expected a whole safetensors file"),
        (flip, "expected tensors with SHA-256"),
        (exchange, "expected tensors with SHA-256"),
        (strip, "expected a fit of"),
        (html, "an HTML page"),
    ],
)
def test_a_damaged_file_is_said_set_aside_and_made_again(tmp_path, make, capsys, damage, said):
    first = kept(tmp_path, make)
    damage(tmp_path / "fit.safetensors")
    assert same(first, kept(tmp_path, make))
    assert make.calls == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Set aside as fit.safetensors.damaged-1; made again." in error
    assert (tmp_path / "fit.safetensors.damaged-1").exists()
    assert same(first, kept(tmp_path, make))
    assert make.calls == 2


def test_a_fit_of_other_data_is_not_used(tmp_path, make, capsys):
    kept(tmp_path, make)
    kept(tmp_path, make, images="other")
    assert make.calls == 2
    assert "'images': 'other'" in capsys.readouterr().err


def test_an_interrupted_fit_leaves_no_file(tmp_path, make):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path, interrupted)
    assert not list(tmp_path.glob("*.safetensors"))
    kept(tmp_path, make)
    assert make.calls == 1

"""The archives of official corrupted images: one for each corruption, fetched through `helpers.data`, and failures."""

import io
import tarfile

from helpers import archives, data
from helpers.corruption_settings import GROUPS, names


def test_each_corruption_is_in_one_archive_of_either_benchmark():
    held = [one for archive in archives.ARCHIVES.values() for one in archive.holds]
    expected = ["CIFAR-10-C/labels.npy"]
    for name in names(*GROUPS):
        expected += [f"CIFAR-10-C/{name}.npy", f"ImageNet-C/{name}"]
    assert sorted(held) == sorted(expected)


def test_its_names_are_not_those_of_data_sets():
    assert not set(archives.ARCHIVES) & set(data.names()), "one would hide the other"


def test_an_archive_is_fetched_checked_and_unpacked(tmp_path, monkeypatch):
    import pooch

    packed = tmp_path / "noise.tar"
    with tarfile.open(packed, "w") as archive:
        info = tarfile.TarInfo("gaussian_noise/1/n01/a.JPEG")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    asked = {}

    def retrieve(url, **words):
        asked.update(words, url=url)
        return str(packed)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert data.main(["download", "imagenetc-noise", "--root", str(tmp_path / "data")]) == 0
    assert (tmp_path / "data" / "ImageNet-C" / "gaussian_noise" / "1" / "n01" / "a.JPEG").read_bytes() == b"abc"
    assert asked["url"].endswith("/2235448/files/noise.tar")
    assert asked["known_hash"] == "md5:e80562d7f6c3f8834afb1ecf27252745"


def test_a_failed_download_says_what_and_where(tmp_path, monkeypatch, capsys):
    import pooch

    def retrieve(*_arguments, **_words):
        raise OSError("no route")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert data.main(["download", "cifar10c", "--root", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "CIFAR-10-C (2900 MB)" in said
    assert str(tmp_path) in said
    assert "no route" in said
    assert data.main(["list"]) == 0
    assert "cifar10c" in capsys.readouterr().out

import numpy as np
import pytest
import torch

from helpers import arrays

SAMPLE = {
    "E": np.array([[-14.0, np.nan], [-28.5, -0.0]], dtype=np.float32),
    "y": np.array([3, 1], dtype=np.int64),
    "fooled": np.array([True, False]),
    "name": np.array(["naïve", "Ω"]),
    "empty": np.zeros((0, 3), dtype=np.uint8),
}


def test_round_trip_keeps_every_bit(tmp_path):
    path = tmp_path / "a.npz"
    sha256 = arrays.write(path, SAMPLE)
    back = arrays.read(path, sha256=sha256)
    assert list(back) == list(SAMPLE)
    assert all(arrays.identical(back[name], SAMPLE[name]) for name in SAMPLE)
    assert list(tmp_path.iterdir()) == [path]


def test_same_content_gives_the_same_bytes(monkeypatch):
    first = arrays.packed(SAMPLE)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert arrays.packed(SAMPLE) == first
    assert arrays.packed({**SAMPLE, "y": SAMPLE["y"] + 1}) != first


@pytest.mark.parametrize("keep", [0, 1, 40, 0.5, 0.9, -1])
def test_a_truncated_file_is_noticed(tmp_path, keep):
    path = tmp_path / "a.npz"
    arrays.write(path, SAMPLE)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(arrays.DamagedFile, match=r"a\.npz"):
        arrays.read(path)


def test_each_flipped_byte_of_the_content_is_noticed_by_the_hash(tmp_path):
    path = tmp_path / "a.npz"
    sha256 = arrays.write(path, SAMPLE)
    content = path.read_bytes()
    for place in range(0, len(content), 37):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(arrays.DamagedFile, match=rf"expected SHA-256 {sha256}"):
            arrays.read(path, sha256=sha256)


def test_a_flipped_bit_is_never_read_as_another_array(tmp_path):
    # Without a hash the zip's own checksum guards the values: either damage is reported or nothing is lost.
    path = tmp_path / "a.npz"
    arrays.write(path, SAMPLE)
    content = path.read_bytes()
    for place in range(0, len(content), 5):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        try:
            back = arrays.read(path)
        except arrays.DamagedFile:
            continue
        assert all(arrays.identical(back[name], SAMPLE[name]) for name in set(back) & set(SAMPLE))


@pytest.mark.parametrize("value", [[None, 1], [{"a": 1}], np.array([object()]), [[1], [1, 2]]])
def test_what_needs_pickle_is_refused(value):
    with pytest.raises(ValueError, match=r"array 'a'|inhomogeneous"):
        arrays.packed({"a": value})


def test_pickled_arrays_are_not_read(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.array([object()], dtype=object), allow_pickle=True)
    with pytest.raises(arrays.DamagedFile, match="allow_pickle"):
        arrays.read(path)


def test_tensors_are_taken_and_inputs_are_copied():
    x = torch.ones(2, requires_grad=True)
    out = arrays.checked({"x": x})["x"]
    out += 1
    assert x.tolist() == [1.0, 1.0]


def test_missing_file_is_named(tmp_path):
    with pytest.raises(arrays.DamagedFile, match=r"nowhere\.npz: expected a file of arrays"):
        arrays.read(tmp_path / "nowhere.npz")


def test_identical_tells_type_shape_and_sign_apart():
    a = np.array([0.0, 1.0])
    assert arrays.identical(a, a.copy())
    assert not arrays.identical(a, a.astype(np.float32))
    assert not arrays.identical(a, a[None])
    assert not arrays.identical(a, np.array([np.nan, 1.0]))
    assert not arrays.identical(np.array([1.0, np.nan]), np.array([2.0, np.nan]))

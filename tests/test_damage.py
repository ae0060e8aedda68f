"""Damaged, foreign and hostile files: each a clear message, nothing valid lost, nothing wrong used."""

import errno
import http.server
import json
import pickle
import shutil
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import test_zoo
import tiny
import torch
from safetensors.torch import save_file

from helpers import checkpoints, files, foreign, history, models, parameters, train, zoo

HTML = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in</body></html>\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A repository in which the network `standard` has been made."""
    root = tiny.profile(tmp_path_factory.mktemp("made"))
    with pytest.MonkeyPatch.context() as m:
        m.setattr(parameters, "ROOT", root)
        zoo.get("standard", profile="tiny")
    return root


@pytest.fixture
def root(made, tmp_path, monkeypatch) -> Path:
    """A copy of it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(parameters, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> models.Network:
    """The network of an undisturbed training."""
    folder = tmp_path_factory.mktemp("whole")
    return train.fit(tiny.recipe(), 0, folder=folder, device="cpu", sets=tiny.sets())[0]


class Hostile:
    """Unpickling this would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "ran"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    blob = bytearray(path.read_bytes())
    blob[-5] ^= 1
    path.write_bytes(bytes(blob))


def other_architecture(path: Path) -> None:
    network = models.build("smallcnn", num_classes=10, in_channels=1, image_size=16, width=3)
    save_file(network.state_dict(), path)


DAMAGE = {
    "truncated": truncate,
    "one bit": flip,
    "empty": lambda path: path.write_bytes(b""),
    "html": lambda path: path.write_bytes(HTML),
    "another architecture": other_architecture,
    "gone": Path.unlink,
}


# ---- what we keep ----


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", [zoo.WEIGHTS, "history.npz"])
def test_a_damaged_network_is_set_aside_and_made_again(damage, name, root, capsys):
    before = zoo.get("standard", profile="tiny")
    path = test_zoo.folder("standard") / name
    DAMAGE[damage](path)
    damaged = path.read_bytes() if path.exists() else None
    capsys.readouterr()
    after = zoo.get("standard", profile="tiny")
    said = capsys.readouterr().err
    assert "standard, seed 0: not usable" in said
    assert "made again" in said
    assert tiny.same(before, after)
    if damaged is not None:
        assert f"{name}.damaged-1" in said
        assert path.with_name(f"{name}.damaged-1").read_bytes() == damaged
    capsys.readouterr()
    zoo.get("standard", profile="tiny")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"digest": "other", "files": {}}', "{}"])
def test_a_damaged_card_is_set_aside(text, root, capsys):
    before = zoo.get("standard", profile="tiny")
    card = test_zoo.folder("standard") / zoo.CARD
    card.write_text(text)
    assert tiny.same(zoo.get("standard", profile="tiny"), before)
    assert "set aside" in capsys.readouterr().err.lower()
    assert card.with_name("card.json.damaged-1").read_text() == text


def test_weights_that_fit_the_card_but_not_the_network_are_not_used(root, capsys):
    before = zoo.get("standard", profile="tiny")
    path = test_zoo.folder("standard")
    other_architecture(path / zoo.WEIGHTS)
    card = json.loads((path / zoo.CARD).read_text())
    card["files"][zoo.WEIGHTS] = files.sha256(path / zoo.WEIGHTS)
    (path / zoo.CARD).write_text(json.dumps(card))
    assert tiny.same(zoo.get("standard", profile="tiny"), before)
    assert "expected tensors of Network" in capsys.readouterr().err


def test_a_second_damage_does_not_overwrite_the_first(root):
    path = test_zoo.folder("standard") / zoo.WEIGHTS
    for text in (b"one", b"two"):
        zoo.get("standard", profile="tiny")
        path.write_bytes(text)
    zoo.get("standard", profile="tiny")
    assert [path.with_name(f"{path.name}.damaged-{k}").read_bytes() for k in (1, 2)] == [b"one", b"two"]


# ---- checkpoints of a running training ----


def interrupted(folder: Path, seed: int = 0) -> Path:
    """A folder with the checkpoint of a training that was stopped after five steps."""

    def stop(p: train.Progress) -> None:
        if p.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.fit(tiny.recipe(), seed, folder=folder, device="cpu", callback=stop, sets=tiny.sets())
    return folder / train.CHECKPOINT


def without(prefix: str):
    def change(path: Path) -> None:
        tensors, facts = checkpoints.load(path)
        checkpoints.save(path, {k: v for k, v in tensors.items() if not k.startswith(prefix)}, facts)

    return change


CHECKPOINT_DAMAGE = {
    **{k: v for k, v in DAMAGE.items() if k not in ("gone", "one bit")},
    "lies about its header": lambda path: path.write_bytes(struct.pack("<Q", 2**60) + b"{"),
    "no network": without("network/"),
    "no generator": without("generator/"),
}


@pytest.mark.parametrize("damage", CHECKPOINT_DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_and_training_starts_anew(damage, whole, tmp_path, capsys):
    path = interrupted(tmp_path / "cut")
    CHECKPOINT_DAMAGE[damage](path)
    damaged = path.read_bytes()
    network, _ = train.fit(tiny.recipe(), 0, folder=path.parent, device="cpu", sets=tiny.sets())
    said = capsys.readouterr().err
    assert "checkpoint not usable" in said
    assert "training starts anew" in said
    assert tiny.same(network, whole)
    assert path.with_name(f"{path.name}.damaged-1").read_bytes() == damaged


def test_the_checkpoint_of_another_seed_is_not_used(whole, tmp_path, capsys):
    path = interrupted(tmp_path / "a", seed=1)
    network, _ = train.fit(tiny.recipe(), 0, folder=path.parent, device="cpu", sets=tiny.sets())
    assert "expected a checkpoint of" in capsys.readouterr().err
    assert tiny.same(network, whole)


def test_a_full_disk_keeps_the_last_checkpoint(whole, tmp_path, monkeypatch):
    path = interrupted(tmp_path / "run")
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(files.os, "replace", full)
        with pytest.raises(OSError, match=r"checkpoint\.safetensors: the disk is full"):
            train.fit(tiny.recipe(), 0, folder=path.parent, device="cpu", sets=tiny.sets())
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    network, _ = train.fit(tiny.recipe(), 0, folder=path.parent, device="cpu", sets=tiny.sets())
    assert tiny.same(network, whole)


# ---- foreign weights ----


def test_a_missing_foreign_file_names_folder_and_hash(root, monkeypatch, tmp_path):
    path = tmp_path / "theirs.safetensors"
    test_zoo.weights(path)
    test_zoo.borrowed(root, monkeypatch, path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="CHECKPOINTS") as caught:
        zoo.get("borrowed", profile="tiny")
    assert str(tmp_path) in str(caught.value)
    assert "theirs.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncated", "a damaged or truncated file of"),
        ("one bit", "got [0-9a-f]{64}"),
        ("empty", "an empty file"),
        ("html", r"an HTML page \(a download that went to a web page\) of 92 bytes"),
    ],
)
def test_a_foreign_file_with_another_hash_is_refused(damage, message, root, monkeypatch, tmp_path):
    path = tmp_path / "theirs.safetensors"
    test_zoo.weights(path)
    expected = files.sha256(path)
    test_zoo.borrowed(root, monkeypatch, path)
    DAMAGE[damage](path)
    got = files.sha256(path)
    with pytest.raises(ValueError, match=message) as caught:
        zoo.get("borrowed", profile="tiny")
    assert expected in str(caught.value)
    assert got in str(caught.value)
    assert path.exists()  # the reader's file is the reader's


@pytest.mark.parametrize(
    "wrap",
    [
        lambda path, evil: path.write_bytes(pickle.dumps(evil)),
        lambda path, evil: torch.save({"w": torch.zeros(1), "evil": evil}, path),
    ],
    ids=["bare pickle", "torch.save"],
)
def test_a_pickle_with_code_is_refused_and_does_not_run(wrap, root, monkeypatch, tmp_path):
    path = tmp_path / "theirs.pth"
    wrap(path, Hostile(tmp_path / "ran"))
    test_zoo.borrowed(root, monkeypatch, path)
    with pytest.raises(ValueError, match="nothing in it was run"):
        zoo.get("borrowed", profile="tiny")
    assert not (tmp_path / "ran").exists()


def test_a_pickle_that_calls_itself_safetensors_is_refused(root, monkeypatch, tmp_path):
    path = tmp_path / "theirs.safetensors"
    path.write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
    test_zoo.borrowed(root, monkeypatch, path)
    with pytest.raises(ValueError, match="got a pickle"):
        zoo.get("borrowed", profile="tiny")
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_architecture_are_refused(root, monkeypatch, tmp_path):
    path = tmp_path / "theirs.safetensors"
    wide = models.build("smallcnn", num_classes=10, in_channels=1, image_size=16, width=3)
    save_file(wide.body.state_dict(), path)
    test_zoo.borrowed(root, monkeypatch, path)
    with pytest.raises(
        ValueError, match=r"expected weights of SmallCNN .* expected \(2, 1, 3, 3\), got \(3, 1, 3, 3\)"
    ):
        zoo.get("borrowed", profile="tiny")
    save_file({"fc.weight": torch.zeros(2)}, path)
    test_zoo.borrowed(root, monkeypatch, path)
    with pytest.raises(ValueError, match=r"missing \['conv1.weight'.*unknown \['fc.weight'\]"):
        zoo.get("borrowed", profile="tiny")


def test_other_things_than_tensors_are_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="expected names with tensors"):
        foreign.read(tmp_path / "x.pth")
    (tmp_path / "y.pth").write_bytes(HTML)
    with pytest.raises(ValueError, match="an HTML page"):
        foreign.read(tmp_path / "y.pth")


# ---- downloads, from a server on this machine ----


class Server(http.server.BaseHTTPRequestHandler):
    """Gives the weights whole, cut short, replaced by a page, or not at all."""

    body = b""

    def do_GET(self) -> None:
        if self.path.startswith("/gone"):
            self.send_error(404)
            return
        body = HTML if self.path.startswith("/page") else self.body
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path.startswith("/cut") else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path) -> Iterator[str]:
    test_zoo.weights(tmp_path / "original.safetensors")
    Server.body = (tmp_path / "original.safetensors").read_bytes()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def by_url(root: Path, monkeypatch, url: str) -> Path:
    store = root / "store"
    test_zoo.borrowed(
        root, monkeypatch, store / "w.safetensors", sha=files.sha256(root / "original.safetensors"), source="url",
        where=f"url: {url}",
    )  # fmt: skip
    return store / "w.safetensors"


def test_a_url_is_fetched_once(root, monkeypatch, server):
    path = by_url(root, monkeypatch, f"{server}/whole/w.safetensors")
    network = zoo.get("borrowed", profile="tiny")
    assert path.read_bytes() == Server.body
    monkeypatch.setattr(Server, "body", b"changed since")
    assert tiny.same(zoo.get("borrowed", profile="tiny"), network)


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ("page", ValueError, "an HTML page .* of 92 bytes. It came from http.*and was not kept"),
        ("cut", OSError, "did not arrive"),
        ("gone", OSError, "404"),
    ],
)
def test_a_download_that_goes_wrong_leaves_nothing(place, error, message, root, monkeypatch, server):
    path = by_url(root, monkeypatch, f"{server}/{place}/w.safetensors")
    with pytest.raises(error, match=message):
        zoo.get("borrowed", profile="tiny")
    assert not path.exists()
    assert list(path.parent.iterdir()) == []


def test_torchvisions_short_hash_is_enough_for_torchvision_only(root, monkeypatch, server):
    by_url(root, monkeypatch, f"{server}/whole/w.safetensors")
    networks = parameters.ROOT / "params" / "tiny" / "networks.yaml"
    whole = files.sha256(root / "original.safetensors")
    short = networks.read_text().replace(whole, f'"{whole[:8]}"')
    networks.write_text(short)
    with pytest.raises(ValueError, match="SHA-256"):
        zoo.get("borrowed", profile="tiny")
    networks.write_text(short.replace("source: url", "source: torchvision"))
    assert zoo.get("borrowed", profile="tiny").num_classes == 10


def test_history_of_a_finished_network_is_checked(root, capsys):
    curves = zoo.history("standard", profile="tiny")
    truncate(test_zoo.folder("standard") / history.FILES[0])
    capsys.readouterr()
    again = zoo.history("standard", profile="tiny")
    assert again.scalars == curves.scalars
    assert "history.json" in capsys.readouterr().err

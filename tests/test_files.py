import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from helpers import files


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".tmp-"))


def test_what_is_written_appears_whole_and_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b c" / "value.json"
    files.write_json(path, {"name": "ε", "n": [1, 2.5, None]})
    assert json.loads(path.read_text("utf-8")) == {"name": "ε", "n": [1, 2.5, None]}
    assert path.read_bytes().endswith(b"\n")
    assert left_over(path.parent) == []


def test_the_temporary_name_has_the_suffix_and_the_folder_of_the_file(tmp_path):
    with files.atomic(tmp_path / "x.npz") as temporary:
        assert (temporary.suffix, temporary.parent) == (".npz", tmp_path)
        temporary.write_bytes(b"1")


@pytest.mark.parametrize("before", [None, "old"])
def test_a_failed_write_leaves_what_was_there(tmp_path, before):
    path = tmp_path / "x.txt"
    if before:
        path.write_text(before)
    with pytest.raises(KeyError), files.atomic(path) as temporary:
        {}[temporary.write_text("half")]
    assert (path.read_text() if path.exists() else None) == before
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_numbers_that_are_not_json_are_refused(tmp_path, value):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", value)
    assert not (tmp_path / "x.json").exists()


def test_reading_json_that_is_missing_or_broken_gives_none(tmp_path):
    (tmp_path / "broken.json").write_text('{"a": ')
    assert files.read_json(tmp_path / "broken.json") is None
    assert files.read_json(tmp_path / "missing.json") is None
    assert files.read_json(tmp_path / "broken.json" / "below.json") is None


def test_sha256_is_that_of_the_standard(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 700_000)  # more than one piece
    assert files.sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 700_000).hexdigest()
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert files.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full"),
        (RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)"), "the disk is full"),
        (OSError(errno.EROFS, "Read-only file system"), "Make its folder writable"),
        (OSError(errno.EACCES, "Permission denied"), "Make its folder writable"),
    ],
)
def test_disk_errors_name_the_file_and_what_to_do(tmp_path, error, said):
    with pytest.raises(OSError, match=said) as caught, files.atomic(tmp_path / "x.txt"):
        raise error
    assert str(tmp_path / "x.txt") in str(caught.value)
    assert caught.value.errno in (getattr(error, "errno", None), errno.ENOSPC)
    assert left_over(tmp_path) == []


def test_an_error_that_is_not_about_this_file_passes_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="other"), files.atomic(tmp_path / "x.txt"):
        open(tmp_path / "other")  # noqa: SIM115


def test_a_file_where_a_folder_is_needed_is_named(tmp_path):
    (tmp_path / "figures").write_text("in the way")
    for act in (
        lambda: files.write_text(tmp_path / "figures" / "a" / "x.txt", ""),
        lambda: files.make_folder(tmp_path / "figures" / "a"),
    ):
        with pytest.raises(OSError, match="a file stands where a folder is needed"):
            act()


@pytest.mark.process
def test_killed_while_writing_the_old_file_stays_and_the_rest_is_swept(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    program = f"""
        import time
        from helpers import files
        with files.atomic({str(path)!r}) as temporary:
            temporary.write_text("half")
            print("written", flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "written\n"
    assert files.sweep(tmp_path) == []  # its writer lives
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert path.read_text() == "old"
    assert [removed.name for removed in files.sweep(tmp_path)] != []
    assert left_over(tmp_path) == []


@pytest.mark.process
def test_many_writers_of_one_file_never_show_a_mixture(tmp_path):
    path = tmp_path / "x.json"
    program = f"""
        import sys
        from helpers import files
        for _ in range(60):
            files.write_json({str(path)!r}, [int(sys.argv[1])] * 20_000)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    writers = [subprocess.Popen([*command, str(n)]) for n in range(2)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            value = json.loads(path.read_text())
            assert len(value) == 20_000
            assert len(set(value)) == 1
            seen += 1
        time.sleep(0.002)
    assert all(writer.returncode == 0 for writer in writers)
    assert seen > 0
    assert left_over(tmp_path) == []


def test_sweeping_leaves_other_machines_and_other_names_alone(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f".tmp-otherhost-{dead.pid}-0-x.txt", ".tmp-x", "x.tmp", ".hidden"):
        (tmp_path / name).write_text("")
    ours = tmp_path / "deep" / f".tmp-{files._HOST}-{dead.pid}-0-x.txt"
    ours.parent.mkdir()
    ours.write_text("")
    alive = tmp_path / f".tmp-{files._HOST}-{os.getpid()}-0-x.txt"
    alive.write_text("")
    assert files.sweep(tmp_path) == [ours]
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_sweeping_takes_what_a_process_left_that_has_ended_and_was_not_waited_for(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])  # nobody waits for it
    stat = Path(f"/proc/{ended.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    path = tmp_path / f".tmp-{files._HOST}-{ended.pid}-0-x.txt"
    path.write_text("")
    assert files.sweep(tmp_path) == [path]
    ended.wait()


def test_overwrite_changes_these_bytes_only_and_says_what_failed(tmp_path, monkeypatch):
    path = tmp_path / "x.bin"
    path.write_bytes(b"0123456789")
    files.overwrite(path, b"ab", offset=3)
    assert path.read_bytes() == b"012ab56789"
    with pytest.raises(FileNotFoundError):
        files.overwrite(tmp_path / "other.bin", b"ab", offset=0)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"x\.bin: the disk is full") as caught:
        files.overwrite(path, b"ab", offset=0)
    assert caught.value.errno == errno.ENOSPC

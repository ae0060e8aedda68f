"""Files that are either whole or absent: written to a temporary name, flushed to the disk, then renamed."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_COUNTER = itertools.count()
_HOST = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:20] or "host"
_TEMPORARY = re.compile(r"^\.tmp-([A-Za-z0-9]+)-(\d+)-\d+-")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_FOLDER = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR}


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in `path`'s folder; on leaving, what was written there becomes `path`.

    The temporary name ends like `path`, so writers that look at the suffix (NumPy, Matplotlib, Pillow) do the
    right thing. Missing folders are made. When the body raises, `path` keeps what it held before and the
    temporary file is removed. A full disk or a folder that cannot be written is raised as an OSError which
    names the file, the free space and what to do.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic(folder / "deep" / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> (folder / "deep" / "a.txt").read_text(), len(list((folder / "deep").iterdir()))
    ('whole', 1)
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{_HOST}-{os.getpid()}-{next(_COUNTER)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except Exception as error:
        explained = _explain(error, path)
        if explained is None:
            raise
        raise explained from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def overwrite(path: Path | str, data: bytes, *, offset: int) -> None:
    """Write `data` at `offset` bytes into an existing file and flush it; not whole or absent, but said when it fails.

    For pieces of a file too large to be rewritten: note a piece as finished, by `atomic`, after this returns.
    """
    path = Path(path)
    try:
        with open(path, "r+b") as stream:
            stream.seek(offset)
            stream.write(data)
            stream.flush()
        _flush(path)
    except OSError as error:
        raise _explain(error, path) or error from error


def make_folder(path: Path | str) -> None:
    """Make a folder and those above it; an OSError names it and says what to do (see `atomic`)."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _explain(error, Path(path) / "…") or error from error


def _flush(path: Path) -> None:
    """Ask the system to put a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:  # a file system that does not flush folders
            raise
    finally:
        os.close(descriptor)


def _explain(error: Exception, path: Path) -> OSError | None:
    """The same error with the file's name and what to do, or None where it is not about this file's disk."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL or "No space left on device" in str(error):
        free = _free_megabytes(path)
        return OSError(
            number or errno.ENOSPC,
            f"cannot write {path}: the disk is full ({free} MB free there). "
            "Make room and start again: finished parts are kept",
        )
    if number in _REFUSED:
        return OSError(number, f"cannot write {path}: {os.strerror(number)}. Make its folder writable and start again")
    if number in _NO_FOLDER and not path.parent.is_dir():
        return OSError(number, f"cannot write {path}: a file stands where a folder is needed. Move it away")
    return None


def _free_megabytes(path: Path) -> int:
    for folder in path.parents:
        if folder.is_dir():
            return shutil.disk_usage(folder).free // 2**20
    return 0


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all (see `atomic`)."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all (see `atomic`)."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` to `path` as JSON, whole or not at all.

    NaN and infinities are not JSON and raise ValueError: write None where there is no number.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """The value in a JSON file, or None where there is no such file or it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def sha256(path: Path | str) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def sweep(folder: Path | str) -> list[Path]:
    """Remove temporary files under `folder` that dead processes of this machine left; return their paths."""
    removed = []
    for path in Path(folder).rglob(".tmp-*"):
        found = _TEMPORARY.match(path.name)
        if found and found[1] == _HOST and not _alive(int(found[2])):
            with contextlib.suppress(OSError):
                path.unlink()
                removed.append(path)
    return removed


def _alive(process: int) -> bool:
    """Whether there is such a process; one that has ended and whom nobody has asked for its status yet is not alive."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True  # no /proc here
    return state != "Z"

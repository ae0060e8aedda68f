"""Makes `.venv` from requirements.lock, or checks the environment that COMPANION_PYTHON names. Standard library only.

    python .ci/environment.py install   # from the Python that .venv is to have, or from .venv itself
    python .ci/environment.py check     # from the Python of COMPANION_PYTHON

Called by .ci/env.sh. Installing again does nothing while the lock, the Python and UV_TORCH_BACKEND are the same. The
stamp that says so is written last, so an installation that was killed is taken up again.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "companion-installed"
HALFWAY = "companion-installing"
PYTHON = VENV / "bin" / "python"
# What a run starts beside the package's own dependencies; a test run needs more.
RUN = ("papermill>=2.6", "nbconvert>=7", "ipykernel>=6", "ipywidgets>=8", "snakemake>=9")
TESTS = ("pytest>=8", "pytest-xdist>=3", "hypothesis>=6", "ruff>=0.6", "mypy>=1.11", "nbstripout>=0.7")


# An environment of the reader's own


def check(wanted: tuple[str, ...]) -> list[str]:
    """What the running Python's packages lack, one line each."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    faults = []
    for line in (*project["dependencies"], *wanted):
        name, _, floor = line.partition(">=")
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            faults.append(f"{name} is missing, {floor} or later is needed")
            continue
        if _numbers(found) < _numbers(floor):
            faults.append(f"{name} is {found}, {floor} or later is needed")
    return faults


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.10.0+cu126 → (2, 10, 0)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


# .venv


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two installations in one clone: the second waits and then finds everything done."""
    import fcntl

    VENV.mkdir(exist_ok=True)
    with open(VENV / "companion-lock", "a") as handle:  # not .lock: uv would wait for that one
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another process is installing .venv: waiting for it to end.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    """One line for the reader, beside whatever the installers print."""
    print(text, file=sys.stderr, flush=True)


def wanted_stamp() -> str:
    """What the stamp holds once this lock is installed for this Python."""
    backend = os.environ.get("UV_TORCH_BACKEND", "")
    parts = [LOCK.read_bytes(), backend.encode(), f"{sys.version_info[0]}.{sys.version_info[1]}".encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def installed() -> bool:
    """Whether .venv holds what the lock says."""
    return STAMP.exists() and PYTHON.exists() and STAMP.read_text() == wanted_stamp()


def install() -> None:
    """Make .venv and install the lock into it, unless that is done."""
    if not installed():
        with one_at_a_time():
            if not installed():
                _make_venv()
                STAMP.unlink(missing_ok=True)
                (VENV / HALFWAY).touch()
                _install_lock()
                (VENV / HALFWAY).unlink()
                STAMP.write_text(wanted_stamp())
    _add_project()


def _make_venv() -> None:
    """A virtual environment whose Python works; a broken or half-filled one is emptied first."""
    halfway = (VENV / HALFWAY).exists()  # a killed installer may have left packages that only look whole
    if (
        not halfway
        and PYTHON.exists()
        and subprocess.call([PYTHON, "-c", "import pip"], stderr=subprocess.DEVNULL) == 0
    ):
        return
    for path in VENV.iterdir():
        if path.name != "companion-lock":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    base = getattr(sys, "_base_executable", None) or sys.executable
    say(f"Making .venv with {base} ({sys.version.split()[0]}).")
    if subprocess.call([base, "-m", "venv", VENV]):
        raise SystemExit(
            "Could not make .venv: this Python lacks venv or pip. On Debian and Ubuntu: apt install python3-venv"
        )


def _install_lock() -> None:
    """uv where there is one, else the uv that the lock pins, else pip."""
    say("Installing the packages of requirements.lock into .venv (once; some GB, minutes) ...")
    uv = shutil.which("uv") or _bootstrap_uv()
    backend = os.environ.get("UV_TORCH_BACKEND")
    if uv:
        command: list[str | Path] = [
            uv,
            "pip",
            "sync",
            "--require-hashes",
            "--compile-bytecode",
            "--python",
            PYTHON,
            LOCK,
        ]
        if backend:
            say(
                f"UV_TORCH_BACKEND={backend}: torch and what it brings come from that index, without the lock's hashes."
            )
            command = [uv, "pip", "install", "--compile-bytecode", "--python", PYTHON, "-r", _without_hashes()]
        if subprocess.call(command) == 0:
            return
        if backend:
            raise SystemExit("uv could not install the packages for that UV_TORCH_BACKEND: see its message above.")
        say("uv could not install the packages; trying pip.")
    elif backend:
        raise SystemExit("UV_TORCH_BACKEND is set, but there is no uv: install uv first.")
    pip: list[str | Path] = [
        PYTHON,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--require-hashes",
        "-r",
        LOCK,
    ]
    if subprocess.call(pip):
        raise SystemExit("Could not install requirements.lock: see pip's message above. Start again to go on.")


def _blocks() -> dict[str, str]:
    """The lock's entries by package name (a name may stand more than once, for several Pythons)."""
    blocks: dict[str, str] = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", LOCK.read_text(encoding="utf-8")):
        name = re.match(r"([A-Za-z0-9._-]+)==", block)
        if name:
            blocks[name[1]] = blocks.get(name[1], "") + block + "\n"
    return blocks


def _bootstrap_uv() -> str | None:
    """The pinned uv, installed into .venv by pip with its hashes; None where there is none for this machine."""
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "uv.txt"
        pinned.write_text(_blocks()["uv"], encoding="utf-8")
        pip: list[str | Path] = [
            PYTHON,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
            pinned,
        ]
        code = subprocess.call(pip)
    uv = VENV / "bin" / "uv"
    return str(uv) if code == 0 and uv.exists() else None


def _without_hashes() -> Path:
    """The lock's pins for another build of torch: no hashes, and none of the packages that torch itself brings."""
    brought = re.compile(r"nvidia-|cuda-|triton")
    pins = [
        block.splitlines()[0].rstrip(" \\")
        for name, text in _blocks().items()
        for block in re.split(r"\n(?=[a-z])", text)
        if not brought.match(name) and block
    ]
    path = VENV / "requirements-without-hashes.txt"
    path.write_text("\n".join(pins) + "\n", encoding="utf-8")
    return path


def _add_project() -> None:
    """Let .venv import `helpers` from this folder, wherever the folder has been moved to."""
    for packages in VENV.glob("lib/python*/site-packages"):
        path = packages / "energy_companion.pth"
        if not path.exists() or path.read_text(encoding="utf-8") != f"{ROOT}\n":
            path.write_text(f"{ROOT}\n", encoding="utf-8")


def main(command: str, *groups: str) -> int:
    """`install`, or `check` with the word `tests` where the tests' packages are wanted too."""
    if command == "install":
        install()
        return 0
    faults = check(RUN + (TESTS if "tests" in groups else ()))
    if faults:
        say(f"The environment of COMPANION_PYTHON ({sys.executable}) does not do:")
        say("\n".join(f"  {fault}" for fault in faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

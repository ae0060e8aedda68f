"""Runs one job of a run, keeps what it printed, how long it took and whether it is to be believed. No torch.

    python -m helpers.execute <profile> <notebook | network-… | report | sweep/point> [--threads k] [--cell-timeout s]

A notebook is one papermill process. Its executed copy (`figures/<profile>/notebooks/NN_name.ipynb` and `.html`) is
written also when a cell failed. It has succeeded when no cell raised, the kernel lived, and the notebook's last cell
has written `finished.json`: papermill marks cells as completed even after its kernel has died.
"""

import argparse
import contextlib
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock

from helpers import files, jobs, kernel, parameters, shipped
from helpers.jobs import Job


class JobFailed(Exception):
    """A job ended without its result; the text says why in one line."""


def run(job: Job, *, threads: int, cell_timeout: float | None = None) -> int:
    """Run `job`, write its status and, when all is well, its stamp; return 0, or 1 where it failed."""
    for folder in (job.log.parent, job.status.parent, job.stamp.parent):
        files.make_folder(folder)
    with filelock.FileLock(job.log.with_suffix(".lock")):  # an orphan of a killed run may still be at it
        facts = {"profile": job.profile, "job": job.name, "kind": job.kind, "threads": threads}
        facts |= {"run": os.environ.get("COMPANION_RUN"), "started": time.time()}
        expected = jobs.expected_seconds(job)
        files.write_json(job.status, facts | {"outcome": "running", "expected_seconds": expected})
        digest, start, error = job.digest, time.monotonic(), None
        try:
            with open(job.log, "w", encoding="utf-8") as log:
                _notebook(job, threads, log=log, timeout=cell_timeout) if job.kind == "notebook" else _process(
                    job, threads, log=log
                )
        except (JobFailed, OSError) as failure:
            error = " ".join(str(failure).split()) or repr(failure)
        facts |= {"outcome": "failed" if error else "ok", "error": error, "expected_seconds": expected}
        facts |= {"seconds": round(time.monotonic() - start, 2), "peak_memory_mb": _peak_memory_mb()}
        files.write_json(job.status, facts)
        if error is None:
            files.write_json(job.stamp, {"job": job.label, "digest": digest, "seconds": facts["seconds"]})
    if error:
        print(f"{job.label}: {error}", file=sys.stderr)
    return 1 if error else 0


def _peak_memory_mb() -> int:
    """Largest resident memory of a process that this one has started and that has ended."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak // 2**20 if sys.platform == "darwin" else peak // 2**10


# glibc's malloc keeps what it was given back, up to 1 GiB, and asks the system only for blocks above 32 MiB: without it
# the activations of a large batch are mapped anew each time, a page fault for every 4 KiB.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(2**30)}


def _environment(threads: int) -> dict[str, str]:
    """Threads are few and wait passively: two busy processes with two spinning threads each all but stand still."""
    count = str(threads)
    own = {
        "COMPANION_THREADS": count,
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
    }
    path = os.pathsep.join(filter(None, [str(parameters.ROOT), os.environ.get("PYTHONPATH")]))
    return {**own, **MALLOC, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


# A network or the report: a process of its own, but for networks that ship, which are only copied


def _copied(job: Job, *, log: Any) -> bool:
    """Whether the job is of networks that ship and that are all put in place by this; no process need import torch."""
    if job.kind != "network":
        return False
    recipe = parameters.recipe(job.profile, job.name)
    with contextlib.redirect_stderr(log):
        return all([shipped.take(recipe, seed) for seed in job.seeds])


def _process(job: Job, threads: int, *, log: Any) -> None:
    """Run the job's command; what it prints goes to the log, and its last line tells why it failed."""
    if _copied(job, log=log):
        return
    status = subprocess.call(
        jobs.command(job),
        cwd=parameters.ROOT,
        env={**os.environ, **_environment(threads)},
        stdout=log,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        preexec_fn=kernel.end_with_parent,
    )
    missing = [path for path in job.vouched() if not path.exists()]
    if status:
        lines = [line.strip() for line in job.log.read_text(encoding="utf-8", errors="replace").splitlines()]
        said = next((line for line in reversed(lines) if line), "nothing was printed")
        raise JobFailed(f"ended with status {status}: {said}" if status > 0 else f"was killed by signal {-status}")
    if missing:
        raise JobFailed(f"ended without writing {job.relative(missing[0])}")


# A notebook: papermill, then HTML


def _notebook(job: Job, threads: int, *, log: Any, timeout: float | None) -> None:
    """Execute the notebook, write its executed copy whatever happened, and raise JobFailed unless all is well."""
    source = parameters.ROOT / "notebooks" / f"{job.name}.ipynb"
    executed = job.home / "notebooks" / f"{job.name}.ipynb"
    sentinel = job.home / job.name / "finished.json"
    sentinel.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="companion-") as scratch:
        os.environ.update(_environment(threads) | _jupyter(Path(scratch)))
        os.environ["COMPANION_POINT"] = job.slug if job.point else ""
        values = {"profile": job.profile, **job.overrides}
        notebook, error = _papermill(source, values=values, log=log, timeout=timeout)
    if error is None and not sentinel.exists():
        error = "ended without its last cell, records.finish(p): its results are not complete"
    _write_executed(notebook, executed, error=error)
    if error:
        sentinel.unlink(missing_ok=True)
        raise JobFailed(error)


def _jupyter(scratch: Path) -> dict[str, str]:
    """Settings under which the kernel `python3` is this Python, whatever kernels and start-up files the user has."""
    spec = {
        "argv": [sys.executable, "-m", "helpers.kernel", "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
    }
    files.write_json(scratch / "kernels" / "python3" / "kernel.json", spec)
    return {
        "JUPYTER_PATH": str(scratch),
        "JUPYTER_RUNTIME_DIR": str(scratch / "runtime"),
        "IPYTHONDIR": str(scratch / "ipython"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "COMPANION_WIDGETS": "0",  # no front end is there to move a slider, whatever terminal this was started from
    }


def _transport() -> Any:
    """Talk to the kernel through files that only this user can open; TCP where their names would be too long."""
    from traitlets.config import Config

    name = os.path.join(
        os.environ["JUPYTER_RUNTIME_DIR"], "kernel"
    )  # else Jupyter puts sockets in the notebook's folder
    if len(name) > 95 or os.name != "posix":  # a socket's name, "-5" and all, holds some 100 bytes
        return Config({"KernelManager": {"transport": "tcp"}})
    os.makedirs(os.path.dirname(name), mode=0o700, exist_ok=True)
    return Config({"KernelManager": {"transport": "ipc", "ip": name}})


def _papermill(source: Path, *, values: dict[str, Any], log: Any, timeout: float | None) -> tuple[Any, str | None]:
    """The executed notebook and, where it failed, why; also after the kernel has died or a cell took too long."""
    _spare_grammars()
    from nbclient.exceptions import CellControlSignal, CellTimeoutError, DeadKernelError
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import execute_notebook
    from papermill.iorw import load_notebook_node

    held: list[Any] = [load_notebook_node(str(source))]

    class Holding(NBClientEngine):
        """papermill's own engine; it lets us keep the notebook when the kernel dies, which papermill does not."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
            held[0] = nb_man.nb
            return super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register("holding", Holding)
    error = None
    try:
        held[0] = execute_notebook(
            str(source),
            None,
            parameters=values,
            engine_name="holding",
            kernel_name="python3",
            request_save_on_cell_execute=False,
            progress_bar=False,
            stdout_file=log,
            stderr_file=log,
            cwd=source.parent,
            execution_timeout=None if timeout is None else math.ceil(timeout),
            config=_transport(),
        )
    except PapermillExecutionError as failure:
        error = f"cell {failure.cell_index}: {failure.ename}: {failure.evalue}"
    except (CellTimeoutError, TimeoutError):
        error = f"a cell took longer than {timeout:g} s" if timeout else "the kernel did not answer"
    except (DeadKernelError, CellControlSignal, RuntimeError) as failure:
        error = f"the kernel died ({' '.join(str(failure).split())[:200]})"
    except Exception as failure:  # whatever else Jupyter comes up with: the copy is written, and the job has failed
        traceback.print_exc(file=log)
        error = f"{type(failure).__name__}: {' '.join(str(failure).split())[:200]}"
    if error:
        print(error, file=log)
    return held[0], error


def _spare_grammars() -> None:
    """Keep jsonschema, which nbformat imports, from building 38 grammars at its import.

    They take two seconds and check addresses (the format "iri"), which no notebook's schema has; without the package
    that they are in, jsonschema leaves that check out.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None: an import of it is an ImportError


def _write_executed(notebook: Any, path: Path, *, error: str | None) -> None:
    """Write the executed copy as .ipynb and .html; a failed one has its cell marked and a note at the top."""
    import nbformat

    if error:
        _mark_failure(notebook, error)
    files.write_text(path, nbformat.writes(notebook) + "\n")
    files.write_text(path.with_suffix(".html"), to_html(notebook, title=path.stem))


def _mark_failure(notebook: Any, error: str) -> None:
    """Show in the cell that failed, the last one that started, why; and say so in a first cell that links to it."""
    from nbformat.v4 import new_markdown_cell, new_output

    cells = notebook.cells
    started = [i for i, c in enumerate(cells) if c.cell_type == "code" and _timing(c).get("start_time")]
    raised = [i for i in started if any(o.output_type == "error" for o in cells[i].get("outputs", []))]
    at = (raised or started or [0])[-1]
    for i, cell in enumerate(cells):
        if i >= at and cell.cell_type == "code":
            _timing(cell)["status"] = "failed" if i == at else "pending"
    if not raised and cells[at].cell_type == "code":
        text = f"Stopped: {error}"
        cells[at].outputs.append(new_output("error", ename="Stopped", evalue=error, traceback=[text]))
    note = "<p id='failed' style='color:#b00020'><strong>This cell failed.</strong></p>"
    head = "<p style='color:#b00020'><strong>This notebook failed</strong> at <a href='#failed'>this cell</a>: "
    cells.insert(at, new_markdown_cell(note, metadata={"tags": ["papermill-error-cell-tag"]}))
    text = f"{head}{_escape(error)}</p>"
    cells.insert(0, new_markdown_cell(text, metadata={"tags": ["papermill-error-cell-tag"]}))


def _timing(cell: Any) -> Any:
    return cell.metadata.get("papermill", {})


def _escape(text: str) -> str:
    import html

    return html.escape(re.sub(r"\x1b\[[0-9;]*m", "", text))


def to_html(notebook: Any, *, title: str) -> str:
    """The notebook as one HTML page that asks nothing of other machines: no script or style from elsewhere.

    nbconvert would load MathJax, RequireJS, Mermaid and the widgets' renderer from the network; they are left out, so
    formulas stand as TeX and a picture from elsewhere (the Colab badge) as its alternative text.
    """
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="lab", embed_images=True)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    page, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})
    return _PICTURE.sub(lambda found: found["alt"] or "", _REMOTE.sub("", page))


# A script element that names another machine in its address or loads from one.
_REMOTE = re.compile(
    r"<script\b[^>]*\bsrc=[\"']?(?:https?:)?//[^>]*>.*?</script>"
    r"|<script\b[^>]*>(?:(?!</script>).)*?https?://(?:cdn|unpkg)(?:(?!</script>).)*</script>"
    r"|<link\b[^>]*\bhref=[\"']?(?:https?:)?//[^>]*>",
    re.DOTALL | re.IGNORECASE,
)
_PICTURE = re.compile(
    r"<img\b(?=[^>]*\bsrc=[\"'](?:https?:)?//)(?:(?=[^>]*\balt=[\"'](?P<alt>[^\"']*))|)[^>]*>", re.IGNORECASE
)


def main(arguments: list[str] | None = None) -> int:
    """Command line: check the job's parameters, then run it. 0 done, 1 failed, 2 wrong parameters."""
    parser = argparse.ArgumentParser(prog="python -m helpers.execute", description=__doc__)
    parser.add_argument("profile")
    parser.add_argument("job", help="a notebook, network-<name>, network-<name>-seed<k>, report, or <sweep>/<point>")
    parser.add_argument("--threads", type=int, help="CPU threads; else the profile's")
    parser.add_argument("--cell-timeout", type=float, help="seconds that a cell may take; else as long as it wants")
    given = parser.parse_args(arguments)
    try:
        job = jobs.named(given.profile, given.job)
    except parameters.ParameterError as error:
        print(error, file=sys.stderr)
        return 2
    overrides = job.overrides
    faults = parameters.check(given.profile, [job.name], overrides=overrides) if job.kind == "notebook" else []
    if faults:
        print(*faults, sep="\n", file=sys.stderr)
        return 2
    threads = given.threads or parameters.profile_facts(given.profile)["threads"]
    timeout = given.cell_timeout or _seconds(os.environ)
    try:
        return run(job, threads=threads, cell_timeout=timeout)
    except OSError as error:
        print(f"{job.label}: {error}", file=sys.stderr)
        return 1


def _seconds(environment: Mapping[str, str]) -> float | None:
    """COMPANION_CELL_TIMEOUT: seconds that a cell may take in every notebook of a run."""
    text = environment.get("COMPANION_CELL_TIMEOUT")
    return float(text) if text else None


if __name__ == "__main__":
    sys.exit(main())

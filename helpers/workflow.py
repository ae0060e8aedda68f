"""What `./run_all.sh` does once the environment is there: check, say the cost, start Snakemake, tell how it goes.

    python -m helpers.workflow [profile] [-n] [notebook … | --sweep NAME] [options of Snakemake, such as --jobs 50]

Which job runs, in which order and whether at all is Snakemake's business; its own words go to a log. No torch.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from helpers import cluster, costs, files, jobs, kernel, parameters, run_log, sweeps
from helpers.jobs import Job

USAGE = """./run_all.sh [profile] [-n] [notebook … | --sweep NAME] [options of Snakemake]

  profile     a folder of params/ (default: digits)
  notebook    a number or a name, e.g. 01 or 01_energy_landscape (default: all of the profile)
  --sweep     run every point of params/sweeps/NAME.yaml in place of the notebooks, e.g. --sweep epsilon
  -n          say what would run and why, and run nothing
  others      go to Snakemake, e.g. --executor slurm --jobs 50, or --cores 4

environment   COMPANION_PYTHON=/path/to/python   use that Python's packages instead of .venv
              COMPANION_CELL_TIMEOUT=seconds     stop a notebook whose cell takes longer
              COMPANION_FIGURES=png              write no PDF beside each figure
              DATA_ROOT, CHECKPOINTS             where data sets and foreign weights lie
"""
HEARTBEAT_SECONDS = 30.0
ENDED = re.compile(r"SLURM status is: '(?!FAILED')")  # of a job that was cancelled, or ran out of memory or time


@dataclass
class Request:
    """The command line, understood."""

    profile: str
    notebooks: list[str]
    dry: bool
    snakemake: list[str]
    sweep: str = ""


def understand(arguments: list[str]) -> Request:
    """Split the command line: names, `-n`, `--sweep NAME`, and from the first other option on what goes to Snakemake.

    >>> understand(["digits", "01", "-n", "--cores", "4"]).snakemake
    ['--cores', '4']
    """
    arguments, sweep = _without_sweep(arguments)
    options = next((i for i, word in enumerate(arguments) if word.startswith("-") and word not in _DRY), len(arguments))
    names = [word for word in arguments[:options] if word not in _DRY]
    profile = names.pop(0) if names and not re.match(r"\d|notebooks/", names[0]) else "digits"
    rest = [word for word in arguments[options:] if word not in _DRY]
    return Request(profile, names, len(rest) + len(names) < len(arguments) and bool(_DRY & set(arguments)), rest, sweep)


def _without_sweep(arguments: list[str]) -> tuple[list[str], str]:
    """The other arguments, and the name given by --sweep NAME or --sweep=NAME (" " where the name is missing)."""
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--sweep=") else [word])]
    if "--sweep" not in words:
        return arguments, ""
    at = words.index("--sweep")
    return words[:at] + words[at + 2 :], (words[at + 1 : at + 2] or [" "])[0]


_DRY = {"-n", "--dry-run", "--dryrun"}


# Snakemake


def _command(request: Request, notebooks: list[str]) -> list[str]:
    """Snakemake on our Snakefile; its own lock is off because `one_at_a_time` outlives no killed run."""
    told = {word.partition("=")[0] for word in request.snakemake}
    cores = [] if {"--cores", "-c", "--jobs", "-j", "--executor", "-e"} & told else ["--cores", str(run_log.cores())]
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(parameters.ROOT / "Snakefile")),
        *("--directory", str(parameters.ROOT), "--nolock", "--rerun-incomplete", "--keep-going", "--nocolor"),
        *("--rerun-triggers", "mtime", "params", "--scheduler", "greedy"),
        *cores,
        *request.snakemake,
        *cluster.options(request.snakemake, request.profile),
        *("--config", f"profile={request.profile}", f"notebooks={','.join(notebooks)}", f"sweep={request.sweep}"),
    ]


def _environment(run: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(parameters.ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "COMPANION_RUN": run}


def explain(text: str, planned: list[Job]) -> list[str]:
    """Snakemake's dry run in plain words: a line for each job that would run, and why.

    `text` is what `snakemake -n` prints; `planned` are the jobs in the order of the lines.
    """
    by_stamp = {job.relative(job.stamp): job for job in planned}
    why: dict[str, str] = {}
    for block in re.split(r"\n(?=\w*rule \w+:)", text):
        output, reason = re.search(r"^ +output: (.+)$", block, re.M), re.search(r"^ +reason: (.+)$", block, re.M)
        if output and reason and output[1] in by_stamp:
            why[by_stamp[output[1]].label] = "; ".join(_plain(part, by_stamp) for part in reason[1].split("; "))
    return [f"would run {job.label}: {why[job.label]}" for job in planned if job.label in why]


def _plain(reason: str, by_stamp: dict[str, Job]) -> str:
    what, _, names = reason.partition(": ")
    listed = ", ".join(by_stamp[name].label if name in by_stamp else name for name in names.split(", "))
    words = {
        "Missing output files": "not done yet",
        "Updated input files": f"changed since: {listed}",
        "Input files updated by another job": f"waits for {listed}",
        "Params have changed since last execution": "its parameters, networks or code changed",
        "Forced execution": "forced",
    }
    return words.get(what, reason)


def dry_run(request: Request, notebooks: list[str], planned: list[Job]) -> int:
    """Say what would run and why; start and change nothing."""
    done = subprocess.run(
        [*_command(request, notebooks), "-n"],
        env=_environment(""),
        cwd=parameters.ROOT,
        capture_output=True,
        text=True,
    )
    text = done.stdout + done.stderr
    lines = explain(text, planned)
    broken = [f"would run {job.label}: {job.relative(path)} is gone" for job, path in jobs.broken_stamps(planned)]
    lines += [line for line in broken if line.split(":")[0] not in {other.split(":")[0] for other in lines}]
    if done.returncode or (not lines and "Nothing to be done" not in text):
        print(text, file=sys.stderr)
        return done.returncode or 1
    seconds = [jobs.expected_seconds(job) for job in planned if any(f" {job.label}:" in line for line in lines)]
    known = sum(value for value in seconds if value is not None)
    print(*(lines or ["Nothing would run: everything is up to date."]), sep="\n")
    if known:
        print(f"expected: {known:.0f} s of work in jobs whose time is known")
    return 0


# One run


@dataclass
class Watch:
    """Tells on the terminal which job has started and ended, from the status files that the jobs write."""

    jobs: list[Job]
    run: str
    total: int | None = None
    order: list[str] = field(default_factory=list)
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    beat: dict[str, float] = field(default_factory=dict)

    def look(self) -> None:
        """Print a line for each job that has started or ended since the last look, or that takes long."""
        for job in self.jobs:
            status = files.read_json(job.status) or {}
            if status.get("run") != self.run:
                continue
            if job.label not in self.order:
                self.order.append(job.label)
                self.beat[job.label] = time.monotonic()
                print(f"{self._head(job)} …{self._times(None, status)}", flush=True)
            before = self.outcomes.get(job.label, {}).get("outcome", "running")
            self.outcomes[job.label] = status
            if before == "running" and status["outcome"] != "running":
                word = "done" if status["outcome"] == "ok" else f"FAILED: {status['error']}"
                print(f"{self._head(job)} {word}{self._times(status['seconds'], status)}", flush=True)
            elif status["outcome"] == "running" and time.monotonic() - self.beat[job.label] > HEARTBEAT_SECONDS:
                self.beat[job.label] = time.monotonic()
                elapsed = max(0.0, time.time() - status["started"])
                print(f"{self._head(job)} …{self._times(elapsed, status)}", flush=True)

    def _head(self, job: Job) -> str:
        total = "" if self.total is None else f" of {self.total}"
        return f"[{self.order.index(job.label) + 1}{total}] {job.label}"

    @staticmethod
    def _times(elapsed: float | None, status: dict[str, Any]) -> str:
        words = [] if elapsed is None else [f"elapsed {elapsed:.0f} s"]
        expected = status.get("expected_seconds")
        words += [] if expected is None else [f"expected {expected:.0f} s"]
        return f" ({', '.join(words)})" if words else ""


@contextlib.contextmanager
def one_at_a_time() -> Iterator[int]:
    """Hold this clone's lock; a second run waits here and says so. Yields the lock's descriptor.

    Snakemake inherits it, so the lock holds as long as any part of the run lives and no longer: a killed run leaves
    nothing to clean up.
    """
    path = parameters.ROOT / ".snakemake" / "companion.lock"
    files.make_folder(path.parent)
    with open(path, "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another run is at work in this folder: waiting for it to end.", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle.fileno()


def run(request: Request, notebooks: list[str], planned: list[Job]) -> int:
    """Run what is not up to date; 0 when every job has ended well."""
    home = planned[-1].home
    with one_at_a_time() as lock:
        for folder in ("done", "logs", "notebooks"):
            files.make_folder(home / folder)
        files.write_text(home / "logs" / "writable.txt", "")  # a full or read-only disk says so here, not in a minute
        files.sweep(home)
        for job, path in jobs.drop_broken(planned):
            print(f"{job.label}: {job.relative(path)} is gone, so it runs again", flush=True)
        _warn_of_disk(request.profile, home)
        watch, start = Watch(planned, secrets.token_hex(8)), time.monotonic()
        code, said = _snakemake(_command(request, notebooks), watch, log=home / "logs" / "snakemake.log", lock=lock)
        files.sweep(home)  # again: a kernel may outlive the killed run before this one by a second, and leave its own
        if code and planned[-1].label not in watch.outcomes:  # Snakemake leaves it out when a notebook has failed
            _report(watch)
        seconds = time.monotonic() - start
        status = summary(watch, code=code, said=said)
        if watch.outcomes:
            with contextlib.suppress(OSError):  # a full disk: what the run cost is not worth its results
                run_log.keep(planned, watch.outcomes, seconds=seconds, status=status)
        return status


def _warn_of_disk(profile: str, home: Path) -> None:
    needed, free = parameters.profile_facts(profile)["disk_gb"], shutil.disk_usage(home).free / 2**30
    if free < needed:
        print(f"Warning: {free:.1f} GB are free in {home}, a cold run fills {needed:g} GB.", flush=True)


def _snakemake(command: list[str], watch: Watch, *, log: Path, lock: int) -> tuple[int, list[str]]:
    """Run Snakemake, its words into `log`; return its status and the lines that jobs wrote to it about failures."""
    said: list[str] = []
    process = subprocess.Popen(
        command,
        cwd=parameters.ROOT,
        env=_environment(watch.run),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        pass_fds=(lock,),
        # A shell's background job is deaf to SIGINT; Snakemake must hear it, or a cluster's jobs go on without it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    reader = threading.Thread(target=_read, args=(process.stdout, log, watch, said), daemon=True)
    reader.start()
    while True:
        try:
            watch.look()
            code = process.wait(timeout=0.2)
            break
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:
            print("Interrupted: ending the jobs. Finished parts are kept.", flush=True)
            code = _end(process)
            break
    reader.join(timeout=5)
    watch.look()
    return code, said


def _end(process: subprocess.Popen[str]) -> int:
    """Interrupt Snakemake and everything it started, as Ctrl-C does; kill what has not ended after ten seconds."""
    import psutil  # type: ignore[import-untyped]  # Snakemake's own dependency

    family = []
    with contextlib.suppress(psutil.Error):
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for number, patience in ((signal.SIGINT, 10), (signal.SIGKILL, 5)):
        for one in family:
            with contextlib.suppress(psutil.Error):
                one.send_signal(number)
        _, family = psutil.wait_procs(family, timeout=patience)
    return process.wait() or 130


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def _read(stream: IO[str], log: Path, watch: Watch, said: list[str]) -> None:
    """Copy Snakemake's words to its log, as far as the disk lets us; note the number of jobs and what they say."""
    with stream, contextlib.ExitStack() as stack:
        out: IO[str] | None = None
        with contextlib.suppress(OSError):
            out = stack.enter_context(open(log, "w", encoding="utf-8"))
        for line in stream:
            if found := re.match(r"(network|notebook|point|report) +(\d+)$", line.strip()):  # its table of jobs to run
                watch.total = (watch.total or 0) + int(found[2])
            if line.startswith(tuple(f"{job.label}: " for job in watch.jobs)) or "Error" in line or ENDED.search(line):
                said.append(line.strip())
            with contextlib.suppress(OSError, ValueError):
                if out:
                    out.write(line)
                    out.flush()


def _report(watch: Watch) -> None:
    job = watch.jobs[-1]
    command = [sys.executable, "-m", "helpers.execute", job.profile, job.slug, "--threads", "1"]
    subprocess.run(command, cwd=parameters.ROOT, env=_environment(watch.run), preexec_fn=kernel.end_with_parent)
    watch.look()


def result(job: Job, watch: Watch) -> str:
    """In a word or two: what became of a job in this run."""
    status = watch.outcomes.get(job.label)
    if status is None:
        if job.stamp.exists():
            return "up to date"
        missing = [other.label for other in job.needs() if not other.stamp.exists()]
        return f"not run: needs {', '.join(missing)}" if missing else "not run"
    return {"ok": "done", "failed": "FAILED"}.get(status["outcome"], "killed")


def summary(watch: Watch, *, code: int, said: list[str]) -> int:
    """Print the table (job, seconds, peak memory, result), what failed and where the report is; return the status."""
    rows = [("", "seconds", "peak MB", "result")]
    for job in watch.jobs:
        last = watch.outcomes.get(job.label) or files.read_json(job.status) or {}
        seconds, memory = last.get("seconds"), last.get("peak_memory_mb")
        row = (job.label, "-" if seconds is None else f"{seconds:.0f}", "-" if memory is None else str(memory))
        rows.append((*row, result(job, watch)))
    wide = max(len(row[0]) for row in rows)
    print()
    for name, seconds, memory, outcome in rows:
        print(f"{name:<{wide}}  {seconds:>7}  {memory:>7}  {outcome}")
    bad = [job for job in watch.jobs if result(job, watch) not in ("done", "up to date")]
    for job in bad:
        error = (watch.outcomes.get(job.label) or {}).get("error")
        heard = next((line for line in said if line.startswith(f"{job.label}: ")), None)
        if error or heard:
            print(f"\n{heard or f'{job.label}: {error}'}\n  log: {job.log}")
        elif result(job, watch) == "killed":
            print(f"\n{job.label}: was killed\n  log: {job.log}")
    if (code and not bad) or (bad and not any(job.label in watch.outcomes for job in bad) and not said):
        print(f"\nSnakemake ended with status {code}: see {watch.jobs[-1].home / 'logs' / 'snakemake.log'}")
    unexplained = bad and not any((watch.outcomes.get(job.label) or {}).get("error") for job in bad)
    for line in said:
        if unexplained or ENDED.search(line):
            print(line)
    page, what = watch.jobs[-1].vouched()[0], "table" if watch.jobs[-1].kind == "sweep" else "report"
    print(f"\n{what.capitalize()}: {page}" if page.exists() else f"\nNo {what} was written.", flush=True)
    return 1 if code or bad else 0


def main(arguments: list[str] | None = None) -> int:
    """Command line (see USAGE): 0 all is well, 1 a job failed, 2 wrong parameters, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _interrupted)  # a cluster's or `timeout`'s end of time is an interruption too
    if {"-h", "--help"} & set(given):
        print(USAGE, end="")
        return 0
    request = understand(given)
    faults = parameters.check(request.profile, request.notebooks)
    if request.sweep and not faults:
        faults = sweeps.check(request.sweep, request.profile)
    if request.sweep and request.notebooks:
        named = ", ".join(request.notebooks)
        faults = [parameters.ParameterError("command line", "--sweep", "no notebook beside it", got=named)]
    faults = faults or cluster.faults(request.snakemake, sys.executable)
    if faults:
        print(*faults, sep="\n", file=sys.stderr)
        return 2
    notebooks = parameters.named(request.profile, request.notebooks)
    planned = jobs.of_sweep(request.profile, request.sweep) if request.sweep else jobs.of(request.profile, notebooks)
    print(costs.of_sweep(planned) if request.sweep else costs.of_profile(request.profile, notebooks), flush=True)
    try:
        return (dry_run if request.dry else run)(request, notebooks, planned)
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

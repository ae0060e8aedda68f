"""The jobs of a run: which there are, what each depends on and which file vouches for it. No torch.

The Snakefile asks this module for inputs, `helpers.execute` runs one job, `helpers.workflow` tells how they go.
A job's output for Snakemake is its *stamp*, a small JSON written last, by rename, when everything else is there.
So Snakemake, which deletes the outputs of a job that it starts or that failed, never touches a result.
"""

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import files, ledger, parameters, sources, sweeps


@dataclass(frozen=True)
class Job:
    """One process of a run: a network to train, a notebook to execute, the report, or the end of a sweep."""

    profile: str
    kind: str  # network | notebook | report | sweep
    name: str  # a recipe's name, a notebook's name, "report", a sweep's name
    seeds: tuple[int, ...] = ()  # of a network
    part: bool = False  # a network's job for one of its seeds
    point: sweeps.Point | None = None  # of a notebook that is run for a sweep

    @property
    def label(self) -> str:
        """How people see the job: `standard (seed 0)`, `01_energy_landscape`, `report`, `sweep epsilon`."""
        if self.point:
            return self.slug
        if self.kind != "network":
            return f"sweep {self.name}" if self.kind == "sweep" else self.name
        return f"network {self.name}" + (f" (seed {self.seeds[0]})" if self.part else "")

    @property
    def slug(self) -> str:
        """The job's name as the command line and, but for a point's, a file name have it."""
        if self.point:
            return f"{self.point.sweep}/{self.point.name}"
        if self.kind != "network":
            return f"sweep-{self.name}" if self.kind == "sweep" else self.name
        return f"network-{self.name}" + (f"-seed{self.seeds[0]}" if self.part else "")

    @property
    def home(self) -> Path:
        """figures/<profile>; for a sweep and its points the folders below that are theirs."""
        home = parameters.ROOT / "figures" / self.profile
        if self.point:
            return home / "sweeps" / self.point.sweep / self.point.name
        return home / "sweeps" / self.name if self.kind == "sweep" else home

    @property
    def overrides(self) -> dict[str, Any]:
        """The parameters that a sweep's point sets."""
        return dict(self.point.overrides) if self.point else {}

    @property
    def digest(self) -> str:
        """Hash of what the job is asked to do, 12 hexadecimal digits."""
        if self.kind == "network":
            recipe = parameters.recipe(self.profile, self.name)
            return _hash(f"{seed}:{recipe.digest(seed)}" for seed in self.seeds)
        if self.kind == "notebook":
            values = parameters.read(self.name, self.profile, overrides=self.overrides)
            code = sources.digest(self.sources())
            return _hash([parameters.Parameters(self.name, self.profile, values=values).digest, code])
        return _hash([sources.digest(self.sources())])

    @property
    def stamp(self) -> Path:
        """The file that says that the job is done; a network's carries its digest, so a changed entry is a new file."""
        suffix = f"-{self.digest}" if self.kind == "network" else ""
        return self.home / "done" / f"{self._file}{suffix}.json"

    @property
    def _file(self) -> str:
        return self.name if self.kind == "notebook" else self.slug

    @property
    def status(self) -> Path:
        """The file that says how the job went the last time: outcome, seconds, memory, error."""
        if self.kind == "notebook":
            return self.home / "notebooks" / f"{self.name}.run.json"
        return self.home / "logs" / f"{self._file}.run.json"

    @property
    def log(self) -> Path:
        """What the job printed."""
        return self.home / "logs" / f"{self._file}.log"

    def sources(self) -> list[Path]:
        """The code that the job's results depend on: none for a network, whose stamp carries the entry's digest."""
        if self.kind == "network":
            return []
        if self.kind == "report":
            page = parameters.ROOT / "helpers" / "report.py"
            return [*sources.of(page), page.with_suffix(".html")]
        if self.kind == "sweep":
            return sources.of(parameters.ROOT / "helpers" / "collected.py")
        return sources.of(parameters.ROOT / "notebooks" / f"{self.name}.ipynb")

    def inputs(self) -> list[Path]:
        """Files that make the job run again when they change."""
        if self.kind == "sweep":
            return [*self.sources(), parameters.ROOT / "params" / "sweeps" / f"{self.name}.yaml"]
        if self.kind != "notebook":
            return self.sources()
        values = [parameters.ROOT / "params" / self.profile / f"{self.name}.yaml"]
        values += [ledger.path()] if self.name == ledger.NOTEBOOK else []
        return [*self.sources(), *values, *(job.stamp for job in self.needs())]

    def needs(self) -> "list[Job]":
        """The jobs that this one waits for: a notebook for its networks, the claims for the notebooks of the evidence,
        a network for the one that judges its training images."""
        read = ledger.notebooks() if (self.kind, self.name) == ("notebook", ledger.NOTEBOOK) else []
        there = parameters.notebooks(self.profile) if read else []
        return [*self.networks(), *(notebook(self.profile, name) for name in read if name in there)]

    def networks(self) -> "list[Job]":
        """The jobs that train the networks which a notebook names, or the one that judges a network's images."""
        if self.kind == "network":
            judge = parameters.recipe(self.profile, self.name).reference
            jobs = [] if judge is None else network(self.profile, judge.name)
            return [job for job in jobs if set(job.seeds) & set(self.seeds)]
        if self.kind != "notebook":
            return []
        values = parameters.read(self.name, self.profile, overrides=self.overrides)
        return [job for name in parameters.network_names(values) for job in network(self.profile, name)]

    def vouched(self) -> list[Path]:
        """Files that must be there as long as the stamp is."""
        if self.kind == "network":
            recipe = parameters.recipe(self.profile, self.name)
            return [recipe.folder(seed) / "card.json" for seed in self.seeds]
        if self.kind == "notebook":
            executed = self.home / "notebooks" / self.name
            sentinel = self.home / self.name / "finished.json"
            written = (files.read_json(sentinel) or {}).get("outputs", [])
            records = [sentinel.with_name(f"{one['name']}.json") for one in written if one["kind"] == "record"]
            return [sentinel, *records, executed.with_suffix(".ipynb"), executed.with_suffix(".html")]
        return [self.home / (f"{self.name}.csv" if self.kind == "sweep" else "index.html")]

    def relative(self, path: Path) -> str:
        """A path as seen from the root of the project."""
        return path.relative_to(parameters.ROOT).as_posix()


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def network(profile: str, name: str) -> list[Job]:
    """The job, or the jobs one for each seed, that train a recipe."""
    seeds = parameters.recipe(profile, name).seeds
    if parameters.profile_facts(profile)["seeds_per_job"] == "one" and len(seeds) > 1:
        return [Job(profile, "network", name, seeds=(seed,), part=True) for seed in seeds]
    return [Job(profile, "network", name, seeds=seeds)]


def notebook(profile: str, name: str) -> Job:
    """The job of one notebook."""
    return Job(profile, "notebook", name)


def report(profile: str) -> Job:
    """The job that writes the report page."""
    return Job(profile, "report", "report")


def of(profile: str, notebooks: list[str]) -> list[Job]:
    """All jobs that the given notebooks need: networks, notebooks (those that they wait for too), the report."""
    named = [notebook(profile, name) for name in notebooks]
    needed = [job for one in named for job in one.needs() if job.kind == "notebook"]
    wanted = sorted(set(named + needed), key=lambda job: job.name)
    return [*_trained(wanted), *wanted, report(profile)]


def of_sweep(profile: str, name: str) -> list[Job]:
    """All jobs of a sweep: networks, one for each point, and the one that collects them."""
    sweep = sweeps.read(name, profile)
    points = [Job(profile, "notebook", sweep.notebook, point=point) for point in sweep.points]
    return [*_trained(points), *points, Job(profile, "sweep", name)]


def _trained(wanted: Iterable[Job]) -> list[Job]:
    """The networks that jobs need, each once and after the one that judges its training images."""
    found: dict[str, Job] = {}
    for one in wanted:
        for job in one.networks():
            found |= {before.label: before for before in [*_trained([job]), job] if before.label not in found}
    return list(found.values())


def named(profile: str, slug: str) -> Job:
    """The job with that slug, as the Snakefile and `helpers.execute` name it; a point's is <sweep>/<point>."""
    if slug == "report":
        return report(profile)
    if "/" in slug:
        sweep = sweeps.read(slug.partition("/")[0], profile)
        return Job(profile, "notebook", sweep.notebook, point=sweep.point(slug.partition("/")[2]))
    if slug.removeprefix("sweep-") in sweeps.names() and slug.startswith("sweep-"):
        return Job(profile, "sweep", slug.removeprefix("sweep-"))
    if slug in parameters.notebooks(profile):
        return notebook(profile, slug)
    every = [job for name in parameters.recipes(profile) for job in network(profile, name)]
    found = next((job for job in every if job.slug == slug), None)
    if found is None:
        raise parameters.ParameterError(f"params/{profile}", "job", "a notebook or a network", got=repr(slug))
    return found


def command(job: Job) -> list[str]:
    """The process that a network's job or the report is; a notebook's is papermill, inside `helpers.execute`."""
    if job.kind == "sweep":
        return [sys.executable, "-m", "helpers.sweeps", "collect", job.profile, job.name]
    if job.kind == "report":
        return [sys.executable, "-m", "helpers.report", job.profile]
    seed = ["--seed", str(job.seeds[0])] if job.part else []
    return [sys.executable, "-m", "helpers.zoo", "train", job.profile, job.name, *seed]


def drop_broken(jobs: Iterable[Job]) -> list[tuple[Job, Path]]:
    """Remove stamps that vouch for a file which is gone; return those jobs and the first missing file of each."""
    broken = [(job, path) for job, path in broken_stamps(jobs)]
    for job, _ in broken:
        job.stamp.unlink(missing_ok=True)
    return broken


def broken_stamps(jobs: Iterable[Job]) -> list[tuple[Job, Path]]:
    """Jobs whose stamp is there although a file that it vouches for is not."""
    found = []
    for job in jobs:
        if job.stamp.exists():
            missing = [path for path in job.vouched() if not path.exists()]
            found += [(job, missing[0])] if missing else []
    return found


def expected_seconds(job: Job) -> float | None:
    """How long the job took the last time it went well, else what the profile says, else None."""
    last = files.read_json(job.status) or {}
    seconds = last.get("seconds") if last.get("outcome") == "ok" else last.get("expected_seconds")
    if seconds is None and job.kind != "report":
        stated = parameters.profile_facts(job.profile).get(f"{job.kind}_minutes") or {}
        seconds = 60 * stated[job.name] if job.name in stated else None
    return seconds


def seconds_ahead(planned: Iterable[Job]) -> dict[str, float]:
    """Seconds from the start of each job to the end of the last that waits for it, by `Job.slug`: what to start first.

    The longest path through the DAG, with jobs of unknown length as 0: list scheduling by critical path (Graham 1969).
    A run that keeps its longest notebook for the end has one process busy and the others idle.

    Args:
        planned: jobs as `of` and `of_sweep` list them, each after those that it waits for.
    """
    after: dict[str, float] = {}
    ahead: dict[str, float] = {}
    for job in reversed(list(planned)):
        ahead[job.slug] = after.get(job.slug, 0.0) + (expected_seconds(job) or 0.0)
        for needed in job.needs():
            after[needed.slug] = max(after.get(needed.slug, 0.0), ahead[job.slug])
    return ahead

"""The DAG: a job for each trained network, one for each notebook, one for the report. `./run_all.sh` starts it.

By hand: python -m snakemake --cores 2 --rerun-triggers mtime params --config profile=digits notebooks=01_energy_landscape
With `sweep=NAME` in place of notebooks: a job for each network and point of params/sweeps/NAME.yaml, one that collects.
A job's output is its stamp in figures/<profile>/done/, written last; results are never Snakemake's to delete.
"""

import sys

sys.path.insert(0, workflow.basedir)
from helpers import cluster, jobs, parameters

PYTHON = sys.executable
PROFILE = config.get("profile", "digits")
FACTS = parameters.profile_facts(PROFILE)
WANTED = parameters.named(PROFILE, [name for name in str(config.get("notebooks", "")).split(",") if name])
SWEEP = config.get("sweep", "")
JOBS = {job.slug: job for job in (jobs.of_sweep(PROFILE, SWEEP) if SWEEP else jobs.of(PROFILE, WANTED))}
LAST = list(JOBS.values())[-1]
AHEAD = jobs.seconds_ahead(JOBS.values())


def path(job):
    return job.relative(job.stamp)


def stamp(name):
    return f"figures/{PROFILE}/done/{name}.json"


def inputs(job):
    return [job.relative(path) for path in job.inputs()]


def judges(job):
    return [] if job.stamp.exists() else [path(judge) for judge in job.needs()]


NETWORKS = {path(job): job for job in JOBS.values() if job.kind == "network"}
NOTEBOOKS = {path(job): job for job in JOBS.values() if job.kind == "notebook"}
RESOURCES = cluster.resources(PROFILE)


wildcard_constraints:
    network=r"network-[^/]+",
    notebook=r"\d\d_[^/]+",
    point=r"[^/]+",


# Every stamp is asked for by name: Snakemake does not make again what only an up-to-date file would need.
rule all:
    input:
        [path(job) for job in JOBS.values()],


# Of a sweep this is the job that collects its points.
rule report:
    input:
        list(NOTEBOOKS),
        inputs(LAST),
    output:
        path(LAST),
    localrule: True
    shell:
        "{PYTHON:q} -m helpers.execute {PROFILE:q} {LAST.slug:q} --threads 1"


# Nothing newer trains a network again: a changed entry has another digest, so another stamp, and so has every network
# whose training images a changed one judges. A network that is not there yet waits for the one that judges its images.
rule network:
    input:
        lambda wildcards: judges(NETWORKS[stamp(wildcards.network)]),
    output:
        stamp("{network}"),
    params:
        job=lambda wildcards, output: NETWORKS[output[0]].slug,
    priority: lambda wildcards: AHEAD[NETWORKS[stamp(wildcards.network)].slug]
    threads: FACTS["threads"]
    resources:
        **RESOURCES,
        runtime=lambda wildcards: cluster.minutes(NETWORKS[stamp(wildcards.network)]),
    shell:
        "{PYTHON:q} -m helpers.execute {PROFILE:q} {params.job:q} --threads {threads}"


rule notebook:
    input:
        lambda wildcards: inputs(JOBS[wildcards.notebook]),
    output:
        stamp("{notebook}"),
    params:
        digest=lambda wildcards: JOBS[wildcards.notebook].digest,
    priority: lambda wildcards: AHEAD[wildcards.notebook]
    threads: FACTS["threads"]
    resources:
        **RESOURCES,
        runtime=lambda wildcards: cluster.minutes(JOBS[wildcards.notebook]),
    shell:
        "{PYTHON:q} -m helpers.execute {PROFILE:q} {wildcards.notebook:q} --threads {threads}"


rule point:
    input:
        lambda wildcards: inputs(JOBS[f"{SWEEP}/{wildcards.point}"]),
    output:
        f"figures/{PROFILE}/sweeps/{SWEEP}/{{point}}/done/{{notebook}}.json",
    params:
        job=lambda wildcards: f"{SWEEP}/{wildcards.point}",
        digest=lambda wildcards: JOBS[f"{SWEEP}/{wildcards.point}"].digest,
    priority: lambda wildcards: AHEAD[f"{SWEEP}/{wildcards.point}"]
    threads: FACTS["threads"]
    resources:
        **RESOURCES,
        runtime=lambda wildcards: cluster.minutes(JOBS[f"{SWEEP}/{wildcards.point}"]),
    shell:
        "{PYTHON:q} -m helpers.execute {PROFILE:q} {params.job:q} --threads {threads}"

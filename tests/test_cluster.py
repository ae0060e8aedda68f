"""What Slurm is asked for, and what Snakemake is told of it."""

import pytest

from helpers import cluster, jobs, parameters

FACTS = {"minutes": 900, "memory_gb": 2, "gpus_per_job": 1, "threads": 8, "seeds_per_job": "all"}
STATED = {"notebook_minutes": {"00_start_here": 1, "01_energy_landscape": 70}, "network_minutes": {"madry": 90}}
NO_ACCOUNTS = {"AccountingStorageType": "accounting_storage/none", "MinJobAge": "300 sec"}
SLURM = ["--executor", "slurm", "--jobs", "4"]


@pytest.fixture
def stated(monkeypatch):
    monkeypatch.setattr(parameters, "profile_facts", lambda _: FACTS | STATED)


def told(monkeypatch, *given, **settings):
    monkeypatch.setattr(cluster, "_settings", lambda: settings)
    found = cluster.options([*SLURM, *given], "any")
    return dict(zip(found[::2], found[1::2], strict=True))


def test_a_job_asks_for_twice_its_own_time_and_not_for_the_whole_profiles(stated):
    assert cluster.resources("any") == {"mem_mb": 2048, "gpu": 1}
    assert cluster.minutes(jobs.notebook("digits", "01_energy_landscape")) == 140
    assert cluster.minutes(jobs.notebook("digits", "00_start_here")) == 10
    assert cluster.minutes(jobs.network("digits", "madry")[0]) == 180
    assert cluster.minutes(jobs.network("digits", "trades")[0]) == 180  # nothing is stated: as the longest


def test_a_profile_without_gpus_asks_for_none():
    assert cluster.resources("digits") == {"mem_mb": 1536}
    assert cluster.resources("paper")["gpu"] == 1


@pytest.mark.parametrize("kind", ["accounting_storage/none", "(null)"])
def test_without_accounts_it_is_squeue_that_is_asked(kind, stated, monkeypatch):
    found = told(monkeypatch, AccountingStorageType=kind, MinJobAge="300 sec")
    assert found == {cluster.STATUS: "squeue", cluster.WAIT: "40"}
    # The plugin turns to sacct, which knows nothing, where a job is remembered for less than three times as long.
    assert told(monkeypatch, AccountingStorageType=kind, MinJobAge="60 sec")[cluster.WAIT] == "20"


def test_with_accounts_the_plugin_chooses(stated, monkeypatch):
    assert told(monkeypatch, AccountingStorageType="accounting_storage/slurmdbd") == {cluster.WAIT: "40"}
    assert told(monkeypatch) == {cluster.WAIT: "40"}  # no Slurm here: Snakemake says so itself


def test_what_the_reader_says_is_left_alone(stated, monkeypatch):
    assert told(monkeypatch, cluster.WAIT, "2", f"{cluster.STATUS}=sacct", **NO_ACCOUNTS) == {}
    monkeypatch.setattr(cluster, "_settings", lambda: NO_ACCOUNTS)
    assert cluster.options(["--cores", "4"], "any") == cluster.options([], "any") == []


@pytest.mark.parametrize(("minutes", "seconds"), [([0.1, 0.2], 5), ([1, 0.8, 0.9], 9), ([30, 60], 40), ([], 5)])
def test_short_jobs_are_asked_about_sooner(minutes, seconds, monkeypatch):
    named = {f"{i:02d}_x": value for i, value in enumerate(minutes)}
    monkeypatch.setattr(parameters, "profile_facts", lambda _: FACTS | {"notebook_minutes": named})
    assert told(monkeypatch) == {cluster.WAIT: str(seconds)}

"""What a run cost is kept: the jobs that it started, the clock, and of which commit."""

import json

import pytest

from helpers import files, jobs, run_log


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Two jobs of the digits, and the report, of a project in which nothing has run."""
    found = [jobs.notebook("digits", "00_start_here"), jobs.notebook("digits", "12_claims"), jobs.report("digits")]
    monkeypatch.setattr(jobs.Job, "home", property(lambda job: tmp_path / job.profile))
    return found


STATUS = {"outcome": "ok", "seconds": 7.25, "peak_memory_mb": 812, "error": None}


def test_it_says_what_ran_what_did_not_and_for_how_long(planned):
    path = run_log.keep(planned, {"00_start_here": STATUS, "report": STATUS}, seconds=12.34, status=0)
    kept = json.loads(path.read_text("utf-8"))
    assert kept["notebooks"] == ["00_start_here", "12_claims"]
    assert [(job["job"], job["kind"], job["seconds"]) for job in kept["jobs"]] == [
        ("00_start_here", "notebook", 7.25),
        ("report", "report", 7.25),
    ]
    assert (kept["wall_seconds"], kept["status"], kept["up_to_date"]) == (12.3, 0, 1)
    assert kept["cores"] >= 1
    assert len(kept["commit"]) == 40 or kept["commit_note"]


def test_a_killed_job_has_no_seconds(planned):
    running = {"outcome": "running", "expected_seconds": 3.0}
    facts = run_log.facts(planned, {"12_claims": running}, seconds=1.0, status=1)
    assert facts["jobs"] == [
        {"job": "12_claims", "kind": "notebook", "outcome": "running", "seconds": None, "peak_memory_mb": None}
    ]


def test_runs_are_read_in_their_order_and_nothing_else_is(tmp_path, planned):
    for name, start in (("20260102T000000Z", "b"), ("20260101T000000Z", "a")):
        files.write_json(tmp_path / "runs" / f"{name}.json", {"format": run_log.FORMAT, "started_at": start})
    files.write_json(tmp_path / "runs" / "20260103T000000Z.json", {"format": "record/1"})
    files.write_text(tmp_path / "runs" / "20260104T000000Z.json", "{")
    found = run_log.read([tmp_path / "none", tmp_path / "runs"])
    assert [one["started_at"] for one in found] == ["a", "b"]

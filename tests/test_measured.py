"""What is committed under figures/measured is whole and says where it comes from."""

import re

import pytest

from helpers import files, records, run_log
from helpers.parameters import ROOT

HOME = ROOT / "figures" / "measured"
RECORDS = [
    path
    for path in sorted(HOME.rglob("*.json"))
    if (files.read_json(path) or {}).get("format", "").startswith("record/")
]
RUNS = sorted(HOME.glob("**/runs/*.json"))


def test_there_are_some():
    assert RECORDS
    assert RUNS


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.relative_to(HOME).as_posix())
def test_a_record_has_its_arrays_and_a_commit(path):
    record = records.load(path)  # compares each array's hash
    made = record.content["provenance"]
    assert len(made["commit"]) == 40
    assert made["dirty"] is False
    assert path.parent.name == made["notebook"]
    assert path.relative_to(HOME).parts[0] == made["profile"]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.relative_to(HOME).as_posix())
def test_a_record_names_no_folder_of_the_machine_that_made_it(path):
    found = re.search(r"(?<![\w:/.*])/\w+/\w+", path.read_text("utf-8"))
    assert found is None, found


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.relative_to(HOME).as_posix())
def test_a_run_that_was_kept_was_whole_of_one_commit_and_names_no_folder(path):
    kept = files.read_json(path)
    assert (kept["format"], kept["status"]) == (run_log.FORMAT, 0)
    assert len(kept["commit"]) == 40
    assert kept["dirty"] is False
    assert path.relative_to(HOME).parts[0] == kept["profile"]
    assert {job["outcome"] for job in kept["jobs"]} == {"ok"}
    assert re.search(r"(?<![\w:/.*])/\w+/\w+", path.read_text("utf-8")) is None

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from helpers import costs, jobs, parameters, run_log, workflow

RAN = re.compile(r"^\[(\d+) of (\d+)\] (.+?) (done|FAILED)", re.M)


def ran(said):
    """The jobs that a run said it has run, in alphabetical order."""
    return sorted(found[3] for found in RAN.finditer(said))


def outcomes(said):
    """The table at the end: job → result."""
    rows = re.findall(r"^(network \S+|\d\d_\w+|report) +[\d-]+ +[\d-]+  (.+)$", said, re.M)
    return dict(rows)


# Understanding the command line and Snakemake's words


@pytest.mark.parametrize(
    ("line", "profile", "notebooks", "dry", "rest"),
    [
        ("", "digits", [], False, []),
        ("-n", "digits", [], True, []),
        ("01", "digits", ["01"], False, []),
        ("digits 01 02_two -n", "digits", ["01", "02_two"], True, []),
        ("-n cifar10 01", "cifar10", ["01"], True, []),
        ("paper --executor slurm --jobs 50", "paper", [], False, ["--executor", "slurm", "--jobs", "50"]),
        ("digits 01 --cores 4 -n", "digits", ["01"], True, ["--cores", "4"]),
        ("notebooks/01_a.ipynb", "digits", ["notebooks/01_a.ipynb"], False, []),
    ],
)
def test_the_command_line_is_understood(line, profile, notebooks, dry, rest):
    assert workflow.understand(line.split()) == workflow.Request(profile, notebooks, dry, rest)


def test_cores_are_ours_unless_the_reader_or_a_cluster_says():
    def given(*rest):
        return workflow._command(workflow.Request("digits", [], False, list(rest)), [])

    assert given().count("--cores") == 1
    assert given("--cores", "7")[given("--cores", "7").index("--cores") + 1] == "7"
    assert "--cores" not in given("--executor", "slurm", "--jobs", "50")


def test_the_cost_is_said_in_one_line():
    line = costs.of_profile("digits", ["01_energy_landscape"])
    facts = parameters.profile_facts("digits")
    assert "\n" not in line
    for said in (facts["title"], f"{facts['minutes']:g} minutes", "GB of memory", "no downloads", "for all notebooks"):
        assert said in line


def test_a_seed_a_job_where_the_profile_says_so(monkeypatch):
    facts = parameters.profile_facts("digits")
    monkeypatch.setattr(parameters, "profile_facts", lambda _: facts | {"seeds_per_job": "one"})
    each = jobs.network("digits", "standard")
    assert [job.seeds for job in each] == [(0,), (1,), (2,)]
    assert len({job.stamp for job in each}) == 3
    assert [job.slug for job in each] == ["network-standard-seed0", "network-standard-seed1", "network-standard-seed2"]
    assert jobs.named("digits", "network-standard-seed1") == each[1]
    assert jobs.command(each[1])[-2:] == ["--seed", "1"]
    assert jobs.notebook("digits", "01_energy_landscape").inputs()[-1].name.startswith("network-")


def test_scripts_are_there_and_executable():
    for name in ("run_all.sh", "tests/run.sh", "tests/slurm.sh", ".ci/run"):
        assert os.access(parameters.ROOT / name, os.X_OK), name


# Real runs


@pytest.mark.process
def test_a_cold_run_then_an_unchanged_one_then_one_change_at_a_time(light_tree):
    tree, elsewhere = light_tree, light_tree.folder.parent
    status, said = tree.run("light", cwd=elsewhere)
    assert status == 0, said
    assert said.startswith("Profile light: nothing at all. Cold: about 0.1 minutes")
    everything = ["91_one", "92_two", "network plain", "report"]
    assert ran(said) == everything
    assert {found[2] for found in RAN.finditer(said)} == {"4"}
    assert outcomes(said) == dict.fromkeys(everything, "done")
    assert f"Report: {tree.figures('index.html')}" in said
    assert (tree.value("91_one"), tree.value("92_two")) == (3, 4)
    (kept,) = run_log.read([tree.figures("runs")])
    assert sorted(job["job"] for job in kept["jobs"]) == everything
    assert (kept["status"], kept["up_to_date"]) == (0, 0)
    assert max(job["seconds"] for job in kept["jobs"]) < kept["wall_seconds"]

    before = {path: path.stat().st_mtime_ns for path in tree.figures().rglob("*.run.json")}
    assert len(before) == 4
    status, said = tree.run("light")
    assert status == 0
    assert ran(said) == []
    assert set(outcomes(said).values()) == {"up to date"}
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing was started
    assert len(run_log.read([tree.figures("runs")])) == 1

    tree.write("params/light/92_two.yaml", "n_steps: 5\n")
    status, said = tree.run("light", "-n")
    assert status == 0
    assert "would run 92_two: changed since: params/light/92_two.yaml" in said
    assert "would run report: waits for 92_two" in said
    assert len(re.findall("would run", said)) == 2
    assert tree.value("92_two") == 4
    status, said = tree.run("light")
    assert ran(said) == ["92_two", "report"]
    assert tree.value("92_two") == 5

    tree.write("helpers/answer.py", "\ndef tell(p):\n    return -p.n_steps\n")
    status, said = tree.run("light")
    assert ran(said) == ["91_one", "report"]
    assert tree.value("91_one") == -3

    networks = tree.folder / "params" / "light" / "networks.yaml"
    networks.write_text(networks.read_text().replace("epochs: 1", "epochs: 2"))
    status, said = tree.run("light", "91")
    assert ran(said) == ["91_one", "network plain", "report"]
    assert len(list(tree.figures("networks/plain").iterdir())) == 4  # the old ones stay

    networks.write_text("# a comment\n" + networks.read_text())
    assert ran(tree.run("light")[1]) == []


@pytest.mark.process
def test_a_value_changed_while_its_notebook_runs_counts_as_changed(light_tree):
    tree = light_tree
    yaml = tree.folder / "params" / "light" / "92_two.yaml"
    tree.notebook("92_two", ["n_steps"], [f"open({str(yaml)!r}, 'w').write('n_steps: 6')", *_value()])
    status, said = tree.run("light", "92")
    assert (status, tree.value("92_two")) == (0, 4), said
    status, said = tree.run("light", "92")
    assert (ran(said), tree.value("92_two")) == (["92_two", "report"], 6)


def _value():
    text = "files.write_json(p.folder / 'value.json', {'value': p.n_steps})"
    return [text, "files.write_json(p.folder / 'finished.json', {'outputs': [{'kind': 'record', 'name': 'value'}]})"]


@pytest.mark.process
def test_what_is_gone_is_made_again(done_tree):
    tree = done_tree
    tree.figures("92_two/value.json").unlink()
    status, said = tree.run("light", "-n")
    assert "would run 92_two: figures/light/92_two/value.json is gone" in said
    status, said = tree.run("light")
    assert (status, ran(said)) == (0, ["92_two", "report"])
    shutil.rmtree(tree.figures("networks"))
    status, said = tree.run("light")
    assert (status, ran(said)) == (0, ["91_one", "network plain", "report"])


@pytest.mark.process
def test_a_failed_notebook_stops_nothing_else_and_the_run_fails(done_tree):
    tree = done_tree
    good = tree.figures("91_one/value.json").read_bytes()
    tree.notebook("91_one", ["networks", "n_steps"], ["assert False, 'the reason'"])
    tree.write("params/light/92_two.yaml", "n_steps: 9\n")
    tree.figures("index.html").write_text("old")
    status, said = tree.run("light")
    assert status == 1
    assert re.search(r"^\[\d of 3\] 91_one FAILED: cell \d+: AssertionError: the reason \(elapsed", said, re.M)
    assert outcomes(said) == {"network plain": "up to date", "91_one": "FAILED", "92_two": "done", "report": "done"}
    assert f"log: {tree.figures('logs/91_one.log')}" in said
    assert tree.figures("index.html").read_text() == "<p>report</p>"
    assert "the reason" in tree.figures("notebooks/91_one.html").read_text()
    assert tree.figures("91_one/value.json").read_bytes() == good  # of the last good run
    status, said = tree.run("light")  # it is tried again, and nothing else
    assert (status, ran(said)) == (1, ["91_one", "report"])


@pytest.mark.process
def test_a_failed_network_stops_only_what_needs_it(light_tree):
    tree = light_tree
    networks = tree.folder / "params" / "light" / "networks.yaml"
    slow = networks.read_text().replace("epochs: 1", "epochs: 50").replace("plain", "slow")
    networks.write_text(networks.read_text().replace("epochs: 1", "epochs: 101") + slow)
    tree.write("params/light/92_two.yaml", "networks: [slow]\nn_steps: 4\n")  # starts after the failure
    tree.notebook("92_two", ["networks", "n_steps"], _value())
    status, said = tree.run("light")
    assert status == 1
    expected = {
        "network slow": "done",
        "network plain": "FAILED",
        "91_one": "not run: needs network plain",
        "92_two": "done",
        "report": "done",
    }
    assert outcomes(said) == expected
    assert "FloatingPointError: step 7: loss is nan" in said


@pytest.mark.process
def test_wrong_parameters_are_told_before_anything_starts(light_tree):
    tree = light_tree
    tree.write("params/light/92_two.yaml", "n_steps: 8/255\nn_stepz: 3\n")
    status, said = tree.run("light")
    assert status == 2
    assert said.splitlines() == [
        "params/light/92_two.yaml: n_steps: expected a whole number >= 1 or null, got the text '8/255'",
        "params/light/92_two.yaml: n_stepz: expected a known name (nearest: n_steps), got 'n_stepz'",
    ]
    assert not tree.figures().exists()
    assert tree.run("lihgt")[1] == "params: profile: expected a known name (nearest: light), got 'lihgt'\n"


@pytest.mark.process
def test_two_at_once_in_one_clone_take_turns(light_tree):
    tree = light_tree
    tree.notebook("92_two", ["n_steps"], ["time.sleep(3)", *_value()])
    first = tree.start("light")
    while "[1 of" not in (first.stdout.readline() or "[1 of"):
        pass
    second = tree.start("light")
    said = second.communicate(timeout=300)[0]
    first_said = first.communicate(timeout=300)[0]
    assert "Another run is at work in this folder: waiting for it to end." in said
    assert (first.returncode, second.returncode) == (0, 0), first_said + said
    assert ran(said) == []


@pytest.mark.process
@pytest.mark.parametrize("how", ["ctrl-c", "terminated"])
def test_interrupted_it_ends_its_kernels_and_goes_on_the_next_time(light_tree, how):
    tree = light_tree
    mark = tree.folder / "kernel.pid"
    write = f"open({str(mark)!r}, 'w').write(str(os.getpid()))"
    slow = f"if not os.path.exists({str(mark)!r}):\n    {write}\n    time.sleep(100)"
    tree.notebook("92_two", ["n_steps"], [slow, *_value()])
    process = tree.start("light", "92")
    while not (mark.exists() and mark.read_text()):
        time.sleep(0.05)
        assert process.poll() is None
    if how == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    said = process.communicate(timeout=60)[0]
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)  # its kernel
    assert process.returncode != 0
    assert "Interrupted" in said
    status, said = tree.run("light", "92")
    assert (status, tree.value("92_two")) == (0, 4), said


def test_snakemake_hears_interrupts_also_where_we_are_deaf_to_them(tmp_path):
    code = "import signal, sys; sys.exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with open(tmp_path / "lock", "w") as lock:
            watch, log = workflow.Watch([], "a run"), tmp_path / "log"
            status, _ = workflow._snakemake([sys.executable, "-c", code], watch, log=log, lock=lock.fileno())
    finally:
        signal.signal(signal.SIGINT, before)
    assert status == 0


# Disks that do not do


@pytest.fixture
def disk(light_tree):
    """figures/ as a disk of its own: disk("size=64k") mounts it, disk("remount,…") changes it. For root only."""
    folder = light_tree.folder / "figures"
    folder.mkdir(exist_ok=True)

    def mount(options):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs to mount a tmpfs: {done.stderr.strip()}")

    yield mount
    subprocess.run(["umount", "-l", folder], capture_output=True)


def needs_mount():
    return pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root to mount a tmpfs")


@pytest.mark.process
@needs_mount()
@pytest.mark.parametrize("size", ["64k", "8k"])
def test_a_full_disk_is_told_and_the_next_run_goes_on(light_tree, disk, size):
    disk(f"size={size}")
    status, said = light_tree.run("light", "92")
    assert status == 1
    assert "the disk is full (0 MB free there). Make room and start again" in said
    assert "Traceback" not in said
    subprocess.run(["mount", "-o", "remount,size=20m", light_tree.folder / "figures"], check=True)
    status, said = light_tree.run("light", "92")
    assert (status, light_tree.value("92_two")) == (0, 4), said
    assert list(light_tree.figures().rglob(".tmp-*")) == []


@pytest.mark.process
@needs_mount()
def test_a_read_only_folder_is_told_at_once(light_tree, disk):
    disk("size=20m")
    light_tree.run("light", "92")
    light_tree.write("params/light/92_two.yaml", "n_steps: 5\n")
    subprocess.run(["mount", "-o", "remount,ro", light_tree.folder / "figures"], check=True)
    status, said = light_tree.run("light", "92")
    assert status == 1
    assert "Read-only file system. Make its folder writable" in said
    assert "Traceback" not in said
    assert light_tree.value("92_two") == 4


@pytest.mark.process
def test_a_file_where_figures_should_be_is_told(light_tree):
    shutil.rmtree(light_tree.folder / "figures", ignore_errors=True)
    light_tree.write("figures", "in the way")
    status, said = light_tree.run("light")
    assert status == 1
    assert "a file stands where a folder is needed" in said
    assert "Traceback" not in said

import json
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from helpers import execute

pytestmark = pytest.mark.process

SENTINEL = "files.write_json(p.folder / 'finished.json', {'outputs': []})"


def executed(tree, name):
    """The executed copy, its texts in one piece."""
    notebook = json.loads(tree.figures(f"notebooks/{name}.ipynb").read_text())
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


def page(tree, name):
    return tree.figures(f"notebooks/{name}.html").read_text()


def test_a_notebook_that_ends_well_leaves_its_copies_status_and_stamp(light_tree):
    tree = light_tree
    cell = "print(os.environ['COMPANION_THREADS'], os.environ['OMP_NUM_THREADS'], os.environ['OMP_WAIT_POLICY'])"
    big = "x = bytearray(150 * 2**20); x[::4096] = b'1' * len(x[::4096]); print(p.profile)"
    tree.notebook("92_two", ["n_steps"], [cell, big, SENTINEL])
    assert tree.execute("light", "92_two", "--threads", "3") == (0, "")
    status = tree.status("92_two")
    assert (status["outcome"], status["error"], status["threads"]) == ("ok", None, 3)
    assert 150 < status["peak_memory_mb"] < 1000
    assert 0 < status["seconds"] < 300
    said = "".join(
        "".join(output.get("text", "")) for c in executed(tree, "92_two")["cells"] for output in c.get("outputs", [])
    )
    assert "3 3 PASSIVE\n" in said
    assert "light\n" in said  # the profile that was asked for, not the cell's
    assert tree.figures("done/92_two.json").exists()
    assert tree.figures("logs/92_two.log").read_text().startswith("3 3 PASSIVE")
    assert [path.name for path in tree.figures("92_two").iterdir()] == ["finished.json"]


def test_a_picture_from_elsewhere_becomes_its_text():
    badge = "[![Open in Colab](https://colab.example/badge.svg)](https://colab.example/notebook)"
    own = "![inside](data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"{badge}\n\n{own}")])
    text = execute.to_html(notebook, title="x")
    assert "badge.svg" not in text
    assert '<a href="https://colab.example/notebook">Open in Colab</a>' in text
    assert 'src="data:image/gif' in text


def test_jsonschema_builds_no_grammars_and_notebooks_are_checked_all_the_same():
    code = """
import sys
from helpers import execute
execute._spare_grammars()
import nbformat, papermill.execute
made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
nbformat.validate(made)
made.cells[0].cell_type = "neither"
try:
    nbformat.validate(made)
except nbformat.ValidationError:
    print("refused", "lark" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=execute.parameters.ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["refused", "False"], done.stderr


def test_the_page_asks_nothing_of_other_machines(light_tree):
    light_tree.execute("light", "92_two")
    text = page(light_tree, "92_two")
    assert "E(x)" in text
    loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"']?\s*(?!data:|#)[^>]*>", text)
    assert loaded == []
    assert not re.search(r"(cdnjs|unpkg|jsdelivr|cdn\.)", text)
    assert not re.search(r"@import|url\(\s*[\"']?(?:https?:)?//", text)


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("os._exit(3)", "the kernel died"),
        ("import signal; os.kill(os.getpid(), signal.SIGKILL)", "the kernel died"),
        ("raise SystemExit(1)", "SystemExit: 1"),
    ],
)
def test_a_cell_that_fails_is_shown_and_nothing_is_believed(light_tree, cell, error):
    tree = light_tree
    tree.notebook("92_two", ["n_steps"], ["print('before')", cell, "print('after')", SENTINEL])
    tree.write("figures/light/92_two/finished.json", "{}")  # of an earlier run
    status, said = tree.execute("light", "92_two")
    assert status == 1
    assert f"92_two: {tree.status('92_two')['error']}" in said
    assert tree.status("92_two")["outcome"] == "failed"
    assert error in tree.status("92_two")["error"]
    assert not tree.figures("92_two/finished.json").exists()
    assert not tree.figures("done/92_two.json").exists()
    cells = executed(tree, "92_two")["cells"]
    assert "This notebook failed" in cells[0]["source"]
    bad = [c for c in cells if any(output["output_type"] == "error" for output in c.get("outputs", []))]
    assert [c["source"] for c in bad] == [cell]
    assert "This cell failed" in cells[cells.index(bad[0]) - 1]["source"]
    states = [c["metadata"]["papermill"]["status"] for c in cells if c["cell_type"] == "code"]
    assert states[-3:] == ["failed", "pending", "pending"]
    assert "This notebook failed" in page(tree, "92_two")
    assert error.split(":")[0] in page(tree, "92_two")


def test_a_cell_that_takes_too_long_is_stopped_and_named(light_tree):
    light_tree.notebook("92_two", ["n_steps"], ["time.sleep(100)", SENTINEL])
    status, said = light_tree.execute("light", "92_two", COMPANION_CELL_TIMEOUT="2")
    assert status == 1
    assert "a cell took longer than 2 s" in said
    assert "time.sleep" in page(light_tree, "92_two")
    assert "This notebook failed" in page(light_tree, "92_two")


def test_without_the_last_cell_a_notebook_has_not_succeeded(light_tree):
    light_tree.notebook("92_two", ["n_steps"], ["print('all cells ran')"])
    light_tree.write("figures/light/92_two/finished.json", "{}")
    status, said = light_tree.execute("light", "92_two")
    assert status == 1
    assert "records.finish(p)" in said
    assert not light_tree.figures("done/92_two.json").exists()


def test_a_kernel_of_the_users_own_does_not_take_over(light_tree, tmp_path):
    own = tmp_path / "home" / "share" / "jupyter" / "kernels" / "python3"
    own.mkdir(parents=True)
    (own / "kernel.json").write_text(json.dumps({"argv": ["/bin/false", "{connection_file}"], "display_name": "x"}))
    startup = tmp_path / "home" / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("raise SystemExit('the start-up file of the user ran')")
    light_tree.notebook("92_two", ["n_steps"], ["import sys; print(sys.executable)", SENTINEL])
    settings = {"XDG_DATA_HOME": str(tmp_path / "home" / "share"), "JUPYTER_DATA_DIR": str(own.parents[1])}
    status, said = light_tree.execute("light", "92_two", IPYTHONDIR=str(startup.parents[1]), **settings)
    assert (status, said) == (0, "")
    assert light_tree.figures("logs/92_two.log").read_text().strip() == sys.executable


def test_wrong_parameters_start_no_kernel(light_tree):
    light_tree.write("params/light/92_two.yaml", "n_steps: 8/255\n")
    status, said = light_tree.execute("light", "92_two")
    assert status == 2
    assert "params/light/92_two.yaml: n_steps: expected a whole number >= 1 or null, got the text '8/255'" in said
    assert not light_tree.figures().exists()
    assert light_tree.execute("light", "93_nothing")[0] == 2


def test_a_network_that_fails_says_its_last_line(light_tree):
    light_tree.write("helpers/zoo.py", "print('epoch 1'); raise FloatingPointError('step 7: loss is nan')")
    status, said = light_tree.execute("light", "network-plain")
    assert (status, said) == (1, "network plain: ended with status 1: FloatingPointError: step 7: loss is nan\n")
    assert "epoch 1" in light_tree.figures("logs/network-plain.log").read_text()


def test_a_network_job_that_writes_no_card_has_failed(light_tree):
    light_tree.write("helpers/zoo.py", "")
    status, said = light_tree.execute("light", "network-plain")
    assert status == 1
    assert "ended without writing figures/light/networks/plain/seed0-" in said


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_a_killed_job_takes_its_kernel_along(light_tree):
    mark = light_tree.folder / "kernel.pid"
    cell = f"open({str(mark)!r}, 'w').write(str(os.getpid())); import re; re.match('(a+)+$', 'a' * 60 + 'b')"
    light_tree.notebook("92_two", ["n_steps"], [cell, SENTINEL])  # holds the GIL, so no thread of its own can end it
    command = [sys.executable, "-m", "helpers.execute", "light", "92_two"]
    job = subprocess.Popen(command, cwd=light_tree.folder, env=light_tree.environment())
    light_tree.running.append(job)
    while not (mark.exists() and mark.read_text()):
        assert job.poll() is None
        time.sleep(0.05)
    job.send_signal(signal.SIGKILL)
    job.wait()
    kernel = int(mark.read_text())
    for _ in range(100):
        if not alive(kernel):
            break
        time.sleep(0.05)
    assert not alive(kernel)


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"

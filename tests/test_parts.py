import functools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from runs import Run

from helpers import arrays, parts
from helpers.parameters import ROOT

calls = []


def squares(*, x, scale=1.0, network=None):
    calls.append(scale)
    return {"y": np.asarray(x) ** 2 * scale, "name": np.array(["a", "bcd"])}


@dataclass
class Set:
    pixels: np.ndarray
    name: str


@pytest.fixture
def p(tmp_path):
    calls.clear()
    return Run(tmp_path / "01_energy_landscape")


def files_of(p):
    return sorted((p.folder / "parts").glob("*"))


def test_the_second_call_reads_what_the_first_one_wrote(p, capsys):
    first = parts.compute(p, "k", squares, x=[1, 2])
    second = parts.compute(p, "k", squares, x=[1, 2])
    assert len(calls) == 1
    assert list(first) == list(second)
    assert all(arrays.identical(first[name], second[name]) for name in first)
    assert "k: taken from the interrupted run" in capsys.readouterr().out


def test_whatever_defines_the_piece_makes_another(p, monkeypatch):
    x = np.arange(3.0)
    network = torch.nn.Linear(2, 2)
    base = {"x": x, "network": network}
    marks = [parts.fingerprint(p, squares, base)]
    marks.append(parts.fingerprint(replace(p, digest="other"), squares, base))
    marks.append(parts.fingerprint(replace(p, profile="cifar10"), squares, base))
    marks.append(parts.fingerprint(replace(p, notebook="02_training_dynamics"), squares, base))
    marks.append(parts.fingerprint(p, functools.partial(squares, scale=2.0), base))
    marks.append(parts.fingerprint(p, parts.clear, base))
    for changed in (x + 1e-12, x.astype(np.float32), x[None], list(x), torch.from_numpy(x), pd.DataFrame({"x": x})):
        marks.append(parts.fingerprint(p, squares, base | {"x": changed}))
    with torch.no_grad():
        network.weight[0, 0] += 1e-6
    marks.append(parts.fingerprint(p, squares, base))
    monkeypatch.setattr(parts.sources, "digest", lambda paths: "changed")
    parts._sources.cache_clear()
    marks.append(parts.fingerprint(p, squares, base))
    assert len(set(marks)) == len(marks)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"x": "ab", "scale": "c"}, {"x": "a", "scale": "bc"}),
        ({"x": ["astr", "b"]}, {"x": ["a", "strb"]}),
        ({"x": 1}, {"x": 1.0}),
        ({"x": 1}, {"x": True}),
        ({"x": 1}, {"x": "1"}),
        ({"x": None}, {"x": "None"}),
        ({"x": [1, [2]]}, {"x": [[1], 2]}),
        ({"x": []}, {"x": {}}),
        ({"x": {"a": 1}}, {"x": ["a", 1]}),
        ({"x": 0.0}, {"x": -0.0}),
        ({"x": torch.float32}, {"x": torch.float64}),
        ({"x": Set(np.zeros(2), "a")}, {"x": Set(np.zeros(2), "b")}),
        ({"x": torch.zeros(2, dtype=torch.bfloat16)}, {"x": torch.zeros(2, dtype=torch.float16)}),
        ({"x": pd.DataFrame({"a": [1]})}, {"x": pd.DataFrame({"b": [1]})}),
    ],
)
def test_inputs_that_look_alike_are_told_apart(p, a, b):
    assert parts.fingerprint(p, squares, a) != parts.fingerprint(p, squares, b)
    assert parts.fingerprint(p, squares, a) == parts.fingerprint(p, squares, dict(a))


def test_a_file_is_known_by_its_content(p, tmp_path):
    path = tmp_path / "weights"
    path.write_text("1")
    first = parts.fingerprint(p, squares, {"x": path})
    path.write_text("2")
    assert parts.fingerprint(p, squares, {"x": path}) != first


@pytest.mark.parametrize("value", [lambda x: x, object(), {1, 2}])
def test_inputs_without_a_lasting_content_are_refused(p, value):
    with pytest.raises(ValueError, match="inputs, x: expected"):
        parts.compute(p, "k", squares, x=value)


def test_local_functions_are_refused_as_the_computation(p):
    with pytest.raises(ValueError, match="no lasting name"):
        parts.compute(p, "k", lambda x: {"y": x}, x=1)


@pytest.mark.parametrize("key", ["../k", "", "a b", ".k"])
def test_keys_stay_in_their_folder(p, key):
    with pytest.raises(ValueError, match="key: expected"):
        parts.compute(p, key, squares, x=[1])


def test_results_that_are_no_arrays_are_refused_and_leave_nothing(p):
    with pytest.raises(ValueError, match="array 'x': expected numbers"):
        parts.compute(p, "k", dict, x=[None])
    assert not (p.folder / "parts").exists()


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "swap", "text"])
def test_a_damaged_part_is_computed_again_with_a_line_said(p, damage, capsys):
    first = parts.compute(p, "k", squares, x=np.arange(50.0))
    (path,) = files_of(p)
    content = path.read_bytes()
    if damage == "swap":
        parts.compute(p, "other", squares, x=np.arange(50.0), scale=3.0)
        path.write_bytes(next(entry for entry in files_of(p) if entry != path).read_bytes())
    else:
        middle = len(content) // 3
        path.write_bytes(
            {
                "truncate": content[:-30],
                "flip": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
                "empty": b"",
                "text": b"<html>not found</html>",
            }[damage]
        )
    n = len(calls)
    again = parts.compute(p, "k", squares, x=np.arange(50.0))
    assert len(calls) == n + 1
    assert arrays.identical(again["y"], first["y"])
    assert "k: computed again" in capsys.readouterr().out
    assert path.read_bytes() == content


def test_clear_removes_parts_and_is_content_without(p):
    parts.compute(p, "k", squares, x=[1])
    parts.clear(p)
    parts.clear(p)
    assert not (p.folder / "parts").exists()


@pytest.mark.process
def test_killed_at_any_moment_the_result_is_that_of_an_undisturbed_run(tmp_path):
    script = tmp_path / "steps.py"
    script.write_text(
        textwrap.dedent("""
        import json, sys
        from pathlib import Path
        import numpy as np
        from helpers import parts
        from runs import Run

        def piece(*, k):
            return {"x": np.random.default_rng(k).normal(size=400_000)}

        p = Run(Path(sys.argv[1]))
        print("started", flush=True)
        total = [float(parts.compute(p, f"piece-{k}", piece, k=k)["x"].sum()) for k in range(8)]
        Path(sys.argv[1], "result.json").write_text(json.dumps(total))
        """)
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent), str(tmp_path)])}
    command = [sys.executable, str(script)]
    subprocess.run([*command, str(tmp_path / "calm")], check=True, capture_output=True, env=environment)
    written = tmp_path / "killed" / "parts"
    for n_whole in (0, 1, 3, 5):  # killed when so many parts are there, while the next is made or written
        process = subprocess.Popen(
            [*command, str(tmp_path / "killed")], stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        process.stdout.readline()
        while len(list(written.glob("piece*"))) <= n_whole and process.poll() is None:
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
    last = subprocess.run(
        [*command, str(tmp_path / "killed")], check=True, capture_output=True, text=True, env=environment
    )
    assert last.stdout.count("taken from the interrupted run") >= 6
    calm, killed = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("calm", "killed"))
    assert calm == killed


@pytest.fixture(autouse=True)
def _fresh_sources():
    parts._sources.cache_clear()
    yield
    parts._sources.cache_clear()

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from runs import Run

from helpers import arrays, records
from helpers.parameters import ROOT


@dataclass(frozen=True)
class Estimate:
    value: float = 52.3
    low: float = 50.1
    high: float = 54.5
    n: int = 1000
    kind: str = "wilson"
    level: float = 0.95


@pytest.fixture
def p(tmp_path):
    return Run(tmp_path / "figures" / "digits" / "01_energy_landscape")


def pairs(n=6):
    E = np.linspace(-20, -5, n, dtype=np.float32)
    return pd.DataFrame({"index": np.arange(n), "attack": ["pgd_ce", "fgsm"] * (n // 2), "E": E, "fooled": E > -10})


def saved(p, **changes):
    content = {
        "scalars": [records.scalar("robust_accuracy", Estimate(), network="standard", attack="pgd_ce", returns="last")],
        "frames": {"pairs": pairs()},
        "arrays": {"images": np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2), "classes": np.array(["zero", "Ω"])},
    }
    return records.save(p, "attacks", **(content | changes))


def test_round_trip(p):
    record = saved(p)
    again = records.find(p, "attacks")
    assert record.name == again.name == "attacks"
    pd.testing.assert_frame_equal(again.frame("pairs"), pairs())
    assert arrays.identical(again.arrays["images"], np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2))
    assert again.arrays["classes"].tolist() == ["zero", "Ω"]
    row = again.scalars.iloc[0].to_dict()
    assert (row["value"], row["low"], row["high"], row["n"], row["unit"]) == (52.3, 50.1, 54.5, 1000, "%")
    assert (row["interval_kind"], row["network"], row["returns"]) == ("wilson", "standard", "last")
    assert again.value("robust_accuracy", attack="pgd_ce") == 52.3
    assert again.provenance["parameters"] == p.values  # noqa: PD011


def test_json_is_readable_and_names_its_arrays(p):
    record = saved(p)
    text = record.path.read_text("utf-8")
    content = json.loads(text)
    npz = record.path.with_suffix(".npz")
    assert content["npz"] == {"file": "attacks.npz", "sha256": records.files.sha256(npz)}
    assert sum('"metric": "robust_accuracy"' in line and '"value": 52.3' in line for line in text.splitlines()) == 1
    assert sorted(path.name for path in p.folder.iterdir()) == ["attacks.json", "attacks.npz"]


def test_a_record_without_arrays_has_no_npz_and_removes_an_older_one(p):
    saved(p)
    record = saved(p, frames={}, arrays={})
    assert record.content["npz"] is None
    assert [path.name for path in p.folder.iterdir()] == ["attacks.json"]


def test_string_columns_of_any_length_and_empty_frames_come_back(p):
    frame = pd.DataFrame({"name": ["a", "a longer name", ""], "n": [1, 2, 3]})
    empty = frame[frame["n"] > 5]
    record = saved(p, frames={"full": frame, "part": frame[frame["n"] > 1], "empty": empty})
    pd.testing.assert_frame_equal(record.frame("full"), frame)
    pd.testing.assert_frame_equal(record.frame("part"), frame[frame["n"] > 1].reset_index(drop=True))
    assert list(record.frame("empty").columns) == ["name", "n"]
    assert len(record.frame("empty")) == 0


def test_categorical_columns_come_back_as_their_words(p):
    frame = pd.DataFrame({"network": pd.Categorical(["trades", "madry", "trades"])})
    assert saved(p, frames={"f": frame}).frame("f")["network"].tolist() == ["trades", "madry", "trades"]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"a": [1, 2]}, index=pd.Index([0, 1], name="image")), "unnamed index"),
        (pd.DataFrame({"a": ["x", None]}), "without gaps"),
        (pd.DataFrame({"a": [{"b": 1}]}), "without gaps"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "named once"),
        (pd.DataFrame({3: [1]}), "named once"),
        (pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}), "without gaps"),
    ],
)
def test_frames_that_would_not_come_back_are_refused(p, frame, message):
    with pytest.raises(records.RecordError, match=message):
        saved(p, frames={"f": frame})
    assert not p.folder.exists() or not list(p.folder.iterdir())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
def test_a_number_that_is_none_is_refused(bad):
    with pytest.raises(records.RecordError, match="finite"):
        records.scalar("accuracy", bad)
    with pytest.raises(records.RecordError, match="finite"):
        records.scalar("accuracy", 1.0, interval=(bad, 2.0), interval_kind="wilson")


def test_scalar_says_what_it_expected():
    with pytest.raises(records.RecordError, match=r"params/schema.yaml, metrics .*got 'acuracy'"):
        records.scalar("acuracy", 1.0)
    with pytest.raises(records.RecordError, match="reason"):
        records.scalar("accuracy", None)
    with pytest.raises(records.RecordError, match="unit '%', got 'nat'"):
        records.scalar("accuracy", 1.0, unit="nat")
    with pytest.raises(records.RecordError, match="together with its kind"):
        records.scalar("accuracy", 1.0, interval=(0.0, 2.0))
    with pytest.raises(records.RecordError, match="low <= value <= high"):
        records.scalar("accuracy", 3.0, interval=(0.0, 2.0), interval_kind="wilson")
    with pytest.raises(records.RecordError, match="cannot name where"):
        records.scalar("accuracy", 3.0, low=2.0)
    with pytest.raises(records.RecordError, match="accuracy, network: expected a number, a string or None"):
        records.scalar("accuracy", 3.0, network=["a"])
    with pytest.raises(records.RecordError, match="got True"):
        records.scalar("accuracy", True)


def test_a_value_that_is_missing_gives_its_reason(p):
    record = saved(p, scalars=[records.scalar("accuracy", None, reason="not run: no weights", network="wrn")])
    assert record.value("accuracy", network="wrn") is None
    assert record.scalars["reason"].item() == "not run: no weights"


def test_estimates_bring_their_interval():
    row = records.scalar("delta_energy", replace(Estimate(), kind="student_t", n=3), seeds=np.arange(3), n=1000)
    assert (row["n"], row["seeds"], row["interval_kind"], row["level"]) == (1000, [0, 1, 2], "student_t", 0.95)
    assert records.scalar("accuracy", replace(Estimate(), level=0.9))["level"] == 0.9
    assert records.scalar("accuracy", 1.0, interval=(0.0, 2.0), interval_kind="wilson")["level"] == 0.95
    assert records.scalar("accuracy", Estimate())["n"] == 1000
    bare = records.scalar("accuracy", replace(Estimate(), kind="none", low=float("nan"), high=float("nan")))
    assert (bare["low"], bare["high"], bare["level"], bare["n"]) == (None, None, None, 1000)


def test_numbers_of_numpy_are_unwrapped():
    row = records.scalar("accuracy", np.float32(0.5), n=np.int64(4), epsilon=np.float64(8.0))
    assert json.loads(json.dumps(row))["epsilon"] == 8.0
    assert type(row["n"]) is int


def test_the_same_scalar_twice_is_refused(p):
    twice = [records.scalar("accuracy", 1.0, network="a"), records.scalar("accuracy", 2.0, network="a")]
    with pytest.raises(records.RecordError, match=r"each scalar once.*accuracy\[network=a\]"):
        saved(p, scalars=twice)


@pytest.mark.parametrize("name", ["", "../escape", "a/b", ".hidden", "a b", "ä"])
def test_names_stay_in_their_folder(p, name):
    with pytest.raises(records.RecordError, match="name: expected"):
        records.save(p, name)
    with pytest.raises(records.RecordError, match="name: expected"):
        records.find(p, name)


def test_asking_for_what_is_not_there(p):
    record = saved(p)
    with pytest.raises(records.RecordError, match=r"frames \['pairs'\], got 'pair'"):
        record.frame("pair")
    with pytest.raises(records.RecordError, match="expected one robust_accuracy"):
        record.value("robust_accuracy", network="other")
    with pytest.raises(records.RecordError, match=r"other\.json: expected a record, found no file"):
        records.find(p, "other")
    with pytest.raises(records.RecordError, match=r"attacks\.json"):
        records.find(p, "attacks", notebook="02_training_dynamics")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_truncated_npz_names_the_file_and_both_hashes(p, keep):
    record = saved(p)
    npz = record.path.with_suffix(".npz")
    content = npz.read_bytes()
    npz.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(records.RecordError, match=rf"attacks\.npz: expected SHA-256 {record.content['npz']['sha256']}"):
        records.find(p, "attacks")


def test_a_swapped_npz_is_noticed(p):
    record = saved(p)
    records.save(p, "other", arrays={"images": np.zeros(3)})
    shutil.copy(p.folder / "other.npz", p.folder / "attacks.npz")
    with pytest.raises(records.RecordError, match=r"expected SHA-256 .*found .*named in attacks\.json"):
        records.load(record.path)
    (p.folder / "attacks.npz").unlink()
    with pytest.raises(records.RecordError, match=r"attacks\.npz: expected a file of arrays, found none"):
        records.load(record.path)


@pytest.mark.parametrize("keep", [0, 10, 200, -3])
def test_a_json_cut_short_is_named(p, keep):
    record = saved(p)
    record.path.write_text(record.path.read_text("utf-8")[:keep], "utf-8")
    with pytest.raises(records.RecordError, match=r"attacks\.json: expected a whole JSON record"):
        records.load(record.path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": "finished/1"}', '{"format": "record/1"}'])
def test_another_json_is_no_record(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(records.RecordError, match="got another JSON file"):
        records.load(tmp_path / "x.json")


def test_two_runs_write_the_same_arrays_and_differ_in_time_only(p, tmp_path, monkeypatch):
    saved(p)
    other = Run(tmp_path / "other" / "01_energy_landscape")
    monkeypatch.setattr(records, "provenance", lambda p: _origin(p, finished_at="later", commit="abc", dirty=True))
    saved(other)
    assert (p.folder / "attacks.npz").read_bytes() == (other.folder / "attacks.npz").read_bytes()
    assert records.compare(p.folder, other.folder) == []


def _origin(p, **changes):
    from helpers.provenance import provenance

    return provenance(p) | changes


def test_compare_finds_each_kind_of_difference(p, tmp_path):
    frame = pairs()
    frame.loc[2, "E"] += np.float32(1e-6)  # one unit in the last place of −14 or less
    other = Run(tmp_path / "other", values=p.values | {"n_steps": 21})  # noqa: PD011
    saved(p)
    records.save(p, "left")
    saved(
        other,
        frames={"pairs": frame},
        arrays={"images": np.zeros((2, 3, 2, 2), np.int8), "more": [1]},
        scalars=[records.scalar("robust_accuracy", 52.4, network="standard", attack="pgd_ce", returns="last")],
    )
    lines = "\n".join(records.compare(p.folder, other.folder))
    for expected in (
        "left.json: only in",
        "frame/pairs/E: 1 of 6 values differ",
        "value: 52.3 against 52.4",
        "parameters/n_steps: 20 against 21",
        "array/images: uint8[2, 3, 2, 2] against int8[2, 3, 2, 2]",
        "array/more: only in one of them",
        "array/classes: only in one of them",
    ):
        assert expected in lines


def test_compare_takes_nan_for_nan_and_ignores_times_measured(p, tmp_path):
    for folder, seconds in ((p.folder, 1.0), (tmp_path / "b", 9.0)):
        scalars = [records.scalar("seconds", seconds)]
        records.save(Run(folder), "r", scalars=scalars, arrays={"a": np.array([np.nan, 1.0])})
    assert records.compare(p.folder, tmp_path / "b") == []


def test_compare_reports_damage_instead_of_passing(p, tmp_path):
    saved(p)
    shutil.copytree(p.folder, tmp_path / "b")
    (tmp_path / "b" / "attacks.npz").write_bytes(b"")
    assert "expected SHA-256" in records.compare(p.folder, tmp_path / "b")[0]


def test_command_line_compares(p, tmp_path, capsys):
    saved(p)
    shutil.copytree(p.folder, tmp_path / "b")
    assert records.main(["compare", str(p.folder), str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out == "no difference in 1 record\n"
    records.save(Run(tmp_path / "b"), "extra")
    assert records.main(["compare", str(p.folder), str(tmp_path / "b")]) == 1
    assert "extra.json: only in" in capsys.readouterr().out
    assert records.main(["compare", str(p.folder), str(tmp_path / "nowhere")]) == 2
    assert "expected a folder of records" in capsys.readouterr().err


def test_finish_lists_what_was_written_in_order_and_removes_parts(p):
    (p.folder / "parts").mkdir(parents=True)
    (p.folder / "parts" / "a.npz").write_bytes(b"x")
    records.save(p, "second")
    saved(p)
    records.note(p, "figure", "energies")
    content = json.loads(records.finish(p).read_text("utf-8"))
    order = [(entry["kind"], entry["name"]) for entry in content["outputs"]]
    assert order == [("record", "second"), ("record", "attacks"), ("figure", "energies")]
    assert not (p.folder / "parts").exists()


def test_a_kill_between_arrays_and_json_leaves_an_error_not_a_mixture(p, monkeypatch):
    saved(p)

    def killed(path, text):
        raise KeyboardInterrupt

    monkeypatch.setattr(records.files, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        saved(p, arrays={"images": np.zeros(3)})
    with pytest.raises(records.RecordError, match="expected SHA-256"):
        records.find(p, "attacks")


def test_records_start_without_torch():
    code = "import sys; from helpers import records, parts; print('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "False"

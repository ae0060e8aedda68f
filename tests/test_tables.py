import csv
import html.parser
import json
import shutil
import subprocess
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from runs import Run

from helpers import records, tables

NAN = float("nan")


@dataclass(frozen=True)
class Estimate:  # like metrics.Estimate, whose module needs torch
    value: float
    low: float = NAN
    high: float = NAN
    n: int = 1000
    kind: str = "none"
    level: float = 0.95

    def __str__(self):
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


@pytest.fixture
def p(tmp_path):
    return Run(tmp_path / "01_energy_landscape")


@pytest.fixture
def record(p):
    rows = [
        records.scalar("accuracy", 91.73, n=1000, interval=(89.9, 93.3), interval_kind="wilson", network="standard"),
        records.scalar("delta_energy", 14.0123456789, n=1000, network="standard"),
        records.scalar("accuracy", 69.25, n=1000, interval=(66.3, 72.0), interval_kind="wilson", network="robust"),
        records.scalar("delta_energy", None, reason="not run", network="robust"),
    ]
    return records.save(p, "attacks", scalars=rows)


def test_wide_places_each_scalar_once(record):
    table = tables.wide(record.scalars, rows=["network"], metrics=["accuracy", "delta_energy"])
    assert table["network"].tolist() == ["standard", "robust"]
    assert str(table["accuracy"][0]) == "91.7 [89.9, 93.3]"
    assert tables.text(table["delta_energy"][1]) == "–"
    with pytest.raises(ValueError, match="accuracy: expected one value"):
        tables.wide(record.scalars, rows=["unit"], metrics=["accuracy"])
    with pytest.raises(ValueError, match=r"got \['clean'\]"):
        tables.wide(record.scalars, rows=["network"], metrics=["clean"])


def test_csv_holds_full_precision_and_three_columns_for_an_estimate(p, record):
    table = tables.wide(record.scalars, rows=["network"], metrics=["accuracy", "delta_energy"])
    tables.save(table, p, "summary", record, caption="Accuracy.")
    rows = list(csv.DictReader((p.folder / "summary.csv").read_text("utf-8").splitlines()))
    assert list(rows[0]) == [
        "network",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "delta_energy",
        "delta_energy_low",
        "delta_energy_high",
    ]
    assert float(rows[0]["delta_energy"]) == 14.0123456789
    assert (rows[0]["accuracy_low"], rows[0]["delta_energy_low"], rows[1]["delta_energy"]) == ("89.9", "", "")


def test_sidecar_holds_what_the_report_prints(p, record):
    table = tables.wide(record.scalars, rows=["network"], metrics=["accuracy"])
    tables.save(table, p, "summary", record, caption="Accuracy.", headers={"accuracy": "accuracy (%)"})
    side = json.loads((p.folder / "summary.table.json").read_text("utf-8"))
    assert side["columns"] == ["network", "accuracy (%)"]
    assert side["rows"] == [["standard", "91.7 [89.9, 93.3]"], ["robust", "69.2 [66.3, 72.0]"]]
    assert side["numeric"] == [False, True]
    assert side["files"] == ["summary.csv", "summary.tex"]
    assert side["record"][0]["file"] == "attacks.json"


def test_latex_is_escaped_and_booktabs(p, record):
    frame = pd.DataFrame({"name_1": ["50 % & <b>$x^2$</b>", "a\\b{c}~#"], "ε": [1, 2]})
    tables.save(frame, p, "odd_name", record, caption="100 % of x_1")
    tex = (p.folder / "odd_name.tex").read_text("utf-8")
    assert r"\caption{100 \% of x\_1}" in tex
    assert r"50 \% \& \textless{}b\textgreater{}\$x\textasciicircum{}2\$" in tex
    assert r"a\textbackslash{}b\{c\}\textasciitilde{}\#" in tex
    assert r"\begin{tabular}{lr}" in tex
    assert r"\label{tab:odd-name}" in tex
    assert [tex.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles(p, record):
    tables.save(pd.DataFrame({"Δ ≤ ε": ["−1 ± 2 × ∞"]}), p, "t", record, caption="β – 50 %")
    head = r"\documentclass{article}\usepackage{booktabs}\usepackage[utf8]{inputenc}\begin{document}\input{t.tex}"
    (p.folder / "main.tex").write_text(head + r"\end{document}", encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "main.tex"]
    subprocess.run(command, cwd=p.folder, check=True, capture_output=True)


def published_csv(tmp_path):
    path = tmp_path / "theirs.csv"
    lines = ["method,metric,value,source,trust", "SAT,PGD,49.03,Table 1,medium", "TRADES,PGD,52.65,Table 1,medium"]
    path.write_text("\n".join([*lines, "MART,PGD,51.0,memory,recalled"]) + "\n")
    return path


def test_published_stands_beside_ours_with_the_difference(tmp_path):
    ours = pd.DataFrame(
        {"method": ["TRADES", "NEW"], "metric": ["PGD", "PGD"], "pgd": [Estimate(50.0, 47.0, 53.0), 3.0]}
    )
    both = tables.published(ours, published_csv(tmp_path), on=["method", "metric"], value="value", ours="pgd")
    assert list(both.columns) == ["method", "metric", "published", "source", "trust", "ours", "difference"]
    rows = both.set_index("method")
    assert rows.loc["TRADES", "published"] == 52.65
    difference = rows.loc["TRADES", "difference"]
    assert (difference.value, difference.low, difference.high) == pytest.approx((-2.65, -5.65, 0.35))
    assert rows.loc["SAT", "ours"] is None or np.isnan(rows.loc["SAT", "ours"])
    assert rows.loc["SAT", "difference"] is None
    assert np.isnan(rows.loc["NEW", "published"])
    assert np.isnan(rows.loc["MART", "published"]), "a recalled value must not be printed as fact"
    assert "51" not in tables.show(both)._repr_html_()


def test_published_asks_for_rows_that_can_be_told_apart(tmp_path):
    ours = pd.DataFrame({"method": ["TRADES", "TRADES"], "pgd": [1.0, 2.0]})
    with pytest.raises(ValueError, match="tell rows apart"):
        tables.published(ours, published_csv(tmp_path), on=["method"], value="value", ours="pgd")
    with pytest.raises(ValueError, match=r"theirs.csv: expected columns \['metrik'\]"):
        tables.published(ours, published_csv(tmp_path), on=["method"], value="metrik", ours="pgd")
    with pytest.raises(ValueError, match=r"df: expected columns \['pgd2'\]"):
        tables.published(ours, published_csv(tmp_path), on=["method"], value="value", ours="pgd2")


@pytest.mark.parametrize(
    "path", sorted((tables.ROOT / "params" / "published").glob("*.csv")), ids=lambda path: path.name
)
def test_the_published_tables_are_read_and_explained(path):
    frame = pd.read_csv(path)
    assert len(frame)
    assert not frame.columns.str.contains("Unnamed").any()
    assert path.name in (path.parent / "README.md").read_text("utf-8")


def test_show_escapes():
    frame = pd.DataFrame({"<i>": ["<script>alert(1)</script>"], "n": [1000]})
    text = tables.show(frame)._repr_html_()
    seen = []

    class Tags(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen.append(tag)

    Tags().feed(text)
    assert set(seen) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert "1,000" in text
    assert "<script>" in repr(tables.show(frame))


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (Estimate(52.3, 50.1, 54.5), "52.3 [50.1, 54.5]"),
        (tables.Interval(-0.0004, -0.001, 0.0002), "-0.00040 [-0.00100, 0.00020]"),
        (tables.Interval(1.0, 1.0, 1.0), "1.000 [1.000, 1.000]"),
        (tables.Interval(-0.0001, -20.0, 20.0), "0 [-20, 20]"),
        (NAN, "–"),
        (pd.NA, "–"),
        (np.float32(0.5), "0.5"),
        (np.int64(5), "5"),
        (np.True_, "yes"),
        (1e-10, "1e-10"),
    ],
)
def test_cells_are_printed_so(value, printed):
    assert tables.text(value) == printed


def test_intervals_print_as_the_estimates_of_metrics():
    metrics = pytest.importorskip("helpers.metrics")
    for low, value, high in [(50.1, 52.3, 54.5), (0.0, 0.0, 0.4), (-0.31, -0.2987, -0.2871), (98.0, 99.95, 100.0)]:
        assert str(tables.Interval(value, low, high)) == str(metrics.Estimate(value, low, high, n=10, kind="wilson"))


def test_a_table_needs_record_and_caption(p, record):
    frame = pd.DataFrame({"a": [1]})
    with pytest.raises(ValueError, match="t: expected the record"):
        tables.save(frame, p, "t", None, caption="c")
    with pytest.raises(ValueError, match="caption"):
        tables.save(frame, p, "t", record, caption=" ")
    with pytest.raises(ValueError, match="name: expected"):
        tables.save(frame, p, "../t", record, caption="c")
    assert sorted(path.name for path in p.folder.iterdir()) == ["attacks.json"], "nothing is written before the checks"

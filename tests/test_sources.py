import json
import subprocess
import sys

import pytest

from helpers import parameters, sources


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `helpers` in which a imports b, b imports c inside a function, d stands alone."""
    folder = tmp_path / "helpers"
    folder.mkdir()
    code = {
        "__init__": "",
        "a": "import torch\nfrom helpers import b\n",
        "b": "def f():\n    from helpers.c import x\n    return x\n",
        "c": "from . import a\nx = 1\n",
        "d": "import helpers.c as c\n",
    }
    for name, text in code.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(sources, "PACKAGE", folder)
    return folder


def notebook(path, *cells, prose="# title", outputs=()):
    made = [{"cell_type": "markdown", "metadata": {}, "source": prose}]
    made += [
        {"cell_type": "code", "metadata": {}, "source": text.splitlines(True), "outputs": list(outputs)}
        for text in cells
    ]
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def names(paths):
    return [path.name for path in paths]


def test_imports_are_followed_also_inside_functions_and_in_circles(package):
    assert names(sources.of(package / "a.py")) == ["a.py", "__init__.py", "b.py", "c.py"]
    assert names(sources.of(package / "d.py")) == ["d.py", "__init__.py", "a.py", "b.py", "c.py"]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from helpers import c as sea, a", ["a.py", "b.py", "c.py"]),
        ("import helpers.d", ["a.py", "b.py", "c.py", "d.py"]),
        ("from helpers.b import f", ["a.py", "b.py", "c.py"]),
        ("%matplotlib inline\n!pip list\nfrom helpers import b\nb.f?", None),
        ("import numpy, os", []),
        ("# from helpers import a\ntext = 'import helpers.a'", []),
    ],
)
def test_a_notebooks_imports_are_found(package, tmp_path, code, found):
    path = notebook(tmp_path / "n.ipynb", code)
    if found is None:  # `b.f?` is not Python
        with pytest.raises(ValueError, match="expected Python"):
            sources.of(path)
        return
    assert names(sources.of(path)) == ["n.ipynb", *(["__init__.py"] if found else []), *found]


def test_the_digest_sees_code_and_nothing_else(package, tmp_path):
    path = notebook(tmp_path / "n.ipynb", "from helpers import d", "x = 1")
    first = sources.digest(sources.of(path))
    notebook(path, "from helpers import d", "x = 1", prose="other words", outputs=[{"output_type": "stream"}])
    assert sources.digest(sources.of(path)) == first
    notebook(path, "from helpers import d", "x = 2")
    assert sources.digest(sources.of(path)) != first
    notebook(path, "from helpers import d", "x = 1")
    (package / "b.py").write_text("def f():\n    from helpers.c import x\n    return -x\n")
    assert sources.digest(sources.of(path)) != first


def test_what_is_no_notebook_is_named(tmp_path):
    (tmp_path / "n.ipynb").write_text("<html>")
    with pytest.raises(ValueError, match=r"n\.ipynb: expected a notebook"):
        sources.of(tmp_path / "n.ipynb")


def test_it_finds_at_least_what_python_itself_imports():
    # The modules that importing really loads are a lower bound of what the source names.
    program = "import sys; from helpers import zoo; print(*sorted(m for m in sys.modules if m.startswith('helpers.')))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=parameters.ROOT, check=True
    )
    loaded = {f"{name.split('.')[1]}.py" for name in done.stdout.split()}
    assert loaded <= set(names(sources.of(parameters.ROOT / "helpers" / "zoo.py")))

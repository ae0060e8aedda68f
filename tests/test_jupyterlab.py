"""`00_start_here` as a reader meets it: JupyterLab in a real Chromium, run all, move a slider, the picture changes."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

import pytest
import trees

pytestmark = [pytest.mark.browser, pytest.mark.process]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
TOKEN = "a-token-of-this-test-only"
SECONDS = 240  # for imports, two small trainings and every cell, on a busy machine
PICTURE = "img.jupyter-widgets.widget-image"
SETTINGS = {  # every cell is in the page, also below its edge; nothing is asked of other machines
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as reply:
        return reply.status == 200
    return False


@contextlib.contextmanager
def _jupyterlab(tree, home):
    """A server for `tree` with settings of its own under `home`; ends it, and the kernels that it started."""
    for name, values in SETTINGS.items():
        path = home / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), "utf-8")
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime"}
    places |= {"IPYTHONDIR": "ipython", "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "spaces"}
    # Not from the tests' own path: the notebook's first cell must find helpers by itself.
    environment = trees.environment(tree) | {name: str(home / folder) for name, folder in places.items()}
    environment.pop("PYTHONPATH")
    port = _free_port()
    command = [trees.PYTHON, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={tree}"]
    with open(home / "log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(command, cwd=tree, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        limit = time.monotonic() + 90
        while not _answers(f"http://127.0.0.1:{port}/api/status?token={TOKEN}"):
            assert server.poll() is None, (home / "log").read_text("utf-8")
            assert time.monotonic() < limit, "JupyterLab did not answer within 90 s"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _bytes_of(page, selector: str) -> str:
    """The picture's content, fetched from the address that the widget gave it."""
    script = """async (selector) => {
        const reply = await fetch(document.querySelector(selector).src)
        return Array.from(new Uint8Array(await reply.arrayBuffer())).join()
    }"""
    return page.evaluate(script, selector)


@pytest.fixture
def page():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        one = browser.new_page(viewport={"width": 1280, "height": 1400})
        one.set_default_timeout(SECONDS * 1000)
        yield one
        browser.close()


def test_run_all_then_a_slider_changes_the_picture(page, tmp_path):
    tree = trees.tiny(tmp_path / "tree")
    (tmp_path / "home").mkdir()
    with _jupyterlab(tree, tmp_path / "home") as address:
        page.goto(f"{address}/lab/tree/notebooks/00_start_here.ipynb?token={TOKEN}")
        page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for()
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # before, "run all" would run nothing
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        page.locator(PICTURE).wait_for()
        before = _bytes_of(page, PICTURE)
        assert len(before) > 1000
        handle = page.locator(".widget-hslider", has_text="ε").locator(".noUi-handle")
        handle.focus()
        handle.press("ArrowRight")
        page.wait_for_function(
            """async ([selector, before]) => {
                const reply = await fetch(document.querySelector(selector).src)
                return Array.from(new Uint8Array(await reply.arrayBuffer())).join() !== before
            }""",
            arg=[PICTURE, before],
            polling=200,
        )
        assert (
            page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']", has_text="Error").count()
            == 0
        )
        assert page.locator(".jp-OutputArea-output[data-mime-type*='error']").count() == 0

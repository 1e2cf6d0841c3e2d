"""app.py itself: its pages, what it does not import, and how the prediction process sees it."""

import subprocess
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from cifar_tl.paths import APP_FILE, PROJECT_ROOT
from tests.app.conftest import NotingPredictor
from tests.made_runs import make_run

FIRST_PAINT = """
import sys
from streamlit.testing.v1 import AppTest
from cifar_tl.ui import cached
from tests.app.conftest import NotingPredictor

cached.predictor = NotingPredictor
app = AppTest.from_file("app.py", default_timeout=60).run()
assert not app.exception and not app.error, (app.exception, app.error)
assert app.title[0].value == "Train", app.title
print(sorted({"torch", "torchvision", "timm"} & set(sys.modules)))
"""
AS_A_CHILD = """
import runpy, sys
runpy.run_path("app.py", run_name="__mp_main__")
print(sorted({"streamlit", "torch", "cifar_tl"} & set(sys.modules)))
"""


def printed_by(script: str) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, cwd=PROJECT_ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_the_first_page_is_painted_without_torch() -> None:
    assert printed_by(FIRST_PAINT) == "[]"


def test_as_a_child_process_imports_it_app_py_does_nothing() -> None:
    assert printed_by(AS_A_CHILD) == "[]"


@pytest.mark.parametrize(("page", "title"), [("train", "Train"), ("runs", "Runs"), ("explore", "Explore"), ("predict", "Predict")])
def test_every_page_of_the_navigation_opens_without_runs(page: str, title: str, predictor: NotingPredictor) -> None:
    app = AppTest.from_file(str(APP_FILE), default_timeout=60).run()
    app.switch_page(f"cifar_tl/ui/pages/{page}.py").run()
    assert not app.exception
    assert app.title[0].value == title


def test_the_live_view_leads_to_predict_with_the_same_run(checkpoints: Path, predictor: NotingPredictor) -> None:
    make_run(checkpoints, run_id="one").best_weights.write_bytes(b"made")
    make_run(checkpoints, run_id="two").best_weights.write_bytes(b"made")
    app = AppTest.from_file(str(APP_FILE), default_timeout=60)
    app.query_params["run"] = "one"
    app.run()
    next(button for button in app.button if button.label == "Predict").click().run()
    assert app.title[0].value == "Predict"
    assert app.query_params["run"] == "one"

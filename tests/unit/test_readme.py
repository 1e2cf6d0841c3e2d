"""The README is kept by the code: every setting and every file is in it."""

import subprocess

from tests.readme_table import README, with_table


def test_the_table_of_settings_is_the_one_the_code_declares():
    text = README.read_text("utf-8")
    assert with_table(text) == text, "run: python -m tests.readme_table"


def test_the_tree_names_every_file_of_the_product():
    tracked = subprocess.run(
        ["git", "ls-files", "app.py", "serve.py", "cifar_tl"], cwd=README.parent, capture_output=True, text=True, check=True
    ).stdout
    names = {path.rsplit("/", 1)[-1] for path in tracked.splitlines() if path.endswith((".py", ".js", ".css"))} - {"__init__.py"}
    text = README.read_text("utf-8")
    assert not {name for name in names if name not in text}

"""The Start button of the Train form, clicked twice at once."""

import threading
from types import SimpleNamespace

from cifar_tl.ui import train_form
from cifar_tl.ui.state import StartedRun


def test_a_second_click_that_comes_while_the_first_still_starts_makes_no_second_run(monkeypatch):
    started, made = StartedRun(), []
    second = threading.Thread(target=train_form.start, args=(0,))

    def start_run(_config: object, _on: str) -> str:
        made.append("a run")
        if not second.ident:
            second.start()
            second.join(0.2)
            assert second.is_alive()  # waits for the first
        return "a-run"

    monkeypatch.setattr(train_form.state, "started_run", lambda: started)
    monkeypatch.setattr(train_form.form_values, "form_result", lambda _hardware: SimpleNamespace(config=object(), problems=[]))
    monkeypatch.setattr(train_form.cached, "hardware", lambda: None)
    monkeypatch.setattr(train_form.launcher, "start_run", start_run)
    monkeypatch.setattr(train_form.st, "query_params", {})
    train_form.start(0)
    second.join()
    assert made == ["a run"]
    assert train_form.st.query_params == {"run": "a-run"}

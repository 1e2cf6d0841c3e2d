# Two commands: `make app` opens the dashboard, `make test` runs every test. Everything installs itself into .venv.
#
#   make app             install what is missing, start the dashboard on 127.0.0.1:8501; with CIFAR_TL_HTTP=1, JSON for programs beside it
#   make test            install what the tests need (a Chromium too), run all tests
#   make check           format, lint and types, as CI does
#   make demo-checkpoint train the run that is shipped in checkpoints/ (on two CPU cores, hours)
#   make format          rewrite the files as `make check` wants them

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PORT ?= 8501
# serve.py serves the same pages, and docs/http.md beside them.
SCRIPT := $(if $(filter-out 0 false off no,$(CIFAR_TL_HTTP)),serve.py,app.py)

DEMO := demo-efficientnet_lite0-cifar100

.PHONY: app test check format demo-checkpoint clean

# A stamp carries the checksum of the requirements it was installed from: installing again is a file comparison.
APP_STAMP := $(VENV)/.app-$(shell cksum requirements.txt | cut -d' ' -f1)
DEV_STAMP := $(VENV)/.dev-$(shell cat requirements.txt requirements-ray.txt requirements-dev.txt | cksum | cut -d' ' -f1)

app: $(APP_STAMP)
	@echo "The dashboard is at http://127.0.0.1:$(PORT)  (Ctrl-C ends it; running trainings go on)"
	@$(VENV)/bin/streamlit run $(SCRIPT) --server.address 127.0.0.1 --server.port $(PORT)

test: $(DEV_STAMP)
	$(RUN) tests/browser/chromium.py --install
	$(RUN) tests/browser/runtime.py --install
	$(RUN) -m pytest

check: $(DEV_STAMP)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

demo-checkpoint: $(APP_STAMP)
	$(RUN) -m cifar_tl train --preset "Best accuracy" --source cifar100 --name "Best accuracy on CIFAR-100" --json > .demo-run.json
	$(RUN) -m cifar_tl shrink "$$($(RUN) -c 'import json; print(json.load(open(".demo-run.json"))["run_id"])')" $(DEMO) --overwrite
	rm .demo-run.json

format: $(DEV_STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV)

$(RUN):
	$(PYTHON) -m venv $(VENV)

$(APP_STAMP): | $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(DEV_STAMP): | $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

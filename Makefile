# make demo: the runtime alone (no torch) on sample_data.   make test: everything, as CI runs it.
PYTHON ?= python3
DEV := .venv
RUNTIME := .venv-runtime

.PHONY: demo test lint types imports test-runtime test-all wheel soak clean

demo: $(RUNTIME)/ready
	$(RUNTIME)/bin/seg-infer sample_data --out demo-masks --overlay --score --report --overwrite

test: lint types imports test-runtime test-all wheel
	@echo "make test: all parts passed"

lint: $(DEV)/ready
	$(DEV)/bin/ruff check
	$(DEV)/bin/ruff format --check

types: $(DEV)/ready
	$(DEV)/bin/mypy

imports: $(DEV)/ready
	$(DEV)/bin/lint-imports

# In an environment that has no torch, and is proven to have none.
test-runtime: $(RUNTIME)/tests-ready
	$(RUNTIME)/bin/python -c "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ['torch', 'onnx', 'pandas'])))"
	$(RUNTIME)/bin/python -m pytest tests/runtime

test-all: $(DEV)/ready
	$(DEV)/bin/python -m pytest --cov --cov-report=term:skip-covered

# The wheel, installed outside the checkout and without torch, segments a slice with the embedded model.
wheel: $(DEV)/ready
	set -eu; place=$$(mktemp -d); trap 'rm -rf "$$place"' EXIT; mkdir "$$place/slices"; \
	$(DEV)/bin/python -m build --wheel --outdir "$$place"; \
	cp sample_data/patient_1/patient_1_6.tif sample_data/patient_1/patient_1_6_mask.tif "$$place/slices"; \
	cd "$$place"; $(PYTHON) -m venv venv; \
	venv/bin/python -m pip install --quiet --disable-pip-version-check ./*.whl; \
	venv/bin/seg-infer slices --score --report; test -s slices-masks/report/report.js; venv/bin/seg-infer --self-test; \
	venv/bin/python -c "import cv2, importlib.util as u; assert not u.find_spec('torch'); \
	  assert cv2.imread('slices-masks/patient_1_6_mask.png', -1).any(), 'the mask is empty'"

# The night-size run of what `make test` does in minutes: files that are damaged on purpose, and processes that are killed.
SOAK_CASES ?= 250000
SOAK_KILLS ?= 2000
soak: $(RUNTIME)/tests-ready
	PYTHONPATH=tests $(RUNTIME)/bin/python -m fuzz.harness --cases $(SOAK_CASES)
	SEGPORT_KILLS=$(SOAK_KILLS) $(RUNTIME)/bin/python -m pytest tests/runtime/test_kills.py

$(DEV)/ready: pyproject.toml
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python -m pip install --quiet --upgrade pip
	$(DEV)/bin/python -m pip install --quiet --editable '.[export,medical]' --group dev
	touch $@

$(RUNTIME)/ready: pyproject.toml
	$(PYTHON) -m venv $(RUNTIME)
	$(RUNTIME)/bin/python -m pip install --quiet --upgrade pip
	$(RUNTIME)/bin/python -m pip install --quiet --editable '.[medical]'
	touch $@

$(RUNTIME)/tests-ready: $(RUNTIME)/ready
	$(RUNTIME)/bin/python -m pip install --quiet --group test-runtime
	touch $@

clean:
	rm -rf $(DEV) $(RUNTIME) build dist demo-masks .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

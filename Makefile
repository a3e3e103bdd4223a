# make demo | test | check | bench | clean — every target makes .venv first if it is absent.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
RUNS ?= runs
DATA ?= ../shared
BENCHMARKS := training_free overhead latency_model budget ablation minilm_sst2

export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1
# Tests start a hundred processes: where Python is told not to keep what it has compiled, each compiles all it imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check bench clean browser postgresql

# torch goes first and pinned: a loose request would pull a GPU build of several gigabytes.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[openvino,demo,dev]'
	touch $@

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The report is tested in a real browser; where none can be installed that test skips and says why.
browser:
	@{ command -v chromium && command -v chromedriver; } >/dev/null 2>&1 \
	  || { command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium chromium-driver >/dev/null; } \
	  || echo "no Chromium here: the browser test will be skipped"

# Studies are tested on a server of their own; where none can be installed those tests skip and say why.
postgresql:
	@{ command -v initdb || ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1 \
	  || { command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq postgresql >/dev/null; } \
	  || echo "no PostgreSQL here: its tests will be skipped"

# Two processes of one thread each: two of two threads wait for one another. A file's tests stay together, for what they
# share.
test: export OMP_NUM_THREADS := 1
test: browser postgresql check
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

bench: $(STAMP)
	$(BIN)/python -m pytest -m slow
	for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py --data $(DATA) --check || exit 1; done

demo: $(STAMP)
	$(BIN)/python -m archsmith demo --out $(RUNS)/demo

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

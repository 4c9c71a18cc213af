# Two commands matter: `make run` and `make test`. Both set up all that they need.
PYTHON     ?= python3
STATE      ?= var
# Only the first start reads these four: afterwards $(STATE)/profiles.yaml says it.
HTTP_PORT  ?= 8080
HTTPS_PORT ?= 8443
MONITORING_PORT ?= 9464
INIT_FLAGS ?=
VENV       := .venv
BIN        := $(VENV)/bin
PIP        := $(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt

.PHONY: run test test-extra lint types bench dev format clean
.DEFAULT_GOAL := run

run: $(VENV)/.run
	@test -e "$(STATE)/profiles.yaml" || $(BIN)/pki-gateway init "$(STATE)" --no-next --http-port $(HTTP_PORT) --https-port $(HTTPS_PORT) --monitoring-port $(MONITORING_PORT) $(INIT_FLAGS)
	@exec $(BIN)/pki-gateway serve --config "$(STATE)/profiles.yaml"

test: $(VENV)/.dev
	@sh .ci/apt curl openssl strongswan-pki libstrongswan-standard-plugins libstrongswan-extra-plugins scep certmonger prometheus libfaketime swtpm certbot lego uacme dehydrated acme-tiny caddy apache2-bin softhsm2 golang-cfssl pebble golang-go golang-github-smallstep-certificates-dev
	@command -v npm >/dev/null 2>&1 || sh .ci/apt nodejs npm
	@command -v javac >/dev/null 2>&1 || exit 0; sh .ci/apt libbcpkix-java libbcprov-java libbcutil-java libbctls-java
	@$(BIN)/python .ci/tests.py $(PYTEST_FLAGS)

test-extra: $(VENV)/.dev
	$(BIN)/python -m pytest -m extra --verbose $(PYTEST_FLAGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m bench.table
	$(BIN)/python -m bench.est
	$(BIN)/python -m bench.acme
	$(BIN)/python -m bench.cmp
	$(BIN)/python -m bench.hsm
	$(BIN)/python -m bench.upstream

dev: $(VENV)/.dev

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	@sh .ci/venv $(PYTHON) $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml .ci/constraints.txt
	@echo "Installing pki-gateway into $(VENV) ..."
	@$(PIP) --editable '.[speed]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml .ci/constraints.txt
	@echo "Installing pki-gateway and its development tools into $(VENV) ..."
	@$(PIP) --editable '.[speed,otel,hsm,pkilint,dev]'
	@touch $@ $(VENV)/.run

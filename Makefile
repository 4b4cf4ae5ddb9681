PYTHON ?= python3

python := .venv/bin/python
# Both names: builds in isolation read the first up to pip 25.2 and the second from then on.
pip := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(python) -m pip install --quiet --disable-pip-version-check

studies := notebook vanishing_gradients dying_relu activation_cost initial_spread xor one_layer notebook_restarts local_minima \
	literature/order_to_chaos literature/student_teacher literature/linear_control literature/barriers

.PHONY: help setup sweep studies studies-full report test fault ui server run lint bench clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile

setup: .venv/.ready-dev ## virtual environment in .venv with everything pinned, development tools included

sweep: .venv/.ready ## the main job: activation x loss x descent mode, gradients by depth, restarts by width
	$(python) experiments/sweep.py $(ARGS)

studies: .venv/.ready ## every other experiment in its quick form, which decides nothing: about four minutes on two cores
	$(call each_study,--quick)

studies-full: .venv/.ready ## every other experiment in its full form: about an hour on two cores; repeat it to resume
	$(call each_study,)

report: .venv/.ready ## verdicts and figures of the experiments in reports/, drawn anew from the tracked runs
	$(python) -m descentlab.studies.report $(ARGS)

test: .venv/.ready-dev ## run the tests, on up to four cores; ARGS="-m 'not slow'" leaves the long ones out
	$(python) -m pytest --numprocesses auto --maxprocesses 4 $(ARGS)

fault: .venv/.ready-dev ## the long tests of what breaks: damaged files, malformed words, sweeps killed at random moments
	$(python) -m pytest -m fault $(ARGS)

ui: .venv/.ready ## serve the tracked runs in the MLflow UI, to this machine only
	$(python) -m descentlab ui $(ARGS)

server: .venv/.ready-server ## serve a shared store, to this machine only: docs/scale.md
	$(python) -m descentlab server $(ARGS)

run: .venv/.ready ## a single run: make run ARGS="activation=tanh restarts=20"
	$(python) -m descentlab $(ARGS)

lint: .venv/.ready-dev ## check style, formatting and types
	$(python) -m ruff check && $(python) -m ruff format --check && $(python) -m mypy

bench: .venv-bench/.ready ## speed against peers, cost and memory: 15 minutes; ARGS=--quick for a look, ARGS=growth for a part
	.venv-bench/bin/python benchmarks/bench.py $(ARGS)

clean: ## remove the environment, caches and builds; tracked runs stay
	rm -rf .venv .venv-bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# A study that fails does not stop the others; Ctrl-C does.
define each_study
@place=0; failed=; for study in $(studies); do \
place=$$((place + 1)); echo "[$$place of $(words $(studies))] experiments/$$study.py $(1)"; \
$(python) experiments/$$study.py $(1) $(ARGS); status=$$?; \
[ $$status -lt 128 ] || exit $$status; [ $$status -eq 0 ] || failed="$$failed $$study"; done; \
[ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }
endef

# A stamp says where the environment was made, so that a moved or copied clone does not run the old place's code.
# .unfinished stands while pip works: an environment that was cut short is thrown away.
$(shell [ -x $(python) ] && [ ! -e .venv/.unfinished ] && [ "$$(cat .venv/.ready 2>&1)" = "$$(pwd -P)" ] || rm -f .venv/.ready)

.venv/.ready: pyproject.toml constraints.txt
	@if [ ! -x $(python) ] || [ -e .venv/.unfinished ]; then $(check_python); rm -rf .venv; fi
	@mkdir -p .venv && touch .venv/.unfinished
	@[ -x $(python) ] || $(PYTHON) -m venv .venv
	@echo "Installing the pinned dependencies into .venv: a minute or two, once"
	@$(pip) --editable .
	@pwd -P >$@ && rm .venv/.unfinished

.venv/.ready-server: .venv/.ready
	@echo "Installing what a shared store needs into .venv"
	@touch .venv/.unfinished
	@$(pip) --editable '.[server]'
	@touch $@ && rm .venv/.unfinished

.venv/.ready-dev: .venv/.ready
	@echo "Installing the development tools into .venv"
	@touch .venv/.unfinished
	@$(pip) --editable '.[dev,server]'
	@touch $@ && rm .venv/.unfinished

# Peers live apart from the project's own environment; where they cannot be had, the bench says so and goes on.
.venv-bench/.ready: .venv/.ready
	@rm -rf .venv-bench && .venv/bin/python -m venv .venv-bench
	@echo "Installing the project and its peers (PyTorch, JAX) into .venv-bench: some minutes, once"
	@$(subst .venv/,.venv-bench/,$(pip)) --editable .
	@$(subst .venv/,.venv-bench/,$(pip)) --editable '.[bench]' || echo "The peers could not be installed; they are skipped"
	@touch $@

define check_python
if ! $(PYTHON) -c '' 2>/dev/null; then found="cannot be run"; \
elif ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then found="is $$($(PYTHON) --version 2>&1)"; \
elif ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then found="has no venv"; \
else found=; fi; \
[ -z "$$found" ] || { echo "$(PYTHON) $$found, and Python 3.11 or newer with venv is needed: install python3 and python3-venv" \
"(or from python.org), or name another one: PYTHON=python3.12 make ..." >&2; exit 2; }
endef

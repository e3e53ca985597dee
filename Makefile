# `make demo`, `test`, `test-slow` and `lint` first create .venv and install what they need; a
# second run does that again only when pyproject.toml has changed. `make clean` leaves .venv alone.
# To choose the Python that .venv is made of: make demo PYTHON=/path/to/python3.12

PYTHON ?=

with_pip = .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip

.PHONY: demo test test-beam test-plan test-slow lint clean
.NOTPARALLEL:

demo: .venv/installed
	.venv/bin/python -m xactor_jax.generate \
		--image=demo/portrait.png --audio=demo/speech.wav --output=demo.mp4

# Two files of tests at a time, since most tests keep one core busy.
test: .venv/installed-dev
	.venv/bin/python -m pytest --numprocesses=2 --dist=loadscope

# Apache Beam keeps to older releases of what others share with it, so it has its own environment.
test-beam: .venv-beam/installed
	.venv-beam/bin/python -m pytest tests/preparation/test_beam_pipeline.py

# libtpu compiles for TPUs that are not there. Where it is installed JAX looks for TPUs, so it has
# its own environment too.
test-plan: .venv-plan/installed
	.venv-plan/bin/python -m pytest -m libtpu $$(grep -rl --include='test_*.py' mark.libtpu tests)

test-slow: .venv/installed-dev
	.venv/bin/python -m pytest -m slow

lint: .venv/installed-dev
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m pyrefly check
	.venv/bin/shellcheck launch/*.sh launch/slurm.sbatch .ci/run

clean:
	rm -rf demo.mp4 .pytest_cache .ruff_cache
	find xactor_jax configs tests -name __pycache__ -prune -exec rm -rf {} +

.venv/installed: pyproject.toml | .venv/bin/python
	@$(with_pip)
	.venv/bin/python -m pip install --disable-pip-version-check --editable .
	@touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	@$(with_pip)
	.venv/bin/python -m pip install --disable-pip-version-check --editable ".[dev]"
	@touch .venv/installed $@

.venv-beam/installed: pyproject.toml | .venv/bin/python
	.venv/bin/python -m venv --clear .venv-beam
	.venv-beam/bin/python -m pip install --disable-pip-version-check --editable ".[beam]" "pytest>=8.3"
	@touch $@

.venv-plan/installed: pyproject.toml | .venv/bin/python
	.venv/bin/python -m venv --clear .venv-plan
	.venv-plan/bin/python -m pip install --disable-pip-version-check --editable ".[plan]" "pytest>=8.3"
	@touch $@

# The first Python that is new enough. A folder without pip would look finished, so it is removed.
.venv/bin/python:
	@set -- $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11); \
	for python in "$$@"; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "creating .venv with $$("$$python" --version)"; \
			"$$python" -m venv --clear .venv && exit 0; \
			rm -rf .venv; \
			echo "error: $$python cannot create .venv; on Debian and Ubuntu first install" \
				"python3-venv" >&2; \
			exit 1; \
		fi; \
	done; \
	echo "error: Python 3.11 or newer is needed, and $$1 is" \
		"$$("$$1" --version 2>/dev/null || echo missing); install one or name it:" \
		"make PYTHON=/path/to/python3.12" >&2; \
	exit 1

# make demo         all steps with the sample: calibration set, INT8 emulation, pictures with boxes, a table
# make test         everything that CI runs: format, lint, types, all tests, and the Pi's tests with the Pi's libraries
# make test-pi      only the Pi's tests with the Pi's libraries
# make quick        the tests without the slow ones
# make lint         check format, lint and types
# make format       format and fix with ruff
# make mutations    read many damaged files, kill and stop the scripts at every moment; takes an hour, prints its figures
# make bench        timings, not tests
# make deploy       copy hefkit and a model to a Pi: make deploy PI=user@host MODEL=best.hef
# make clean        remove the environments and caches
#
# With another Python: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
PI_VENV := .venv-pi
RUN := $(VENV)/bin/python -m

# The libraries of the Raspberry Pi (Debian 12). The Pi's packages are tested with these as well. numpy 1.24 has wheels
# up to Python 3.11.
PI_PACKAGES := 'numpy==1.24.*' 'opencv-python-headless==4.6.*' 'pytest>=8,<9.2' 'pytest-xdist>=3.5,<4' 'hypothesis>=6.100,<7' 'PyYAML>=6,<7' \
    'aiohttp==3.8.*' 'paho-mqtt==1.6.*' 'xxhash>=3,<5' 'av==12.*'
PI_PYTHON = $(firstword $(foreach python,$(PYTHON) python3.11 python3.10,$(shell \
    $(python) -c 'import ensurepip, sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 11))' \
    >/dev/null 2>&1 && echo $(python))))

# The SDK may run on Python 3.8 or 3.9, so its worker is tested there.
OLD_VENV := .venv-old
OLD_PYTHON = $(firstword $(foreach python,python3.8 python3.9 $(wildcard $(HOME)/.pyenv/versions/3.[89].*/bin/python3),$(shell \
    $(python) -c 'import ensurepip, sys; sys.exit(sys.version_info[:2] not in ((3, 8), (3, 9)))' \
    >/dev/null 2>&1 && echo $(python))))

PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := test
export GOAL ?= $(or $(MAKECMDGOALS),test)
# Python keeps what it has compiled: the tests start it a thousand times.
unexport PYTHONDONTWRITEBYTECODE
# One process for each core. Test files that measure time run in one process.
PARALLEL := -n auto --dist loadgroup

.PHONY: demo test all-tests test-pi test-pi-beside quick lint format mutations bench deploy clean pi-env old-env
.DELETE_ON_ERROR:

demo: $(VENV)/.stamp-run
	@$(VENV)/bin/python examples/drone/demo.py

# The environments first, then lint, all tests and the Pi's tests beside each other: the Pi's tests often wait.
test:
	@$(MAKE) --no-print-directory -j3 $(VENV)/.stamp pi-env old-env
	@$(MAKE) --no-print-directory -j3 lint all-tests test-pi-beside

all-tests:
	$(RUN) pytest $(PARALLEL)

# says nothing until its end; one process, so that tests that measure time have time
test-pi-beside:
	@$(MAKE) --no-print-directory test-pi PARALLEL='-n 1 --dist loadgroup' >$(VENV)/test-pi.log 2>&1 || { cat $(VENV)/test-pi.log; exit 1; }
	@tail -n 4 $(VENV)/test-pi.log

test-pi: $(VENV)/.stamp pi-env
	@if [ -x $(PI_VENV)/bin/python ]; then echo "$(PI_VENV): the Pi's tests"; \
	    $(PI_VENV)/bin/python -m pytest $(PARALLEL) $$($(RUN) tests.helpers.imports); fi

quick: $(VENV)/.stamp
	$(RUN) pytest $(PARALLEL) -m 'not slow and not mutations'

lint: $(VENV)/.stamp
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	@if $(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    echo "$(RUN) mypy"; $(RUN) mypy; \
	else echo "skipped: mypy, which is set for the annotations of numpy 2.4; that needs Python 3.11"; fi

format: $(VENV)/.stamp
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

mutations: $(VENV)/.stamp
	$(RUN) pytest -m mutations

bench: $(VENV)/.stamp
	$(VENV)/bin/python benchmarks/bench_help.py
	$(VENV)/bin/python benchmarks/bench_decode.py
	$(VENV)/bin/python benchmarks/bench_pipeline.py
	$(VENV)/bin/python benchmarks/bench_hef.py

deploy:
	@sh examples/deploy/deploy.sh # (make hands PI, MODEL, FOLDER and SSH on in the environment)

clean:
	rm -rf $(VENV) $(PI_VENV) $(OLD_VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
    { echo "error: $(PYTHON) is missing or older than Python 3.10; try: make $(GOAL) PYTHON=python3.12" >&2; exit 1; }

# An environment is made again when its requirements have changed. The packages of the tests include those of the demo.
# --no-compile: Python compiles what the tests import, a tenth of all modules.
$(VENV)/.stamp: requirements.txt requirements-dev.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python $(PIP_INSTALL) --no-compile -r requirements-dev.txt
	@touch $(VENV)/.stamp-run $@

$(VENV)/.stamp-run: requirements.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP_INSTALL) -r requirements.txt
	@touch $@

$(PI_VENV)/.stamp: Makefile
	$(PI_PYTHON) -m venv --clear $(PI_VENV)
	$(PI_VENV)/bin/python $(PIP_INSTALL) --no-compile $(PI_PACKAGES)
	@touch $@

pi-env:
	@$(if $(PI_PYTHON),$(MAKE) --no-print-directory $(PI_VENV)/.stamp, \
	    echo "skipped: no Python <= 3.11 here, so no numpy 1.24: the Pi's libraries are not tested")

$(OLD_VENV)/.stamp: Makefile
	$(OLD_PYTHON) -m venv --clear $(OLD_VENV)
	$(OLD_VENV)/bin/python $(PIP_INSTALL) --no-compile 'numpy<2'
	@touch $@

old-env:
	@$(if $(OLD_PYTHON),$(MAKE) --no-print-directory $(OLD_VENV)/.stamp, \
	    echo "skipped: no Python 3.8 or 3.9 here: the SDK's worker is only checked for their syntax")

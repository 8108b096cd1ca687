# Two commands set everything up: `make run` and `make test`. `make check` is what each commit passes. `make studies`
# runs the short form of every study and writes the page over them.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test lint check studies clean

run: .venv/installed
	$(BIN)/python launch.py --experiment=numerals

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

studies: .venv/installed
	for name in $$($(BIN)/python -c 'from seqjax import catalogue; print(*catalogue.studies())'); do \
	  $(BIN)/python launch.py --study=$$name --quick || exit 1; done
	$(BIN)/python launch.py --mode=report --workdir=runs/quick

lint: .venv/installed
	$(BIN)/ruff check .

check: lint test

.venv/installed: requirements.txt constraints.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit("seqjax needs Python 3.11 or later, and this is " + sys.version.split()[0] \
	  + "; name another: make PYTHON=python3.12 run") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt -c constraints.txt
	touch $@

clean:
	rm -rf .venv .cache

# `make demo` and `make test` set up all they need in .venv/ and reuse it; scripts/tasks.py says how.
# Another Python: make test PYTHON=python3.12     Another torch (a CUDA build, say): make test TORCH=torch==2.13.0
TORCH ?= torch==2.13.0
ifeq ($(OS),Windows_NT)
PYTHON ?= py -3
else
PYTHON ?= python3
endif
TASK = $(PYTHON) scripts/tasks.py --torch "$(TORCH)"

.PHONY: help demo test check docs pictures clean python

help: ## list what can be made
	@$(PYTHON) -c "import re; [print(f'make {a:9}{b}') for a, b in re.findall(r'(?m)^(\w+):.*?## (.*)', open('Makefile').read())]"

demo: python ## open napari on a painted, classified and enhanced sample (without a display: demo_output/)
	@$(TASK) demo

test: python ## run the tests
	@$(TASK) test $(ARGS)

check: python ## run what CI runs besides the tests: lint, types, manifest, documentation
	@$(TASK) check

docs: python ## build the documentation into site/
	@$(TASK) docs

pictures: python ## make the pictures of the documentation anew, in a real window
	@$(TASK) pictures

clean: ## remove what the commands above made
	@$(PYTHON) -c "import shutil; [shutil.rmtree(d, ignore_errors=True) for d in ('.venv', 'site', 'demo_output', 'build', 'dist')]"

python: # a bare Debian or Ubuntu has no Python yet
ifneq ($(OS),Windows_NT)
	@command -v $(firstword $(PYTHON)) >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -q && apt-get install -qy python3; } \
	  || { echo "Python 3.11, 3.12 or 3.13 is needed and no python3 was found; install it and run make again." >&2; exit 1; }
endif

# make help lists the targets. Everything lives in .venv; nothing else on the machine is touched.

.PHONY: help setup test demo check
.DEFAULT_GOAL := help

BIN := .venv/bin
READY := .venv/.ready
WORKERS ?= 2
export QUERY ?= what would you cut the bread with?

# Tested against, and installed without what they ask for: torchvision, which has no build for every
# torch (rsvp/detectors/groundingdino_py.py does without it), and windows.
ALONE := groundingdino-py==0.4.0 labelme==6.3.1
# The same, and built with the torch that is there; rsvp/segmenters/sam2_package.py does without it.
BUILT_HERE := sam2==1.1.0

# PYTHON=... wins; else the first Python on the path that is new enough and can make a venv.
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16
	@echo
	@echo "  PYTHON=python3.12     the Python that .venv is made with (3.11 or newer)"
	@echo "  TORCH_INDEX=URL       one more index for torch, e.g. https://download.pytorch.org/whl/cpu"
	@echo "                        for the small CPU build on Linux"
	@echo "  WORKERS=2             tests run in so many processes"
	@echo "  QUERY='...'           what make demo asks"

setup: $(READY)  ## create .venv with everything (again only when pyproject.toml or constraints.txt changed)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: rsvp needs Python 3.11 or newer with venv and pip;" \
		"name one: make setup PYTHON=/path/to/python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[dev]'
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps $(ALONE)
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --disable-pip-version-check --no-deps \
		--no-build-isolation $(BUILT_HERE)
	@touch $@

test: $(READY)  ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

demo: $(READY)  ## answer a question about a shipped image; the overlay lands in demo-out
	$(BIN)/rsvp segment --image rsvp/embedded/demo.png --query "$$QUERY" --out demo-out
	@echo "The overlay: $(CURDIR)/demo-out/overlay.png"

check: $(READY)  ## ruff, strict mypy, generated pages and schemas up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check

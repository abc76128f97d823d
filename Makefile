# Everything a developer does. Each target installs what it lacks; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# quoted, as a name may have a star, which stands for the newest package of that name
packages = $(shell sed "s/ *\#.*//; /^$$/d; s/.*/'&'/" $(1))
# tracing needs root, building does not
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -E)
BUILT := $(VENV)/.built
SOURCES := hatch_build.py build_syscalls.py $(wildcard bpf/include/* bpf/*/* proto/*/v1/* gadget/btf.py gadget/schema.py)

.PHONY: help setup test test-faults test-attacks test-hubble test-kernels e2e lint format demo bench fuzz soak clean docs snapshots screens lock worlds

help:  ## what there is
	@sed -n 's/^\([a-z0-9-]*\):.*##/\1:/p' Makefile | column -t -s:

setup: $(BUILT)  ## install what is missing; leaves kubectl-gadget and gadget-agent in .venv/bin

test: $(BUILT) lint  ## lint, then every test on this machine's kernel (needs root)
	@half() {  # pytest's 5: no test was chosen, as with --last-failed where all of this half have passed
		local passed=.pytest_cache/$$1/passed status=0
		$(SUDO) $$nice $(BIN)/python -m pytest -o cache_dir=.pytest_cache/$$1 "$${@:2}" || status=$$?
		case $$status in
		0) $(SUDO) touch $$passed ;;
		5) [ -e $$passed ] ;;
		*) $(SUDO) rm -f $$passed; return 1 ;;
		esac
	}
	unit=$$(mktemp) failed=0 nice=
	trap 'rm -f $$unit' EXIT
	nice=nice half unit tests/unit >$$unit 2>&1 &  # beside the others, which wait for most of their time
	half kernel tests/kernel tests/why || failed=1
	wait $$! || failed=1
	cat $$unit
	[ $$failed = 0 ]

ifeq ($(E2E_CLUSTER),existing)
e2e: $(BUILT)  ## test on a real cluster, of two nodes on this machine (needs root, Go), or with E2E_CLUSTER=existing on KUBECONFIG's
	$(BIN)/python -m pytest tests/e2e
else
e2e: $(BUILT) $(VENV)/.packages-e2e
	$(SUDO) $(BIN)/python -m tests.e2e.cluster $(BIN)/python -m pytest tests/e2e
endif

test-faults: $(BUILT)  ## faults survived, and what each costs; takes 6 minutes (needs root)
	$(SUDO) $(BIN)/python -m pytest tests/faults

test-attacks: $(BUILT)  ## programs that attack an agent, in real containers; takes 4 minutes (needs root); ATTACK_SECONDS=300 for a long one
	$(SUDO) $(BIN)/python -m pytest tests/attacks

test-hubble: $(BUILT)  ## Hubble's own command line, relay and server beside ours, alerts at an OpenTelemetry collector (needs Go; takes a minute, the first time many)
	$(BIN)/python -m pytest tests/hubble tests/receivers

test-kernels: $(BUILT) $(VENV)/.packages-vm  ## test on Debian's kernels in QEMU (needs root); KERNELS="6.1 7.3" for some, ONLY="execsnoop capable" for some objects, ACCEPT=1 to accept figures, with LACKS="execsnoop" also that this does not work any more
	$(SUDO) $(BIN)/python -m tests.vm $(KERNELS)

lint: $(BUILT)  ## formatting, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache | grep -E 'KEPT|BROKEN|kept'
	clang-format --dry-run --Werror bpf/*/*.[ch]

format: $(BUILT)  ## put code in shape
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format
	clang-format -i bpf/*/*.[ch]

docs: $(BUILT)  ## make the generated pages of docs/
	$(BIN)/python -m tools.generate

lock: $(BUILT)  ## pin the newest of what image and tests have from the package registry, with hashes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-tools
	$(BIN)/python -m requirements.lock

snapshots: $(BUILT)  ## pin what outputs and advice look like now
	SNAPSHOTS=write $(BIN)/python -m pytest tests/unit/test_snapshots.py tests/unit/test_screens.py tests/unit/advise/test_golden.py

screens: $(BUILT)  ## take the pictures of docs/screens.md, in a real terminal (needs root, tmux)
	$(SUDO) $(BIN)/python -m tests.screens

demo: $(BUILT)  ## execsnoop live on two real containers, for about 10 s (needs root)
	@$(SUDO) $(BIN)/python -m tests.demo

bench: $(BUILT) $(VENV)/.packages-bench  ## measure beside peers and write docs/benchmarks.md (half an hour, needs root); QUICK=1 only tries it, SECTIONS="cli agent" measures these again, IG=1 adds Inspektor Gadget (needs Go)
	$(SUDO) $(BIN)/python -m tests.bench $(if $(QUICK),--quick,--page $(if $(SECTIONS),--keep docs/benchmarks.jsonl)) $(if $(IG),--ig) $(SECTIONS)

fuzz: $(VENV)/.fuzz  ## give parsers damaged input, each for FUZZ_SECONDS (60); TARGETS="btf ring" for some
	$(BIN)/python -m tests.fuzz $(TARGETS)

worlds: $(BUILT)  ## judge the advice in WORLDS (10,000) random clusters by all that it promises; SEED=7 for others, takes half an hour
	WORLDS=$(WORLDS) $(BIN)/python -m pytest -q --timeout=0 --hypothesis-seed=$(or $(SEED),0) tests/unit/advise/many_worlds.py

soak: $(BUILT)  ## everything on for SOAK_SECONDS (1200), with figures of memory and losses (needs root)
	$(SUDO) env SOAK_SECONDS=$(or $(SOAK_SECONDS),1200) $(BIN)/python -m pytest -s tests/faults/test_soak.py

clean:  ## remove what was made
	rm -rf $(VENV) gadget/_generated agent/_generated agent/_objects build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz

define install-packages
@missing=
for package in $(call packages,$<); do
	dpkg-query -W -f '$${Status}\n' "$$package" 2>/dev/null | grep -q 'ok installed' || missing+=" $$package"
done
if [ -n "$$missing" ]; then
	echo "installing$$missing"
	SUDO=; [ "$$(id -u)" = 0 ] || SUDO=sudo
	wait=-oDPkg::Lock::Timeout=600  # another may be installing
	$$SUDO apt-get update -qq
	missing=$$(for package in $$missing; do
		case "$$package" in
		*\**) apt-cache pkgnames "$${package%%\**}" | grep -x "$${package//\*/[0-9].*}" | sort -V | tail -1 ;;
		*) echo "$$package" ;;
		esac
	done)
	[[ " $$missing " != *" prometheus "* ]] || $$SUDO ln -sf /dev/null /etc/systemd/system/prometheus.service || :  # no server
	$$SUDO env DEBIAN_FRONTEND=noninteractive apt-get install $$wait -y -qq --no-install-recommends $$missing >/dev/null
fi
mkdir -p $(VENV)
touch $@
endef

$(VENV)/.packages: packages.txt
	$(install-packages)

$(VENV)/.packages-e2e: tests/e2e/packages.txt
	$(install-packages)

$(VENV)/.packages-vm: tests/vm/packages.txt
	$(install-packages)

$(VENV)/.packages-bench: tests/bench/packages.txt
	$(install-packages)

$(VENV)/.installed: $(VENV)/.packages pyproject.toml requirements/developer.txt
	@echo "making $(VENV)"
	[ -x $(BIN)/python ] || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/developer.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.fuzz: $(BUILT)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	touch $@

$(BUILT): $(VENV)/.installed $(SOURCES)
	@$(BIN)/python hatch_build.py
	touch $@

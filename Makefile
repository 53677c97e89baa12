# make help lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 10s
BENCH ?= .
BENCHED := ./aof ./rdb ./rdb/inventory ./writer ./reader ./internal/resp ./internal/command ./internal/feed

.PHONY: build
build: ## build bin/keyhaul, one static binary
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/keyhaul ./cmd/keyhaul

.PHONY: test
test: setup ## run all tests with the race detector, against this system's redis-server
	go test -race -parallel 4 -timeout 40m ./...

.PHONY: soak
soak: setup ## break hauls under load in every way, thirty times each (some hours); results in docs/soak.log
	scripts/soak/run.sh

.PHONY: test-releases
test-releases: setup ## run all tests once against each of seven releases of Redis, Valkey and Redict
	scripts/servers.sh all
	for release in redis-6.0 redis-7.0 redis-8.0 valkey-8.0 valkey-8.1 valkey-9.1 redict-7.3; do \
		echo "$$release"; KEYHAUL_TEST_SERVER=$$release go test -count=1 -timeout 20m ./... || failed=1; \
	done; exit $${failed:-0}

.PHONY: matrix
matrix: setup ## haul keys of every kind between each pair of seven releases (two minutes); results in docs/matrix.md
	scripts/servers.sh all
	KEYHAUL_TEST_MATRIX=$(CURDIR)/docs/matrix.md go test -count=1 -timeout 30m -run 'TestMatrix$$' ./cmd/keyhaul

.PHONY: setup
setup: ## install what the tests need beside Go: redis-server, a C compiler
	scripts/setup.sh

.PHONY: bench
bench: ## run the Go benchmarks of the hot packages (BENCH=regexp)
	go test -run '^$$' -bench '$(BENCH)' -benchmem $(BENCHED)

.PHONY: bench-e2e
bench-e2e: build ## measure whole migrations between real servers
	scripts/servers.sh
	go run ./scripts/bench

.PHONY: demo
demo: build ## watch a migration with faults, and the proof that nothing is missing, or there twice (half a minute)
	scripts/servers.sh
	go run ./scripts/demo -keyhaul bin/keyhaul

.PHONY: lint
lint: ## gofumpt, go vet, staticcheck and golangci-lint, at pinned versions
	scripts/lint.sh

.PHONY: fuzz
fuzz: ## run each fuzz target for a while (FUZZTIME=10s)
	scripts/fuzz.sh $(FUZZTIME)

.PHONY: generate
generate: ## write the table of commands anew, from what real servers say
	scripts/servers.sh redis-8.0 valkey-9.1
	scripts/gen-commands.sh

.PHONY: clean
clean: ## remove what was built
	rm -rf bin build

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Every target sets up what it needs; `make help` lists them.
#
# Each Go module is built and tested on its own, with what its go.mod says: GOWORK=off.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

MODULES  := proto service collector enricher sink deploy/clickhouse deploy/standalone
SERVICES := collector enricher sink
CAPTURES := $(or $(TAPWEAVE_CAPTURES),$(abspath ../shared/captures))

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.8.0

FUZZTIME  ?= 10s
KILLS     ?= 20
SEED      ?=
SOAK      ?= 1m
TESTFLAGS ?=

export GOWORK := off
export TAPWEAVE_CAPTURES := $(CAPTURES)

# $(call need,TARGET,PROGRAM,WHAT IT IS) stops with one line where a program is missing.
need = command -v $(2) >/dev/null || { echo "make $(1) needs $(3) on the PATH" >&2; exit 1; }
# $(call go,TARGET) does so for Go, $(call clickhouse,TARGET) for ClickHouse or what fetches it.
go = $(call need,$(1),go,Go 1.26)
clickhouse = command -v clickhouse >/dev/null || command -v clickhouse-server >/dev/null || $(call need,$(1),npm,npm (which fetches ClickHouse once)$(comma) or a clickhouse program)
comma := ,
# $(call each,COMMAND) runs a command in every module.
each = for module in $(MODULES); do echo "$$module: $(1)"; (cd $$module; $(1)); done

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: $(SERVICES:%=bin/%) bin/tapweave ## build bin/collector, bin/enricher, bin/sink and bin/tapweave

# Always asked for: whether there is anything to build, Go knows best.
.PHONY: bin/tapweave bin/testservers bin/bench $(SERVICES:%=bin/%)
$(SERVICES:%=bin/%): bin/%:
	@$(call go,build)
	cd $* && CGO_ENABLED=0 go build -trimpath -o $(CURDIR)/$@ ./cmd/$*
bin/tapweave bin/testservers bin/bench: bin/%:
	@$(call go,build)
	cd deploy/standalone && CGO_ENABLED=0 go build -trimpath -o $(CURDIR)/$@ ./cmd/$*

.PHONY: run
run: ## run everything in one process with the bundled sample, and look at it in SQL (Ctrl-C ends it)
	@$(call clickhouse,run)
	@$(MAKE) bin/tapweave
	@if [ -t 0 ]; then exec bin/tapweave run --demo; else exec bin/tapweave run --demo --once; fi

# Versions and licences of the data: deploy/standalone/geoip.
.PHONY: geoip
geoip: ## fetch countries and autonomous systems by address (CC0, CC BY 4.0), and print whom to name
	@$(call need,geoip,npm,npm)
	@deploy/standalone/geoip/fetch.sh

.PHONY: test
test: ## vet and test every module on a real Kafka and a real ClickHouse, fetched once (TESTFLAGS=-race …)
	@$(call go,test)
	@$(call need,test,java,Java 17 (for Apache Kafka))
	@$(call need,test,mvn,Maven (mvn$(comma) which fetches Apache Kafka once))
	@$(call clickhouse,test)
	@if [ ! -d "$(CAPTURES)" ]; then \
		echo "no captures in $(CAPTURES) (TAPWEAVE_CAPTURES): the tests on real captures are left out" >&2; \
		if [ "$${CI:-}" = true ]; then exit 1; fi; \
	fi
	@if [ -n "$${TAPWEAVE_TEST_KAFKA:-}" ] && [ -n "$${TAPWEAVE_TEST_CLICKHOUSE:-}" ]; then \
		echo "using the servers in TAPWEAVE_TEST_KAFKA and TAPWEAVE_TEST_CLICKHOUSE"; $(MAKE) test-modules; \
	else \
		$(MAKE) bin/testservers && bin/testservers -- $(MAKE) test-modules; \
	fi

# Tests alone; those that find no servers in the environment are skipped.
.PHONY: test-modules
test-modules:
	@$(call each,go vet ./... && go test -timeout 30m $(TESTFLAGS) ./...)

.PHONY: bench
bench: ## print the benchmark table: our figures beside those of peers, measured in the same run
	@$(call go,bench)
	@$(call need,bench,java,Java 17 (for Apache Kafka))
	@$(call clickhouse,bench)
	@$(MAKE) bin/tapweave bin/testservers bin/bench
	@bin/testservers -- bin/bench

# The collector under several times the load that Kafka takes, and Kafka away for a minute.
.PHONY: soak
soak: ## the collector at overload for SOAK (1m), and a Kafka that is away for a minute
	@$(call go,soak)
	cd deploy/standalone && SOAK=$(SOAK) go test -count=1 -p 1 -timeout 0 -v -run 'TestOverload|TestKafkaAway' ./load ./endtoend

# Every saved query finds what is hidden among many sessions, and says how long that takes.
SESSIONS ?= 10000000
.PHONY: saved
saved: ## the saved queries on SESSIONS (10000000) made-up sessions
	@$(call go,saved)
	@$(call clickhouse,saved)
	@$(MAKE) bin/testservers
	@cd deploy/standalone && SESSIONS=$(SESSIONS) ../../bin/testservers -kafka=false -- go test -count=1 -timeout 60m -v -run TestSavedOnGenerated ./query

.PHONY: fuzz
fuzz: ## run every fuzz target for a while (FUZZTIME=10s), and the fold on 10,000 random conversations
	@$(call go,fuzz)
	@for module in $(MODULES); do \
		while IFS=: read -r file target; do \
			echo "$$module: $$target"; \
			(cd $$module; go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")"); \
		done < <(cd $$module; grep -ro --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's/func //' | sort); \
	done
	cd enricher && go test ./fold -run '^TestProperties$$' -seeds 10000 -timeout 2h

.PHONY: generate
generate: ## write the generated files anew: protobuf code, docs/columns.md
	@$(call go,generate)
	cd proto && go run ./cmd/protogen tapweave.proto pb
	cd proto && go run ./cmd/columnsdoc ../docs/columns.md

.PHONY: lint
lint: lint-format lint-layers lint-generated lint-modules lint-code vulncheck ## check format, layers, generated files, modules, code (vet, staticcheck), known vulnerabilities

.PHONY: lint-format
lint-format:
	@$(call go,lint)
	@echo "gofmt"
	@files=$$(gofmt -l $(MODULES)); if [ -n "$$files" ]; then echo "not formatted (gofmt -w):" >&2; echo "$$files" >&2; exit 1; fi

# Data flows down the import graph: proto imports nobody, service only proto, and no service another.
.PHONY: lint-layers
lint-layers:
	@echo "layers"
	@for module in proto service $(SERVICES); do \
		case $$module in proto) below=proto ;; service) below='proto|service' ;; *) below="proto|service|$$module" ;; esac; \
		wrong=$$(cd $$module; go list -deps -test -f '{{if not .ForTest}}{{.ImportPath}}{{end}}' ./... | grep '^github.com/tapweave/tapweave/' | grep -Ev "^github.com/tapweave/tapweave/($$below)(/|\.test$$|$$)" || true); \
		if [ -n "$$wrong" ]; then echo "$$module must not import:" >&2; echo "$$wrong" >&2; exit 1; fi; \
	done

.PHONY: lint-generated
lint-generated:
	@echo "generated files"
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; mkdir "$$dir/pb"; \
		(cd proto; go run ./cmd/protogen tapweave.proto "$$dir/pb"; go run ./cmd/columnsdoc "$$dir/columns.md"); \
		diff -q "$$dir/pb/tapweave.pb.go" proto/pb/tapweave.pb.go && diff -q "$$dir/columns.md" docs/columns.md || \
		{ echo "generated files are out of date: make generate" >&2; exit 1; }

.PHONY: lint-modules
lint-modules:
	@$(call each,go mod tidy -diff && go mod verify)

.PHONY: lint-code
lint-code:
	@$(call each,go vet ./... && go run $(STATICCHECK) ./...)

.PHONY: vulncheck
vulncheck: ## look for known vulnerabilities in what is used (govulncheck); says so where its database is out of reach
	@for module in $(MODULES); do \
		echo "$$module: govulncheck ./..."; \
		if ! out=$$(cd $$module; go run $(GOVULNCHECK) ./... 2>&1); then \
			if grep -q 'fetching vulnerabilities' <<<"$$out"; then \
				echo "not checked for known vulnerabilities: govulncheck cannot reach its database"; exit 0; \
			fi; \
			echo "$$out" >&2; exit 1; \
		fi; \
	done

.PHONY: e2e
e2e: ## every capture through the services as programs; docker-compose.yml on a Docker engine of its own (as root)
	@$(call go,e2e)
	cd deploy/standalone && go test -count=1 -timeout 20m -v -run TestWire ./endtoend
	deploy/compose/e2e/run.sh

# COMPOSE names another compose program, FILES another composition: make up FILES="-f docker-compose.yml -f deploy/compose/tls.yml"
COMPOSE ?= docker compose
FILES   ?=

.PHONY: up
up: ## start docker-compose.yml: brokers, database, collectors behind a load balancer, enrichers, sink, dashboards
	@$(call need,up,docker,a Docker engine with compose)
	@deploy/compose/passwords.sh
	@$(if $(findstring tls.yml,$(FILES)),deploy/compose/certificates.sh)
	$(COMPOSE) $(FILES) up --build --detach --wait
	@echo "SQL: make sql, or http://127.0.0.1:8123/play as reader; Grafana: http://127.0.0.1:3000 as admin; passwords: deploy/compose/.env"

.PHONY: down
down: ## stop what make up started; its data stay (FILES=… as there)
	$(COMPOSE) $(FILES) --profile '*' down

.PHONY: logs
logs: ## follow the logs of what make up started
	$(COMPOSE) $(FILES) logs --follow --tail 20

# Within the container, so that nobody else's certificate can be in its place.
.PHONY: sql
sql: ## a SQL prompt on the ClickHouse that make up started
	@. deploy/compose/.env && $(COMPOSE) $(FILES) exec clickhouse clickhouse-client $(if $(findstring tls.yml,$(FILES)),--secure --accept-invalid-certificate) \
		--user reader --password "$$CLICKHOUSE_READER_PASSWORD" --database tapweave

.PHONY: doctor
doctor: ## say what is wrong with what make up started, and what to do
	@$(COMPOSE) $(FILES) run --rm doctor

.PHONY: chaos
chaos: ## kill, stop and cut off every kind of process while known traffic goes through, and hold what is stored against it (KILLS=20 SEED=n)
	@$(call go,chaos)
	@$(call need,chaos,java,Java 17 (for Apache Kafka))
	@$(call clickhouse,chaos)
	cd deploy/standalone && KILLS=$(KILLS) SEED=$(SEED) go test -count=1 -timeout 300m -v -run '^Test(Chaos|RunKilled|DiskFull)$$' ./endtoend

.PHONY: siem
siem: ## run the SIEM consumers that can run here on what the sink writes: rsyslog, kcat, Telegraf (built once)
	@$(call go,siem)
	@$(MAKE) bin/testservers
	@export TAPWEAVE_TELEGRAF=$$(deploy/siem/telegraf.sh); bin/testservers -- sh -c 'cd deploy/standalone && go test -count=1 -v ./consumers'

.PHONY: clean
clean: ## remove what was built; fetched servers stay in ~/.cache/tapweave
	rm -rf bin

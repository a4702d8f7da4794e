# The only entry for people and for CI. `make help` lists every target.

# The machine's own flags must not change what is built here. These compile what is tried
# and thrown away: without inlining and debug information, nats-server and Google's and
# Twilio's clients take a third less time, and cgo would serve the resolver alone. What is
# measured or deployed is built without them.
export GOFLAGS     := "-gcflags=all=-l -dwarf=false" "-ldflags=-s -w"
export CGO_ENABLED := 0
GO ?= go
# The compiler collects garbage less often than it would by itself.
QUICK := GOGC=800 $(GO)
NATS ?= nats
BROWSER := $(shell command -v "$${CHROMIUM:-/usr/bin/chromium}" || command -v chromium || command -v chromium-browser || command -v google-chrome)
# The operator's console in development.
SERVER ?= nats://operator:operator@127.0.0.1:4222

.DEFAULT_GOAL := help
.PHONY: help demo run build test test-browser race fuzz mutants nightly stress stress-browser chaos cluster bench bench-table lint gosec ci streams-diff streams-apply

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## run the whole pipeline on this machine, send the example webhooks, show what each one caused
	@echo "Compiling (the first time about a minute) …" >&2
	@$(QUICK) run ./cmd/sandbox demo

run: ## the same, and stay: a page on 127.0.0.1:3001 drives it, nats reaches it on 127.0.0.1:4222
	@echo "Compiling (the first time about a minute) …" >&2
	@$(QUICK) run ./cmd/sandbox run

build: export GOFLAGS :=
build: ## build every command, as it is deployed, into bin/
	$(GO) build -trimpath -o bin/ ./cmd/...

# Most tests wait for a disk or a clock: six of them at a time keep two cores busy.
test: ## all tests; starts everything it needs itself, a browser too where there is one
	$(GO) test -parallel 6 -timeout 10m ./...
	@if [ -n "$(BROWSER)" ]; then $(MAKE) --no-print-directory test-browser; else \
		echo "No browser here: what the console looks like was not tested. Install Debian's chromium, or name one in CHROMIUM, for make test-browser."; fi

test-browser: ## the console in headless Chromium, every button of it; pictures go to screenshots/
	CHROMIUM="$(BROWSER)" $(GO) test -tags browser -timeout 5m -count 1 -run Browser ./internal/sandbox

race: export CGO_ENABLED := 1
race: ## all tests with the race detector, which needs a C compiler
	$(GO) test -race -timeout 20m ./...

# Go's fuzzer sometimes reports its own deadline as a failure; a finding names its input.
fuzz: ## every fuzz target for 30 s
	@for p in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
			echo "== $$p $$f"; \
			out=$$($(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime 30s -fuzzminimizetime 5s $$p 2>&1) || \
				echo "$$out" | grep -q 'context deadline exceeded' || { echo "$$out"; exit 1; }; \
			echo "$$out" | grep 'execs:' | tail -1; \
		done; \
	done

mutants: ## mutation testing of billing, identity, delivery, keyword and phone; ONLY=phone for one of them
	$(GO) -C internal/tools/mutants run . -root $(CURDIR) -only "$(ONLY)"

nightly: ## property tests with 10,000 draws instead of 200
	RAPID_CHECKS=10000 $(GO) test -timeout 80m ./internal/billing ./internal/identity ./internal/sheets ./internal/leads
	RAPID_CHECKS=1000 $(GO) test -timeout 30m -run Property ./internal/bus

stress: ## crashes, races, load, an outage and a cluster that loses its servers, at full size
	STRESS=1 $(GO) test -timeout 30m -v -run 'FormerRelease|Crash|Race|FourProcesses|ExpiredToken|ThreeThatHang|MetaDoesNotGive|ClusterLoses' ./internal/sms ./internal/daemon/consumersd ./internal/leads ./internal/sheets ./internal/sandbox ./internal/chaos

stress-browser: ## the console with 100,000 records and 50 webhooks a second, for ten minutes
	STRESS=1 CHROMIUM="$(BROWSER)" $(GO) test -tags browser -timeout 30m -count 1 -v -run BrowserUnderLoad ./internal/sandbox

chaos: ## kill, freeze and end the programs for 2 minutes while providers fail, then compare with what people expect; SEED= runs one again
	@CHAOS_SEED=$(or $(SEED),0) $(QUICK) run ./cmd/sandbox chaos

cluster: ## three servers from nats.conf, edge, consumers and traffic, to be killed by hand
	@$(QUICK) run ./cmd/sandbox cluster

bench-table: build ## measure the programs beside the raw ceilings of the same run; writes docs/bench.md and docs/bench.json
	$(QUICK) run ./cmd/sandbox bench

bench: export GOFLAGS :=
bench: bench-table ## the same, then the Go benchmarks of the parts, for half an hour
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 60m ./...

lint: ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

gosec: ## look for insecure code; what is let pass, and why, is in internal/tools/gosec/exceptions.md
	$(GO) -C internal/tools/gosec build -o $(CURDIR)/bin/gosec github.com/securego/gosec/v2/cmd/gosec
	bin/gosec -quiet -exclude-rules "$$(sed -n 's/^- `\(.*\)`: .*/\1/p' internal/tools/gosec/exceptions.md | paste -sd ';' -)" ./...

ci: ## what CI runs
	./.ci/run

# Both need the nats CLI; it asks before it changes anything.
streams-diff: ## show how the running streams and durables differ from streams/*.json
	@for s in WEBHOOKS KV_crm; do \
		$(NATS) --server $(SERVER) stream edit $$s --config streams/$$s.stream.json --dry-run && echo "$$s as declared" || true; \
	done
	@for f in streams/*.consumer.json; do \
		c=$${f#streams/}; c=$${c%.consumer.json}; \
		$(NATS) --server $(SERVER) consumer info $${c%%.*} $${c#*.} >/dev/null 2>&1 || { echo "$${c%%.*} > $${c#*.} does not exist"; continue; }; \
		$(NATS) --server $(SERVER) consumer edit $${c%%.*} $${c#*.} --config $$f --dry-run && echo "$${c%%.*} > $${c#*.} as declared" || true; \
	done

streams-apply: ## align them
	@for s in WEBHOOKS KV_crm; do $(NATS) --server $(SERVER) stream edit $$s --config streams/$$s.stream.json; done
	@for f in streams/*.consumer.json; do \
		c=$${f#streams/}; c=$${c%.consumer.json}; \
		$(NATS) --server $(SERVER) consumer edit $${c%%.*} $${c#*.} --config $$f; \
	done

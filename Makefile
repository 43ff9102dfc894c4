# The source of truth for every task; the justfile only calls this one.
# `make help` lists the targets.

GO       ?= go
VERSION  ?= $(shell ./scripts/version.sh)
LDFLAGS  := -s -w -X main.version=$(VERSION)
BIN      := bin/agented
GOFILES  := $(shell git ls-files '*.go' 2>/dev/null)

export CGO_ENABLED ?= 0
# The same flags everywhere: the program, the tests and the program that tests
# build share one build cache. Another value compiles everything twice.
export GOFLAGS ?= -trimpath

# make check vets, so the tests do not; test binaries need no debug information.
TEST_FLAGS = -count=1 -vet=off -ldflags '-s -w' -p 3

# A test that fails is run RERUN times more; one that then passes is listed in
# bin/flaky.txt, and is a defect. The default finds them: none is run again.
RERUN ?= 0
GO_TESTS = $(GO) tool gotestsum --format standard-quiet --rerun-fails=$(RERUN) --rerun-fails-max-failures=10 --rerun-fails-report=bin/flaky.txt

# Where the tests find what the install scripts fetch.
TEST_ENV = AGENTED_TEST_PROMTOOL=$$(./scripts/install-promtool.sh --print 2>/dev/null) \
	AGENTED_TEST_NODE=$$(./scripts/install-node-tests.sh --print) \
	AGENTED_TEST_WEBHOOKS=$$(./scripts/install-webhook-examples.sh --print)

.DEFAULT_GOAL := help
.PHONY: help setup build ui web-types test-ui screenshots run dev-backend test test-long test-short test-times test-cli check fmt generate crash storm storm-messages soak figures test-service bench bench-quick bench-go fuzz clean cross deploy test-deploy kill reset generate-key docs release-snapshot

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## fetch the Go modules and check the tools
	$(GO) mod download
	@$(GO) version

build: ## build bin/agented
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '-s -w' -o cmd/agented/agshim_$$($(GO) env GOARCH).bin ./cmd/agshim
	GOOS= GOARCH= $(GO) run ./scripts/pack cmd/agented/agshim_$$($(GO) env GOARCH).bin
	$(GO) build -trimpath -tags agshim -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/agented

ui: ## build the web interface into web/dist/app (needs Node 20 or newer)
	./scripts/build-ui.sh

web-types: build ## rewrite web/src/api/schema.d.ts from what the program describes
	@[ -x web/node_modules/.bin/openapi-typescript ] || (cd web && npm ci --no-audit --no-fund)
	AGENTED_BIN=$(BIN) ./scripts/web-types.sh

test-ui: ui build ## the tests of the web interface, also in a real browser
	AGENTED_BIN=$(CURDIR)/$(BIN) ./scripts/test-ui.sh

screenshots: ui build ## pictures of every page into web/shots, dark and light, desktop and phone
	./scripts/install-chromium.sh
	cd web && AGENTED_BIN=$(CURDIR)/$(BIN) CHROMIUM=$$(../scripts/install-chromium.sh --print) timeout 600 node e2e/screenshots.mjs

run: ## build, interface included, and serve on ./data at 127.0.0.1:20000, with the sample trigger
	@./scripts/build-ui.sh --if-possible
	@$(MAKE) --no-print-directory build
	AGENTED_DATA_DIR=$${AGENTED_DATA_DIR:-$(CURDIR)/data} AGENTED_BIND=$${AGENTED_BIND:-127.0.0.1:20000} $(BIN) serve --sample

dev-backend: ## serve, rebuilt and restarted on each change of a Go file, with the debug log
	LOG_LEVEL=debug ./scripts/dev-backend.sh

test: ## what every change must pass, beside check: all packages, the interface with a browser smoke run
	./scripts/install-packages.sh bwrap=bubblewrap
	./scripts/install-node-tests.sh
	./scripts/install-webhook-examples.sh
	@mkdir -p bin && rm -f bin/flaky.txt
	$(TEST_ENV) $(GO_TESTS) --packages ./... -- $(TEST_FLAGS) -timeout 10m
	./scripts/build-ui.sh --if-possible
	@$(MAKE) --no-print-directory build
	AGENTED_BIN=$(CURDIR)/$(BIN) ./scripts/test-ui.sh --if-possible --smoke

test-long: ## the rest: full sizes, race detector, fuzzing, the whole browser suite, deployment, systemd, real CLIs
	./scripts/test-long.sh

test-short: ## the tests for the edit loop: the smallest sizes, no server, results cached
	$(GO) test -short -vet=off -ldflags '-s -w' -timeout 10m ./...

test-cli: build ## drive the real agent CLIs from npm against a stand-in for their APIs
	./scripts/install-clis.sh
	AGENTED_TEST_CLIS=$$(./scripts/install-clis.sh --print) $(GO) test -count=1 -v -timeout 30m ./internal/clireal ./cmd/agented -run "Real|CLI|Turn|Claude|Codex|Gemini|OpenCode"

check: ## format, style of the texts, vet, staticcheck, and ESLint and Prettier where web/node_modules is there
	@out=$$($(GO) tool gofumpt -l $(GOFILES)); if [ -n "$$out" ]; then echo "not formatted (make fmt):"; echo "$$out"; exit 1; fi
	$(GO) test -vet=off -run "TestStyle" .
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	[ ! -x web/node_modules/.bin/eslint ] || (cd web && npm run --silent lint)

fmt: ## format the Go files and the web interface
	$(GO) tool gofumpt -w $(GOFILES)
	[ ! -x web/node_modules/.bin/prettier ] || (cd web && npm run --silent format)

generate: ## rewrite .env.example, the references, the golden files and the licence notices
	$(GO) test ./internal/config ./internal/agentcli ./cmd/agented ./internal/api -run "Generated|Golden|CommittedDocument" -update
	[ ! -d web/node_modules ] || $(GO) run ./scripts/notices

crash: build ## kill the server at random under load, fifty times, and look for lost lines
	AGENTED_CRASH_ROUNDS=50 $(GO) test -count=1 -v -timeout 30m -run TestCrash ./cmd/agented

test-times: ## rewrite the table of tests in docs/contributing/testing.md from a run of make test and make test-long
	@mkdir -p bin
	./scripts/install-promtool.sh
	./scripts/install-node-tests.sh
	./scripts/install-webhook-examples.sh
	$(TEST_ENV) $(GO) test -json $(TEST_FLAGS) -timeout 10m ./... >bin/test.json
	AGENTED_TEST_LONG=1 $(TEST_ENV) $(GO) test -json $(TEST_FLAGS) -timeout 40m ./... >bin/test-long.json
	$(GO) run ./scripts/testtable bin/test.json bin/test-long.json

storm: build ## ten thousand webhook deliveries, a third of them twice, through a kill
	AGENTED_STORM=10000 $(GO) test -count=1 -v -timeout 30m -run TestWebhooks_storm ./cmd/agented

storm-messages: build ## ten thousand messages to a hundred followed inboxes, through a kill
	AGENTED_STORM_MESSAGES=10000 $(GO) test -count=1 -v -timeout 30m -run TestMessages_storm ./cmd/agented

soak: build ## hold streams for more than five minutes, also through nginx
	./scripts/install-packages.sh nginx=nginx-light
	AGENTED_SOAK=1 $(GO) test -count=1 -v -timeout 30m -run TestSoak ./cmd/agented

figures: ## measure the program from outside and print what was found
	AGENTED_FIGURES=1 $(GO) test -count=1 -v -timeout 30m -run TestFigures ./cmd/agented

test-service: ## boot a real systemd in a container and mistreat the installed service (root)
	GO='$(GO)' ./deploy/test/run.sh

bench: ui build ## measure the program from outside, and others beside it (a quarter of an hour, an idle machine)
	./scripts/install-bench-peers.sh
	$(GO) build -o bin/bench ./bench
	bin/bench -v -bin $(BIN) -json bin/bench.json -images docs/images

bench-quick: ui build ## the same in about a minute, with fewer readers
	$(GO) build -o bin/bench ./bench
	bin/bench -quick -bin $(BIN) -json bin/bench-quick.json

bench-go: ## the Go benchmarks of the hot paths
	$(GO) test -run '^$$' -bench . -benchmem ./internal/...

fuzz: ## each fuzz target for half a minute
	./scripts/fuzz.sh 30s

cross: ## compile for the other platforms
	GOOS=linux GOARCH=arm64 $(GO) build -o /dev/null ./cmd/agented
	GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./cmd/agented

generate-key: build ## print a fresh SECRET_KEY
	@$(BIN) key secret

deploy: ## build all and serve on ./data in the background, supervised; again: replace it
	@./scripts/build-ui.sh --if-possible
	@$(MAKE) --no-print-directory build
	@./scripts/deploy.sh

test-deploy: build ## deploy twice, beside a stranger and with an agent that runs, and stop
	./scripts/test-deploy.sh

kill: ## end the server that `make run` or `make deploy` started, and only that one
	./scripts/stop.sh

reset: kill ## remove ./data after asking
	./scripts/reset.sh

docs: ## where the documents are
	@ls docs/*.md docs/*/*.md

release-snapshot: ## build archives, packages, SBOMs and the Homebrew cask into dist/, publish nothing
	GO='$(GO)' ./scripts/release.sh --snapshot

clean: ## remove what was built
	rm -rf bin dist

# Benchmarks.
#
#   make bench                         every scenario, BENCH_ROUNDS=1 of BENCH_SECONDS=3 each
#   make bench BENCH='publish echo'    some of them
#   make bench BENCH_FLAGS='--sessions 1000000 --growth 50000000' BENCH='start growth'
#   make bench BENCH_JSON=run.json     figures as JSON lines, too
#   make bench-peers                   the same beside redis, NATS, mosquitto, nchan, ws, Socket.IO
#   make bench-instructions            instructions for a publish, a delivery, a replayed event, and
#                                      the change since the last record (RECORD=1: record these)
#   make bench-doc                     docs/benchmarks.md from tests/bench/results.jsonl, which
#                                      `make bench-peers BENCH_ROUNDS=5 BENCH_SECONDS=0.6
#                                      BENCH_JSON=tests/bench/results.jsonl` makes
#   make bench-store                   the store alone, no network

BENCH ?=
BENCH_SECONDS ?= 3
BENCH_ROUNDS ?= 1
BENCH_SCALE ?= 1
BENCH_JSON ?=
BENCH_FLAGS ?=
BENCH_SRC := $(filter-out tests/bench/bench_%.c,$(wildcard tests/bench/*.c))
BENCH_OBJ = $(BENCH_SRC:%.c=$(BUILD)/%.o)
BENCH_BIN = $(BUILD)/tests/bench/bench
BENCH_STORE = $(BUILD)/tests/bench/bench_store
BENCH_STORE_OBJ = $(patsubst %,$(BUILD)/tests/bench/%.o,bench_store raw load)
BENCH_RUN = EBBGATE_BIN=$(DAEMON) $(BENCH_BIN) --rounds $(BENCH_ROUNDS) --seconds $(BENCH_SECONDS) \
	--scale $(BENCH_SCALE) $(if $(BENCH_JSON),--json $(BENCH_JSON)) $(BENCH_FLAGS)

$(BUILD)/tests/bench/%.o: tests/bench/%.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(TL_CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BENCH_BIN): $(BENCH_OBJ) $(TL_LIB) $(LIB)
	$(call say,LINK)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(BENCH_OBJ) $(TL_LIB) $(LIB) $(LIBS)

$(BENCH_STORE): $(BENCH_STORE_OBJ) $(LIB)
	$(call say,LINK)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(BENCH_STORE_OBJ) $(LIB) $(LIBS)

.PHONY: bench bench-doc bench-instructions bench-peers bench-store
bench: $(DAEMON) $(BENCH_BIN) ## load scenarios against a gateway (BENCH='publish echo')
	$(BENCH_RUN) $(BENCH)

# The servers from Debian by scripts/deps.sh, those from npm into build/bench; what cannot be had is
# left out, and said so.
bench-peers: $(DAEMON) $(BENCH_BIN) $(BUILD)/bench/node ## beside other servers, in the same run
	-@sh scripts/deps.sh bench
	BENCH_NODE=$(abspath $(BUILD)/bench/node_modules) $(BENCH_RUN) --peers $(BENCH)

$(BUILD)/bench/node: tests/bench/peers/package.json
	@mkdir -p $(BUILD)/bench
	-cp $< $(BUILD)/bench/ && cd $(BUILD)/bench && npm install --no-audit --no-fund --silent
	@touch $@

bench-instructions: $(DAEMON) $(BENCH_BIN) ## instructions for each step, under callgrind
	@command -v valgrind >/dev/null 2>&1 || sh scripts/deps.sh bench
	@mkdir -p $(BUILD)/bench
	EBBGATE_REAL=$(abspath $(DAEMON)) EBBGATE_BIN=$(abspath tests/bench/callgrind.sh) \
	    BENCH_CALLGRIND=$(abspath $(BUILD)/bench/callgrind.out) \
	    $(BENCH_BIN) --json $(BUILD)/bench/instructions.json instructions
	@python3 tests/bench/instructions.py $(BUILD)/bench/instructions.json \
	    tests/bench/instructions.json $(BUILD)/bench/callgrind.out $(if $(RECORD),--record)

bench-doc: ## docs/benchmarks.md from the recorded run
	python3 tests/bench/doc.py tests/bench/results.jsonl tests/bench/instructions.json > docs/benchmarks.md

bench-store: $(BENCH_STORE) ## group commit into the store alone
	$(BENCH_STORE) --sessions 500 --batch 500
	$(BENCH_STORE) --sessions 100000 --batch 500

-include $(BENCH_OBJ:.o=.d) $(BUILD)/tests/bench/bench_store.d

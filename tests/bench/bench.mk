# Benchmarks.
#
#   make bench                         every scenario (BENCH_SECONDS=3 each)
#   make bench BENCH='publish echo'    some of them
#   make bench-store                   the store alone, no network

BENCH ?=
BENCH_SECONDS ?= 3
BENCH_SCALE ?= 1
BENCH_SRC := $(filter-out tests/bench/bench_%.c,$(wildcard tests/bench/*.c))
BENCH_OBJ = $(BENCH_SRC:%.c=$(BUILD)/%.o)
BENCH_BIN = $(BUILD)/tests/bench/bench
BENCH_STORE = $(BUILD)/tests/bench/bench_store

$(BUILD)/tests/bench/%.o: tests/bench/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(TL_CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BENCH_BIN): $(BENCH_OBJ) $(TL_LIB) $(LIB)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(BENCH_OBJ) $(TL_LIB) $(LIB) $(LIBS)

$(BENCH_STORE): $(BUILD)/tests/bench/bench_store.o $(LIB)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(LIB) $(LIBS)

.PHONY: bench bench-store
bench: $(DAEMON) $(BENCH_BIN) ## load scenarios against a gateway (BENCH='publish echo')
	EBBGATE_BIN=$(DAEMON) $(BENCH_BIN) --seconds $(BENCH_SECONDS) --scale $(BENCH_SCALE) $(BENCH)

bench-store: $(BENCH_STORE) ## group commit into the store alone
	$(BENCH_STORE) --sessions 500 --batch 500
	$(BENCH_STORE) --sessions 100000 --batch 500

-include $(BENCH_OBJ:.o=.d)

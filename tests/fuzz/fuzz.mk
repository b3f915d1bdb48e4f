# Fuzzing (clang's libFuzzer): each tests/fuzz/fuzz_NAME.c is one target with its seeds, and every
# input that ever broke it, in tests/fuzz/corpus/NAME/.
#
#   make fuzz                          every target for FUZZ_SECONDS each
#   make fuzz FUZZ=json                one target
#   make fuzz-regress                  every kept input once
#   make fuzz-cover                    what lines of src/ the kept inputs reach, by target
#   make test-json-differential        the JSON guard beside other parsers
#
# What a run finds goes to build/fuzz/corpus/NAME, what breaks a target to build/fuzz/found/.

FUZZ ?= *
FUZZ_SECONDS ?= 20
FUZZ_CC ?= clang
OPT_fuzz := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
FUZZ_SRC := $(wildcard $(patsubst %,tests/fuzz/fuzz_%.c,$(patsubst fuzz_%,%,$(FUZZ))))
FUZZ_NAMES := $(FUZZ_SRC:tests/fuzz/fuzz_%.c=%)
FUZZ_BIN = $(FUZZ_NAMES:%=$(BUILD)/tests/fuzz/fuzz_%)

OPT_fuzzcover := -O1 -g -fsanitize=fuzzer-no-link -fprofile-instr-generate -fcoverage-mapping
.PHONY: fuzz fuzz-regress fuzz-cover fuzz-run fuzz-once fuzz-cover-run
fuzz: ## every fuzz target for FUZZ_SECONDS each (FUZZ=name for one)
	+@$(MAKE) --no-print-directory VARIANT=fuzz CC=$(FUZZ_CC) fuzz-run

fuzz-regress: ## every kept fuzz input once
	+@$(MAKE) --no-print-directory VARIANT=fuzz CC=$(FUZZ_CC) fuzz-once

fuzz-cover: ## lines of src/ that each fuzz target reaches, into build/fuzzcover/coverage.txt
	+@$(MAKE) --no-print-directory VARIANT=fuzzcover CC=$(FUZZ_CC) fuzz-cover-run

# What some targets need besides the library, and options of some. The configuration's library leaks
# a string at each broken syntax (suppressed in the target), and looking for leaks after each is slow.
FUZZ_OPTS_config = -dict=tests/fuzz/config.dict -max_len=4096 -detect_leaks=0
FUZZ_OPTS_core = -max_len=1024
FUZZ_OPTS_sim = -max_len=2048
FUZZ_OPTS_store = -max_len=256
MEMSTORE = $(BUILD)/tests/lib/memstore.o
FUZZ_EXTRA_sim = $(patsubst %,$(BUILD)/tests/sim/%.o,world batch acts operate create judge heard lives acks tokens \
	limits check) $(MEMSTORE)
FUZZ_EXTRA_core = $(BUILD)/tests/fuzz/core_check.o $(MEMSTORE)
# The names that fuzz_http.c replaces.
FUZZ_WRAP_http = $(patsubst %,-Wl$(comma)--wrap=eg_%,adopt_fd adopt_beyond_head adopt_stream \
	listener_client_addr listener_bound reactors_each sqlite_backup core_epoch core_call)
FUZZ_EXTRA_http = $(BUILD)/tests/fuzz/http_answer.o
FUZZ_OPTS_http = -dict=tests/fuzz/http.dict -max_len=2048
comma := ,
$(BUILD)/tests/fuzz/fuzz_sim: $(FUZZ_EXTRA_sim)
$(BUILD)/tests/fuzz/fuzz_core: $(FUZZ_EXTRA_core)
$(BUILD)/tests/fuzz/fuzz_http: $(FUZZ_EXTRA_http)

$(BUILD)/tests/fuzz/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(LIB)
	$(CC) $(CFLAGS) $(LDFLAGS) -fsanitize=fuzzer -o $@ $< $(FUZZ_EXTRA_$*) $(FUZZ_WRAP_$*) $(LIB) $(LIBS)

.PHONY: fuzz-names
fuzz-names:
	@test -n '$(FUZZ_NAMES)' || { echo 'FAILED: no fuzz target has the name $(FUZZ)' >&2; exit 1; }

fuzz-run: fuzz-names $(FUZZ_BIN)
	@options() { case $$1 in ${foreach n,$(FUZZ_NAMES),$(n)) echo '$(FUZZ_OPTS_$(n))';;} esac; }; \
	for name in $(FUZZ_NAMES); do \
	    mkdir -p $(BUILD)/corpus/$$name $(BUILD)/found; \
	    log=$(BUILD)/found/$$name.log; \
	    if $(BUILD)/tests/fuzz/fuzz_$$name -max_total_time=$(FUZZ_SECONDS) -timeout=10 \
	        -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 $$(options $$name) \
	        -artifact_prefix=$(BUILD)/found/$$name- \
	        $(BUILD)/corpus/$$name tests/fuzz/corpus/$$name >$$log 2>&1; then \
	        printf 'passed: fuzz %s, %s inputs tried\n' "$$name" \
	            "$$(sed -n 's/stat::number_of_executed_units: //p' $$log)"; \
	    else tail -n 60 $$log; printf 'FAILED: fuzz %s, see %s\n' "$$name" $$log; exit 1; fi; \
	done

fuzz-once: fuzz-names $(FUZZ_BIN)
	@mkdir -p $(BUILD)/found; for name in $(FUZZ_NAMES); do \
	    log=$(BUILD)/found/$$name-once.log; \
	    $(BUILD)/tests/fuzz/fuzz_$$name -runs=0 -verbosity=0 -artifact_prefix=$(BUILD)/found/$$name- \
	        tests/fuzz/corpus/$$name >$$log 2>&1 || \
	        { tail -n 60 $$log; printf 'FAILED: fuzz %s\n' "$$name"; exit 1; }; \
	    printf 'passed: fuzz %s, %s inputs\n' "$$name" \
	        "$$(find tests/fuzz/corpus/$$name -type f | wc -l)"; \
	done

fuzz-cover-run: fuzz-names $(FUZZ_BIN)
	@mkdir -p $(BUILD)/profile; for name in $(FUZZ_NAMES); do \
	    found=; test ! -d build/fuzz/corpus/$$name || found=build/fuzz/corpus/$$name; \
	    LLVM_PROFILE_FILE=$(BUILD)/profile/$$name.profraw $(BUILD)/tests/fuzz/fuzz_$$name -runs=0 \
	        -verbosity=0 tests/fuzz/corpus/$$name $$found >$(BUILD)/profile/$$name.log 2>&1 && \
	    llvm-profdata merge -o $(BUILD)/profile/$$name.profdata $(BUILD)/profile/$$name.profraw || \
	        { tail -n 20 $(BUILD)/profile/$$name.log; exit 1; }; \
	done
	@llvm-profdata merge -o $(BUILD)/profile/all.profdata $(FUZZ_NAMES:%=$(BUILD)/profile/%.profdata)
	@python3 tests/fuzz/cover.py $(BUILD)/profile $(BUILD)/tests/fuzz/fuzz_ $(FUZZ_NAMES) \
	    >$(BUILD)/coverage.txt
	@cat $(BUILD)/coverage.txt

# The guard's verdicts beside those of node's JSON.parse and python's json, on tricky inputs.
$(BUILD)/tests/fuzz/differential/guard: $(BUILD)/tests/fuzz/differential/guard.o $(LIB)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(LIB) $(LIBS)

.PHONY: test-json-differential
test-json-differential: $(BUILD)/tests/fuzz/differential/guard ## the JSON guard beside other parsers
	timeout 300 python3 tests/fuzz/differential/compare.py $<

.SECONDARY: $(FUZZ_NAMES:%=$(BUILD)/tests/fuzz/fuzz_%.o) $(BUILD)/tests/fuzz/differential/guard.o
-include $(wildcard $(BUILD)/tests/fuzz/*.d) $(BUILD)/tests/fuzz/differential/guard.d

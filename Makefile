# Ebbgate. `make help` lists the targets.
.DEFAULT_GOAL := all
VARIANT ?= release
BUILD ?= $(if $(filter release,$(VARIANT)),build,build/$(VARIANT))
VERSION := $(shell sed -n 's/.*EG_VERSION "\(.*\)"/\1/p' include/ebbgate/protocol.h)
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
# The configuration file that commands read when none is named; packages set it.
CONFIG_FILE ?=
CC ?= gcc

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
OPT_release := -O2 -g
OPT_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT_tsan := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
OPT_cover := -O0 -g --coverage -fprofile-update=atomic
CFLAGS += -std=gnu11 $(WARN) $(OPT_$(VARIANT)) -pthread
CPPFLAGS += -D_GNU_SOURCE -Iinclude -Isrc -I$(BUILD)/gen $(if $(CONFIG_FILE),-DEG_CONFIG_FILE='"$(CONFIG_FILE)"')
LDFLAGS += -pthread $(filter -fsanitize% --coverage,$(OPT_$(VARIANT))) -rdynamic
LIBS := -lcivetweb -lcjson -lsodium -lsqlite3 -lwslay -lconfig -lcurl -lm

# A word and a name for each step; make V=1 shows the commands.
say = $(if $(V),,@echo '  $(1) $@';)

SRC := $(wildcard src/*/*.c)
GEN := $(BUILD)/gen/sql.c $(BUILD)/gen/files.c
OBJ := $(SRC:%.c=$(BUILD)/%.o) $(GEN:%.c=%.o)
LIBOBJ := $(filter-out $(BUILD)/src/app/main.o,$(OBJ))
DAEMON := $(BUILD)/ebbgate
LIB := $(BUILD)/libebbgate.a

.PHONY: all help clean deps run test check asan tsan lint analyze format
all: $(DAEMON) ## release build into build/

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort | expand -t 20

$(DAEMON): $(BUILD)/src/app/main.o $(LIB)
	$(call say,LINK)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(LIB) $(LIBS)

$(LIB): $(LIBOBJ)
	@rm -f $@
	$(call say,AR)$(AR) rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/gen/%.o: $(BUILD)/gen/%.c
	$(call say,CC)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

# Files embedded in the binary: name, bytes, length (scripts/embed.sh).
$(BUILD)/gen/sql.c: $(wildcard sql/*.sql) scripts/embed.sh
	@mkdir -p $(@D)
	sh scripts/embed.sh eg_sql $(sort $(wildcard sql/*.sql)) > $@.tmp && mv $@.tmp $@
# The console uses the client library that others use, too.
CONSOLE := $(sort $(shell find admin -type f 2>/dev/null) \
	$(filter-out %/node.js,$(wildcard clients/js/src/*.js)))
$(BUILD)/gen/files.c: $(CONSOLE) scripts/embed.sh
	@mkdir -p $(@D)
	sh scripts/embed.sh eg_files $(CONSOLE) > $@.tmp && mv $@.tmp $@

-include $(OBJ:.o=.d)
# The test library's names are used by the others.
include tests/lib/lib.mk $(filter-out tests/lib/lib.mk,$(wildcard tests/*/*.mk packaging/*.mk))

deps: ## install what is missing to build, test and lint
	@sh scripts/deps.sh

run: ## set up, build, start a gateway with a demo agent
	@sh scripts/deps.sh build
	+@$(MAKE) --no-print-directory all
	@BUILD=$(BUILD) sh scripts/run.sh

# In the order of how fast they tell.
SUITES := test-unit test-protocol test-docs test-cli test-fault test-http test-console test-jose \
	test-json-differential fuzz-regress test-clients simulate torture test-faults power-loss \
	test-network hostile

test: ## set up, build, run every suite
	@sh scripts/deps.sh build test
	+@$(MAKE) --no-print-directory check

check: $(DAEMON) ## every suite, without the set-up
	+@failed=; for suite in $(SUITES); do \
	    printf '== suite %s\n' "$$suite"; \
	    start=$$(date +%s); \
	    $(MAKE) --no-print-directory $$suite || failed="$$failed $$suite"; \
	    printf '== %s s\n' $$(($$(date +%s) - start)); \
	done; \
	if [ -n "$$failed" ]; then echo "FAILED suites:$$failed"; exit 1; fi; echo "passed: all suites"

asan: ## every suite under AddressSanitizer and UndefinedBehaviorSanitizer
	+@$(MAKE) --no-print-directory VARIANT=asan check

# The unit tests' framework does not run under ThreadSanitizer; the daemon does.
tsan: ## the black-box suites against a daemon under ThreadSanitizer
	+@$(MAKE) --no-print-directory VARIANT=tsan \
	    SUITES="$(filter test-protocol test-cli test-fault test-http,$(SUITES))" check

lint: ## format, layers, thread safety, gcc's and clang's analyzers, cppcheck
	@sh scripts/lint.sh

analyze: ## gcc -fanalyzer alone
	@sh scripts/analyze.sh

format: ## put the sources into the project's format
	@find src include tests \( -name '*.c' -o -name '*.h' \) -print0 | xargs -0 clang-format -i

clean: ## remove build/
	rm -rf build

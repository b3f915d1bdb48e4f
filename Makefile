# Ebbgate. `make help` lists the targets.
.DEFAULT_GOAL := all
VARIANT ?= release
BUILD ?= $(if $(filter release,$(VARIANT)),build,build/$(VARIANT))
VERSION := $(shell sed -n 's/.*EG_VERSION "\(.*\)"/\1/p' include/ebbgate/protocol.h)
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/ebbgate
DESTDIR ?=
CC ?= gcc

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
OPT_release := -O2 -g
OPT_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT_tsan := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
OPT_cover := -O0 -g --coverage
CFLAGS += -std=gnu11 $(WARN) $(OPT_$(VARIANT)) -pthread
CPPFLAGS += -D_GNU_SOURCE -Iinclude -Isrc -I$(BUILD)/gen
LDFLAGS += -pthread $(filter -fsanitize% --coverage,$(OPT_$(VARIANT))) -rdynamic
LIBS := -lcivetweb -lcjson -lsodium -lsqlite3 -lwslay -lconfig -lcurl -lm

SRC := $(wildcard src/*/*.c)
GEN := $(BUILD)/gen/sql.c $(BUILD)/gen/files.c
OBJ := $(SRC:%.c=$(BUILD)/%.o) $(GEN:%.c=%.o)
LIBOBJ := $(filter-out $(BUILD)/src/app/main.o,$(OBJ))
DAEMON := $(BUILD)/ebbgate
LIB := $(BUILD)/libebbgate.a

.PHONY: all help clean deps run test asan tsan lint install
all: $(DAEMON) ## release build into build/

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort | expand -t 20

$(DAEMON): $(BUILD)/src/app/main.o $(LIB)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(LIB) $(LIBS)

$(LIB): $(LIBOBJ)
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/gen/%.o: $(BUILD)/gen/%.c
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

# Files embedded in the binary: name, bytes, length (scripts/embed.sh).
$(BUILD)/gen/sql.c: $(wildcard sql/*.sql) scripts/embed.sh
	@mkdir -p $(@D)
	sh scripts/embed.sh eg_sql $(sort $(wildcard sql/*.sql)) > $@.tmp && mv $@.tmp $@
$(BUILD)/gen/files.c: $(shell find admin -type f 2>/dev/null) scripts/embed.sh
	@mkdir -p $(@D)
	sh scripts/embed.sh eg_files $(sort $(shell find admin -type f)) > $@.tmp && mv $@.tmp $@

-include $(OBJ:.o=.d)
include $(wildcard tests/*/*.mk packaging/*.mk)

clean: ## remove build/
	rm -rf build

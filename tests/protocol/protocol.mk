# Black-box tests: a real gateway ($(DAEMON)) and a small client.
#
#   make test-protocol                 everything, with sizes that fit a small machine
#   make test-protocol PT_FILTER='rfc6455/*'
#
# Sizes: PT_KILLS (rounds of kill -9), PT_CONNECTIONS, PT_CHURN, PT_LOAD (messages), PT_JOBS.

PT_FILTER ?= *
PT_JOBS ?= 4
PT_TIMEOUT ?= 600
PT_BIN = $(BUILD)/tests/protocol/test_protocol
PT_OBJS = $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/protocol/*.c))

$(BUILD)/tests/protocol/%.o: tests/protocol/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(TL_CPPFLAGS) $(TL_CFLAGS) -MMD -MP -c $< -o $@

$(PT_BIN): $(PT_OBJS) $(TL_LIB)
	$(CC) $(TL_LDFLAGS) $(PT_OBJS) $(TL_LIB) $(TL_LIBS) -lcriterion -lsodium -o $@

.PHONY: test-protocol
test-protocol: $(DAEMON) $(PT_BIN)
	EBBGATE_BIN=$(DAEMON) timeout -k 5 $(PT_TIMEOUT) $(PT_BIN) -j$(PT_JOBS) --filter '$(PT_FILTER)'

-include $(PT_OBJS:.o=.d)

# Churn of the take-over of sockets: tests/fault/adopt_churn.c, alone against a listener.
#
#   make test-adopt ADOPT_CYCLES=300000

ADOPT_CYCLES ?= 4000
ADOPT_BIN = $(BUILD)/tests/fault/adopt_churn

$(ADOPT_BIN): tests/fault/adopt_churn.c $(LIB)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $(LIB) $(LIBS)

.PHONY: test-adopt test-fault
test-adopt: $(ADOPT_BIN) ## resets, half-open sockets, same ports against the take-over of sockets
	ADOPT_CYCLES=$(ADOPT_CYCLES) timeout -k 5 600 $(ADOPT_BIN)
test-fault: test-adopt

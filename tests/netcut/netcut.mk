# The torture's clients and workers behind a bad network.
#
#   make test-network NET_SECONDS=1800 NET_PACE=10   half an hour each way, with a log of bounded size

NET_SECONDS ?= 20
NET_DROP ?= 10
# Clients act this many times more seldom.
NET_PACE ?= 1
NETCUT_OBJ = $(patsubst %.c,$(BUILD)/%.o,tests/netcut/netcut.c tests/netcut/proxy.c \
	tests/torture/play.c tests/torture/check.c tests/bench/load.c)
NETCUT = $(BUILD)/tests/netcut/netcut

$(BUILD)/tests/netcut/%.o: tests/netcut/%.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(TL_CPPFLAGS) $(TL_CFLAGS) -MMD -MP -c -o $@ $<

$(NETCUT): $(NETCUT_OBJ) $(TL_LIB)
	$(call say,LINK)$(CC) $(TL_LDFLAGS) -o $@ $(NETCUT_OBJ) $(TL_LIB) $(TL_LIBS)

.PHONY: test-network
test-network: $(DAEMON) $(NETCUT) ## a network that delays, stalls, cuts and drops, NET_SECONDS=20 each
	EBBGATE_BIN=$(DAEMON) timeout -k 5 8000 $(NETCUT) --seconds $(NET_SECONDS) --pace $(NET_PACE)
	EBBGATE_BIN=$(DAEMON) timeout -k 5 8000 $(NETCUT) --seconds $(NET_SECONDS) --pace $(NET_PACE) \
	    --drop $(NET_DROP)

-include $(NETCUT_OBJ:.o=.d)

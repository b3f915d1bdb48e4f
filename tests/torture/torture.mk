# The daemon under load, killed at random instants.
#
#   make torture KILLS=1000

KILLS ?= 50
TORTURE_PLAY := tests/torture/play.c tests/torture/check.c tests/bench/load.c
TORTURE_SRC := tests/torture/torture.c $(TORTURE_PLAY)
TORTURE_OBJ = $(TORTURE_SRC:%.c=$(BUILD)/%.o)
TORTURE = $(BUILD)/tests/torture/torture

$(BUILD)/tests/torture/%.o: tests/torture/%.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(TL_CPPFLAGS) $(TL_CFLAGS) -MMD -MP -c -o $@ $<

$(TORTURE): $(TORTURE_OBJ) $(TL_LIB)
	$(call say,LINK)$(CC) $(TL_LDFLAGS) -o $@ $(TORTURE_OBJ) $(TL_LIB) $(TL_LIBS)

.PHONY: torture
torture: $(DAEMON) $(TORTURE) ## kill -9 under mixed load, KILLS=50 times, and hold the log to what was told
	EBBGATE_BIN=$(DAEMON) $(TORTURE) --kills $(KILLS)

-include $(TORTURE_OBJ:.o=.d)

# The data folder as power cuts would have left it, held to what clients were told before each.
#
#   make power-loss CUTS=2000

CUTS ?= 150
POWER_OBJ = $(patsubst %.c,$(BUILD)/%.o,tests/power/power.c tests/power/disk.c tests/torture/play.c \
	tests/torture/check.c tests/bench/load.c)
POWER = $(BUILD)/tests/power/power
POWER_RECORDER = $(BUILD)/tests/power/recorder.so

$(BUILD)/tests/power/%.o: tests/power/%.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(TL_CPPFLAGS) $(TL_CFLAGS) -MMD -MP -c -o $@ $<

$(POWER_RECORDER): tests/power/recorder.c tests/power/record.h
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) $(CPPFLAGS) $(TL_CFLAGS) -fPIC -shared -o $@ $< -ldl

$(POWER): $(POWER_OBJ) $(TL_LIB)
	$(call say,LINK)$(CC) $(TL_LDFLAGS) -o $@ $(POWER_OBJ) $(TL_LIB) $(TL_LIBS) -lsqlite3

.PHONY: power-loss
power-loss: $(DAEMON) $(POWER) $(POWER_RECORDER) ## power cuts at flushes and in between, CUTS=150 of them
	EBBGATE_BIN=$(DAEMON) timeout -k 5 3600 $(POWER) --recorder $(POWER_RECORDER) --cuts $(CUTS)

-include $(POWER_OBJ:.o=.d)

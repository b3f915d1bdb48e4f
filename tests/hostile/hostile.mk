# Hostile clients while twenty well-behaved ones go on.
#
#   make hostile HOSTILE_SECONDS=10 HOSTILE_SCALE=10
#   make hostile HOSTILE_ROUNDS=5         medians of five rounds
#   make hostile HOSTILE_ATTACKS='publish bombs'
#   make hostile HOSTILE_EVENTS=100000 HOSTILE_CROWD=1000

HOSTILE_SECONDS ?= 2
HOSTILE_ROUNDS ?= 1
HOSTILE_SCALE ?= 1
HOSTILE_EVENTS ?= 1000000
HOSTILE_CROWD ?= 5000
HOSTILE_ATTACKS ?=
HOSTILE_OBJ = $(patsubst %.c,$(BUILD)/%.o,tests/hostile/hostile.c tests/hostile/attack.c \
	tests/hostile/crowd.c tests/bench/load.c)
HOSTILE = $(BUILD)/tests/hostile/hostile

$(BUILD)/tests/hostile/%.o: tests/hostile/%.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(TL_CPPFLAGS) $(TL_CFLAGS) -MMD -MP -c -o $@ $<

$(HOSTILE): $(HOSTILE_OBJ) $(TL_LIB)
	$(call say,LINK)$(CC) $(TL_LDFLAGS) -o $@ $(HOSTILE_OBJ) $(TL_LIB) $(TL_LIBS)

.PHONY: hostile
hostile: $(DAEMON) $(HOSTILE) ## floods, dribbles, bombs and guesses beside twenty good clients
	EBBGATE_BIN=$(DAEMON) timeout -k 5 3600 $(HOSTILE) --seconds $(HOSTILE_SECONDS) \
	    --rounds $(HOSTILE_ROUNDS) --scale $(HOSTILE_SCALE) --events $(HOSTILE_EVENTS) \
	    --crowd $(HOSTILE_CROWD) $(HOSTILE_ATTACKS)

-include $(HOSTILE_OBJ:.o=.d)

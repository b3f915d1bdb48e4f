# The simulator: the state machine under a seeded random scheduler.
#
#   make simulate                  for SIM_SECONDS (60), from seed 1 on, after the kept seeds
#   make simulate SIM_SEED=42      one schedule, with its story when it fails

SIM_SECONDS ?= 60
SIM_STEPS ?= 100
SIM_SRC := $(wildcard tests/sim/*.c) tests/lib/memstore.c
SIM_OBJ = $(SIM_SRC:%.c=$(BUILD)/%.o)
SIM = $(BUILD)/tests/sim/sim

$(BUILD)/tests/sim/%.o: tests/sim/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests/lib $(CFLAGS) -MMD -MP -c -o $@ $<

$(SIM): $(SIM_OBJ) $(LIB)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(SIM_OBJ) $(LIB) $(LIBS)

.PHONY: simulate
simulate: $(SIM) ## random schedules of the state machine (SIM_SECONDS=60)
ifdef SIM_SEED
	$(SIM) --seed $(SIM_SEED) --steps $(SIM_STEPS)
else
	$(SIM) --seeds tests/sim/seeds.txt --steps 400
	$(SIM) --seconds $(SIM_SECONDS) --steps $(SIM_STEPS)
endif

-include $(SIM_OBJ:.o=.d)

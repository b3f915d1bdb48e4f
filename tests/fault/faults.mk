# The real daemon with failing calls: tests/fault/faults*.c, faultlib.c preloaded.
#
#   make test-faults                         a few of the calls of each kind (CI)
#   make test-faults FAULT_POINTS=all        every one
#   make test-faults FAULT_CASES='disk full'

FAULT_POINTS ?= 2
FAULT_PLAY_MS ?= 500
FAULT_CASES ?=
FAULTS_OBJ = $(patsubst %.c,$(BUILD)/%.o,tests/fault/faults.c tests/fault/faults_calls.c \
	tests/fault/faults_load.c tests/fault/talk.c tests/torture/play.c tests/torture/check.c \
	tests/bench/load.c)
FAULTS = $(BUILD)/tests/fault/faults
FAULTS_LIBRARY = $(BUILD)/tests/fault/faultlib.so

$(BUILD)/tests/fault/%.o: tests/fault/%.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(TL_CPPFLAGS) $(TL_CFLAGS) -MMD -MP -c -o $@ $<

$(FAULTS_LIBRARY): tests/fault/faultlib.c tests/fault/faultlib.h
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) $(CPPFLAGS) $(TL_CFLAGS) -fPIC -shared -o $@ $< -ldl

$(FAULTS): $(FAULTS_OBJ) $(TL_LIB)
	$(call say,LINK)$(CC) $(TL_LDFLAGS) -o $@ $(FAULTS_OBJ) $(TL_LIB) $(TL_LIBS)

.PHONY: test-faults
test-faults: $(DAEMON) $(FAULTS) $(FAULTS_LIBRARY) ## failing disk, memory, descriptors, calls, clock
	EBBGATE_BIN=$(DAEMON) timeout -k 5 14400 $(FAULTS) --library $(FAULTS_LIBRARY) \
	    --points $(FAULT_POINTS) --play $(FAULT_PLAY_MS) $(FAULT_CASES)

-include $(FAULTS_OBJ:.o=.d)

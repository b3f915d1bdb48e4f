# Unit tests: each tests/unit/test_NAME.c is one program (Criterion) linked with libebbgate.a.
#
#   make test-unit                 all of them
#   make test-unit UNIT=json       tests/unit/test_json.c alone (so does UNIT=test_json)
#   make VARIANT=asan test-unit    with AddressSanitizer and UndefinedBehaviorSanitizer
#
# A test that wants the test library or more libraries says so below, as UNIT_EXTRA_test_NAME.
# Other tests/unit/*.c (not test_*) are helpers: an archive, so that a program gets those it calls.

UNIT ?= *
UNIT_TIMEOUT ?= 120
UNIT_SRC := $(wildcard $(patsubst %,tests/unit/test_%.c,$(patsubst test_%,%,$(UNIT))))
UNIT_HELPERS := $(filter-out tests/unit/test_%.c,$(wildcard tests/unit/*.c))
UNIT_HELPER_OBJ = $(UNIT_HELPERS:%.c=$(BUILD)/%.o)
UNIT_HELPER_LIB = $(BUILD)/tests/unit/libhelpers.a
UNIT_BIN = $(UNIT_SRC:%.c=$(BUILD)/%)
UNIT_OBJ = $(UNIT_SRC:%.c=$(BUILD)/%.o)

$(BUILD)/tests/unit/%.o: tests/unit/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests/unit $(CFLAGS) -MMD -MP -c -o $@ $<

$(UNIT_HELPER_LIB): $(UNIT_HELPER_OBJ)
	@rm -f $@
	ar rcs $@ $^

$(UNIT_BIN): %: %.o $(UNIT_HELPER_LIB) $(LIB)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(UNIT_HELPER_LIB) $(UNIT_EXTRA_$(@F)) $(LIB) $(LIBS) -lcriterion

.PHONY: test-unit
test-unit: $(UNIT_BIN) ## unit tests (UNIT=name for one)
	@SAN_DIR=$(BUILD)/san TEST_TIMEOUT=$(UNIT_TIMEOUT) sh scripts/run-tests.sh $(UNIT_BIN)

.SECONDARY: $(UNIT_OBJ) $(UNIT_HELPER_OBJ)
-include $(UNIT_OBJ:.o=.d) $(UNIT_HELPER_OBJ:.o=.d)

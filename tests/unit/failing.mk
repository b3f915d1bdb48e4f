# Programs in which allocations fail on order (failing.h): the linker sends them there. What must not
# fail, like the storage in memory, is linked as a copy that calls the real ones.
FAILING_NAMES := malloc calloc realloc strdup asprintf sodium_malloc
FAILING_MEMORY := $(FAILING_NAMES:%=-Wl,--wrap=%)
FAILING_EXEMPT := $(foreach f,malloc calloc realloc,--redefine-sym $(f)=__real_$(f)) \
	--redefine-sym eg_bytes_copy=failing_exempt_bytes

UNIT_EXTRA_test_wire_memory := $(FAILING_MEMORY)
UNIT_EXTRA_test_machine_memory := $(FAILING_MEMORY) $(BUILD)/tests/unit/memstore_exempt.o \
	$(BUILD)/tests/lib/badstore.o

$(BUILD)/tests/unit/test_machine_memory: $(BUILD)/tests/unit/memstore_exempt.o $(BUILD)/tests/lib/badstore.o
$(BUILD)/tests/unit/memstore_exempt.o: $(BUILD)/tests/lib/memstore.o
	@mkdir -p $(@D)
	objcopy $(FAILING_EXEMPT) $< $@

# Programs in which system calls fail on order (failing_calls.h).
FAILING_CALLS := $(foreach f,open fstat read write fsync close link unlink,-Wl,--wrap=$(f))
UNIT_EXTRA_test_keys_io := $(FAILING_CALLS)

UNIT_EXTRA_test_core := $(FAILING_MEMORY) $(BUILD)/tests/unit/memstore_exempt.o \
	$(BUILD)/tests/lib/badstore.o \
	$(foreach f,pthread_join pthread_cond_wait pthread_create eventfd,-Wl,--wrap=$(f))
$(BUILD)/tests/unit/test_core: $(BUILD)/tests/unit/memstore_exempt.o $(BUILD)/tests/lib/badstore.o

UNIT_BADSTORE := $(foreach t,machine_chores machine_turns machine_calls,test_$(t))
$(foreach t,$(UNIT_BADSTORE),$(eval UNIT_EXTRA_$(t) := \
	$(BUILD)/tests/lib/memstore.o $(BUILD)/tests/lib/badstore.o))
$(UNIT_BADSTORE:%=$(BUILD)/tests/unit/%): $(BUILD)/tests/lib/memstore.o $(BUILD)/tests/lib/badstore.o
-include $(BUILD)/tests/lib/badstore.d

UNIT_EXTRA_test_edge_memory := $(FAILING_MEMORY)

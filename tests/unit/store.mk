# What the store's unit tests need besides libebbgate.a.
STORE_TEST_LIB := $(BUILD)/tests/lib/memstore.o $(BUILD)/tests/lib/storefix.o \
	$(BUILD)/tests/lib/faultvfs.o

define store_test
UNIT_EXTRA_$(1) := $$(STORE_TEST_LIB)
$$(BUILD)/tests/unit/$(1): $$(STORE_TEST_LIB)
endef
$(foreach t,test_storage test_heads test_store_sqlite test_runs test_reader test_verify test_backup test_migrate \
		test_store_memory test_machine,$(eval $(call store_test,$(t))))
UNIT_EXTRA_test_runs += $(FAILING_MEMORY)
UNIT_EXTRA_test_gate := -Wl,--wrap=clock_gettime
UNIT_EXTRA_test_auth := -Wl,--wrap=eg_token_verify
UNIT_EXTRA_test_backup += -Wl,--wrap=renameat2
-include $(STORE_TEST_LIB:.o=.d)
# It includes the generated list of schema files.
$(BUILD)/tests/unit/test_migrate.o: $(BUILD)/gen/sql.c

# What the sweep over the store's calls needs besides libebbgate.a.
UNIT_EXTRA_test_store_faults := $(STORE_TEST_LIB)
$(BUILD)/tests/unit/test_store_faults: $(STORE_TEST_LIB)

# test_wire_memory makes the allocations of the library fail, one after the other.
UNIT_EXTRA_test_wire_memory := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=strdup,--wrap=asprintf

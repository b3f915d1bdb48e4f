# The test library: $(TL_LIB) to link, $(TL_CPPFLAGS) to compile with, $(TL_LIBS) after it.
#
# Clients run without sanitizers even in a sanitizer variant: what is under test is the daemon, and
# the test framework does not run under TSan.

TL_CPPFLAGS := -Itests/lib
TL_CFLAGS = $(filter-out -fsanitize=% -fno-sanitize%,$(CFLAGS)) -pthread
TL_LDFLAGS = $(filter-out -fsanitize=% -fno-sanitize%,$(LDFLAGS)) -pthread
TL_LIB = $(BUILD)/tests/lib/libtl.a
TL_LIBS := -lcjson -lm
TL_OBJS = $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/lib/tl_*.c))

$(BUILD)/tests/lib/tl_%.o: tests/lib/tl_%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(TL_CPPFLAGS) $(TL_CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/tests/lib/libtl.a: $(TL_OBJS)
	$(AR) rcs $@ $^

-include $(TL_OBJS:.o=.d)

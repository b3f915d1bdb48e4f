# Tokens of another implementation: npm's jose makes and checks them beside ours.
# Installs into build/jose; needs node and the network, so it is not part of test-unit.

JOSE_DIR := build/jose

$(JOSE_DIR)/node_modules/jose/package.json: tests/unit/jose/package.json
	@mkdir -p $(JOSE_DIR)
	cp $< $(JOSE_DIR)/package.json
	npm install --prefix $(JOSE_DIR) --no-package-lock --no-audit --no-fund --silent
	@touch $@

$(BUILD)/tests/unit/jose/tokens: $(BUILD)/tests/unit/jose/tokens.o $(LIB)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(LIB) $(LIBS)

.PHONY: test-jose
test-jose: $(BUILD)/tests/unit/jose/tokens $(JOSE_DIR)/node_modules/jose/package.json ## tokens from and for npm's jose
	@cp tests/unit/jose/interop.mjs $(JOSE_DIR)/
	timeout 120 node $(JOSE_DIR)/interop.mjs $(BUILD)/tests/unit/jose/tokens

.SECONDARY: $(BUILD)/tests/unit/jose/tokens.o
-include $(BUILD)/tests/unit/jose/tokens.d

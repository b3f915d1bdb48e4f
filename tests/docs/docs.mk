# The examples of the documentation, run for real.

.PHONY: test-docs
test-docs: $(DAEMON) ## every exchange of docs/protocol.md against a real gateway
	@EBBGATE_BIN=$(DAEMON) timeout 120 /usr/bin/python3 tests/docs/protocol.py

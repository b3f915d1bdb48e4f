# Black-box tests of the command line: each tests/cli/test_*.sh is one program.
#
#   make test-cli
#   make test-cli CLI=agent ONLY=test_abort*

CLI ?= *
CLI_TIMEOUT ?= 300

.PHONY: test-cli
test-cli: $(DAEMON) ## tests of the command line (CLI=name, ONLY=pattern)
	@chmod +x tests/cli/test_*.sh
	@EBBGATE_BIN=$(DAEMON) ONLY='$(ONLY)' SAN_DIR=$(BUILD)/san TEST_TIMEOUT=$(CLI_TIMEOUT) \
	    sh scripts/run-tests.sh $(wildcard tests/cli/test_$(CLI).sh)

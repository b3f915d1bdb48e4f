# Black-box tests of the command line: each tests/cli/test_*.sh is one program.
#
#   make test-cli
#   make test-cli CLI=agent ONLY=test_abort*

CLI ?= *
CLI_TIMEOUT ?= 300
CLI_SCRIPTS := $(wildcard $(patsubst %,tests/cli/test_%.sh,$(patsubst test_%,%,$(CLI))))

.PHONY: test-cli
test-cli: $(DAEMON) ## tests of the command line (CLI=name, ONLY=pattern)
	@chmod +x tests/cli/test_*.sh
	@test -z '$(ONLY)' || sed -n 's/^\(test_[a-z0-9_]*\)() *{.*/\1/p' /dev/null $(CLI_SCRIPTS) | { \
	    while read -r name; do case $$name in $(or $(ONLY),*)) exit 0 ;; esac; done; \
	    echo 'FAILED: no test has the name $(ONLY)' >&2; exit 1; }
	@EBBGATE_BIN=$(DAEMON) ONLY='$(ONLY)' SAN_DIR=$(BUILD)/san TEST_TIMEOUT=$(CLI_TIMEOUT) \
	    sh scripts/run-tests.sh $(CLI_SCRIPTS)

# The console in a real browser: Chromium, driven by playwright-core.
#
#   make test-console                       everything
#   make test-console CONSOLE_ONLY=chat     tests whose name has this in it
#   make console-screens                    pictures of every page into build/screens/
#
# Without Chromium, or without playwright-core, both say so and do nothing.

CONSOLE_TIMEOUT ?= 420
CONSOLE_RUN = EBBGATE_BIN=$(abspath $(DAEMON)) CONSOLE_BUILD=$(abspath build/console) SCREENS=$(abspath build/screens)

.PHONY: test-console console-screens
test-console: $(DAEMON) ## the console in Chromium (CONSOLE_ONLY=part of a name)
	@grep -qE "\b(test|it|describe)\(.*$(CONSOLE_ONLY)" tests/console/*.test.mjs || { \
	    echo 'FAILED: no test has $(CONSOLE_ONLY) in its name' >&2; exit 1; }
	@why=$$(sh tests/console/setup.sh build/console) || { echo "SKIPPED: console tests: $$why"; exit 0; }; \
	$(CONSOLE_RUN) timeout -k 10 $(CONSOLE_TIMEOUT) node --test --test-concurrency=1 \
	    --test-reporter=spec $(if $(CONSOLE_ONLY),--test-name-pattern='$(CONSOLE_ONLY)') $(wildcard tests/console/*.test.mjs)

console-screens: $(DAEMON) ## pictures of the console's pages into build/screens/
	@why=$$(sh tests/console/setup.sh build/console) || { echo "SKIPPED: console screens: $$why"; exit 0; }; \
	$(CONSOLE_RUN) timeout -k 10 $(CONSOLE_TIMEOUT) node tests/console/screens.mjs

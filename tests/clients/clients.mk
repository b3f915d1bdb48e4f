# Conformance of the client libraries and the examples.
#
#   make test-clients                    scripts, sweeps, the real gateway under kill -9, the examples
#   make test-clients-scripted           scripts and sweeps only: needs no gateway
#   make test-clients CLIENT=python      one client (js, js-ws, js-global, python)

PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
CLIENT_KILLS ?= 4
CLIENT_ARGS = $(if $(CLIENT),--client $(CLIENT))

.PHONY: test-clients test-clients-scripted test-clients-real test-examples
test-clients: test-clients-scripted test-clients-real test-examples ## client libraries and examples

test-clients-scripted: ## client libraries against scripted servers
	timeout 600 $(PYTHON) tests/clients/run.py $(CLIENT_ARGS)

test-clients-real: $(DAEMON) ## client libraries against a gateway that is killed
	timeout 900 $(PYTHON) tests/clients/real.py $(DAEMON) --kills $(CLIENT_KILLS) $(CLIENT_ARGS)
	timeout 300 $(PYTHON) tests/clients/legacy.py $(DAEMON)

test-examples: $(DAEMON) ## examples and quick starts against a real gateway
	-@sh tests/console/setup.sh build/console # for those in a browser; without it they are skipped
	timeout 900 $(PYTHON) tests/clients/examples.py $(DAEMON)
	timeout 600 $(PYTHON) tests/clients/docs.py $(DAEMON)

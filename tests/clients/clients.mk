# Conformance of the client libraries and the examples.
#
#   make test-clients                    scripts, sweeps, then the real gateway under kill -9
#   make test-clients-scripted           scripts and sweeps only: needs no gateway
#   make test-clients CLIENT=python      one client (js, js-ws, js-global, python)

PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
CLIENT_ARGS = $(if $(CLIENT),--client $(CLIENT))

.PHONY: test-clients test-clients-scripted test-clients-real
test-clients: test-clients-scripted test-clients-real ## client libraries: scripted and under kill -9

test-clients-scripted: ## client libraries against scripted servers
	timeout 600 $(PYTHON) tests/clients/run.py $(CLIENT_ARGS)

test-clients-real: $(DAEMON) ## client libraries against a gateway that is killed
	timeout 900 $(PYTHON) tests/clients/real.py $(DAEMON) $(CLIENT_ARGS)

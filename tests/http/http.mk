# The admin API and the HTTP for clients, from outside: a real gateway, Node's test runner, curl.
# Each answer of the gateway is held against admin/openapi.yaml, and at the end each path, method
# and status of that file must have been seen.
#
#   make test-http                     all
#   make test-http HTTP_FILTER=paging  the tests of one file (without the count of what was seen)
#
# Needs node; the packages of tests/http/package.json go into build/http-test.

HTTP_DIR := build/http-test
HTTP_FILTER ?=
HTTP_TIMEOUT ?= 180

$(HTTP_DIR)/node_modules/ws/package.json: tests/http/package.json
	@mkdir -p $(HTTP_DIR)
	cp $< $(HTTP_DIR)/package.json
	npm install --prefix $(HTTP_DIR) --no-package-lock --no-audit --no-fund --silent
	@touch $@

.PHONY: test-http
test-http: $(DAEMON) $(HTTP_DIR)/node_modules/ws/package.json ## the admin API and plain HTTP
	EBBGATE_BIN=$(DAEMON) NODE_PATH=$(HTTP_DIR)/node_modules \
	    timeout -k 5 $(HTTP_TIMEOUT) node --test-reporter=spec tests/http/run.js $(HTTP_FILTER)

# Test coverage of src/: every suite against a build that counts, then a table by folder, what no
# test reaches, and failure below the marks.
#
#   make cover                                    everything
#   make cover COVER_SUITES='test-unit test-cli'  these suites
#   make cover-report                             the table of what was counted so far
#   make cover-clean                              forget the counts
#
# Lines and branches are counted by gcc without optimisation. Branches that are not ours do not
# count: those of assert() and of uthash's and utlist's macros that add, find and delete. Fuzz
# targets are built by another compiler and left out; of the suites that kill the daemon, whose
# counts die with it, only what ends in order counts. Needs gcovr.

COVER_SUITES ?= $(filter-out fuzz-regress power-loss test-network hostile,$(SUITES))
COVER_DIR := build/cover

.PHONY: cover cover-report cover-clean
cover: cover-clean ## test coverage of src/: by folder, what is missing, failure below the marks
	@sh scripts/deps.sh build test cover
	+@failed=0; \
	$(MAKE) --no-print-directory VARIANT=cover SIM_SECONDS=10 KILLS=5 FAULT_POINTS=3 \
	    SUITES='$(COVER_SUITES)' check || failed=1; \
	$(MAKE) --no-print-directory cover-report || failed=1; exit $$failed

cover-report: ## the table of the counts that there are
	@gcovr --root . --filter src/ --object-directory $(COVER_DIR) \
	    --exclude-unreachable-branches --exclude-throw-branches \
	    --exclude-branches-by-pattern '\s*(assert|HASH_(ADD|FIND|DELETE)[A-Z_]*|DL_(APPEND|DELETE))\(' \
	    --json $(COVER_DIR)/coverage.json
	@python3 tests/cover/report.py $(COVER_DIR)/coverage.json >$(COVER_DIR)/coverage.txt; \
	    rc=$$?; cat $(COVER_DIR)/coverage.txt; exit $$rc

cover-clean:
	@mkdir -p $(COVER_DIR)
	@find $(COVER_DIR) -name '*.gcda' -delete

ifeq ($(VARIANT),cover)
$(LIB): $(BUILD)/tests/cover/flush.o
endif

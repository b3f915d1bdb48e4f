# Installing and packaging. Everything about it is in packaging/.
#
#   make install DESTDIR=/tmp/x PREFIX=/usr      what the packages do
#   make deb, rpm, srpm                           into build/deb, build/rpm
#   make test-packaging                           lint, versions, completion, manual pages, unit
#   make test-system                              lifecycle in a booted container; needs root
#   make test-release RELEASE=trixie              `make test` and the package on another Debian

DESTDIR ?=
INSTALL ?= install
system_prefix := $(filter /usr /usr/local,$(PREFIX))
SYSCONFDIR ?= $(if $(system_prefix),/etc,$(PREFIX)/etc)
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/ebbgate
UNITDIR ?= $(if $(system_prefix),$(shell pkg-config --variable=systemdsystemunitdir systemd \
	2>/dev/null || echo /lib/systemd/system),$(PREFIX)/lib/systemd/system)
SYSUSERSDIR ?= $(if $(system_prefix),/usr/lib/sysusers.d,$(PREFIX)/lib/sysusers.d)
TMPFILESDIR ?= $(if $(system_prefix),/usr/lib/tmpfiles.d,$(PREFIX)/lib/tmpfiles.d)
BASHCOMP ?= $(PREFIX)/share/bash-completion/completions
ZSHCOMP ?= $(PREFIX)/share/zsh/site-functions
FISHCOMP ?= $(PREFIX)/share/fish/vendor_completions.d
CONFDIR = $(DESTDIR)$(SYSCONFDIR)/ebbgate
DOCS = $(wildcard README.md CHANGELOG.md LICENSE docs/*.md)
PROXIES = $(wildcard packaging/common/proxy/*)
PUT = $(INSTALL) -D -m 644

.PHONY: install uninstall man completion deb rpm srpm test-packaging test-system test-release \
	reproducible

install: all man completion ## install below DESTDIR and PREFIX
	$(INSTALL) -D -m 755 $(DAEMON) $(DESTDIR)$(BINDIR)/ebbgate
	for f in $(BUILD)/man/*.[1578]; do $(PUT) $$f $(DESTDIR)$(MANDIR)/man$${f##*.}/$${f##*/} || exit 1; done
	for f in $(DOCS); do $(PUT) $$f $(DESTDIR)$(DOCDIR)/$${f##*/} || exit 1; done
	for f in $(PROXIES); do $(PUT) $$f $(DESTDIR)$(DOCDIR)/examples/proxy/$${f##*/} || exit 1; done
	$(PUT) packaging/common/ebbgate.conf $(DESTDIR)$(DOCDIR)/examples/ebbgate.conf
	$(PUT) $(BUILD)/completion/ebbgate.bash $(DESTDIR)$(BASHCOMP)/ebbgate
	$(PUT) $(BUILD)/completion/_ebbgate $(DESTDIR)$(ZSHCOMP)/_ebbgate
	$(PUT) $(BUILD)/completion/ebbgate.fish $(DESTDIR)$(FISHCOMP)/ebbgate.fish
	$(INSTALL) -d -m 755 $(DESTDIR)$(UNITDIR)
	sed 's,/usr/bin/ebbgate,$(BINDIR)/ebbgate,; s,/etc/ebbgate,$(SYSCONFDIR)/ebbgate,' \
	    packaging/common/ebbgate.service >$(DESTDIR)$(UNITDIR)/ebbgate.service
	chmod 644 $(DESTDIR)$(UNITDIR)/ebbgate.service
	$(PUT) packaging/common/ebbgate.sysusers $(DESTDIR)$(SYSUSERSDIR)/ebbgate.conf
	$(PUT) packaging/common/ebbgate.tmpfiles $(DESTDIR)$(TMPFILESDIR)/ebbgate.conf
	$(INSTALL) -d -m 750 $(CONFDIR) $(CONFDIR)/conf.d
	[ -e $(CONFDIR)/ebbgate.conf ] || $(INSTALL) -m 640 packaging/common/ebbgate.conf $(CONFDIR)/ebbgate.conf

uninstall: ## remove what install put there, but not the configuration
	rm -f $(DESTDIR)$(BINDIR)/ebbgate $(DESTDIR)$(UNITDIR)/ebbgate.service
	rm -f $(DESTDIR)$(BASHCOMP)/ebbgate $(DESTDIR)$(ZSHCOMP)/_ebbgate $(DESTDIR)$(FISHCOMP)/ebbgate.fish
	rm -f $(DESTDIR)$(SYSUSERSDIR)/ebbgate.conf $(DESTDIR)$(TMPFILESDIR)/ebbgate.conf
	rm -f $(DESTDIR)$(MANDIR)/man1/ebbgate.1 $(DESTDIR)$(MANDIR)/man1/ebbgate-*.1
	rm -f $(DESTDIR)$(MANDIR)/man5/ebbgate.conf.5 $(DESTDIR)$(MANDIR)/man7/ebbgate-protocol.7
	rm -rf $(DESTDIR)$(DOCDIR)

# Manual pages and completion are made from what the program says about itself.
man: $(DAEMON) $(BUILD)/settings-man ## manual pages into build/man
	@bash packaging/man/make.sh $(DAEMON) $(BUILD)/settings-man $(BUILD)/man

$(BUILD)/settings-man: packaging/man/settings.c $(LIB)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $(LIB) $(LIBS)

completion: $(DAEMON) ## shell completion into build/completion
	@bash packaging/completion/make.sh $(DAEMON) $(BUILD)/completion

deb: ## the Debian package into build/deb
	@bash packaging/lib/deb.sh $(BUILD)/deb

rpm: ## the RPM package into build/rpm
	@bash packaging/lib/rpm.sh -bb $(BUILD)/rpm

srpm: ## the source RPM into build/srpm
	@bash packaging/lib/rpm.sh -bs $(BUILD)/srpm

reproducible: ## build each package twice and compare
	@bash packaging/tests/reproducible.sh $(BUILD)/reproducible

test-packaging: all man completion ## lint, versions, completion, manual pages, unit
	@EBBGATE_BIN=$(DAEMON) BUILD=$(BUILD) bash packaging/tests/run.sh

test-system: ## the packages' lifecycle in a booted container; needs root
	@BUILD=$(BUILD) bash packaging/tests/system.sh

test-release: ## `make test` and the package on another Debian (RELEASE=trixie); needs root
	@BUILD=$(BUILD) bash packaging/tests/release.sh $(RELEASE)

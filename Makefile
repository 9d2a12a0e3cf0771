# `make` lists the targets. Nothing is needed first but Rust and make: the targets install the rest.
# CARGO_TARGET_DIR is honoured; tools and the demo's files lie in ./target all the same.

.DEFAULT_GOAL := help
.PHONY: help demo demo-up demo-down test check lint fuzz bench gen released deny install deb images

deny_version = 0.20.2
# Run as built: `cargo run` of one package alone would choose other features and build it all anew.
built = $${CARGO_TARGET_DIR:-target}
# The profile is of Cargo.toml; the packages give the same features to both.
programs = --locked -p ferrypost-controlplane -p ferrypost-dataplane -p ferrypost-cli -p ferrypost-tests \
	--bin ferrypost-controlplane --bin ferrypost-dataplane --bin ferrypost
demo_program = $(built)/quick/demo

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build-demo ## two Dovecots, both planes, and a tour: an account moves and comes back
	@$(demo_program) tour

demo-up: build-demo ## start what the demo uses and leave it running (target/demo/env says where)
	@$(demo_program) up

demo-down: ## stop what demo-up started
	@$(demo_program) down

.PHONY: build-demo
build-demo:
	@echo "==> ferrypost: installing what is missing"
	@tests/tools/install demo
	@echo "==> building, optimised only where octets pass (some six minutes the first time, on two cores)"
	@cargo build --profile quick $(programs) --bin demo

test: ## the tests, against real servers; the last line is `N passed, N failed`
	@tests/tools/run-tests $(if $(EVERYTHING),--everything)

check: ## what CI runs: the tests with all torture runs, and the lints
	@$(MAKE) --no-print-directory test EVERYTHING=1

lint: ## formatting, clippy, documentation, the order of the rooms, protos
	@tests/tools/install test
	@tests/tools/lint

fuzz: ## a minute of fuzzing for each protocol machine, for HTTP's decisions and for the TLS engine
	@tests/tools/fuzz

bench: ## CPU and memory beside HAProxy, and the routing table's speed
	@tests/tools/install bench
	@cargo build --release $(programs) --bin bench
	@$(built)/release/bench

# What is installed comes from here; whoever packages a build of his own says where that is. COMPRESSION: of dpkg-deb.
PROGRAMS ?= $(built)/release
PREFIX ?= /usr/local
installed = $(DESTDIR)$(PREFIX)
documents = $(installed)/share/doc/ferrypost

install: ## the programs, systemd units, examples and the API's descriptors, below PREFIX (/usr/local) and DESTDIR
	@[ -x "$(PROGRAMS)/ferrypost-dataplane" ] || cargo build --release $(programs)
	install -d $(installed)/bin $(installed)/lib/systemd/system $(installed)/lib/sysusers.d $(installed)/share/ferrypost $(documents)
	install -m 755 $(PROGRAMS)/ferrypost-dataplane $(PROGRAMS)/ferrypost-controlplane $(PROGRAMS)/ferrypost $(installed)/bin
	install -d $(installed)/share/bash-completion/completions
	$(PROGRAMS)/ferrypost completion bash > $(installed)/share/bash-completion/completions/ferrypost
	for unit in dataplane controlplane; do \
	  sed 's|/usr/|$(PREFIX)/|g' docs/packaging/systemd/ferrypost-$$unit.service \
	    > $(installed)/lib/systemd/system/ferrypost-$$unit.service || exit; \
	done
	install -m 644 docs/packaging/sysusers.conf $(installed)/lib/sysusers.d/ferrypost.conf
	install -m 644 proto/src/gen/descriptor.bin $(installed)/share/ferrypost/ferrypost.protoset
	cp -r helm/monitoring $(installed)/share/ferrypost/
	install -m 644 README.md ARCHITECTURE.md CHANGELOG.md LICENSE SECURITY.md $(documents)
	cp -r docs/*.md docs/configuration docs/examples docs/guide $(documents)
	install -m 644 dataplane/examples/gateway.toml controlplane/examples/*.toml $(documents)/examples

package = $(built)/debian
version = $$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)

deb: ## a Debian package of it, in target/
	rm -rf $(package)
	$(MAKE) --no-print-directory install DESTDIR=$(package) PREFIX=/usr
	install -d $(package)/DEBIAN
	install -m 755 docs/packaging/debian/postinst docs/packaging/debian/prerm $(package)/DEBIAN
	sed "s/@VERSION@/$(version)/; s/@ARCHITECTURE@/$$(dpkg --print-architecture)/" docs/packaging/debian/control \
	  > $(package)/DEBIAN/control
	dpkg-deb $(COMPRESSION) --build --root-owner-group $(package) $(built)

images: ## the Dockerfile's images, compiled in its own compile stage on a Debian of its own (some ten minutes)
	@tests/tools/compile-images

# At a release alone: docs/upgrading.md.
released: ## write down the API, the stream and the store's values of this tree as what is released
	@tests/tools/install test
	$${TOOLS_DIR:-target/tools}/bin/buf build proto --exclude-source-info -o proto/released.binpb

gen: ## write the generated code of proto/ anew
	UPDATE_GEN=1 cargo test --locked -p ferrypost-proto --test generated

deny: target/tools/bin/cargo-deny ## which dependencies may come in: bans, licences, sources
	target/tools/bin/cargo-deny check bans licenses sources

target/tools/bin/cargo-deny:
	@echo "==> building cargo-deny once (two minutes)"
	cargo install --locked --root target/tools --version $(deny_version) cargo-deny

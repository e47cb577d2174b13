# make demo | test | fuzz | bench | lint | build
#
# Each installs what it lacks first and says what that is; see .ci/setup. `make demo ARGS=--keep`
# hands its arguments to the demo. More targets would be a shell farm: see .cargo/config.toml for
# the aliases that run a part of the tests.

SHELL := bash
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

# The same for every step: other flags or features would compile the dependencies once more.
WORKSPACE := --workspace --locked --features writefence/failpoints

# Setup comes first, and two of it would wait for the same package lock.
.NOTPARALLEL:

.PHONY: demo test fuzz bench lint build setup setup-build setup-test

demo: build setup
	target/release/writefence-demo $(ARGS)

build: setup-build
	cargo build --release --workspace --bins --locked

# The binaries are built before the tests, which start them: cargo builds a package's binaries for
# tests of that package only.
test: lint setup-test
	cargo build $(WORKSPACE) --bins
	cargo test $(WORKSPACE)
	.ci/postgres each cargo test $(WORKSPACE) --test database
	.ci/postgres each cargo test $(WORKSPACE) --test e2e switchover::
	cargo model
	cargo interleavings
	$(MAKE) fuzz
	RUSTDOCFLAGS="-D warnings" cargo doc $(WORKSPACE) --no-deps

lint: setup-build
	cargo fmt --all --check
	cargo lint
	@if command -v cargo-deny >/dev/null; then cargo deny --locked check; \
	else echo "cargo-deny is not installed: licences and advisories were not checked"; fi

# Each target for FUZZ seconds, from the seeds and what was found before. What fails is left in
# fuzz/artifacts; `target/fuzz/debug/fuzz-TARGET FILE` runs it again. Compiled in the tests' own
# target folder: dependencies are shared, see fuzz/Cargo.toml.
FUZZ ?= 60
fuzz: setup-build
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/fuzz/rustc cargo build $(WORKSPACE) \
	    --features writefence-fuzz/run $(FUZZERS:%=--bin fuzz-%)
	mkdir -p fuzz/artifacts
	for target in $(FUZZERS); do \
	    mkdir -p target/fuzz/$$target; \
	    target/debug/fuzz-$$target -max_total_time=$(FUZZ) -max_len=4096 \
	        -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
	        -artifact_prefix=fuzz/artifacts/$$target- \
	        target/fuzz/$$target fuzz/corpus/$$target || exit 1; \
	done
FUZZERS := conversation negotiation scram startup verdicts

bench: setup
	cargo bench --package writefence-benches --locked $(ARGS)

setup:
	@.ci/setup

setup-build:
	@.ci/setup build

setup-test:
	@.ci/setup test

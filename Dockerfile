# writefence and writefencectl in a small image that does not run as root.
#
#   docker build -t writefence .
#   docker run -v ./writefence.toml:/etc/writefence/writefence.toml:ro \
#              -v writefence-state:/var/lib/writefence -p 6432:6432 writefence
#
# The state volume must outlive the container: it is what a fence is remembered by.

ARG RUST=1.95
ARG DEBIAN=bookworm

FROM rust:${RUST}-slim-${DEBIAN} AS build
# libclang reads the headers of PostgreSQL's grammar library; cmake builds the HTTP front's zlib.
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends cmake libclang-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# Dependencies first, in a layer of their own that lasts until a manifest changes: every target of
# every package is an empty program for now. Sources are named in the manifests or stand where
# cargo expects them.
COPY Cargo.toml Cargo.lock ./
COPY config/Cargo.toml config/
COPY admin/Cargo.toml admin/
COPY proxy/Cargo.toml proxy/
COPY tests/Cargo.toml tests/
COPY benches/Cargo.toml benches/
COPY fuzz/Cargo.toml fuzz/
RUN for package in config admin proxy tests benches fuzz; do \
        for source in src/lib.rs $(sed -n 's/^path = "\(.*\.rs\)"$/\1/p' $package/Cargo.toml); do \
            mkdir -p "$(dirname "$package/$source")" \
            && echo 'fn main() {}' > "$package/$source"; \
        done; \
    done \
    && mkdir -p proxy/src && echo 'fn main() {}' > proxy/src/main.rs \
    && cargo build --release --locked --package writefence --package writefence-admin

# The sources are older than the empty programs above; cargo goes by time, so they are touched.
COPY config config
COPY admin admin
COPY proxy proxy
RUN find config admin proxy -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --package writefence --package writefence-admin --bins

FROM debian:${DEBIAN}-slim
RUN useradd --system --uid 10001 --no-create-home --home-dir /var/lib/writefence writefence \
    && install -d -o writefence -g writefence -m 0700 /run/writefence /var/lib/writefence \
    && install -d /etc/writefence
COPY --from=build /src/target/release/writefence /src/target/release/writefencectl /usr/local/bin/
COPY LICENSE /usr/share/doc/writefence/LICENSE

USER writefence
VOLUME /var/lib/writefence
# The PostgreSQL listener and the metrics of the example configuration.
EXPOSE 6432 9464
STOPSIGNAL SIGTERM
# Healthy means that the daemon answers. A fence is no illness: a restart would not lift it.
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s \
    CMD ["writefencectl", "--group", "all", "status"]
ENTRYPOINT ["writefence"]
CMD ["serve", "--config", "/etc/writefence/writefence.toml"]

# Images of the three programs. There is nothing in them but a program, the libraries that it is linked with, and the
# authorities that it may have to believe: no shell, nobody but an unprivileged user, nothing to write to.
#
#   docker build --target dataplane    -t ferrypost/dataplane:0.1.0 .
#   docker build --target controlplane -t ferrypost/controlplane:0.1.0 .
#   docker build --target cli          -t ferrypost/cli:0.1.0 .
#
# Programs that are built already, with the libraries that RUST_IMAGE has, are taken with
# `--build-context programs=target/release`. docs/images.md says how the images are used.

# What compiles, and whose libraries go along. The compiler is the one of rust-toolchain.toml.
ARG RUST_IMAGE=docker.io/library/rust:1.95-slim-bookworm

# Takes the place of a context that nobody gives.
FROM scratch AS programs
COPY LICENSE /

FROM ${RUST_IMAGE} AS laid-out
WORKDIR /src
COPY . .
RUN --mount=type=bind,from=programs,target=/programs docs/packaging/images/lay-out /programs /images

FROM scratch AS image
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.vendor="Ferrypost" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/ferrypost/ferrypost" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/usr/bin
# The user `ferrypost` of the image's own /etc/passwd; by number, so that Kubernetes sees that it is not root.
USER 65532:65532

FROM image AS dataplane
LABEL org.opencontainers.image.title="Ferrypost data plane" \
      org.opencontainers.image.description="Relays mail clients to the server that holds their account"
COPY --from=laid-out /images/ferrypost-dataplane /
COPY --from=laid-out --chown=65532:65532 --chmod=700 /images/state /var/lib/ferrypost
ENTRYPOINT ["/usr/bin/ferrypost-dataplane"]
CMD ["--config", "/etc/ferrypost/dataplane.toml"]

FROM image AS controlplane
LABEL org.opencontainers.image.title="Ferrypost control plane" \
      org.opencontainers.image.description="Knows where mail accounts live, and moves them"
COPY --from=laid-out /images/ferrypost-controlplane /
COPY --from=laid-out --chown=65532:65532 --chmod=700 /images/state /var/lib/ferrypost
ENTRYPOINT ["/usr/bin/ferrypost-controlplane"]
CMD ["--config", "/etc/ferrypost/controlplane.toml"]

FROM image AS cli
LABEL org.opencontainers.image.title="Ferrypost command line" \
      org.opencontainers.image.description="Moves mail accounts, watches moves, and asks both planes"
COPY --from=laid-out /images/ferrypost /
ENTRYPOINT ["/usr/bin/ferrypost"]
CMD ["--help"]

# xdit-cli in a small image: docker build -t xdit-cli . (Written without a Docker engine at hand: not built yet.)
#
#     docker run --rm -v "$PWD:/pictures" --user "$(id -u):$(id -g)" xdit-cli \
#         generate --prompt "a yellow square in the top right on a blue background"
#
# Models from the hub stay in the volume with: -v "$HOME/.cache/huggingface:/cache"

FROM rust:1.89-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --locked --profile dist -p xdit-cli

# glibc, libgcc and certificates, and nothing else.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /source/target/dist/xdit-cli /usr/local/bin/xdit-cli
COPY --from=build /source/LICENSE /usr/share/doc/xdit-cli/LICENSE
ENV HF_HOME=/cache
WORKDIR /pictures
ENTRYPOINT ["xdit-cli"]
CMD ["--help"]

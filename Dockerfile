# xdit-cli in a small image: docker build -t xdit-cli . (Not built yet: no Docker engine was at hand.)
#
#     docker run --rm -v "$PWD:/pictures" --user "$(id -u):$(id -g)" xdit-cli \
#         generate --prompt "a yellow square in the top right on a blue background"
#
# Models from the hub stay in the volume with: -v "$HOME/.cache/huggingface:/cache"

FROM rust:1.89-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --locked --profile dist -p xdit-cli && ci/licences.sh >THIRD-PARTY-LICENCES.txt

# glibc, libgcc and certificates, and nothing else.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /source/target/dist/xdit-cli /usr/local/bin/xdit-cli
COPY --from=build /source/LICENSE /source/THIRD-PARTY-LICENCES.txt /usr/share/doc/xdit-cli/
ENV HF_HOME=/cache
WORKDIR /pictures
ENTRYPOINT ["xdit-cli"]
CMD ["--help"]

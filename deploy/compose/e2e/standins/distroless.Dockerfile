FROM debian:bookworm-slim
USER 65532:65532

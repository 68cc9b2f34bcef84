# Ollama's CPU engine as hack/build-ollama.sh builds it: for test clusters that reach no registry.
# A real deployment uses the image that Ollama publishes.
FROM docker.io/library/debian:trixie-slim
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates libstdc++6 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/aux-cache \
      /var/lib/dpkg/*-old /var/log/*
LABEL org.opencontainers.image.title="synapse-ollama" \
      org.opencontainers.image.description="Ollama's CPU engine, for tests" \
      org.opencontainers.image.licenses="MIT"
COPY --chmod=755 ollama /usr/local/bin/ollama
# A fresh volume takes the owner of what it hides.
RUN mkdir /data && chown 10001:10001 /data
ENV HOME=/tmp OLLAMA_HOST=0.0.0.0:11434
USER 10001:10001
EXPOSE 11434
ENTRYPOINT ["ollama"]
CMD ["serve"]

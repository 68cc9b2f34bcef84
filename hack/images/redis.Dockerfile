# Debian's Redis, for machines that reach no registry. A real deployment uses the image that the chart
# names.
FROM docker.io/library/debian:trixie-slim
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server redis-tools \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/aux-cache \
      /var/lib/dpkg/*-old /var/log/*
LABEL org.opencontainers.image.title="synapse-redis" \
      org.opencontainers.image.description="Debian's Redis, for tests"
USER 10001:10001
WORKDIR /tmp
EXPOSE 6379
CMD ["redis-server", "--save", "", "--appendonly", "no"]

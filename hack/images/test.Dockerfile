# The gateway's image and what its tests import: see hack/images/test-gateway.sh.
ARG GATEWAY
FROM docker.io/library/debian:trixie-slim AS build
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv
RUN python3 -m venv /tools
WORKDIR /build
COPY hack/images/requirements.py hack/images/packages/not-for-unit-tests.txt ./
COPY locks/test.txt lock.txt
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca \
    python3 requirements.py lock.txt --not not-for-unit-tests.txt > test.lock \
 && /tools/bin/pip install -q --no-cache-dir --disable-pip-version-check --require-hashes --no-deps \
      --only-binary :all: --target /opt/test -r test.lock

FROM ${GATEWAY}
COPY --from=build /opt/test /opt/test
USER 0
# Behind the image's own packages: what both have is the image's.
RUN echo /opt/test > "$(python3 -c 'import site; print(site.getsitepackages()[0])')/test.pth"
USER 10001:10001

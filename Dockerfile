# The agent's image: Debian slim, Python, libbpf. For x86_64 and arm64: BPF objects of both are in it.
# A release is built on one that is known, by its digest: --build-arg BASE=debian:bookworm-slim@sha256:…
ARG BASE=debian:bookworm-slim

FROM $BASE AS build
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends bpftool ca-certificates clang libbpf-dev libc6-dev \
      linux-libc-dev-amd64-cross linux-libc-dev-arm64-cross llvm python3-venv \
      "$(apt-cache pkgnames linux-headers- | grep -x 'linux-headers-[0-9].*-common' | sort -V | tail -1)" \
 && python3 -m venv /opt/gadget \
 && python3 -m venv /opt/build
WORKDIR /src
# what the package needs changes less often than the package; made by `make lock`
COPY requirements/*.txt ./requirements/
RUN /opt/gadget/bin/pip install -q --require-hashes --only-binary :all: -r requirements/agent.txt \
 && /opt/build/bin/pip install -q --require-hashes -r requirements/build.txt
COPY . .
RUN /opt/build/bin/pip wheel -q --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /opt/gadget/bin/pip install -q --no-deps /wheel/*.whl \
 && /opt/gadget/bin/pip uninstall -q -y pip setuptools

FROM $BASE
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends libbpf1 python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /usr/share/doc /usr/share/man
COPY --from=build /opt/gadget /opt/gadget
ENV PATH=/opt/gadget/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["gadget-agent"]

# syntax=docker/dockerfile:1
# A server for one model: docker build -t bitnet . && docker run -p 127.0.0.1:8000:8000 -v bitnet-models:/models bitnet
# docs/how-to/deploy.md has more.

# --- the wheel -------------------------------------------------------------------------------------------------------
FROM golang:1.26-bookworm AS build
# Debian's Python is the oldest that the wheel is for; the wheel fits every newer one.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir 'build>=1.2'
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# The builder has no git, which says the version otherwise: --build-arg VERSION=1.2.3
ARG VERSION=
RUN SETUPTOOLS_SCM_PRETEND_VERSION=$VERSION /venv/bin/python -m build --wheel --outdir /wheels

# --- what runs -------------------------------------------------------------------------------------------------------
FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="bitnet-rust" \
      org.opencontainers.image.description="BitNet b1.58 language models on the CPU behind OpenAI's API" \
      org.opencontainers.image.licenses="MIT"
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-compile "$(echo /wheels/*.whl)[serve]" \
    && useradd --uid 10001 --create-home --home-dir /models --shell /usr/sbin/nologin bitnet
# What is downloaded stays in the volume, under hub; models of your own are mounted beside it.
ENV HF_HOME=/models/hub \
    PYTHONUNBUFFERED=1
VOLUME /models
WORKDIR /models
USER 10001:10001
EXPOSE 8000
# A large model may take minutes to come from the network.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["bitnet", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--model", "bitnet-shakespeare"]

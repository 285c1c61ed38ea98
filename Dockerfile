# The server of `rsvp serve`. Weights lie in the volume /models, not in the image.
#
#   docker build -t rsvp .                                                       CPU
#   docker build -t rsvp --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .   CUDA
#   docker run -p 127.0.0.1:8000:8000 -e RSVP_TOKEN=... -v models:/models rsvp
FROM python:3.12-slim-bookworm

# Where torch's wheel comes from: the CPU build, or that of a CUDA version.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 HF_HOME=/models

WORKDIR /src
COPY constraints.txt ./
RUN pip install --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple \
    -c constraints.txt torch
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY rsvp ./rsvp
COPY prompts ./prompts
COPY eval ./eval
RUN pip install -c constraints.txt ".[serve]" \
    && useradd --create-home --home-dir /app --uid 1000 rsvp \
    && mkdir /models \
    && chown rsvp /models

USER 1000
WORKDIR /app
VOLUME /models
EXPOSE 8000

# Needs no token and loads no model.
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s CMD \
    ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=2)"]

# Beyond the container it listens only with RSVP_TOKEN, or a file: --token-file /run/secrets/token.
ENTRYPOINT ["rsvp", "serve", "--host", "0.0.0.0"]

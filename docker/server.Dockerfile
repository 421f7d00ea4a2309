# The gateway with its engines. CPU: docker build -f docker/server.Dockerfile --build-arg ENGINE=cpu .
# CUDA (the host needs the NVIDIA container toolkit): --build-arg ENGINE=cuda
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS install
ARG ENGINE=cpu
# vLLM and torch compile small kernels when they first run.
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ libc6-dev make && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/loam
COPY pyproject.toml README.md models.yaml Makefile ./
COPY scripts scripts
# The long install first, over empty packages: it is kept when only the source changes.
RUN mkdir -p app workers migrations demo loam_vllm && touch app/__init__.py workers/__init__.py migrations/__init__.py \
       demo/__init__.py loam_vllm/__init__.py \
    && scripts/install.sh /opt/loam/.venv ${ENGINE}
COPY app app
COPY workers workers
COPY migrations migrations
COPY demo demo
COPY loam_vllm loam_vllm

FROM install
RUN useradd --create-home --uid 10001 loam && mkdir -p /data && chown loam /data
USER loam
ENV PATH=/opt/loam/.venv/bin:$PATH LOAM_DATA_DIR=/data LOAM_HOST=0.0.0.0 LOAM_PORT=8000 PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
STOPSIGNAL SIGTERM
CMD ["loam", "serve"]

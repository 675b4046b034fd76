# `base` holds CUDA's runtime and no more: torch's wheels bring cuBLAS, cuDNN and the rest, in the versions that they
# were built with. Python comes from the distribution: 3.11 or later, 3.11.4 to bake from anything but a baked directory.
ARG BASE_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04

FROM ${BASE_IMAGE} AS packages
WORKDIR /app
COPY requirements.txt ./
# pip byte-compiles the packages from an environment of its own, and is gone when the layer is done.
# The distribution's mirrors keep one version of a package: a pinned one would fail to build some weeks later.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends --no-upgrade ca-certificates python3 \
    && apt-mark manual ca-certificates python3 \
    && apt-get install --yes --no-install-recommends python3-venv \
    && python3 -m venv /opt/pip \
    && python3 -m venv --without-pip /opt/venv \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --prefer-binary -r requirements.txt \
    && rm -rf /opt/pip \
    && apt-get purge --yes --auto-remove python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app/src PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

# What the bake reads is copied file by file, so that a change elsewhere in the code bakes nothing anew, and one in the
# bake downloads nothing anew.
FROM packages AS model
# A model of the Hugging Face hub, or the path of a .nemo file or a baked directory under models/. The revision and the
# checksum of the default are known; another one of the hub needs both.
ARG MODEL=nvidia/parakeet-tdt-0.6b-v2
ARG MODEL_REVISION=
ARG MODEL_SHA256=
COPY models ./models
COPY src/parakeet_worker/__init__.py ./src/parakeet_worker/
COPY src/parakeet_worker/model/__init__.py src/parakeet_worker/model/card.py src/parakeet_worker/model/hub.py \
    ./src/parakeet_worker/model/
RUN python -m parakeet_worker.model.hub "${MODEL}" --to /downloads \
    ${MODEL_REVISION:+--revision "${MODEL_REVISION}"} ${MODEL_SHA256:+--sha256 "${MODEL_SHA256}"}
COPY src/parakeet_worker/lean.py ./src/parakeet_worker/
COPY src/parakeet_worker/audio/__init__.py ./src/parakeet_worker/audio/
COPY src/parakeet_worker/model/bake.py src/parakeet_worker/model/check.flac src/parakeet_worker/model/comparison.py \
    src/parakeet_worker/model/files.py src/parakeet_worker/model/fitness.py src/parakeet_worker/model/hypothesis.py \
    src/parakeet_worker/model/loading.py src/parakeet_worker/model/nemo.py src/parakeet_worker/model/timestamps.py \
    ./src/parakeet_worker/model/
# The same bytes at the same time are the same layer, which a registry and a host have already.
RUN python -m parakeet_worker.model.bake "${MODEL}" --out /model --downloads /downloads \
    ${MODEL_REVISION:+--revision "${MODEL_REVISION}"} ${MODEL_SHA256:+--sha256 "${MODEL_SHA256}"} \
    && find /model -exec touch --date=@0 {} +

FROM packages
RUN useradd --uid 10001 --no-create-home --home-dir /tmp worker
COPY --from=model /model /model
ENV PARAKEET_MODEL_DIR=/model
COPY LICENSE NOTICE handler.py test_input.json ./
COPY schemas ./schemas
COPY src ./src
# Checked by nobody at run time: neither the sources nor their times change.
RUN python -m compileall -q --invalidation-mode unchecked-hash handler.py src
USER 10001
CMD ["python", "handler.py"]

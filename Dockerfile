# `base` holds CUDA's runtime and no more: torch's wheels bring cuBLAS, cuDNN and the rest, in the versions that they
# were built with. Python comes from the distribution: 3.11 or later, 3.11.4 to bake from anything but a baked directory.
ARG BASE_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04

FROM ${BASE_IMAGE} AS packages
# Which build of torch: PyPI's, for CUDA 13.0, or one from an index of PyTorch's own, such as cu126, for hosts whose driver
# is too old for that. The version is the lock's; docs/deploy.md says which base and which hosts go with it.
ARG TORCH_CUDA=
WORKDIR /app
COPY requirements.txt ./
# pip byte-compiles the packages from an environment of its own, and is gone when the layer is done.
# The lock's cuda-bindings are for CUDA 13, like PyPI's torch. Another build of torch names its own; with the lock's, pip
# would take PyPI's torch after all.
# The distribution's mirrors keep one version of a package: a pinned one would fail to build some weeks later.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends --no-upgrade ca-certificates python3 \
    && apt-mark manual ca-certificates python3 \
    && apt-get install --yes --no-install-recommends python3-venv \
    && python3 -m venv /opt/pip \
    && python3 -m venv --without-pip /opt/venv \
    && cp requirements.txt /opt/pip/ \
    && if [ -n "${TORCH_CUDA}" ]; then \
        sed -i -e "s/^torch==[^ ;]*/&+${TORCH_CUDA}/" -e '/^cuda-bindings==/d' /opt/pip/requirements.txt \
        && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-deps \
            --index-url "https://download.pytorch.org/whl/${TORCH_CUDA}" \
            "$(grep -o '^torch==[^ ;]*' /opt/pip/requirements.txt)"; \
    fi \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --prefer-binary -r /opt/pip/requirements.txt \
    && rm -rf /opt/pip \
    && apt-get purge --yes --auto-remove python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app/src PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

# The download and the bake get the folders that they import, so that a change elsewhere in the code does neither anew,
# and a change in the bake downloads nothing anew.
FROM packages AS model
# A model of the Hugging Face hub, or the path of a .nemo file or a baked directory under models/. The revision and the
# checksum of the default are known; another one of the hub needs both.
ARG MODEL=nvidia/parakeet-tdt-0.6b-v2
ARG MODEL_REVISION=
ARG MODEL_SHA256=
COPY models ./models
COPY src/parakeet_worker/http ./src/parakeet_worker/http
COPY src/parakeet_worker/bake/huggingface ./src/parakeet_worker/bake/huggingface
# The hub allows more requests with a token, and some models need one: `docker build --secret id=HF_TOKEN ...`, from the
# environment. It is in no layer.
RUN --mount=type=secret,id=HF_TOKEN,required=false \
    HF_TOKEN="$(cat /run/secrets/HF_TOKEN 2>/dev/null || true)" \
    python -m parakeet_worker.bake.huggingface "${MODEL}" --to /downloads \
    ${MODEL_REVISION:+--revision "${MODEL_REVISION}"} ${MODEL_SHA256:+--sha256 "${MODEL_SHA256}"}
COPY src/parakeet_worker/asr ./src/parakeet_worker/asr
COPY src/parakeet_worker/model ./src/parakeet_worker/model
COPY src/parakeet_worker/nemo ./src/parakeet_worker/nemo
COPY src/parakeet_worker/bake ./src/parakeet_worker/bake
# The same bytes at the same time are the same layer, which a registry and a host have already.
RUN python -m parakeet_worker.bake "${MODEL}" --out /model --downloads /downloads \
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

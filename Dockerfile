# `base` holds CUDA's runtime and no more: torch's wheels bring cuBLAS, cuDNN and the rest, in the versions that they
# were built with. Python comes from the distribution: 3.11 or later, 3.11.4 to bake from anything but a baked directory.
ARG BASE_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04

# What runs the model: `plain`, the worker's own code, or `nemo`, NeMo's modules, for the models that only they can run. An
# image for `plain` holds no NeMo.
ARG ENGINE=plain

FROM ${BASE_IMAGE} AS packages
# Which build of torch: PyPI's, for CUDA 13.0, or one from an index of PyTorch's own, such as cu126, for hosts whose driver
# is too old for that. The version is the lock's; docs/deploy.md says which base and which hosts go with it.
ARG TORCH_CUDA=
WORKDIR /app
COPY requirements.txt ./
# pip byte-compiles the packages from an environment of its own, and is gone when the layer is done.
# torch's wheels require Triton and cuda-bindings, and work without them. Triton compiles kernels for torch.compile() and for
# a few operators that have others, with a C compiler that is not here. cuda-bindings is for what profiles CUDA graphs.
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
        sed -i "s/^torch==[^ ;]*/&+${TORCH_CUDA}/" /opt/pip/requirements.txt \
        && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-deps \
            --index-url "https://download.pytorch.org/whl/${TORCH_CUDA}" \
            "$(grep -o '^torch==[^ ;]*' /opt/pip/requirements.txt)"; \
    fi \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --prefer-binary -r /opt/pip/requirements.txt \
    && /opt/pip/bin/pip --python /opt/venv/bin/python uninstall --yes triton cuda-bindings cuda-pathfinder \
    && rm -rf /opt/pip \
    && apt-get purge --yes --auto-remove python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app/src PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

# The bake needs NeMo for every model, the final image for some.
FROM packages AS nemo-packages
COPY requirements-nemo.txt ./
# --no-deps: the lock names every package, and torch's requirements would bring Triton and cuda-bindings back. NeMo uses
# cuda-bindings for CUDA graphs of its own alone, which the worker turns off.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && python3 -m venv /opt/pip \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --prefer-binary --no-deps -r requirements-nemo.txt \
    && rm -rf /opt/pip \
    && apt-get purge --yes --auto-remove python3-venv \
    && rm -rf /var/lib/apt/lists/*

# The download and the bake get the parts that they import, so that a change elsewhere in the code does neither anew,
# and a change in the bake downloads nothing anew.
FROM nemo-packages AS model
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
# A model that the image's engine cannot run stops the build here.
ARG ENGINE
# The same bytes at the same time are the same layer, which a registry and a host have already.
RUN python -m parakeet_worker.bake "${MODEL}" --out /model --downloads /downloads --engine "${ENGINE}" \
    ${MODEL_REVISION:+--revision "${MODEL_REVISION}"} ${MODEL_SHA256:+--sha256 "${MODEL_SHA256}"} \
    && chmod -R a+rX /model \
    && find /model -exec touch --date=@0 {} +

FROM packages AS engine-plain
FROM nemo-packages AS engine-nemo

# The default once more, because buildah looks for the stage before it reads the argument's.
# hadolint ignore=DL3006
FROM engine-${ENGINE:-plain}
WORKDIR /app
RUN useradd --uid 10001 --no-create-home --home-dir /tmp worker
COPY --from=model /model /model
ENV PARAKEET_MODEL=/model
COPY LICENSE NOTICE handler.py test_input.json ./
COPY schemas ./schemas
COPY src ./src
# A checkout may be its owner's alone, and the worker is another user. Without a check of the sources at run time: they do
# not change.
RUN chmod -R a+rX LICENSE NOTICE handler.py test_input.json schemas src \
    && python -m compileall -q --invalidation-mode unchecked-hash handler.py src
USER 10001
CMD ["python", "handler.py"]

# torch's wheels bring the CUDA libraries, the host brings the driver: any Linux with Python 3.11 or later will do.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS packages
WORKDIR /app
COPY requirements.txt ./
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir --prefer-binary -r requirements.txt
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app/src PYTHONUNBUFFERED=1

FROM packages AS model
COPY src ./src
COPY models ./models
# A name on the hub whose revision and checksum the bake knows, or the path of a .nemo file or a baked directory here.
ARG MODEL=nvidia/parakeet-tdt-0.6b-v2
RUN python -m parakeet_worker.model.bake "${MODEL}" --out /model

FROM packages
COPY --from=model /model /model
COPY . .
ENV PARAKEET_MODEL_DIR=/model
CMD ["python", "handler.py"]

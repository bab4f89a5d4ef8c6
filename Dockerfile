# tandem, Ray and both frameworks for a user that is not root.
#   docker build --target cpu  --tag tandem:0.1.0-cpu  .
#   docker build --target cuda --tag tandem:0.1.0-cuda .
# The versions are those of docker/constraints.txt, which the tests ran on.

FROM python:3.11.13-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/tandem/bin:$PATH
# KubeRay starts Ray through bash; its older releases probe with wget.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends bash wget libgomp1 \
 && rm -rf /var/lib/apt/lists/*

# The frameworks make a layer that stays when tandem's own code changes.
FROM base AS build
RUN python -m venv /opt/tandem
WORKDIR /src
COPY pyproject.toml docker/constraints.txt docker/dependencies.py ./
RUN python dependencies.py > dependencies.txt

FROM build AS build-cpu
RUN pip install --constraint constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu \
    --requirement dependencies.txt

# PyTorch's default wheels are for CUDA 13, TensorFlow's for CUDA 12, and cuDNN and NCCL of both are the same files: the
# image has PyTorch's wheels for CUDA 12. The script fails where the libraries do not suit both.
FROM build AS build-cuda
ARG TORCH_CUDA=cu126
COPY docker/check_cuda.py ./
RUN pip install --constraint constraints.txt --extra-index-url https://download.pytorch.org/whl/${TORCH_CUDA} \
    --requirement dependencies.txt "tensorflow[and-cuda]" \
 && python check_cuda.py

FROM build AS wheel
COPY . .
RUN pip wheel --no-deps --wheel-dir /dist .

FROM base AS runtime
RUN useradd --uid 1000 --create-home tandem
ENV HOME=/tmp RAY_USAGE_STATS_ENABLED=0 TF_CPP_MIN_LOG_LEVEL=2
WORKDIR /tmp

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/tandem /opt/tandem
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist pip install --no-deps /dist/*.whl
USER 1000

FROM runtime AS cpu
COPY --from=build-cpu /opt/tandem /opt/tandem
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist pip install --no-deps /dist/*.whl
USER 1000

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

FROM build AS build-cuda
RUN pip install --constraint constraints.txt --requirement dependencies.txt "tensorflow[and-cuda]"

FROM build AS wheel
COPY . .
RUN pip wheel --no-deps --wheel-dir /dist .

FROM base AS runtime
RUN useradd --uid 1000 --create-home tandem
ENV HOME=/tmp RAY_USAGE_STATS_ENABLED=0 TF_CPP_MIN_LOG_LEVEL=2
WORKDIR /tmp

FROM runtime AS cuda
COPY --from=build-cuda /opt/tandem /opt/tandem
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist pip install --no-deps /dist/*.whl
USER 1000

FROM runtime AS cpu
COPY --from=build-cpu /opt/tandem /opt/tandem
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist pip install --no-deps /dist/*.whl
USER 1000

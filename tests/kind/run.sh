#!/usr/bin/env bash
# The whole way on a real Kubernetes: kind, KubeRay's chart, the project's image, and an experiment from submission to report.
# Needs docker, kind, kubectl and helm, and some 16 GB of memory. Run it with `make test-kind`.
set -euo pipefail

cluster=tandem-test
image=tandem:test-cpu
namespace=tandem
scratch=$(mktemp -d)
export KUBECONFIG=$scratch/kubeconfig

finish() {
    kind delete cluster --name "$cluster" || true
    rm -rf "$scratch"
}
trap finish EXIT

docker build --target cpu --tag "$image" .
kind create cluster --name "$cluster" --wait 120s
kind load docker-image "$image" --name "$cluster"
helm repo add kuberay https://ray-project.github.io/kuberay-helm/
helm install kuberay-operator kuberay/kuberay-operator --version 1.7.0 --namespace kuberay --create-namespace --wait
helm install tandem helm/tandem --namespace "$namespace" --create-namespace \
    --set image="$image" --set storage.accessMode=ReadWriteOnce --set quota.enabled=false
kubectl config set-context --current --namespace "$namespace"

cat > "$scratch/experiment.yaml" <<'YAML'
name: kind
data: {source: digits}
defaults: {model: tutorial_cnn, epochs: 2, batch_size: 64, seeds: [0]}
arms:
  keras: {framework: keras}
  torch: {framework: torch}
storage: /data/results
kubernetes:
  image: tandem:test-cpu
  head: {cpus: 1, memory_gib: 3}
  workers: [{min: 1, max: 1, cpus: 1, memory_gib: 4}]
  claims: [{claim: tandem-results, path: /data}]
YAML

.venv/bin/tandem doctor --on kuberay
.venv/bin/tandem render "$scratch/experiment.yaml" --dry-run=server > /dev/null
.venv/bin/tandem run "$scratch/experiment.yaml" --on kuberay 2>&1 | tee "$scratch/log"
grep -q report/report.html "$scratch/log"
TANDEM_TEST_KUBECONFIG=$KUBECONFIG TANDEM_TEST_IMAGE=$image TANDEM_TEST_STORAGE=tandem-results:/data TANDEM_TEST_NAMESPACE=$namespace \
    .venv/bin/pytest tests/cluster/test_kubernetes.py tests/cluster/test_end_to_end.py
helm test tandem --namespace "$namespace"
echo "the experiment ran from submission to report on Kubernetes"

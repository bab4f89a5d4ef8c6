"""The control plane that tests talk to: the test server, or a real one that TANDEM_TEST_KUBECONFIG names."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

import yaml
from kubernetes import client, config

from tests.conftest import TOOLS

KUBECONFIG = "TANDEM_TEST_KUBECONFIG"


class ControlPlane:
    """A namespace of its own on a control plane, with the administrator's kubeconfig."""

    def __init__(self, kubeconfig: str, scratch: Path) -> None:
        self._scratch = scratch
        self.namespace = f"tandem-{uuid.uuid4().hex[:8]}"
        document = yaml.safe_load(kubeconfig)
        for context in document["contexts"]:
            context["context"]["namespace"] = self.namespace
        self.kubeconfig = self._write("admin", document)
        self._document = document
        self.client = config.new_client_from_config(str(self.kubeconfig))
        core = client.CoreV1Api(self.client)
        core.create_namespace({"metadata": {"name": self.namespace}})
        self.core = core
        self.custom = client.CustomObjectsApi(self.client)

    def remove(self) -> None:
        self.core.delete_namespace(self.namespace)

    def ray_jobs(self) -> list[dict]:
        found = self.custom.list_namespaced_custom_object("ray.io", "v1", self.namespace, "rayjobs")
        return list(found["items"])

    def kubectl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(TOOLS / "kubernetes" / "kubectl"), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig)},
        )

    def kubeconfig_of(self, account: str) -> Path:
        """A kubeconfig with the token of a service account, which is made if it is missing."""
        try:
            self.core.create_namespaced_service_account(self.namespace, {"metadata": {"name": account}})
        except client.ApiException as error:
            if error.status != 409:
                raise
        request = {"spec": {"audiences": [], "expirationSeconds": 3600}}
        answer = self.core.create_namespaced_service_account_token(account, self.namespace, request)
        return self.kubeconfig_with(account, answer.status.token)

    def kubeconfig_with(self, name: str, token: str) -> Path:
        document = dict(self._document)
        document["users"] = [{"name": user["name"], "user": {"token": token}} for user in document["users"]]
        return self._write(name, document)

    def _write(self, name: str, document: dict) -> Path:
        file = self._scratch / f"kubeconfig-{name}"
        file.write_text(yaml.safe_dump(document))
        return file

{{- define "tandem.labels" -}}
app.kubernetes.io/part-of: tandem
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "tandem.unprivileged" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
{{- end }}

{{/* A pod of Ray: a dict of root, name, pod (cpus, memoryGiB, gpus, …), mounts, volumes and secrets. */}}
{{- define "tandem.pod" -}}
{{- $pod := .pod -}}
restartPolicy: Never
automountServiceAccountToken: {{ .keepsToken | default false }}
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  fsGroup: 1000
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $pod.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: {{ .name }}
    image: {{ .root.Values.image | quote }}
    resources:
      {{- range $kind := list "requests" "limits" }}
      {{ $kind }}:
        cpu: {{ $pod.cpus | quote }}
        memory: {{ printf "%dGi" (int $pod.memoryGiB) | quote }}
        {{- with $pod.gpus }}
        {{ $pod.gpuResource | default "nvidia.com/gpu" }}: {{ . | quote }}
        {{- end }}
      {{- end }}
    securityContext:
      {{- include "tandem.unprivileged" . | nindent 6 }}
      readOnlyRootFilesystem: true
    env:
      - {name: HOME, value: /tmp}
      {{- range $name, $value := $pod.env }}
      - {name: {{ $name }}, value: {{ $value | quote }}}
      {{- end }}
    {{- with .secrets }}
    envFrom:
      {{- range . }}
      - secretRef: {name: {{ . }}}
      {{- end }}
    {{- end }}
    volumeMounts:
      - {name: scratch, mountPath: /tmp}
      - {name: shared-memory, mountPath: /dev/shm}
      {{- if .root.Values.storage.enabled }}
      - {name: results, mountPath: /data}
      {{- end }}
      {{- if .files }}
      - {name: job, mountPath: /tandem/job, readOnly: true}
      {{- end }}
volumes:
  - {name: scratch, emptyDir: {}}
  - name: shared-memory
    emptyDir: {medium: Memory, sizeLimit: {{ printf "%dGi" (max 1 (div (int $pod.memoryGiB) 3)) }}}
  {{- if .root.Values.storage.enabled }}
  - {name: results, persistentVolumeClaim: {claimName: tandem-results}}
  {{- end }}
  {{- with .files }}
  - {name: job, configMap: {name: {{ . }}}}
  {{- end }}
{{- end }}

{{/* A RayCluster's spec: a dict of root, head, workers, idleSeconds, secrets and files. */}}
{{- define "tandem.rayCluster" -}}
{{- $grows := ne (int .workers.min) (int .workers.max) -}}
rayVersion: {{ .root.Values.rayVersion }}
authOptions: {mode: token}
enableInTreeAutoscaling: {{ $grows }}
{{- if $grows }}
autoscalerOptions:
  version: v2
  idleTimeoutSeconds: {{ .idleSeconds }}
  securityContext:
    {{- include "tandem.unprivileged" . | nindent 4 }}
{{- end }}
headGroupSpec:
  rayStartParams: {num-cpus: "0"}
  template:
    spec:
      {{- include "tandem.pod" (dict "root" .root "name" "ray-head" "pod" .head "secrets" .secrets "files" .files "keepsToken" $grows) | nindent 6 }}
workerGroupSpecs:
  - groupName: workers
    replicas: {{ .workers.min }}
    minReplicas: {{ .workers.min }}
    maxReplicas: {{ .workers.max }}
    numOfHosts: 1
    rayStartParams: {}
    template:
      spec:
        {{- include "tandem.pod" (dict "root" .root "name" "ray-worker" "pod" .workers "secrets" .secrets "files" .files) | nindent 8 }}
{{- end }}

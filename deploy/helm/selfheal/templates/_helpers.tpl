{{- define "selfheal.name" -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{- end }}

{{- define "selfheal.selector" -}}
app.kubernetes.io/name: selfheal
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "selfheal.labels" -}}
{{ include "selfheal.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "selfheal.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Whether MLflow's server runs elsewhere. */}}
{{- define "selfheal.trackingServer" -}}
{{- if hasPrefix "http" (.Values.settings.MLFLOW_TRACKING_URI | default "") }}yes{{ end }}
{{- end }}

{{- define "selfheal.claim" -}}
{{ .Values.data.existingClaim | default (printf "%s-data" (include "selfheal.name" .)) }}
{{- end }}

{{- define "selfheal.trainsInPods" -}}
{{- if eq .Values.training.runsIn "kubernetes" }}yes{{ end }}
{{- end }}

{{/* What a change of makes a process start again. */}}
{{- define "selfheal.checksum" -}}
checksum/settings: {{ toJson (list .Values.settings .Values.environment .Values.training .Values.image) | sha256sum }}
{{- end }}

{{/* The parts of a pod that all have; a dict with root, component, args, resources, and what a container has besides. `account`
     names an account of the cluster; without it the pod has none. `isApart`: it runs before the release's volume and settings are
     there, so it has its own. */}}
{{- define "selfheal.podSpec" -}}
{{- $root := .root -}}
automountServiceAccountToken: {{ not (empty .account) }}
{{- with .account }}
serviceAccountName: {{ . }}
{{- end }}
enableServiceLinks: false
terminationGracePeriodSeconds: 45
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .nodeSelector | default $root.Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations | default $root.Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: {{ .component }}
    image: {{ include "selfheal.image" $root | quote }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    {{- with .args }}
    args: {{ toJson . }}
    {{- end }}
    envFrom: [{configMapRef: {name: {{ include "selfheal.name" $root }}-{{ ternary "migration" "settings" (not (empty .isApart)) }}}}]
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    resources: {{ toYaml .resources | nindent 6 }}
    {{- with .container }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    volumeMounts:
      - {name: data, mountPath: /var/lib/selfheal}
      {{- if .journal }}
      - {name: journal, mountPath: /var/lib/selfheal/audit}
      {{- end }}
      - {name: secrets, mountPath: /run/secrets, readOnly: true}
      - {name: tmp, mountPath: /tmp}
      {{- if and (include "selfheal.trainsInPods" $root) (not .isApart) }}
      - {name: training-pod, mountPath: /etc/selfheal, readOnly: true}
      {{- end }}
volumes:
  {{- if .isApart }}
  - {name: data, emptyDir: {sizeLimit: 1Gi}}
  {{- else }}
  - {name: data, persistentVolumeClaim: {claimName: {{ include "selfheal.claim" $root }}}}
  {{- end }}
  - {name: secrets, secret: {secretName: {{ $root.Values.existingSecret }}, defaultMode: 0440}}
  - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
  {{- if and (include "selfheal.trainsInPods" $root) (not .isApart) }}
  - {name: training-pod, configMap: {name: {{ include "selfheal.name" $root }}-training}}
  {{- end }}
{{- end }}

{{/* Refuse what would be in a ConfigMap for all to read, and what would contradict the pods. */}}
{{- define "selfheal.refuse" -}}
{{- $secrets := list "API_KEY" "API_KEYS" "DATABASE_URL" "ENTITY_SECRET" "NOTIFY_URLS" "NOTIFY_URLS_CRITICAL" "NOTIFY_URLS_INFO" "NOTIFY_URLS_WARNING" "POSTGRES_PASSWORD" -}}
{{- $own := list "API_HOST" "API_PORT" "CODE_SERVER_HOST" "CODE_SERVER_PORT" "DAGSTER_PORT" "DATA_DIR" "MLFLOW_PORT" "SECRETS_DIR" "TRAINING_POD_FILE" "TRAINING_RUNS_IN" -}}
{{- range $name, $_ := .Values.settings }}
{{- if has $name $secrets }}
{{- fail (printf "settings.%s is a secret, which everybody could read there; put it into the Secret %s, as the key %s" $name $.Values.existingSecret (lower $name)) }}
{{- end }}
{{- if has $name $own }}
{{- fail (printf "settings.%s follows from the chart; leave it out (ports: processes.NAME.port; trainings: training.runsIn)" $name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Variables of every process: settings, and what is none. */}}
{{- define "selfheal.variables" -}}
{{- range $name, $value := merge (dict) .Values.settings .Values.environment }}
{{- $isWhole := and (kindIs "float64" $value) (eq (floor $value) $value) }}{{/* as text it would be 5e+06 */}}
{{ $name }}: {{ ternary (int64 $value | toString) (toString $value) $isWhole | quote }}
{{- end }}
{{- end }}

{{- define "selfheal.execProbes" -}}
startupProbe:
  exec: {command: [selfheal-probe, {{ . }}]}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 60
readinessProbe:
  exec: {command: [selfheal-probe, {{ . }}]}
  periodSeconds: 15
  timeoutSeconds: 5
livenessProbe:
  exec: {command: [selfheal-probe, {{ . }}]}
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 10
{{- end }}

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
     names an account of the cluster; without it the pod has none. */}}
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
    envFrom: [{configMapRef: {name: {{ include "selfheal.name" $root }}-settings}}]
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
      {{- if include "selfheal.trainsInPods" $root }}
      - {name: training-pod, mountPath: /etc/selfheal, readOnly: true}
      {{- end }}
volumes:
  - {name: data, persistentVolumeClaim: {claimName: {{ include "selfheal.claim" $root }}}}
  - {name: secrets, secret: {secretName: {{ $root.Values.existingSecret }}, defaultMode: 0440}}
  - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
  {{- if include "selfheal.trainsInPods" $root }}
  - {name: training-pod, configMap: {name: {{ include "selfheal.name" $root }}-training}}
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

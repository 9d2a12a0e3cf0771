{{- /* The beginning of all names. */ -}}
{{- define "ferrypost.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "ferrypost.controlplane.name" -}}
{{- include "ferrypost.fullname" . }}-controlplane
{{- end -}}

{{- define "ferrypost.dataplane.name" -}}
{{- include "ferrypost.fullname" . }}-dataplane
{{- end -}}

{{- /* What finds the pods of a plane: a dict of `root` and `component`. */ -}}
{{- define "ferrypost.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "ferrypost.labels" -}}
{{ include "ferrypost.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* A dict of `root` and `repository`. */ -}}
{{- define "ferrypost.image" -}}
{{- with .root.Values.image.registry }}{{ . }}/{{ end -}}
{{- .repository }}:{{ default .root.Chart.AppVersion .root.Values.image.tag -}}
{{- end -}}

{{- define "ferrypost.tokens.secret" -}}
{{- default (printf "%s-tokens" (include "ferrypost.fullname" .)) .Values.tokens.existingSecret -}}
{{- end -}}

{{- /* The secret with a plane's certificate for the other plane: a dict of `root` and `component`. */ -}}
{{- define "ferrypost.planes.secret" -}}
{{- $own := printf "%s-%s-tls" (include "ferrypost.fullname" .root) .component -}}
{{- if eq .root.Values.planes.tls.source "secrets" -}}
{{- get .root.Values.planes.tls.secrets .component -}}
{{- else -}}
{{- $own -}}
{{- end -}}
{{- end -}}

{{- /* The names in a plane's certificate, as JSON: a dict of `root` and `component`. */ -}}
{{- define "ferrypost.planes.names" -}}
{{- $name := printf "%s-%s" (include "ferrypost.fullname" .root) .component -}}
{{- $service := printf "%s.%s.svc" $name .root.Release.Namespace -}}
{{- $replicas := printf "*.%s-replicas.%s.svc" $name .root.Release.Namespace -}}
{{- list $name (printf "%s.%s" $name .root.Release.Namespace) $service $replicas "localhost" | toJson -}}
{{- end -}}

{{- /* Addresses of the data planes' stream, as JSON: each replica's own, so that one that is away is passed over. */ -}}
{{- define "ferrypost.stream.endpoints" -}}
{{- if .Values.dataplane.controlPlane.endpoints -}}
{{- .Values.dataplane.controlPlane.endpoints | toJson -}}
{{- else -}}
{{- $name := include "ferrypost.controlplane.name" . -}}
{{- $endpoints := list -}}
{{- range until (int .Values.controlplane.replicas) -}}
{{- $endpoints = append $endpoints (printf "https://%s-%d.%s-replicas.%s.svc:%d" $name . $name $.Release.Namespace (int $.Values.controlplane.ports.stream)) -}}
{{- end -}}
{{- $endpoints | toJson -}}
{{- end -}}
{{- end -}}

{{- /* The name in the control plane's certificate. */ -}}
{{- define "ferrypost.stream.serverName" -}}
{{- if .Values.dataplane.controlPlane.endpoints -}}
{{- .Values.dataplane.controlPlane.serverName -}}
{{- else -}}
{{- printf "%s.%s.svc" (include "ferrypost.controlplane.name" .) .Release.Namespace -}}
{{- end -}}
{{- end -}}

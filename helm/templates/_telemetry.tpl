{{- /*
The variables by which a plane exports to a collector, and who it is there: a dict of `root` and `container`.
The instance's id is the one that a collector makes of a pod itself, by OpenTelemetry's rule for Kubernetes.
*/ -}}
{{- define "ferrypost.telemetry.env" -}}
{{- with .root.Values.telemetry -}}
{{- if .endpoint }}
- name: K8S_POD_NAME
  valueFrom:
    fieldRef: {fieldPath: metadata.name}
- name: K8S_NODE_NAME
  valueFrom:
    fieldRef: {fieldPath: spec.nodeName}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ printf "k8s.namespace.name=%s,k8s.pod.name=$(K8S_POD_NAME),k8s.node.name=$(K8S_NODE_NAME),k8s.container.name=%s,service.namespace=%s,service.instance.id=%s.$(K8S_POD_NAME).%s" $.root.Release.Namespace $.container $.root.Release.Namespace $.root.Release.Namespace $.container }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .endpoint | quote }}
- name: OTEL_TRACES_SAMPLER
  value: {{ .sampler }}
{{- with .samplerArg }}
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ . | quote }}
{{- end }}
{{- with .headersSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: headers}
{{- end }}
{{- if .tlsSecret }}
- name: OTEL_EXPORTER_OTLP_CERTIFICATE
  value: /etc/ferrypost/collector/ca.crt
{{- if .clientCertificate }}
- name: OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE
  value: /etc/ferrypost/collector/tls.crt
- name: OTEL_EXPORTER_OTLP_CLIENT_KEY
  value: /etc/ferrypost/collector/tls.key
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "ferrypost.telemetry.mounts" -}}
{{- if .Values.telemetry.tlsSecret }}
- name: ferrypost-collector
  mountPath: /etc/ferrypost/collector
  readOnly: true
{{- end }}
{{- end -}}

{{- /* A dict of `root` and `mode`, of the files. */ -}}
{{- define "ferrypost.telemetry.volumes" -}}
{{- with .root.Values.telemetry.tlsSecret }}
- name: ferrypost-collector
  secret:
    secretName: {{ . }}
    defaultMode: {{ $.mode }}
{{- end }}
{{- end -}}

{{- /* A collector's URL with its port. */ -}}
{{- define "ferrypost.telemetry.url" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | default (ternary ":443" ":80" (eq $url.scheme "https")) -}}
{{- printf "%s://%s%s" $url.scheme (regexReplaceAll ":[0-9]+$" $url.host "") $port -}}
{{- end -}}

{{- /* The rule of egress to the collector. */ -}}
{{- define "ferrypost.telemetry.egress" -}}
{{- with .Values.telemetry.endpoint }}
{{- $collector := include "ferrypost.policy.host" (include "ferrypost.telemetry.url" .) | fromJson -}}
{{- include "ferrypost.policy.egress" (dict "root" $ "host" $collector.host "port" $collector.port) }}
{{- end }}
{{- end -}}

{{- define "ferrypost.mistakes.telemetry" -}}
{{- $wrong := list -}}
{{- with .Values.telemetry -}}
{{- if and (not .endpoint) (or .headersSecret .tlsSecret .clientCertificate) -}}
{{- $wrong = append $wrong "telemetry says how a collector is reached and not where: set telemetry.endpoint, as https://collector.observability.svc:4317" -}}
{{- end -}}
{{- if and .clientCertificate (not .tlsSecret) -}}
{{- $wrong = append $wrong "telemetry.clientCertificate needs telemetry.tlsSecret, with tls.crt and tls.key" -}}
{{- end -}}
{{- if and (or .tlsSecret .headersSecret) (hasPrefix "http://" .endpoint) -}}
{{- $wrong = append $wrong "telemetry.endpoint is http://, on which what headersSecret and tlsSecret hold is no secret: use https://" -}}
{{- end -}}
{{- if and .samplerArg (not (hasSuffix "traceidratio" .sampler)) -}}
{{- $wrong = append $wrong (printf "telemetry.samplerArg is the share of traceidratio, and telemetry.sampler is %s: use parentbased_traceidratio" .sampler) -}}
{{- end -}}
{{- end -}}
{{- range $plane := list "controlplane" "dataplane" -}}
{{- range (get $.Values $plane).extraEnv -}}
{{- if and (hasPrefix "OTEL_EXPORTER_OTLP_" .name) (hasSuffix "HEADERS" .name) .value -}}
{{- $wrong = append $wrong (printf "%s.extraEnv: %s is a secret that everybody would see who may look at the pod: put it into a secret and name that in telemetry.headersSecret" $plane .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $wrong | toJson -}}
{{- end -}}

{{- /*
A mesh's proxy must not look into protocols whose server speaks first, must not hide who a client is, and must not end
TCP between a data plane and a server: the end of a session is told by the server's own FIN (docs/guarantees.md).
HTTP is left to the mesh on the way in.
*/ -}}
{{- define "ferrypost.mesh.pod" -}}
{{- $lines := include "ferrypost.doors.ports" (dict "root" . "kinds" (list "line" "internal")) -}}
{{- $servers := include "ferrypost.servers.ports" . -}}
{{- if .Values.mesh.linkerd }}
{{- with $lines }}
config.linkerd.io/opaque-ports: {{ . | quote }}
config.linkerd.io/skip-inbound-ports: {{ . | quote }}
{{- end }}
{{- with $servers }}
config.linkerd.io/skip-outbound-ports: {{ . | quote }}
{{- end }}
{{- end }}
{{- if .Values.mesh.istio }}
{{- with $lines }}
traffic.sidecar.istio.io/excludeInboundPorts: {{ . | quote }}
{{- end }}
{{- with $servers }}
traffic.sidecar.istio.io/excludeOutboundPorts: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Of a Service: a dict of `root` and `kinds`. */ -}}
{{- define "ferrypost.mesh.service" -}}
{{- if .root.Values.mesh.linkerd }}
{{- with include "ferrypost.doors.ports" . }}
config.linkerd.io/opaque-ports: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Ports of the servers, parted by commas. */ -}}
{{- define "ferrypost.servers.ports" -}}
{{- $ports := list -}}
{{- range include "ferrypost.endpoints" . | fromJsonArray -}}
{{- $ports = append $ports (int .port | toString) -}}
{{- end -}}
{{- $ports | uniq | sortAlpha | join "," -}}
{{- end -}}

{{- /* The endpoints that this release's data planes reach, as JSON: for their group, and for every group. */ -}}
{{- define "ferrypost.endpoints" -}}
{{- $endpoints := list -}}
{{- range dig "destinations" list .Values.routing -}}
{{- range dig "endpoints" list . -}}
{{- $group := dig "when" "group" "" . -}}
{{- if or (eq $group "") (eq $group $.Values.dataplane.group) -}}
{{- $endpoints = append $endpoints . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $endpoints | toJson -}}
{{- end -}}

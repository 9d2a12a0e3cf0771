{{- /*
The peers of a host as a NetworkPolicy names them, as a JSON dict of `to` and `anyPort`: a dict of `root` and `host`.
What `networkPolicy.hosts` says of it; an address; a Service of the cluster (its namespace, where ports are the pods' own);
else anywhere.
*/ -}}
{{- define "ferrypost.policy.peers" -}}
{{- $host := .host -}}
{{- $service := regexFindAll "^[^.]+\\.([^.]+)\\.svc(\\..+)?$" $host 1 -}}
{{- if hasKey .root.Values.networkPolicy.hosts $host -}}
{{- dict "to" (get .root.Values.networkPolicy.hosts $host) | toJson -}}
{{- else if regexMatch "^[0-9.]+$" $host -}}
{{- dict "to" (list (dict "ipBlock" (dict "cidr" (printf "%s/32" $host)))) | toJson -}}
{{- else if contains ":" $host -}}
{{- dict "to" (list (dict "ipBlock" (dict "cidr" (printf "%s/128" $host)))) | toJson -}}
{{- else if $service -}}
{{- $namespace := index (splitList "." $host) 1 -}}
{{- dict "anyPort" true "to" (list (dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" $namespace)))) | toJson -}}
{{- else -}}
{{- dict "to" list | toJson -}}
{{- end -}}
{{- end -}}

{{- /* A rule of egress to a host and a port: a dict of `root`, `host`, `port`. */ -}}
{{- define "ferrypost.policy.egress" -}}
{{- $peers := include "ferrypost.policy.peers" . | fromJson -}}
{{- $rule := dict -}}
{{- with $peers.to }}{{ $_ := set $rule "to" . }}{{ end -}}
{{- if not $peers.anyPort }}{{ $_ := set $rule "ports" (list (dict "protocol" "TCP" "port" (int .port))) }}{{ end -}}
{{- list $rule | toYaml -}}
{{- end -}}

{{- /* Hosts with their ports that a policy lets be anywhere, as JSON. */ -}}
{{- define "ferrypost.policy.anywhere" -}}
{{- $hosts := list -}}
{{- if .Values.networkPolicy.enabled -}}
{{- if eq .Values.dataplane.mode "gateway" -}}
{{- $hosts = include "ferrypost.endpoints" . | fromJsonArray -}}
{{- range .Values.dataplane.controlPlane.endpoints -}}
{{- $hosts = append $hosts (include "ferrypost.policy.host" . | fromJson) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.controlplane.enabled (eq .Values.controlplane.store.kind "etcd") -}}
{{- range .Values.controlplane.store.etcd.endpoints -}}
{{- $hosts = append $hosts (include "ferrypost.policy.host" . | fromJson) -}}
{{- end -}}
{{- end -}}
{{- with .Values.telemetry.endpoint -}}
{{- $hosts = append $hosts (include "ferrypost.policy.host" (include "ferrypost.telemetry.url" .) | fromJson) -}}
{{- end -}}
{{- end -}}
{{- $anywhere := list -}}
{{- range $hosts -}}
{{- if not (include "ferrypost.policy.peers" (dict "root" $ "host" .host) | fromJson).to -}}
{{- $anywhere = append $anywhere (printf "%s:%d" .host (int .port)) -}}
{{- end -}}
{{- end -}}
{{- $anywhere | uniq | toJson -}}
{{- end -}}

{{- /* Host and port of a URL, as JSON. */ -}}
{{- define "ferrypost.policy.host" -}}
{{- $url := urlParse . -}}
{{- dict "host" (regexReplaceAll ":[0-9]+$" $url.host "" | trimPrefix "[" | trimSuffix "]") "port" (regexFind "[0-9]+$" $url.host | default "2379") | toJson -}}
{{- end -}}

{{- /* Names are looked up anywhere: a node's own resolver has an address that no selector finds. */ -}}
{{- define "ferrypost.policy.dns" -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
    # Some networks judge by the port of the resolver's pod; OpenShift's has this one.
    - {protocol: UDP, port: 5353}
    - {protocol: TCP, port: 5353}
{{- end -}}

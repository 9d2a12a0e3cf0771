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

{{- /* Names are looked up anywhere: a node's own resolver has an address that no selector finds. */ -}}
{{- define "ferrypost.policy.dns" -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end -}}

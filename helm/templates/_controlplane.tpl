{{- /* controlplane.toml. The replica's name is each pod's own and comes by the environment. */ -}}
{{- define "ferrypost.controlplane.toml" -}}
{{- $values := .Values.controlplane -}}
{{- $tls := dict "cert_file" "../planes/tls.crt" "key_file" "../planes/tls.key" -}}
{{- $mutual := merge (dict "client_ca_file" "../planes/ca.crt") $tls -}}
{{- $tokens := list (dict "name" "operator" "role" "admin" "file" "../tokens/operator") (dict "name" "viewer" "role" "viewer" "file" "../tokens/viewer") -}}
{{- range $values.operators -}}
{{- $tokens = append $tokens (dict "name" .name "role" .role "file" (printf "../operators/%s/%s" .name .key)) -}}
{{- end -}}
{{- $operators := dict "listen" (include "ferrypost.address" (dict "values" $values "port" $values.ports.operators)) "tokens" $tokens "tls" $mutual -}}
{{- with $values.identities }}{{ $_ := set $operators "identities" . }}{{ end -}}
{{- $store := dict "kind" "embedded" "path" "/var/lib/ferrypost/ferrypost.redb" -}}
{{- if eq $values.store.kind "etcd" -}}
{{- with $values.store.etcd -}}
{{- $store = dict "kind" "etcd" "endpoints" .endpoints "prefix" .prefix -}}
{{- if .tlsSecret }}{{ $_ := set $store "ca_file" "../etcd/ca.crt" }}{{ end -}}
{{- if .clientCertificate }}{{ $store = merge $store (dict "cert_file" "../etcd/tls.crt" "key_file" "../etcd/tls.key") }}{{ end -}}
{{- with .serverName }}{{ $_ := set $store "server_name" . }}{{ end -}}
{{- if .username }}{{ $store = merge $store (dict "username" .username "password_file" "../etcd-password/password") }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $ours := dict "store" $store "operators" $operators -}}
{{- $_ := set $ours "data_planes" (dict "listen" (include "ferrypost.address" (dict "values" $values "port" $values.ports.stream)) "tls" $mutual) -}}
{{- $_ := set $ours "routing" (dict "source" "file" "file" "../routing/routing.toml") -}}
{{- $_ := set $ours "admin" (merge (dict "listen" (include "ferrypost.address" (dict "values" $values "port" $values.ports.admin)) "health_listen" (include "ferrypost.address" (dict "values" $values "port" $values.ports.health)) "token_file" "../tokens/monitoring") $tls) -}}
{{- $_ := set $ours "log" (dict "format" "json") -}}
{{- $table := mergeOverwrite $ours (deepCopy $values.config) -}}
{{- include "ferrypost.toml" (dict "table" $table "at" "") | trim -}}
{{- end -}}

{{- /* Of its Services. TLS is its own on both: a mesh that took them for gRPC in clear would refuse what is said there. */ -}}
{{- define "ferrypost.controlplane.ports" -}}
{{- $ports := .Values.controlplane.ports -}}
- {name: tls-operators, port: {{ int $ports.operators }}, targetPort: operators}
- {name: tls-stream, port: {{ int $ports.stream }}, targetPort: stream}
{{- end -}}

{{- /* All that data planes listen on, as a JSON list of `name`, `port`, `kind` (line, web, internal), sorted by name. */ -}}
{{- define "ferrypost.doors" -}}
{{- $doors := list -}}
{{- range $name := keys .Values.dataplane.listeners | sortAlpha -}}
{{- $listener := get $.Values.dataplane.listeners $name -}}
{{- if ne (toString (dig "enabled" true $listener)) "false" -}}
{{- $doors = append $doors (dict "name" $name "port" $listener.port "kind" "line") -}}
{{- end -}}
{{- end -}}
{{- range $name := keys .Values.dataplane.passThroughs | sortAlpha -}}
{{- $doors = append $doors (dict "name" $name "port" (get $.Values.dataplane.passThroughs $name).port "kind" "line") -}}
{{- end -}}
{{- range $name := keys .Values.dataplane.web | sortAlpha -}}
{{- $doors = append $doors (dict "name" $name "port" (get $.Values.dataplane.web $name).port "kind" "web") -}}
{{- end -}}
{{- range $name := keys .Values.dataplane.deliveries | sortAlpha -}}
{{- $door := get $.Values.dataplane.deliveries $name -}}
{{- $doors = append $doors (dict "name" $name "port" $door.port "kind" "internal" "from" $door.from) -}}
{{- end -}}
{{- range $name := keys .Values.dataplane.lookups | sortAlpha -}}
{{- $door := get $.Values.dataplane.lookups $name -}}
{{- $doors = append $doors (dict "name" $name "port" $door.port "kind" "internal" "from" $door.from) -}}
{{- end -}}
{{- $doors | toJson -}}
{{- end -}}

{{- /* Ports of some kinds, parted by commas: a dict of `root` and `kinds`. */ -}}
{{- define "ferrypost.doors.ports" -}}
{{- $ports := list -}}
{{- range include "ferrypost.doors" .root | fromJsonArray -}}
{{- if has .kind $.kinds -}}
{{- $ports = append $ports (int .port | toString) -}}
{{- end -}}
{{- end -}}
{{- $ports | uniq | join "," -}}
{{- end -}}

{{- /* TLS secrets with what clients are shown, as JSON; the first is for those who ask for none of their names. */ -}}
{{- define "ferrypost.certificates" -}}
{{- $secrets := .Values.dataplane.certificates -}}
{{- if .Values.dataplane.certManager.dnsNames -}}
{{- $secrets = append $secrets (printf "%s-clients-tls" (include "ferrypost.dataplane.name" .)) -}}
{{- end -}}
{{- range concat (values .Values.dataplane.listeners) (values .Values.dataplane.web) -}}
{{- $secrets = concat $secrets (dig "certificates" list .) -}}
{{- end -}}
{{- $secrets | uniq | toJson -}}
{{- end -}}

{{- /* `certificates` of a listener: a dict of `root` and `secrets`, its own or none. */ -}}
{{- define "ferrypost.certificates.files" -}}
{{- $secrets := .secrets -}}
{{- if not $secrets -}}
{{- $secrets = .root.Values.dataplane.certificates -}}
{{- if .root.Values.dataplane.certManager.dnsNames -}}
{{- $secrets = append $secrets (printf "%s-clients-tls" (include "ferrypost.dataplane.name" .root)) -}}
{{- end -}}
{{- end -}}
{{- $files := list -}}
{{- range $secrets -}}
{{- $files = append $files (dict "cert_file" (printf "../tls/%s/tls.crt" .) "key_file" (printf "../tls/%s/tls.key" .)) -}}
{{- end -}}
{{- $files | toJson -}}
{{- end -}}

{{- /* Where a plane listens: a dict of its `values` and a `port`. */ -}}
{{- define "ferrypost.address" -}}
{{- $host := .values.listenAddress -}}
{{- printf (ternary "[%s]:%d" "%s:%d" (contains ":" $host)) $host (int .port) -}}
{{- end -}}

{{- /* Whose PROXY headers are believed, as JSON. */ -}}
{{- define "ferrypost.proxies" -}}
{{- with .Values.dataplane.clientAddress -}}
{{- $networks := ternary .loadBalancerNetworks list .loadBalancerSendsProxy -}}
{{- concat $networks .peers | uniq | toJson -}}
{{- end -}}
{{- end -}}

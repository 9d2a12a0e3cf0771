{{- /* gateway.toml. The instance is each pod's own and comes by the environment; relative paths are of the file's folder. */ -}}
{{- define "ferrypost.dataplane.toml" -}}
{{- $root := . -}}
{{- $proxies := include "ferrypost.proxies" . | fromJsonArray -}}
{{- $listeners := list -}}
{{- range $name := keys .Values.dataplane.listeners | sortAlpha -}}
{{- $door := get $.Values.dataplane.listeners $name -}}
{{- if ne (toString (dig "enabled" true $door)) "false" -}}
{{- $listener := dict "name" $name "protocol" $door.protocol "tls" $door.tls -}}
{{- $_ := set $listener "address" (include "ferrypost.address" (dict "values" $root.Values.dataplane "port" $door.port)) -}}
{{- $_ := set $listener "certificates" (include "ferrypost.certificates.files" (dict "root" $root "secrets" $door.certificates) | fromJsonArray) -}}
{{- with $proxies }}{{ $_ := set $listener "proxy_protocol_from" . }}{{ end -}}
{{- with $door.connections }}{{ $_ := set $listener "limits" (dict "connections" .) }}{{ end -}}
{{- $listeners = append $listeners $listener -}}
{{- end -}}
{{- end -}}
{{- $web := list -}}
{{- range $name := keys .Values.dataplane.web | sortAlpha -}}
{{- $door := get $.Values.dataplane.web $name -}}
{{- $listener := dict "name" $name "trusted_peers" (default list $door.trusted_peers) -}}
{{- $_ := set $listener "address" (include "ferrypost.address" (dict "values" $root.Values.dataplane "port" $door.port)) -}}
{{- $_ := set $listener "certificates" (include "ferrypost.certificates.files" (dict "root" $root "secrets" $door.certificates) | fromJsonArray) -}}
{{- with $proxies }}{{ $_ := set $listener "proxy_protocol_from" . }}{{ end -}}
{{- with $door.connections }}{{ $_ := set $listener "limits" (dict "connections" .) }}{{ end -}}
{{- $web = append $web $listener -}}
{{- end -}}
{{- $throughs := list -}}
{{- range $name := keys .Values.dataplane.passThroughs | sortAlpha -}}
{{- $door := get $.Values.dataplane.passThroughs $name -}}
{{- $through := dict "name" $name "destination" $door.destination -}}
{{- $_ := set $through "address" (include "ferrypost.address" (dict "values" $root.Values.dataplane "port" $door.port)) -}}
{{- with $proxies }}{{ $_ := set $through "proxy_protocol_from" . }}{{ end -}}
{{- with $door.connections }}{{ $_ := set $through "limits" (dict "connections" .) }}{{ end -}}
{{- $throughs = append $throughs $through -}}
{{- end -}}
{{- $deliveries := list -}}
{{- range $name := keys .Values.dataplane.deliveries | sortAlpha -}}
{{- $door := get $.Values.dataplane.deliveries $name -}}
{{- $delivery := dict "name" $name "protocol" $door.protocol "from" $door.from -}}
{{- $_ := set $delivery "address" (include "ferrypost.address" (dict "values" $root.Values.dataplane "port" $door.port)) -}}
{{- if $door.tls }}{{ $_ := set $delivery "certificates" (include "ferrypost.certificates.files" (dict "root" $root "secrets" list) | fromJsonArray) }}{{ end -}}
{{- with $door.connections }}{{ $_ := set $delivery "limits" (dict "connections" .) }}{{ end -}}
{{- $deliveries = append $deliveries $delivery -}}
{{- end -}}
{{- $lookups := list -}}
{{- range $name := keys .Values.dataplane.lookups | sortAlpha -}}
{{- $door := get $.Values.dataplane.lookups $name -}}
{{- $lookup := dict "name" $name "protocol" $door.protocol "from" $door.from "next_hops" $door.next_hops -}}
{{- $_ := set $lookup "address" (include "ferrypost.address" (dict "values" $root.Values.dataplane "port" $door.port)) -}}
{{- if $door.tls }}{{ $_ := set $lookup "certificates" (include "ferrypost.certificates.files" (dict "root" $root "secrets" list) | fromJsonArray) }}{{ end -}}
{{- $lookups = append $lookups $lookup -}}
{{- end -}}
{{- $control := dict "endpoints" (include "ferrypost.stream.endpoints" . | fromJsonArray) "ca_file" "../planes/ca.crt" "cert_file" "../planes/tls.crt" "key_file" "../planes/tls.key" -}}
{{- with include "ferrypost.stream.serverName" . }}{{ $_ := set $control "server_name" . }}{{ end -}}
{{- $admin := dict "listen" (include "ferrypost.address" (dict "values" .Values.dataplane "port" .Values.dataplane.ports.admin)) "health_listen" (include "ferrypost.address" (dict "values" .Values.dataplane "port" .Values.dataplane.ports.health)) -}}
{{- $admin = merge $admin (dict "cert_file" "../planes/tls.crt" "key_file" "../planes/tls.key" "token_file" "../tokens/monitoring" "drain_token_file" "../tokens/drain") -}}
{{- $ours := dict "group" .Values.dataplane.group "state_directory" "/var/lib/ferrypost/state" "control_plane" $control "admin" $admin -}}
{{- $_ := set $ours "listeners" $listeners -}}
{{- $_ := set $ours "web" $web -}}
{{- $_ := set $ours "pass_throughs" $throughs -}}
{{- $_ := set $ours "deliveries" $deliveries -}}
{{- $_ := set $ours "lookups" $lookups -}}
{{- $_ := set $ours "limits" (dict "shutdown" (dict "grace" (printf "%ds" (int .Values.dataplane.drain.graceSeconds)))) -}}
{{- $_ := set $ours "log" (dict "format" "json") -}}
{{- range list "listeners" "web" "pass_throughs" "deliveries" "lookups" -}}
{{- if not (get $ours .) }}{{ $_ := unset $ours . }}{{ end -}}
{{- end -}}
{{- $table := mergeOverwrite $ours (deepCopy .Values.dataplane.config) -}}
{{- include "ferrypost.toml" (dict "table" $table "at" "") | trim -}}
{{- end -}}

{{- /* The container of a data plane, in a gateway and in a sidecar. */ -}}
{{- define "ferrypost.dataplane.container" -}}
name: ferrypost
image: {{ include "ferrypost.image" (dict "root" . "repository" .Values.dataplane.image.repository) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: ["--config", "/etc/ferrypost/config/gateway.toml"]
env:
  - name: FERRYPOST__INSTANCE
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  {{- with include "ferrypost.telemetry.env" (dict "root" . "container" "ferrypost") | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .Values.dataplane.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  {{- range include "ferrypost.doors" . | fromJsonArray }}
  - name: {{ .name }}
    containerPort: {{ int .port }}
    {{- if and $.Values.dataplane.gateway.hostPorts (ne .kind "internal") (eq $.Values.dataplane.mode "gateway") }}
    hostPort: {{ int .port }}
    {{- end }}
  {{- end }}
  - name: fp-admin
    containerPort: {{ int .Values.dataplane.ports.admin }}
  - name: fp-health
    containerPort: {{ int .Values.dataplane.ports.health }}
# Its first table is what makes it ready: nobody is served before. However long the control plane takes to give it one, a
# restart would help nobody, and each is waited for longer than the one before.
startupProbe:
  {{- include "ferrypost.probe" (dict "root" . "port" .Values.dataplane.ports.health "asks" "readiness") | nindent 2 }}
  periodSeconds: 1
  failureThreshold: 3600
readinessProbe:
  {{- include "ferrypost.probe" (dict "root" . "port" .Values.dataplane.ports.health "asks" "readiness") | nindent 2 }}
  periodSeconds: 2
  failureThreshold: 2
livenessProbe:
  {{- include "ferrypost.probe" (dict "root" . "port" .Values.dataplane.ports.health "asks" "liveness") | nindent 2 }}
  periodSeconds: 10
  failureThreshold: 6
lifecycle:
  preStop:
    exec:
      command:
        - ferrypost-dataplane
        - drain
        - --config
        - /etc/ferrypost/config/gateway.toml
        - --after
        - {{ int .Values.dataplane.drain.delaySeconds }}s
{{- with .Values.dataplane.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "ferrypost.securityContext" . | nindent 2 }}
volumeMounts:
  {{- include "ferrypost.dataplane.mounts" . | nindent 2 }}
{{- end -}}

{{- define "ferrypost.dataplane.mounts" -}}
- name: ferrypost-config
  mountPath: /etc/ferrypost/config
  readOnly: true
- name: ferrypost-planes
  mountPath: /etc/ferrypost/planes
  readOnly: true
- name: ferrypost-tokens
  mountPath: /etc/ferrypost/tokens
  readOnly: true
{{- with include "ferrypost.telemetry.mounts" . | trim }}
{{ . }}
{{- end }}
{{- range $n, $secret := include "ferrypost.certificates" . | fromJsonArray }}
- name: ferrypost-tls-{{ $n }}
  mountPath: /etc/ferrypost/tls/{{ $secret }}
  readOnly: true
{{- end }}
# Who it is, across restarts of the container; a pod that takes its place is somebody else.
- name: ferrypost-state
  mountPath: /var/lib/ferrypost
{{- with .Values.dataplane.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* A gateway reads its secrets by `fsGroup`; a mail server's pod has none of ours, and mounts them nowhere else. */ -}}
{{- define "ferrypost.dataplane.volumes" -}}
- name: ferrypost-config
  configMap:
    name: {{ include "ferrypost.dataplane.name" . }}
- name: ferrypost-planes
  secret:
    secretName: {{ include "ferrypost.planes.secret" (dict "root" . "component" "dataplane") }}
    defaultMode: {{ ternary "0440" "0444" (eq .Values.dataplane.mode "gateway") }}
- name: ferrypost-tokens
  secret:
    secretName: {{ include "ferrypost.tokens.secret" . }}
    defaultMode: {{ ternary "0440" "0444" (eq .Values.dataplane.mode "gateway") }}
    items:
      - {key: monitoring, path: monitoring}
      - {key: drain, path: drain}
{{- with include "ferrypost.telemetry.volumes" (dict "root" . "mode" (ternary "0440" "0444" (eq .Values.dataplane.mode "gateway"))) | trim }}
{{ . }}
{{- end }}
{{- range $n, $secret := include "ferrypost.certificates" . | fromJsonArray }}
- name: ferrypost-tls-{{ $n }}
  secret:
    secretName: {{ $secret }}
    defaultMode: {{ ternary "0440" "0444" (eq $.Values.dataplane.mode "gateway") }}
{{- end }}
- name: ferrypost-state
  emptyDir: {}
{{- with .Values.dataplane.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* How long a pod may take to end: what it waits, its sessions, the goodbye (5 s), and half a minute. */ -}}
{{- define "ferrypost.dataplane.gracePeriod" -}}
{{- with .Values.dataplane.drain -}}
{{- if kindIs "invalid" .terminationGracePeriodSeconds -}}
{{- add (int .delaySeconds) (int .graceSeconds) 35 -}}
{{- else -}}
{{- int .terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}
{{- end -}}

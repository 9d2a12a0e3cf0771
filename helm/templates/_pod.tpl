{{- /* What the restricted pod security standard asks of a container, and a file system that is not written to. */ -}}
{{- define "ferrypost.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- /* The same of a pod. `fsGroup` lets it read secrets and write its volumes. */ -}}
{{- define "ferrypost.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- /* Ports below 1024 without a capability; a safe sysctl under the restricted standard. */ -}}
{{- define "ferrypost.lowPorts" -}}
- name: net.ipv4.ip_unprivileged_port_start
  value: "0"
{{- end -}}

{{- /* How the kubelet asks: a dict of `root`, a `port` and what it `asks` (liveness, readiness). */ -}}
{{- define "ferrypost.probe" -}}
{{- if eq .root.Values.probes "grpc" -}}
grpc: {port: {{ int .port }}, service: {{ .asks }}}
{{- else -}}
httpGet: {path: {{ ternary "/healthz" "/readyz" (eq .asks "liveness") }}, port: fp-health}
{{- end -}}
{{- end -}}

{{- /*
What a plane's pods are restarted for when it changes: a dict of `root` and `plane`. Not its log's level, which it takes over
from the file that is mounted.
*/ -}}
{{- define "ferrypost.checksum" -}}
{{- $values := deepCopy .root.Values -}}
{{- with dig "config" "log" dict (get $values .plane) }}{{ $_ := unset . "level" }}{{ end -}}
{{- $root := dict "Values" $values "Release" .root.Release "Chart" .root.Chart -}}
{{- include (printf "ferrypost.%s.toml" .plane) $root | sha256sum -}}
{{- end -}}

{{- /* Replicas apart: a dict of `root` and `component`. */ -}}
{{- define "ferrypost.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: {{ .root.Values.spread }}
  labelSelector:
    matchLabels:
      {{- include "ferrypost.selector" . | nindent 6 }}
- maxSkew: 1
  topologyKey: topology.kubernetes.io/zone
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "ferrypost.selector" . | nindent 6 }}
{{- end -}}

{{- /* Where a plane's pods may run: its values. */ -}}
{{- define "ferrypost.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "ferrypost.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

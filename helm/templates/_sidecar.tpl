{{- /*
A data plane beside a mail server, for that server's own chart: ci/mail-server shows one, with what each of these gives.

As an init container that is restarted it serves before the mail server starts. On the way down Kubernetes ends it after
all others, but runs everybody's preStop hooks at once: ours drains, and the mail server's should wait for as long, so
that sessions end while their server still answers.
*/ -}}
{{- define "ferrypost.sidecar.initContainers" -}}
-
  restartPolicy: Always
  {{- include "ferrypost.dataplane.container" . | nindent 2 }}
{{- end -}}

{{- define "ferrypost.sidecar.volumes" -}}
{{- include "ferrypost.dataplane.volumes" . -}}
{{- end -}}

{{- define "ferrypost.sidecar.sysctls" -}}
{{- include "ferrypost.lowPorts" . -}}
{{- end -}}

{{- define "ferrypost.sidecar.annotations" -}}
ferrypost/checksum-config: {{ include "ferrypost.checksum" (dict "root" . "plane" "dataplane") }}
{{- include "ferrypost.mesh.pod" . -}}
{{- end -}}

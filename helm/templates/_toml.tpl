{{- /* A value in TOML. Helm reads numbers as floating ones: all of ours are whole. */ -}}
{{- define "ferrypost.toml.value" -}}
{{- if kindIs "slice" . -}}
[
{{- range $n, $item := . }}{{ if $n }}, {{ end }}{{ include "ferrypost.toml.value" $item }}{{ end -}}
]
{{- else if kindIs "map" . -}}
{ {{ range $n, $key := keys . | sortAlpha }}{{ if $n }}, {{ end }}{{ $key }} = {{ include "ferrypost.toml.value" (get $ $key) }}{{ end }} }
{{- else if kindIs "string" . -}}
{{- toRawJson . -}}
{{- else if kindIs "bool" . -}}
{{- . -}}
{{- else -}}
{{- int64 . -}}
{{- end -}}
{{- end -}}

{{- /* "yes" for what has a heading of its own: a table, or a list of tables. */ -}}
{{- define "ferrypost.toml.isBlock" -}}
{{- if kindIs "map" . -}}
yes
{{- else if kindIs "slice" . -}}
{{- if . }}{{ if kindIs "map" (first .) }}yes{{ end }}{{ end -}}
{{- end -}}
{{- end -}}

{{- /* A table in TOML: a dict of `table` and of `at`, the path to it. What is null is left out. */ -}}
{{- define "ferrypost.toml" -}}
{{- $at := .at -}}
{{- $table := .table -}}
{{- range $key := keys $table | sortAlpha -}}
{{- $value := get $table $key -}}
{{- if and (not (kindIs "invalid" $value)) (not (include "ferrypost.toml.isBlock" $value)) }}
{{ $key }} = {{ include "ferrypost.toml.value" $value }}
{{- end -}}
{{- end -}}
{{- range $key := keys $table | sortAlpha -}}
{{- $value := get $table $key -}}
{{- $path := ternary $key (printf "%s.%s" $at $key) (empty $at) -}}
{{- if not (include "ferrypost.toml.isBlock" $value) -}}
{{- else if kindIs "map" $value }}

[{{ $path }}]
{{- include "ferrypost.toml" (dict "table" $value "at" $path) -}}
{{- else -}}
{{- range $value }}

[[{{ $path }}]]
{{- include "ferrypost.toml" (dict "table" . "at" $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

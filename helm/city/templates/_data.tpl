{{/* Manifests as data for the operator. A ConfigMap's name ends in the hash of what it holds, so another name is another content. */}}

{{/* (dict "root" $ "name" SERVICE_OR_PREPARE "version" V "data" MAP). */}}
{{- define "city.data-name" -}}
{{ .name }}-{{ include "city.dns" .version }}-{{ toJson .data | sha256sum | trunc 8 }}
{{- end }}

{{/* The same arguments. Kept by helm: what a rollout goes back to must still be there; the operator takes away what nobody needs. */}}
{{- define "city.data" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "city.data-name" . }}
  labels:
    {{- include "city.labels" . | nindent 4 }}
    provable.city/service: {{ .name }}
    provable.city/version: {{ include "city.dns" .version | quote }}
  annotations:
    helm.sh/resource-policy: keep
data:
  {{- range $key, $text := .data }}
  {{ $key }}: |
    {{- $text | trim | nindent 4 }}
  {{- end }}
{{- end }}

{{/* The arguments of the two above for `prepare`, without the root. */}}
{{- define "city.prepare-arguments" -}}
{{- $preflight := include "city.prepare-job" (dict "root" . "job" "preflight" "what" "preflight") -}}
{{- $migrate := include "city.prepare-job" (dict "root" . "job" "migrate" "what" "migrate") -}}
{{- $data := dict "preflight.yaml" $preflight "migrate.yaml" $migrate -}}
{{- if include "city.brings-contracts" . }}{{ $_ := set $data "contracts.yaml" (include "city.contracts-job" (dict "root" . "job" "contracts")) }}{{ end -}}
{{- dict "name" "prepare" "version" (include "city.version" .) "data" $data | toYaml }}
{{- end }}

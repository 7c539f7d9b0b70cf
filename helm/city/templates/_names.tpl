{{/* Small definitions that all templates use. Each takes the root context unless it says otherwise. */}}

{{/* The version of the city. */}}
{{- define "city.version" -}}
{{ .Values.version | default .Chart.AppVersion }}
{{- end }}

{{/* A version as a label or part of a name: (text). */}}
{{- define "city.dns" -}}
{{ . | lower | replace "+" "-" | replace "_" "-" | replace "." "-" | trunc 30 | trimSuffix "-" }}
{{- end }}

{{/* Labels of an object: (dict "root" $ "name" NAME ["version" V]). */}}
{{- define "city.labels" -}}
{{ include "city.selector" . }}
app.kubernetes.io/version: {{ .version | default (include "city.version" .root) | replace "+" "_" | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* What a pod of this name is found by: (dict "name" NAME). */}}
{{- define "city.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/part-of: provable-city
{{- end }}

{{/* The facts of files/services.yaml. */}}
{{- define "city.facts" -}}
{{ .Files.Get "files/services.yaml" }}
{{- end }}

{{/* An image: (dict "root" $ "repository" R "tag" T "digest" D). */}}
{{- define "city.image" -}}
{{- $registry := .root.Values.image.registry -}}
{{- if $registry }}{{ trimSuffix "/" $registry }}/{{ end }}{{ .repository }}:{{ .tag }}{{ if .digest }}@{{ .digest }}{{ end }}
{{- end }}

{{/* The city's image: (dict "root" $ ["name" SERVICE "version" V]). */}}
{{- define "city.own-image" -}}
{{- $version := .version | default (include "city.version" .root) -}}
{{- $image := .root.Values.image -}}
{{- if and (eq (.name | default "") "forecasting") $image.forecasting.repository -}}
{{- $image = $image.forecasting -}}
{{- end -}}
{{ include "city.image" (dict "root" .root "repository" $image.repository "tag" ($image.tag | default $version) "digest" $image.digest) }}
{{- end }}

{{/* The secret to use for one with a default name (CloudNativePG makes its administrator's itself): (dict "root" $ "name" NAME). */}}
{{- define "city.secret" -}}
{{- $name := .name -}}
{{- if and (eq $name "postgres-admin") (eq .root.Values.postgres.mode "cloudnative-pg") }}{{ $name = "postgres-superuser" }}{{ end -}}
{{ index .root.Values.existingSecrets .name | default $name }}
{{- end }}

{{/* One map over another, all the way down; unlike mergeOverwrite it lets 0, false and "" win: (dict "base" MAP "over" MAP). */}}
{{- define "city.overlay" -}}
{{- $made := deepCopy .base -}}
{{- range $key, $value := .over }}
{{- $before := index $made $key -}}
{{- if and (kindIs "map" $value) (kindIs "map" $before) }}
{{- $_ := set $made $key (include "city.overlay" (dict "base" $before "over" $value) | fromYaml) }}
{{- else }}
{{- $_ := set $made $key $value }}
{{- end }}
{{- end }}
{{- toYaml $made }}
{{- end }}

{{/* One service's values over the defaults: (dict "root" $ "name" NAME). */}}
{{- define "city.service-values" -}}
{{- $own := index .root.Values.services .name | default dict -}}
{{- include "city.overlay" (dict "base" .root.Values.serviceDefaults "over" $own) }}
{{- end }}

{{/* The names that show a certificate, as a YAML list. */}}
{{- define "city.certified" -}}
{{ concat (keys (include "city.facts" . | fromYaml).services | sortAlpha) (list "kafka" "postgres" "admin" "operator" "demo") | toYaml }}
{{- end }}

{{/* The services that hold state, as a YAML list by name. */}}
{{- define "city.holders" -}}
{{- $facts := (include "city.facts" . | fromYaml).services -}}
{{- $found := list -}}
{{- range $name := keys $facts | sortAlpha }}{{ if (index $facts $name).holds }}{{ $found = append $found $name }}{{ end }}{{ end -}}
{{ toYaml $found }}
{{- end }}

{{/* Further DNS names in every certificate, where Kafka or PostgreSQL are reached by other names than their own, as a YAML list. */}}
{{- define "city.hosts" -}}
{{- $hosts := .Values.tls.hosts -}}
{{- $ns := .Release.Namespace -}}
{{- $domain := .Values.tls.clusterDomain -}}
{{- if eq .Values.kafka.mode "strimzi" -}}
{{- $name := .Values.kafka.strimzi.name -}}
{{- $hosts = concat $hosts (list (printf "%s-kafka-bootstrap" $name) (printf "%s-kafka-bootstrap.%s.svc" $name $ns) (printf "*.%s-kafka-brokers.%s.svc" $name $ns) (printf "*.%s-kafka-brokers.%s.svc.%s" $name $ns $domain)) -}}
{{- end -}}
{{- if eq .Values.postgres.mode "cloudnative-pg" -}}
{{- $hosts = concat $hosts (list "postgres-rw" (printf "postgres-rw.%s.svc" $ns) "postgres-r" "postgres-ro") -}}
{{- end -}}
{{ toYaml $hosts }}
{{- end }}

{{- define "city.kafka-bootstrap" -}}
{{- if eq .Values.kafka.mode "external" }}{{ .Values.kafka.external.bootstrap }}
{{- else if eq .Values.kafka.mode "strimzi" }}{{ .Values.kafka.strimzi.name }}-kafka-bootstrap:9093
{{- else }}kafka:9093{{ end }}
{{- end }}

{{- define "city.postgres-host" -}}
{{- if eq .Values.postgres.mode "external" }}{{ .Values.postgres.external.host }}
{{- else if eq .Values.postgres.mode "cloudnative-pg" }}postgres-rw
{{- else }}postgres{{ end }}
{{- end }}

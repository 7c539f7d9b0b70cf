{{/* What the pods of the city have in common. */}}

{{/* Pod Security "restricted": (dict "user" N "group" N); null: the cluster chooses. */}}
{{- define "city.pod-security" -}}
runAsNonRoot: true
{{- if .user }}
runAsUser: {{ .user | int64 }}
{{- end }}
{{- if .group }}
runAsGroup: {{ .group | int64 }}
fsGroup: {{ .group | int64 }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "city.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where a pod may run, and how it is pulled: (dict "root" $ ["nodeSelector" MAP]). */}}
{{- define "city.placement" -}}
{{- $root := .root -}}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with merge (deepCopy (.nodeSelector | default dict)) $root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Metadata of a pod: (dict "root" $ "name" NAME ["version" V "track" T "node" N]). */}}
{{- define "city.pod-metadata" -}}
labels:
  {{- include "city.labels" . | nindent 2 }}
  {{- with .track }}
  provable.city/track: {{ . }}
  {{- end }}
  {{- with .node }}
  provable.city/node: {{ . }}
  {{- end }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .root.Values.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A volume of a mounted secret, readable for root and the pod's group: (dict "root" $ "volume" V "secret" DEFAULT_NAME ["items" LIST]). */}}
{{- define "city.secret-volume" -}}
- name: {{ .volume }}
  secret:
    secretName: {{ include "city.secret" (dict "root" .root "name" .secret) }}
    defaultMode: 0440
    {{- with .items }}
    items: {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}

{{/* Environment as a list from a map of names to values; later maps win: (dict "root" $ "maps" LIST). */}}
{{- define "city.environment" -}}
{{- $all := dict -}}
{{- range .maps }}{{ $all = mergeOverwrite $all (deepCopy .) }}{{ end -}}
{{- range $name := keys $all | sortAlpha }}
- {name: {{ $name }}, value: {{ index $all $name | toString | quote }}}
{{- end }}
{{- end }}

{{/* Settings of every process of the city, a map. */}}
{{- define "city.general-settings" -}}
CITY_GENERAL_MODE: cluster
CITY_GENERAL_CITY: {{ .Values.city.origin | quote }}
CITY_GENERAL_ZONE: {{ .Values.city.zone | quote }}
{{- with .Values.city.publicUrl }}
CITY_GENERAL_PUBLIC_URL: {{ . | quote }}
{{- end }}
{{- end }}

{{/* Where the process's own health and metrics are, a map: (port). */}}
{{- define "city.observability-settings" -}}
CITY_OBSERVABILITY_HOST: 0.0.0.0
CITY_OBSERVABILITY_PORT: "{{ . }}"
{{- end }}

{{/* How services reach each other, a map. */}}
{{- define "city.calls-settings" -}}
{{- $addresses := list -}}
{{- range $name, $fact := (include "city.facts" . | fromYaml).services }}
{{- if $fact.serves }}{{ $addresses = append $addresses (printf "%s=dns:///%s:50051" $name $name) }}{{ end }}
{{- end -}}
CITY_SERVICES_ADDRESSES: {{ $addresses | sortAlpha | join "," }}
CITY_SERVICES_CERTIFICATES: /etc/city/tls/{service}
CITY_SERVICES_WAIT: "1"
{{- end }}

{{/* Whose certificates may call besides those of services that serve: services that only call, and those the values name. */}}
{{- define "city.callers" -}}
{{- $names := .Values.callers -}}
{{- range $name, $fact := (include "city.facts" . | fromYaml).services }}
{{- if not $fact.serves }}{{ $names = append $names $name }}{{ end }}
{{- end -}}
{{ $names | uniq | sortAlpha | join "," }}
{{- end }}

{{/* Kafka and PostgreSQL as a client sees them, a map: (dict "root" $ "who" FOLDER_OF_CERTIFICATES). */}}
{{- define "city.parts-settings" -}}
{{- $root := .root -}}
CITY_KAFKA_BOOTSTRAP: {{ include "city.kafka-bootstrap" $root }}
CITY_KAFKA_SECURITY: SSL
CITY_KAFKA_CERTIFICATES: /etc/city/tls/{{ .who }}
CITY_KAFKA_REPLICATION: {{ $root.Values.kafka.replication | quote }}
CITY_KAFKA_START_S: "120"
{{- with $root.Values.kafka.external.prefix }}
CITY_KAFKA_PREFIX: {{ . | quote }}
{{- end }}
CITY_POSTGRES_HOST: {{ include "city.postgres-host" $root }}
CITY_POSTGRES_PORT: {{ ternary $root.Values.postgres.external.port 5432 (eq $root.Values.postgres.mode "external") | quote }}
CITY_POSTGRES_DATABASE: {{ $root.Values.postgres.database }}
CITY_POSTGRES_PASSWORD_FILE: /etc/city/postgres/{service}/password
CITY_POSTGRES_TLS_ROOT: /etc/city/tls/{{ .who }}/ca.crt
CITY_POSTGRES_START_S: "120"
{{- end }}

{{/* The ledger as a client sees it, a map. */}}
{{- define "city.ledger-settings" -}}
CITY_FABRIC_PEER: {{ include "city.ledger-peer" . }}
CITY_FABRIC_CHANNEL: {{ .Values.ledger.channel }}
CITY_FABRIC_MSP: {{ .Values.ledger.mspId }}
CITY_FABRIC_ENDORSEMENTS: {{ .Values.ledger.endorsements | quote }}
CITY_FABRIC_MEMBERS: /etc/city/ledger/members
CITY_FABRIC_TLS_CA: /etc/city/ledger/tls/ca.pem
CITY_FABRIC_TLS_CERT: /etc/city/ledger/tls/client.pem
CITY_FABRIC_TLS_KEY: /etc/city/ledger/tls/client.key
{{- if and (eq .Values.ledger.mode "external") .Values.ledger.external.tlsName }}
CITY_FABRIC_TLS_NAME: {{ .Values.ledger.external.tlsName }}
{{- end }}
{{- end }}

{{- define "city.ledger-peer" -}}
{{- if eq .Values.ledger.mode "external" }}{{ .Values.ledger.external.peer }}
{{- else if eq .Values.ledger.mode "bundled" }}fabric-peer:7051
{{- else }}ledger:7051{{ end }}
{{- end }}

{{/* Probes on the port of health and metrics: (dict "port" NAME "start" SECONDS). */}}
{{- define "city.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: {{ .port }}}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: {{ div (int .start) 2 }}
livenessProbe:
  httpGet: {path: /livez, port: {{ .port }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: {{ .port }}}
  periodSeconds: 3
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}

{{/* The specification of a claim: (dict "root" $ "storage" SIZE). */}}
{{- define "city.claim" -}}
accessModes: [ReadWriteOnce]
{{- with .root.Values.persistence.storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests: {storage: {{ .storage }}}
{{- end }}

{{/* The volume `data` of a StatefulSet, as a claim or of the pod's life, with its key: (dict "root" $ "storage" SIZE "name" NAME). */}}
{{- define "city.claims" -}}
{{- if .root.Values.persistence.enabled }}
volumeClaimTemplates:
  - metadata:
      name: data
      labels: {{- include "city.selector" . | nindent 8 }}
    spec:
      {{- include "city.claim" . | nindent 6 }}
{{- end }}
{{- end }}

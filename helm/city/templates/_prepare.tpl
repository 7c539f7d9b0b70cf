{{/* What must be done before services are replaced, as Jobs. */}}

{{/* A Job: (dict "root" $ "job" NAME "what" preflight|migrate ["annotations" MAP]). */}}
{{- define "city.prepare-job" -}}
{{- $root := .root -}}
{{- $prepare := $root.Values.prepare -}}
{{- $steps := ternary (list "database" "migrations-try" "topics-check") (list "database" "topics" "migrations") (eq .what "preflight") -}}
{{- if not $root.Values.postgres.provision }}{{ $steps = without $steps "database" }}{{ end -}}
{{- $last := last $steps -}}
{{- $who := dict "root" $root "name" "prepare" -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .job }}
  labels: {{- include "city.labels" $who | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  backoffLimit: {{ $prepare.retries }}
  activeDeadlineSeconds: {{ $prepare.deadlineSeconds }}
  template:
    metadata:
      {{- include "city.pod-metadata" $who | nindent 6 }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      restartPolicy: Never
      {{- with include "city.placement" (dict "root" $root) | trim }}{{ nindent 6 . }}{{ end }}
      securityContext:
        {{- include "city.pod-security" (dict "user" $root.Values.podUser.runAsUser "group" $root.Values.podUser.fsGroup) | nindent 8 }}
      {{- with initial $steps }}
      initContainers:
        {{- range . }}
        {{- include "city.prepare-step" (dict "root" $root "step" .) | nindent 8 }}
        {{- end }}
      {{- end }}
      containers:
        {{- include "city.prepare-step" (dict "root" $root "step" $last) | nindent 8 }}
      volumes:
        - name: state
          emptyDir: {}
        - name: tmp
          emptyDir: {}
        {{- include "city.secret-volume" (dict "root" $root "volume" "tls" "secret" "admin-tls") | nindent 8 }}
        - name: postgres
          projected:
            defaultMode: 0440
            sources:
              {{- if $root.Values.postgres.provision }}
              - secret:
                  name: {{ include "city.secret" (dict "root" $root "name" "postgres-admin") }}
                  items: [{key: password, path: admin/password}]
              {{- end }}
              {{- range include "city.holders" $root | fromYamlArray }}
              - secret:
                  name: {{ include "city.secret" (dict "root" $root "name" (printf "postgres-%s" .)) }}
                  items: [{key: password, path: {{ . }}/password}]
              {{- end }}
{{- end }}

{{/* One container: (dict "root" $ "step" NAME). */}}
{{- define "city.prepare-step" -}}
{{- $root := .root -}}
- name: {{ .step }}
  image: {{ include "city.own-image" (dict "root" $root) }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  {{- if eq .step "database" }}
  args:
    - provision
    - database
    - --admin={{ ternary $root.Values.postgres.external.admin "postgres" (eq $root.Values.postgres.mode "external") }}
    - --admin-password-file=/etc/city/postgres/admin/password
    - --passwords=/etc/city/postgres
    - --wait=300
  {{- else if eq .step "topics" }}
  args: [bus, topics, --apply]
  {{- else if eq .step "migrations" }}
  args: [db, migrate, --state, /var/lib/city]
  {{- else if eq .step "migrations-try" }}
  args: [db, migrate, --dry-run, --state, /var/lib/city]
  {{- else }}
  # What is not as declared is told, and made so later; only brokers that do not answer or do not fit stop a rollout here (exit codes 2 and 3).
  command: [/usr/bin/python3.11, -c]
  args:
    - "import sys; from services.__main__ import main; code = main(['bus', 'topics', '--check']); sys.exit(code if code > 1 else 0)"
  {{- end }}
  env:
    {{- include "city.environment" (dict "maps" (list (include "city.general-settings" $root | fromYaml) (include "city.parts-settings" (dict "root" $root "who" "admin") | fromYaml) $root.Values.settings)) | trim | nindent 4 }}
  resources: {{- toYaml $root.Values.prepare.resources | nindent 4 }}
  securityContext: {{- include "city.container-security" $root | nindent 4 }}
  volumeMounts:
    - {name: state, mountPath: /var/lib/city}
    - {name: tmp, mountPath: /tmp}
    - {name: tls, mountPath: /etc/city/tls/admin, readOnly: true}
    - {name: postgres, mountPath: /etc/city/postgres, readOnly: true}
{{- end }}

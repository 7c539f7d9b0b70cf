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

{{/* Whether a Job brings the contracts onto the channel; empty: people do. */}}
{{- define "city.brings-contracts" -}}
{{- if and .Values.ledger.contracts.deploy .Values.prepare.enabled (ne .Values.ledger.mode "dev") }}true{{ end }}
{{- end }}

{{/* The Job that does: (dict "root" $ "job" NAME ["annotations" MAP]). It asks everything before it changes anything. */}}
{{- define "city.contracts-job" -}}
{{- $root := .root -}}
{{- $who := dict "root" $root "name" "contracts" -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .job }}
  labels: {{- include "city.labels" $who | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  backoffLimit: {{ $root.Values.prepare.retries }}
  activeDeadlineSeconds: {{ add $root.Values.prepare.deadlineSeconds $root.Values.ledger.contracts.waitSeconds }}
  # Missing approvals and refusals (exit code 2) fail it at once; a peer that is away (3) is tried again.
  podFailurePolicy:
    rules:
      - action: FailJob
        onExitCodes: {containerName: contracts, operator: In, values: [2]}
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
      containers:
        - name: contracts
          image: {{ include "city.own-image" (dict "root" $root) }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args:
            - ledger
            - contracts
            - --wait={{ $root.Values.ledger.contracts.waitSeconds }}
            {{- range include "city.own-peers" $root | fromYamlArray }}
            - --peer={{ . }}
            {{- end }}
            {{- include "city.chaincode-places" $root | nindent 12 }}
          env:
            {{- include "city.environment" (dict "maps" (list (include "city.general-settings" $root | fromYaml) (include "city.ledger-settings" $root | fromYaml) $root.Values.settings)) | trim | nindent 12 }}
          # What is missing is then in the pod's status too.
          terminationMessagePolicy: FallbackToLogsOnError
          resources: {{- toYaml $root.Values.prepare.resources | nindent 12 }}
          securityContext: {{- include "city.container-security" $root | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            - {name: ledger, mountPath: /etc/city/ledger, readOnly: true}
            - {name: chaincode, mountPath: /etc/city/chaincode, readOnly: true}
      volumes:
        - name: tmp
          emptyDir: {}
        {{- include "city.secret-volume" (dict "root" $root "volume" "ledger" "secret" "ledger-admin" "items" (include "city.member-items" "admin" | fromYamlArray)) | nindent 8 }}
        {{- include "city.secret-volume" (dict "root" $root "volume" "chaincode" "secret" "fabric-chaincode" "items" (list (dict "key" "ca.crt" "path" "ca.crt") (dict "key" "peer.crt" "path" "peer.crt") (dict "key" "peer.key" "path" "peer.key"))) | nindent 8 }}
{{- end }}

{{/* The peers of our organisation, as a YAML list. */}}
{{- define "city.own-peers" -}}
{{- $peers := .Values.ledger.contracts.peers | default list -}}
{{- if eq .Values.ledger.mode "bundled" }}
{{- $peers = list }}
{{- range $number := until (int .Values.ledger.fabric.peers) }}{{ $peers = append $peers (printf "fabric-peer-%d:7051" $number) }}{{ end }}
{{- end -}}
{{ toYaml $peers }}
{{- end }}

{{/* Arguments: where peers reach each chaincode. The packages are made of them, so the Job and the chaincodes themselves have the same. */}}
{{- define "city.chaincode-places" -}}
{{- $root := . -}}
- --tls=/etc/city/chaincode
{{- range $name, $port := (include "city.facts" . | fromYaml).chaincodes }}
{{- if eq $root.Values.ledger.mode "bundled" }}
- --chaincode={{ $name }}={{ include "city.chaincode-name" $root }}.{{ $root.Release.Namespace }}.svc:{{ $port }}
{{- else if index $root.Values.ledger.contracts.chaincodes $name }}
- --chaincode={{ $name }}={{ index $root.Values.ledger.contracts.chaincodes $name }}
{{- end }}
{{- end }}
{{- end }}

{{/* The name of the chaincodes' Deployment and Service. Where a Job brings the contracts each version has its own, so that the version before answers
     until the next one is committed, and again after going back. */}}
{{- define "city.chaincode-name" -}}
chaincode{{ if include "city.brings-contracts" . }}-{{ include "city.dns" (include "city.version" .) }}{{ end }}
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

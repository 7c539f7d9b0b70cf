{{/* Who is who in files/flows.yaml. */}}

{{/* The pods of this installation by name, as a YAML list. */}}
{{- define "city.pods" -}}
{{- $pods := keys (include "city.facts" . | fromYaml).services | sortAlpha -}}
{{- $pods = append $pods "check" -}}
{{- if eq .Values.kafka.mode "bundled" }}{{ $pods = append $pods "kafka" }}{{ end -}}
{{- if eq .Values.postgres.mode "bundled" }}{{ $pods = append $pods "postgres" }}{{ end -}}
{{- if eq .Values.ledger.mode "dev" }}{{ $pods = append $pods "ledger" }}{{ end -}}
{{- if eq .Values.ledger.mode "bundled" }}
{{- $pods = concat $pods (list "fabric-peer" "chaincode") }}
{{- if .Values.ledger.fabric.orderers }}{{ $pods = append $pods "fabric-orderer" }}{{ end }}
{{- end -}}
{{- if .Values.trial.enabled }}{{ $pods = append $pods "trial" }}{{ end -}}
{{- if .Values.prepare.enabled }}{{ $pods = append $pods "prepare" }}{{ end -}}
{{- if include "city.brings-contracts" . }}{{ $pods = append $pods "contracts" }}{{ end -}}
{{- if .Values.provision.enabled }}{{ $pods = append $pods "provision" }}{{ end -}}
{{- if .Values.operator.enabled }}{{ $pods = append $pods "operator" }}{{ end -}}
{{- if include "city.had-operator" . }}{{ $pods = append $pods "uninstall" }}{{ end -}}
{{ toYaml (sortAlpha $pods) }}
{{- end }}

{{/* NetworkPolicyPeers for a name of the table, as a YAML list: (dict "root" $ "name" NAME "pods" LIST). */}}
{{- define "city.peers" -}}
{{- $values := .root.Values -}}
{{- if has .name .pods -}}
- podSelector:
    matchLabels: {{- include "city.selector" . | nindent 6 }}
{{- else if and (eq .name "kafka") (eq $values.kafka.mode "strimzi") -}}
- podSelector:
    matchLabels: {strimzi.io/cluster: {{ $values.kafka.strimzi.name }}, strimzi.io/kind: Kafka}
{{- else if and (eq .name "postgres") (eq $values.postgres.mode "cloudnative-pg") -}}
- podSelector:
    matchLabels: {cnpg.io/cluster: postgres}
{{- else -}}
{{ toYaml (index $values.networkPolicy.peers .name | default list) }}
{{- end }}
{{- end }}

{{/* The rules of one pod in one direction, as a YAML list: (dict "root" $ "name" POD "pods" LIST "own" from|to "other" to|from "flows" LIST). */}}
{{- define "city.rules" -}}
{{- $args := . -}}
{{- range $flow := .flows }}
{{- $mine := index $flow $args.own }}
{{- if not (kindIs "slice" $mine) }}{{ $mine = list $mine }}{{ end }}
{{- if and (has $args.name $mine) (not $flow.implicit) }}
{{- $others := index $flow $args.other }}
{{- if not (kindIs "slice" $others) }}{{ $others = list $others }}{{ end }}
{{- $peers := list }}
{{- $port := $flow.port }}
{{- range $others }}
{{- $peers = concat $peers (include "city.peers" (dict "root" $args.root "name" . "pods" $args.pods) | fromYamlArray) }}
{{- if and (eq $args.other "to") (not (has . $args.pods)) }}{{ $port = index $args.root.Values.networkPolicy.ports . | default $port }}{{ end }}
{{- end }}
{{- if $peers }}
# {{ $flow.why }}
- {{ $args.other }}: {{ toJson $peers }}
  ports:
    {{- range kindIs "slice" $port | ternary $port (list $port) }}
    - {port: {{ . }}, protocol: {{ $flow.protocol | default "TCP" }}}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

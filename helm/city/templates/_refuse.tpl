{{/* What the schema cannot say: values that do not go together. Each refusal is a sentence that says what to do. */}}
{{- define "city.refuse" -}}
{{- $v := .Values -}}
{{- $root := . -}}
{{- $facts := (include "city.facts" . | fromYaml).services -}}

{{- if and (eq $v.ledger.mode "dev") (ne $v.profile "trial") }}
{{- fail (printf "ledger.mode=dev is the development peer, with one operator and not Fabric: for the profile trial only, not %s. Set ledger.mode to bundled or external" $v.profile) }}
{{- end }}
{{- if and $v.trial.enabled (ne $v.profile "trial") }}{{ fail (printf "trial.enabled fills a city with invented homes and readings: for the profile trial only, not %s" $v.profile) }}{{ end }}
{{- if has $v.profile (list "city" "region") }}
{{- range list "kafka" "postgres" }}
{{- if eq (index $v .).mode "bundled" }}
{{- fail (printf "%s.mode=bundled is one pod, which a city of the profile %s does not stand on: set it to %s or external" . $v.profile (ternary "strimzi" "cloudnative-pg" (eq . "kafka"))) }}
{{- end }}
{{- end }}
{{- end }}

{{- range $name, $fact := $facts }}
{{- $s := include "city.service-values" (dict "root" $root "name" $name) | fromYaml }}
{{- $scaled := and $s.autoscaling $s.autoscaling.enabled }}
{{- if $fact.holds }}
{{- if gt (int ($s.replicas | default 1)) 1 }}
{{- fail (printf "services.%s.replicas is %d, but one process writes to its schema (docs/adr/0010-one-writer-a-schema.md), so it must be 1: a second pod would wait for the first to end. Only the gateway may have more" $name (int $s.replicas)) }}
{{- end }}
{{- if $scaled }}{{ fail (printf "services.%s.autoscaling is enabled, but one process writes to its schema (docs/adr/0010-one-writer-a-schema.md): only the gateway may have an autoscaler" $name) }}{{ end }}
{{- if and $s.canary $s.canary.steps }}{{ fail (printf "services.%s.canary has steps, but a canary is a second pod, and one process writes to its schema: only the gateway may have a canary" $name) }}{{ end }}
{{- end }}
{{- if and $scaled $s.replicas }}{{ fail (printf "services.%s has replicas and an autoscaler: leave replicas out, the autoscaler decides" $name) }}{{ end }}
{{- if and $scaled (gt (int $s.autoscaling.minReplicas) (int $s.autoscaling.maxReplicas)) }}{{ fail (printf "services.%s.autoscaling.minReplicas must not be above maxReplicas" $name) }}{{ end }}
{{- if and $s.canary $s.canary.steps (not $v.operator.enabled) }}{{ fail (printf "services.%s.canary is the operator's work: set operator.enabled=true, or leave the steps out" $name) }}{{ end }}
{{- if lt (int $s.terminationGracePeriodSeconds) (add (int $s.preStopSeconds) 20) }}{{ fail (printf "services.%s: terminationGracePeriodSeconds must be at least preStopSeconds and 20 more, for calls and outboxes to end" $name) }}{{ end }}
{{- range $setting, $_ := $s.settings }}{{ include "city.refuse-setting" (dict "root" $root "setting" $setting "where" (printf "services.%s.settings" $name)) }}{{ end }}
{{- end }}
{{- range $setting, $_ := $v.settings }}{{ include "city.refuse-setting" (dict "root" $root "setting" $setting "where" "settings") }}{{ end }}

{{- if and (eq $v.kafka.mode "bundled") (gt (int $v.kafka.replication) 1) }}{{ fail "kafka.replication must be 1 with kafka.mode=bundled: it is one broker. For more set kafka.mode to strimzi or external" }}{{ end }}
{{- if and (eq $v.kafka.mode "strimzi") (gt (int $v.kafka.replication) (int $v.kafka.strimzi.replicas)) }}{{ fail "kafka.replication must not be above kafka.strimzi.replicas: each copy needs a broker" }}{{ end }}
{{- if and (eq $v.kafka.mode "external") (not $v.kafka.external.bootstrap) }}{{ fail "kafka.mode=external needs kafka.external.bootstrap: host:port of brokers, comma-separated" }}{{ end }}
{{- if and (eq $v.postgres.mode "external") (not $v.postgres.external.host) }}{{ fail "postgres.mode=external needs postgres.external.host" }}{{ end }}
{{- range $parameter, $_ := $v.postgres.parameters }}
{{- if has $parameter (list "ssl" "ssl_cert_file" "ssl_key_file" "hba_file" "password_encryption" "fsync" "full_page_writes" "synchronous_commit") }}{{ fail (printf "postgres.parameters.%s is not for choosing: what is acknowledged must be durable, and connections are encrypted" $parameter) }}{{ end }}
{{- end }}
{{- if $v.ledger.contracts.deploy }}
{{- if eq $v.ledger.mode "dev" }}{{ fail "ledger.contracts.deploy is for a channel of Fabric: the development peer takes the contracts that run beside it. Set it to false, or ledger.mode to bundled or external" }}{{ end }}
{{- if not $v.prepare.enabled }}{{ fail "ledger.contracts.deploy needs prepare.enabled=true: the Job runs after the migrations. Or run `city ledger contracts` by hand" }}{{ end }}
{{- if and (eq $v.ledger.mode "external") (not $v.ledger.contracts.chaincodes) }}{{ fail "ledger.contracts.deploy with ledger.mode=external needs ledger.contracts.chaincodes: where your peers reach each contract's chaincode, NAME: host:port" }}{{ end }}
{{- end }}
{{- $contracts := keys (include "city.facts" . | fromYaml).chaincodes | sortAlpha }}
{{- range $name, $_ := $v.ledger.contracts.chaincodes }}
{{- if not (has $name $contracts) }}{{ fail (printf "ledger.contracts.chaincodes.%s is no contract; there are %s" $name (join ", " $contracts)) }}{{ end }}
{{- end }}
{{- if and (eq $v.ledger.mode "external") (not $v.ledger.external.peer) }}{{ fail "ledger.mode=external needs ledger.external.peer: host:port of the gateway peer" }}{{ end }}

{{- if and (eq $v.tls.mode "provision") (not $v.provision.enabled) }}{{ fail "tls.mode=provision with provision.enabled=false: nobody would make certificates. Set tls.mode to existing or cert-manager, or provision.enabled to true" }}{{ end }}
{{- $known := include "city.secret-names" . | fromYamlArray }}
{{- range $name, $_ := $v.existingSecrets }}
{{- if not (has $name $known) }}{{ fail (printf "existingSecrets.%s is no secret of the city; there are %s" $name (join ", " $known)) }}{{ end }}
{{- end }}
{{- if and (index $v.existingSecrets "city-root-key") $v.operator.enabled (not (index $v.existingSecrets "operator-token")) }}{{ fail "with existingSecrets.city-root-key supply operator-token too: it is signed with that key" }}{{ end }}
{{- if index $v.existingSecrets "postgres-admin" }}
{{- range include "city.holders" . | fromYamlArray }}
{{- if not (index $v.existingSecrets (printf "postgres-%s" .)) }}{{ fail (printf "with existingSecrets.postgres-admin supply postgres-%s too: either all passwords are made here or none" .) }}{{ end }}
{{- end }}
{{- end }}

{{- if and $v.payments.provider.url (not $v.payments.provider.existingSecret) }}{{ fail "payments.provider.url needs payments.provider.existingSecret: the secret with the key shared with the provider, key `secret`" }}{{ end }}
{{- if and (ne $v.expose.mode "none") (not $v.expose.host) }}{{ fail (printf "expose.mode=%s needs expose.host" $v.expose.mode) }}{{ end }}
{{- if and (eq $v.expose.mode "httproute") (not $v.expose.parentRefs) }}{{ fail "expose.mode=httproute needs expose.parentRefs: the Gateways the route belongs to" }}{{ end }}

{{- if $v.networkPolicy.enabled }}
{{- range $peer, $wanted := dict "ingress" (ne $v.expose.mode "none") "provider" $v.payments.provider.url "issuer" $v.identity.issuer.url "kafka" (eq $v.kafka.mode "external") "postgres" (eq $v.postgres.mode "external") "ledger" (eq $v.ledger.mode "external") "organisations" (and (eq $v.ledger.mode "bundled") (or (gt (int $v.ledger.endorsements) 1) (eq (int $v.ledger.fabric.orderers) 0))) "prometheus" (or $v.monitoring.serviceMonitor (and $v.operator.enabled $v.operator.gates.prometheusUrl)) "dns" true }}
{{- if and $wanted (not (index $v.networkPolicy.peers $peer)) }}{{ fail (printf "networkPolicy.peers.%s must say who that is, or its connections would be refused; networkPolicy.enabled=false renders no policies" $peer) }}{{ end }}
{{- end }}
{{- end }}

{{- if $v.operator.enabled }}
{{- if and $v.operator.gates.analyses (not $v.operator.gates.prometheusUrl) }}{{ fail "operator.gates.analyses are questions to Prometheus: set operator.gates.prometheusUrl" }}{{ end }}
{{- if and $v.operator.approvals (not $v.operator.webhook.enabled) }}{{ fail "operator.approvals needs operator.webhook.enabled=true: without it anybody who may change a City could approve in another's name" }}{{ end }}
{{- with $v.operator.order }}
{{- if ne (. | sortAlpha | join " ") (keys $facts | sortAlpha | join " ") }}{{ fail (printf "operator.order must name each service once: %s" (keys $facts | sortAlpha | join ", ")) }}{{ end }}
{{- end }}
{{- $live := lookup "apps/v1" "Deployment" .Release.Namespace "identity" }}
{{- if $live }}
{{- if and (ne (dig "metadata" "labels" "provable.city/applied-by" "" $live) "operator") (ne (dig "metadata" "annotations" "helm.sh/resource-policy" "" $live) "keep") }}
{{- fail "helm applied the running services itself and would delete them now. First `helm upgrade` with operator.enabled=false and operator.handover=true, which changes no pod; then with operator.enabled=true" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "setting" NAME "where" TEXT). */}}
{{- define "city.refuse-setting" -}}
{{- $known := (.root.Files.Get "files/settings.yaml" | fromYaml).settings -}}
{{- if not (has .setting $known) }}{{ fail (printf "%s.%s is no setting; `city settings` lists the known ones" .where .setting) }}{{ end }}
{{- end }}

{{/* The default names of all secrets, as a YAML list. */}}
{{- define "city.secret-names" -}}
{{- $names := list -}}
{{- range include "city.certified" . | fromYamlArray }}{{ $names = append $names (printf "%s-tls" .) }}{{ end -}}
{{- $names = concat $names (list "city-root-key" "postgres-admin") -}}
{{- range include "city.holders" . | fromYamlArray }}{{ $names = concat $names (list (printf "postgres-%s" .) (printf "ledger-%s" .)) }}{{ end -}}
{{ concat $names (list "ledger-peer" "ledger-admin" "fabric-chaincode" "operator-token") | toYaml }}
{{- end }}

{{/*
The objects of one service, the same whether helm applies them or the operator does: (dict "root" $ "name" NAME).
*/}}
{{- define "city.service" -}}
{{- $root := .root -}}
{{- $name := .name -}}
{{- $fact := index (include "city.facts" $root | fromYaml).services $name -}}
{{- $v := include "city.service-values" . | fromYaml -}}
{{- $version := $v.version | default (include "city.version" $root) -}}
{{- $who := dict "root" $root "name" $name "version" $version -}}
{{- $scaled := and $v.autoscaling $v.autoscaling.enabled -}}
{{- $several := or $scaled (gt (int ($v.replicas | default 1)) 1) -}}
{{- $calls := mergeOverwrite (include "city.general-settings" $root | fromYaml) (include "city.calls-settings" $root | fromYaml) -}}
{{- $own := dict "CITY_SERVICES_LISTEN" "0.0.0.0:50051" "CITY_SERVICES_CALLERS" (include "city.callers" $root) "CITY_SERVICES_ROOT_KEY_FILE" "/etc/city/root/root" "CITY_SERVICES_CONNECTION_AGE_S" "300" -}}
{{- $parts := dict -}}
{{- if $fact.holds -}}
{{- $parts = mergeOverwrite (include "city.parts-settings" (dict "root" $root "who" "{service}") | fromYaml) (include "city.ledger-settings" $root | fromYaml) -}}
{{- else -}}
{{- $_ := set $own "CITY_GATEWAY_LISTEN" "0.0.0.0:8080" -}}
{{- end -}}
{{- if and (eq $name "payments") $root.Values.payments.provider.url -}}
{{- $_ := set $own "CITY_PAYMENTS_PROVIDER_URL" $root.Values.payments.provider.url -}}
{{- $_ := set $own "CITY_PAYMENTS_PROVIDER_SECRET_FILE" "/etc/city/provider/secret" -}}
{{- end -}}
{{- if and (eq $name "identity") $root.Values.trial.enabled -}}
{{- $_ := set $own "CITY_IDENTITY_MANUFACTURERS" $root.Values.trial.manufacturer -}}
{{- end -}}
{{- with $root.Values.identity.issuer.url -}}
{{- $_ := set $own "CITY_IDENTITY_ISSUER" . -}}
{{- end -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  {{- include "city.service-metadata" $who | nindent 2 }}
automountServiceAccountToken: false
---
# Headless: clients know every pod and spread their calls themselves.
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  {{- include "city.service-metadata" $who | nindent 2 }}
spec:
  clusterIP: None
  selector: {{- include "city.selector" $who | nindent 4 }}
  ports:
    {{- if $fact.serves }}
    - {name: grpc, port: 50051, targetPort: grpc, appProtocol: grpc}
    {{- else }}
    - {name: http, port: 8080, targetPort: http, appProtocol: http}
    {{- end }}
    - {name: metrics, port: 9464, targetPort: metrics}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  {{- include "city.service-metadata" $who | nindent 2 }}
spec:
  {{- if not $scaled }}
  replicas: {{ $v.replicas | default 1 }}
  {{- end }}
  revisionHistoryLimit: 3
  progressDeadlineSeconds: 900
  {{- if $fact.holds }}
  # Stop the old, start the new. The new one loads while the old one drains, and then waits for the writer's lock.
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxSurge: 0, maxUnavailable: 1}
  {{- else }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  {{- end }}
  selector:
    matchLabels:
      app.kubernetes.io/name: {{ $name }}
      provable.city/track: stable
  template:
    metadata:
      {{- include "city.pod-metadata" (dict "root" $root "name" $name "version" $version "track" "stable") | nindent 6 }}
    spec:
      serviceAccountName: {{ $name }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with include "city.placement" (dict "root" $root "nodeSelector" $v.nodeSelector) | trim }}{{ nindent 6 . }}{{ end }}
      terminationGracePeriodSeconds: {{ $v.terminationGracePeriodSeconds }}
      securityContext:
        {{- include "city.pod-security" (dict "user" $root.Values.podUser.runAsUser "group" $root.Values.podUser.fsGroup) | nindent 8 }}
      {{- if $several }}
      topologySpreadConstraints:
        {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
        - maxSkew: 1
          topologyKey: {{ . }}
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "city.selector" $who | nindent 14 }}
        {{- end }}
      {{- end }}
      containers:
        - name: {{ $name }}
          image: {{ include "city.own-image" $who }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: [serve, {{ $name }}, --state, /var/lib/city]
          env:
            {{- include "city.environment" (dict "maps" (list (include "city.observability-settings" "9464" | fromYaml) $calls $parts $own $root.Values.settings $v.settings)) | trim | nindent 12 }}
          ports:
            {{- if $fact.serves }}
            - {name: grpc, containerPort: 50051}
            {{- else }}
            - {name: http, containerPort: 8080}
            {{- end }}
            - {name: metrics, containerPort: 9464}
          {{- include "city.probes" (dict "port" "metrics" "start" $v.startSeconds) | nindent 10 }}
          lifecycle:
            preStop:
              sleep: {seconds: {{ $v.preStopSeconds }}}
          resources: {{- toYaml $v.resources | nindent 12 }}
          securityContext: {{- include "city.container-security" $root | nindent 12 }}
          volumeMounts:
            - {name: state, mountPath: /var/lib/city}
            - {name: tmp, mountPath: /tmp}
            - {name: tls, mountPath: /etc/city/tls/{{ $name }}, readOnly: true}
            - {name: root-key, mountPath: /etc/city/root, readOnly: true}
            {{- if $fact.holds }}
            - {name: postgres, mountPath: /etc/city/postgres/{{ $name }}, readOnly: true}
            - {name: ledger, mountPath: /etc/city/ledger, readOnly: true}
            {{- end }}
            {{- if hasKey $own "CITY_PAYMENTS_PROVIDER_URL" }}
            - {name: provider, mountPath: /etc/city/provider, readOnly: true}
            {{- end }}
      volumes:
        - name: state
          {{- if and $fact.files $root.Values.persistence.enabled }}
          persistentVolumeClaim: {claimName: {{ $name }}-state}
          {{- else }}
          emptyDir: {}
          {{- end }}
        - name: tmp
          emptyDir: {}
        {{- include "city.secret-volume" (dict "root" $root "volume" "tls" "secret" (printf "%s-tls" $name)) | nindent 8 }}
        {{- include "city.secret-volume" (dict "root" $root "volume" "root-key" "secret" "city-root-key") | nindent 8 }}
        {{- if $fact.holds }}
        {{- include "city.secret-volume" (dict "root" $root "volume" "postgres" "secret" (printf "postgres-%s" $name)) | nindent 8 }}
        {{- include "city.secret-volume" (dict "root" $root "volume" "ledger" "secret" (printf "ledger-%s" $name) "items" (include "city.member-items" $name | fromYamlArray)) | nindent 8 }}
        {{- end }}
        {{- if hasKey $own "CITY_PAYMENTS_PROVIDER_URL" }}
        {{- include "city.secret-volume" (dict "root" $root "volume" "provider" "secret" $root.Values.payments.provider.existingSecret) | nindent 8 }}
        {{- end }}
{{- if $several }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  {{- include "city.service-metadata" $who | nindent 2 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "city.selector" $who | nindent 6 }}
{{- end }}
{{- if $scaled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  {{- include "city.service-metadata" $who | nindent 2 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $name }}}
  minReplicas: {{ $v.autoscaling.minReplicas }}
  maxReplicas: {{ $v.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ $v.autoscaling.cpuPercent }}}
    {{- range $v.autoscaling.external }}
    - type: External
      external:
        metric:
          name: {{ .name }}
          {{- with .labels }}
          selector:
            matchLabels: {{- toYaml . | nindent 14 }}
          {{- end }}
        target: {type: AverageValue, averageValue: {{ .averageValue | quote }}}
    {{- end }}
{{- end }}
{{- if eq $name "gateway" }}
{{- include "city.exposed" $who }}
{{- end }}
{{- end }}

{{/* Labels and annotations of a service's objects: (dict "root" $ "name" NAME "version" V). The annotations of helm let it take them over from the operator. */}}
{{- define "city.service-metadata" -}}
labels:
  {{- include "city.labels" . | nindent 2 }}
  provable.city/service: {{ .name }}
annotations:
  meta.helm.sh/release-name: {{ .root.Release.Name }}
  meta.helm.sh/release-namespace: {{ .root.Release.Namespace }}
  {{- if and .root.Values.operator.handover (not .root.Values.operator.enabled) }}
  helm.sh/resource-policy: keep
  {{- end }}
{{- end }}

{{/* Where the keys of ledger-NAME lie below /etc/city/ledger: (NAME). */}}
{{- define "city.member-items" -}}
- {key: member.pem, path: members/{{ . }}.pem}
- {key: member.key, path: members/{{ . }}.key}
- {key: ca.pem, path: tls/ca.pem}
- {key: client.pem, path: tls/client.pem}
- {key: client.key, path: tls/client.key}
{{- end }}

{{/* The gateway's door to the outside. */}}
{{- define "city.exposed" -}}
{{- $expose := .root.Values.expose -}}
{{- if ne $expose.mode "none" }}
---
{{- if eq $expose.mode "ingress" }}
apiVersion: networking.k8s.io/v1
kind: Ingress
{{- else }}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
{{- end }}
metadata:
  name: {{ .name }}
  {{- include "city.service-metadata" . | nindent 2 }}
  {{- with $expose.annotations }}
  {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if eq $expose.mode "ingress" }}
  {{- with $expose.className }}
  ingressClassName: {{ . }}
  {{- end }}
  tls:
    - hosts: [{{ $expose.host | quote }}]
      {{- with $expose.tlsSecret }}
      secretName: {{ . }}
      {{- end }}
  rules:
    - host: {{ $expose.host | quote }}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend:
              service: {name: gateway, port: {name: http}}
  {{- else }}
  parentRefs: {{- toYaml $expose.parentRefs | nindent 4 }}
  hostnames: [{{ $expose.host | quote }}]
  rules:
    - matches:
        - path: {type: PathPrefix, value: /}
      backendRefs:
        - {name: gateway, port: 8080}
  {{- end }}
{{- end }}
{{- end }}

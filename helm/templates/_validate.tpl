{{- /* A time of the programs ("500ms", "10s", "35m", "1h") in whole seconds. */ -}}
{{- define "ferrypost.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "h" }}{{ mul $number 3600 }}{{ else if eq $unit "m" }}{{ mul $number 60 }}{{ else if eq $unit "s" }}{{ $number }}{{ else }}{{ div $number 1000 }}{{ end -}}
{{- end -}}

{{- /* Everything that is wrong with the values and that their schema cannot say, as a JSON list of sentences. */ -}}
{{- define "ferrypost.mistakes" -}}
{{- $mistakes := concat
  (include "ferrypost.mistakes.routing" . | fromJsonArray)
  (include "ferrypost.mistakes.controlplane" . | fromJsonArray)
  (include "ferrypost.mistakes.telemetry" . | fromJsonArray) -}}
{{- if ne .Values.dataplane.mode "none" -}}
{{- $mistakes = concat $mistakes
  (include "ferrypost.mistakes.doors" . | fromJsonArray)
  (include "ferrypost.mistakes.clientAddress" . | fromJsonArray)
  (include "ferrypost.mistakes.idle" . | fromJsonArray)
  (include "ferrypost.mistakes.dataplane" . | fromJsonArray) -}}
{{- end -}}
{{- $mistakes | toJson -}}
{{- end -}}

{{- define "ferrypost.mistakes.routing" -}}
{{- $wrong := list -}}
{{- $ids := list -}}
{{- range dig "destinations" list .Values.routing }}{{ $ids = append $ids .id }}{{ end -}}
{{- if or .Values.controlplane.enabled (ne .Values.dataplane.mode "none") -}}
{{- if not $ids -}}
{{- $wrong = append $wrong "routing.destinations names no server: say where accounts live, as controlplane/examples/routing.toml does" -}}
{{- else if not (has (dig "default_destination" "" .Values.routing) $ids) -}}
{{- $wrong = append $wrong (printf "routing.default_destination is %q, which is none of routing.destinations: name one of %s" (dig "default_destination" "" .Values.routing) (join ", " $ids)) -}}
{{- end -}}
{{- end -}}
{{- if ne (len $ids) (len (uniq $ids)) -}}
{{- $wrong = append $wrong "routing.destinations: two have the same id; give each server its own" -}}
{{- end -}}
{{- range $n, $domain := dig "domains" list .Values.routing -}}
{{- $unlisted := dig "unlisted" "refuse" $domain -}}
{{- if kindIs "map" $unlisted -}}
{{- if not (has $unlisted.destination $ids) -}}
{{- $wrong = append $wrong (printf "routing.domains[%d].unlisted.destination is %q, which is none of routing.destinations: name one of %s" $n $unlisted.destination (join ", " $ids)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range dig "destinations" list .Values.routing -}}
{{- $id := .id -}}
{{- range $n, $endpoint := dig "endpoints" list . -}}
{{- $place := printf "routing.destinations, %s, endpoints[%d]" $id $n -}}
{{- if and (eq $endpoint.tls "none") (not $endpoint.plaintext_consent) -}}
{{- $wrong = append $wrong (printf "%s: with tls \"none\" passwords cross this leg unencrypted; use \"implicit\" or \"starttls\", or say plaintext_consent: true" $place) -}}
{{- end -}}
{{- with $endpoint.ca_file -}}
{{- if not (hasKey $.Values.authorities (trimSuffix ".pem" .)) -}}
{{- $wrong = append $wrong (printf "%s: ca_file %q is not among authorities: add its certificate there, under %q" $place . (trimSuffix ".pem" .)) -}}
{{- end -}}
{{- if not (hasSuffix ".pem" .) -}}
{{- $wrong = append $wrong (printf "%s: ca_file must be the name of one of authorities with .pem behind it, as %q" $place (printf "%s.pem" .)) -}}
{{- end -}}
{{- end -}}
{{- $isLoopback := or (eq $endpoint.host "localhost") (hasPrefix "127." $endpoint.host) (eq $endpoint.host "::1") -}}
{{- if and $isLoopback (not $endpoint.when) -}}
{{- $wrong = append $wrong (printf "%s: %s is another machine for each data plane; say for which it is meant, as when: {group: source}" $place $endpoint.host) -}}
{{- end -}}
{{- if and $isLoopback (eq $.Values.dataplane.mode "gateway") (eq (dig "when" "group" "" $endpoint) $.Values.dataplane.group) $endpoint.when -}}
{{- $wrong = append $wrong (printf "%s: a gateway has no mail server on its own loopback; give it another dataplane.group, or run it as a sidecar" $place) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $wrong | toJson -}}
{{- end -}}

{{- define "ferrypost.mistakes.controlplane" -}}
{{- $wrong := list -}}
{{- with .Values.controlplane -}}
{{- if .enabled -}}
{{- if and (eq .store.kind "embedded") (gt (int .replicas) 1) -}}
{{- $wrong = append $wrong (printf "controlplane.replicas is %d, and the embedded store is one file for one process: use store.kind: etcd, or one replica" (int .replicas)) -}}
{{- end -}}
{{- if eq .store.kind "etcd" -}}
{{- if not .store.etcd.endpoints -}}
{{- $wrong = append $wrong "controlplane.store.etcd.endpoints is empty: name the members, as https://etcd-0.etcd:2379" -}}
{{- end -}}
{{- range .store.etcd.endpoints -}}
{{- if and (hasPrefix "https://" .) (not $.Values.controlplane.store.etcd.tlsSecret) -}}
{{- $wrong = append $wrong (printf "controlplane.store.etcd.tlsSecret is missing: %s is verified against its ca.crt" .) -}}
{{- else if and (hasPrefix "http://" .) $.Values.controlplane.store.etcd.tlsSecret -}}
{{- $wrong = append $wrong (printf "controlplane.store.etcd.tlsSecret is for https, and %s is in clear: write https://" .) -}}
{{- end -}}
{{- end -}}
{{- if and .store.etcd.clientCertificate (not .store.etcd.tlsSecret) -}}
{{- $wrong = append $wrong "controlplane.store.etcd.clientCertificate needs tlsSecret, where the certificate is" -}}
{{- end -}}
{{- if ne (empty .store.etcd.username) (empty .store.etcd.passwordSecret) -}}
{{- $wrong = append $wrong "controlplane.store.etcd: username and passwordSecret go together; say both or neither" -}}
{{- end -}}
{{- end -}}
{{- else if and (ne $.Values.dataplane.mode "none") (not $.Values.dataplane.controlPlane.endpoints) -}}
{{- $wrong = append $wrong "dataplane.controlPlane.endpoints is empty, and this release has no control plane: name the stream of the one that there is" -}}
{{- end -}}
{{- end -}}
{{- with .Values.planes.tls -}}
{{- if eq .source "secrets" -}}
{{- if and $.Values.controlplane.enabled (not .secrets.controlplane) -}}
{{- $wrong = append $wrong "planes.tls.secrets.controlplane is missing: name the secret, or choose another planes.tls.source" -}}
{{- end -}}
{{- if and (ne $.Values.dataplane.mode "none") (not .secrets.dataplane) -}}
{{- $wrong = append $wrong "planes.tls.secrets.dataplane is missing: name the secret, or choose another planes.tls.source" -}}
{{- end -}}
{{- else if and (eq .source "certManager") (not .issuer.name) -}}
{{- $wrong = append $wrong "planes.tls.issuer.name is missing: name the issuer that cert-manager is to ask" -}}
{{- else if and (eq .source "generated") (not $.Values.controlplane.enabled) -}}
{{- $wrong = append $wrong "planes.tls.source is \"generated\", and the control plane of another release would not know that authority: use secrets, or certManager with that control plane's issuer" -}}
{{- end -}}
{{- end -}}
{{- $wrong | toJson -}}
{{- end -}}

{{- define "ferrypost.mistakes.doors" -}}
{{- $wrong := list -}}
{{- $doors := include "ferrypost.doors" . | fromJsonArray -}}
{{- if not $doors -}}
{{- $wrong = append $wrong "dataplane.listeners are all disabled, and nothing else is listened on: enable one" -}}
{{- end -}}
{{- $names := list -}}
{{- $ports := list (int .Values.dataplane.ports.admin) (int .Values.dataplane.ports.health) -}}
{{- range $doors -}}
{{- if has .name $names -}}
{{- $wrong = append $wrong (printf "dataplane: %q is the name of two listeners; give each its own" .name) -}}
{{- end -}}
{{- if has (int .port) $ports -}}
{{- $wrong = append $wrong (printf "dataplane: port %d of %q is taken by another listener or by dataplane.ports; choose another" (int .port) .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- $ports = append $ports (int .port) -}}
{{- end -}}
{{- $spoken := list -}}
{{- range include "ferrypost.endpoints" . | fromJsonArray }}{{ $spoken = append $spoken .protocol }}{{ end -}}
{{- range $name, $listener := .Values.dataplane.listeners -}}
{{- if and (ne (toString (dig "enabled" true $listener)) "false") (not (has $listener.protocol $spoken)) -}}
{{- $wrong = append $wrong (printf "dataplane.listeners.%s: no destination has an endpoint for %s that this data plane's group reaches; add one under routing.destinations, or say enabled: false" $name $listener.protocol) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.dataplane.web (not (has "http" $spoken)) -}}
{{- $wrong = append $wrong "dataplane.web: no destination has an endpoint for http; add one under routing.destinations, or leave dataplane.web out" -}}
{{- end -}}
{{- if and .Values.dataplane.web (not (dig "http" "rules" list .Values.routing)) -}}
{{- $wrong = append $wrong "dataplane.web: without routing.http.rules every request is refused; add rules (docs/http.md)" -}}
{{- end -}}
{{- range $name, $delivery := .Values.dataplane.deliveries -}}
{{- if not (has $delivery.protocol $spoken) -}}
{{- $wrong = append $wrong (printf "dataplane.deliveries.%s: no destination has an endpoint for %s; add one under routing.destinations" $name $delivery.protocol) -}}
{{- end -}}
{{- end -}}
{{- range $name, $through := .Values.dataplane.passThroughs -}}
{{- $found := false -}}
{{- range dig "destinations" list $.Values.routing -}}
{{- if eq .id $through.destination -}}
{{- range dig "endpoints" list . -}}
{{- if eq .protocol "smtp" -}}
{{- $found = true -}}
{{- if ne .announcement "proxy_v2" -}}
{{- $wrong = append $wrong (printf "dataplane.passThroughs.%s: the smtp endpoint of %q must say announcement: proxy_v2, or its server would take us for every mail system (docs/inbound-mail.md)" $name $through.destination) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $found -}}
{{- $wrong = append $wrong (printf "dataplane.passThroughs.%s: destination %q has no endpoint for smtp; add one under routing.destinations" $name $through.destination) -}}
{{- end -}}
{{- end -}}
{{- $needsCertificates := or .Values.dataplane.web (gt (len (include "ferrypost.doors.listeners" . | fromJsonArray)) 0) -}}
{{- if and $needsCertificates (not .Values.dataplane.certificates) (not .Values.dataplane.certManager.dnsNames) -}}
{{- range $name := include "ferrypost.doors.bare" . | fromJsonArray -}}
{{- $wrong = append $wrong (printf "dataplane: %q has no certificate to show; name a TLS secret in dataplane.certificates, or names for cert-manager in dataplane.certManager.dnsNames" $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.dataplane.certManager.dnsNames (not .Values.dataplane.certManager.issuer.name) -}}
{{- $wrong = append $wrong "dataplane.certManager.issuer.name is missing: name the issuer that cert-manager is to ask" -}}
{{- end -}}
{{- $wrong | toJson -}}
{{- end -}}

{{- /* Names of what clients log in at. */ -}}
{{- define "ferrypost.doors.listeners" -}}
{{- $names := list -}}
{{- range $name, $listener := .Values.dataplane.listeners -}}
{{- if ne (toString (dig "enabled" true $listener)) "false" }}{{ $names = append $names $name }}{{ end -}}
{{- end -}}
{{- $names | toJson -}}
{{- end -}}

{{- /* Names of what needs certificates and has none of its own. */ -}}
{{- define "ferrypost.doors.bare" -}}
{{- $names := list -}}
{{- range $name := include "ferrypost.doors.listeners" . | fromJsonArray -}}
{{- if not (get $.Values.dataplane.listeners $name).certificates }}{{ $names = append $names $name }}{{ end -}}
{{- end -}}
{{- range $name, $web := .Values.dataplane.web -}}
{{- if not $web.certificates }}{{ $names = append $names $name }}{{ end -}}
{{- end -}}
{{- range $name, $door := merge (dict) .Values.dataplane.deliveries .Values.dataplane.lookups -}}
{{- if $door.tls }}{{ $names = append $names $name }}{{ end -}}
{{- end -}}
{{- $names | toJson -}}
{{- end -}}

{{- /* Annotations by which clouds are asked for PROXY headers, with the values that mean so (empty: any). */ -}}
{{- define "ferrypost.cloud.proxy" -}}
service.beta.kubernetes.io/aws-load-balancer-proxy-protocol: ""
service.beta.kubernetes.io/do-loadbalancer-enable-proxy-protocol: "true"
service.beta.kubernetes.io/linode-loadbalancer-proxy-protocol: ""
service.beta.kubernetes.io/scw-loadbalancer-proxy-protocol-v1: "true"
service.beta.kubernetes.io/scw-loadbalancer-proxy-protocol-v2: "true"
service.beta.kubernetes.io/ovh-loadbalancer-proxy-protocol: ""
service.beta.kubernetes.io/vultr-loadbalancer-proxy-protocol: "true"
load-balancer.hetzner.cloud/uses-proxyprotocol: "true"
loadbalancer.openstack.org/proxy-protocol: "true"
kubernetes.civo.com/loadbalancer-enable-proxy-protocol: ""
{{- end -}}

{{- define "ferrypost.mistakes.clientAddress" -}}
{{- $wrong := list -}}
{{- $client := .Values.dataplane.clientAddress -}}
{{- $service := .Values.dataplane.service -}}
{{- if and $client.loadBalancerSendsProxy (not $client.loadBalancerNetworks) -}}
{{- $wrong = append $wrong "dataplane.clientAddress.loadBalancerSendsProxy: nobody's PROXY header is believed yet; name the load balancer's networks in loadBalancerNetworks" -}}
{{- else if and (not $client.loadBalancerSendsProxy) $client.loadBalancerNetworks -}}
{{- $wrong = append $wrong "dataplane.clientAddress.loadBalancerNetworks must send PROXY headers, and loadBalancerSendsProxy is false: set it to true and let the balancer send them, or name no networks" -}}
{{- end -}}
{{- range concat $client.loadBalancerNetworks $client.peers -}}
{{- if hasSuffix "/0" . -}}
{{- $wrong = append $wrong (printf "dataplane.clientAddress: with %s everybody may claim any address; name the balancer's own networks" .) -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.dataplane.mode "gateway" -}}
{{- $asked := "" -}}
{{- range $annotation, $means := include "ferrypost.cloud.proxy" . | fromYaml -}}
{{- $value := get $service.annotations $annotation -}}
{{- if and $value (or (eq $means "") (eq $means (toString $value))) (not (has (toString $value) (list "false" "none"))) }}{{ $asked = $annotation }}{{ end -}}
{{- end -}}
{{- if and $asked (not $client.loadBalancerSendsProxy) -}}
{{- $wrong = append $wrong (printf "dataplane.service.annotations: %s makes the load balancer send PROXY headers, which clients may not send here; set dataplane.clientAddress.loadBalancerSendsProxy: true with its networks, or take the annotation away" $asked) -}}
{{- end -}}
{{- if and (ne $service.type "ClusterIP") (eq $service.externalTrafficPolicy "Cluster") (not $client.loadBalancerSendsProxy) -}}
{{- $wrong = append $wrong "dataplane.service.externalTrafficPolicy is \"Cluster\": servers and limits would see the nodes' addresses in place of the clients'; use \"Local\", or a load balancer that sends PROXY headers (dataplane.clientAddress.loadBalancerSendsProxy)" -}}
{{- end -}}
{{- end -}}
{{- $wrong | toJson -}}
{{- end -}}

{{- define "ferrypost.mistakes.idle" -}}
{{- $wrong := list -}}
{{- $limits := dig "limits" dict .Values.dataplane.config -}}
{{- range $protocol, $least := dict "imap" 31 "managesieve" 30 "pop3" 10 "submission" 5 -}}
{{- $own := dig $protocol "relay" "idle" "" $limits -}}
{{- if $own -}}
{{- if lt (include "ferrypost.seconds" $own | int) (mul $least 60 | int) -}}
{{- $wrong = append $wrong (printf "dataplane.config.limits.%s.relay.idle is %s: silent clients of %s would be cut off; %dm is the least" $protocol $own $protocol $least) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with dig "relay" "idle" "" $limits -}}
{{- if lt (include "ferrypost.seconds" . | int) 1860 -}}
{{- $wrong = append $wrong (printf "dataplane.config.limits.relay.idle is %s: a client in IDLE may be silent for half an hour; use 31m or more (protocols may have less of their own, as limits.pop3.relay.idle)" .) -}}
{{- end -}}
{{- end -}}
{{- with dig "pass_through" "idle" "" $limits -}}
{{- if lt (include "ferrypost.seconds" . | int) 600 -}}
{{- $wrong = append $wrong (printf "dataplane.config.limits.pass_through.idle is %s: a mail system waits ten minutes for the answer to a message; use 10m or more" .) -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.dataplane.mode "gateway" -}}
{{- range $annotation, $unit := dict "service.beta.kubernetes.io/aws-load-balancer-connection-idle-timeout" 1 "service.beta.kubernetes.io/azure-load-balancer-tcp-idle-timeout" 60 -}}
{{- $value := get $.Values.dataplane.service.annotations $annotation -}}
{{- if $value -}}
{{- if lt (mul (int $value) $unit | int) 1860 -}}
{{- $wrong = append $wrong (printf "dataplane.service.annotations: %s is %s: the load balancer would cut clients in IDLE off, which may be silent for half an hour; use 31 minutes or more" $annotation (toString $value)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $wrong | toJson -}}
{{- end -}}

{{- define "ferrypost.mistakes.dataplane" -}}
{{- $wrong := list -}}
{{- $window := dig "migrations" "window" "20s" .Values.controlplane.config | include "ferrypost.seconds" | int -}}
{{- $relay := dig "limits" "relay" dict .Values.dataplane.config -}}
{{- $close := add (dig "drain" "10s" $relay | include "ferrypost.seconds" | int) (dig "close" "5s" $relay | include "ferrypost.seconds" | int) -}}
{{- $hold := dig "limits" "hold" "timeout" "25s" .Values.dataplane.config | include "ferrypost.seconds" | int -}}
{{- if and .Values.controlplane.enabled (or (le $window (int $close)) (ge $window $hold)) -}}
{{- $wrong = append $wrong (printf "controlplane.config.migrations.window is %ds, and no move would begin: it must be above limits.relay.drain and close together (%ds) and below limits.hold.timeout (%ds) of dataplane.config" $window $close $hold) -}}
{{- end -}}
{{- $drain := .Values.dataplane.drain -}}
{{- $needed := add (int $drain.delaySeconds) (int $drain.graceSeconds) 5 -}}
{{- if lt (include "ferrypost.dataplane.gracePeriod" . | int) (int $needed) -}}
{{- $wrong = append $wrong (printf "dataplane.drain.terminationGracePeriodSeconds is %d: pods would be killed while sessions end; it must be at least %d, or left out" (int $drain.terminationGracePeriodSeconds) $needed) -}}
{{- end -}}
{{- if dig "limits" "shutdown" "grace" "" .Values.dataplane.config -}}
{{- $wrong = append $wrong "dataplane.config.limits.shutdown.grace: say dataplane.drain.graceSeconds in its place, from which the pod's own time follows" -}}
{{- end -}}
{{- $gateway := .Values.dataplane.gateway -}}
{{- if and (eq $gateway.kind "DaemonSet") .Values.dataplane.autoscaling.enabled -}}
{{- $wrong = append $wrong "dataplane.autoscaling: a DaemonSet has one pod on each node; say autoscaling.enabled: false, or gateway.kind: Deployment" -}}
{{- end -}}
{{- if and $gateway.hostPorts (ne $gateway.kind "DaemonSet") -}}
{{- $wrong = append $wrong "dataplane.gateway.hostPorts: two pods of a Deployment may be on one node, where the second finds its ports taken; use gateway.kind: DaemonSet" -}}
{{- end -}}
{{- if and $gateway.hostPorts .Values.dataplane.clientAddress.loadBalancerSendsProxy -}}
{{- $wrong = append $wrong "dataplane.gateway.hostPorts: who comes to a node's own port sends no PROXY header, and dataplane.clientAddress.loadBalancerSendsProxy demands one of the balancer's networks; choose one of the two ways in" -}}
{{- end -}}
{{- if and .Values.dataplane.service.loadBalancerSourceRanges (eq .Values.dataplane.mode "gateway") -}}
{{- if $gateway.hostPorts -}}
{{- $wrong = append $wrong "dataplane.service.loadBalancerSourceRanges: who comes to a node's own port (dataplane.gateway.hostPorts) passes no load balancer and is let in from everywhere; take one of the two away, or narrow the nodes' ports by the nodes' own firewall and leave the ranges out" -}}
{{- else if ne .Values.dataplane.service.type "LoadBalancer" -}}
{{- $wrong = append $wrong (printf "dataplane.service.loadBalancerSourceRanges: only a load balancer goes by them, and dataplane.service.type is %q; use LoadBalancer, or leave them out" .Values.dataplane.service.type) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $gateway.kind "DaemonSet") (eq .Values.dataplane.mode "sidecar") -}}
{{- $wrong = append $wrong "dataplane.gateway.kind is of gateways, and dataplane.mode is \"sidecar\": leave it out" -}}
{{- end -}}
{{- with .Values.dataplane.autoscaling -}}
{{- if and .enabled (eq $.Values.dataplane.mode "gateway") -}}
{{- if not (dig "requests" "cpu" "" $.Values.dataplane.resources) -}}
{{- $wrong = append $wrong "dataplane.autoscaling goes by what is requested: say dataplane.resources.requests.cpu" -}}
{{- end -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- $wrong = append $wrong "dataplane.autoscaling.minReplicas is above maxReplicas" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.dataplane.mode "sidecar" -}}
{{- $local := false -}}
{{- range dig "destinations" list .Values.routing -}}
{{- range dig "endpoints" list . -}}
{{- $isLoopback := or (eq .host "localhost") (hasPrefix "127." .host) (eq .host "::1") -}}
{{- if and $isLoopback (eq (dig "when" "group" "" .) $.Values.dataplane.group) }}{{ $local = true }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if not $local -}}
{{- $wrong = append $wrong (printf "dataplane.mode is \"sidecar\", and no destination is reached by loopback: add an endpoint with host 127.0.0.1 and when: {group: %s} (docs/sidecars.md)" (default "source" .Values.dataplane.group)) -}}
{{- end -}}
{{- end -}}
{{- $wrong | toJson -}}
{{- end -}}

"""What leads from outside to workers: Services, an Ingress, and what gateways and meshes have in its place."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_lkagents.manifests.fields import EACH, POD_AT, at
from pytest_lkagents.manifests.model import Given
from pytest_lkagents.manifests.readers.kubernetes_workloads import kind_of, main_container
from pytest_lkagents.manifests.tree import Node

# A Service's name and its namespace, where that is not the document's own.
Service = tuple[str, str | None]

GATEWAY_API = ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")
TRAEFIK = ("IngressRoute", "IngressRouteTCP", "IngressRouteUDP")
# Of each kind its API group, and where what it leads to is named.
KINDS: dict[str, tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]] = {
    # https://gateway-api.sigs.k8s.io/reference/spec/
    **dict.fromkeys(GATEWAY_API, (("gateway.networking.k8s.io",), (("spec", "rules", EACH, "backendRefs", EACH),))),
    # https://doc.traefik.io/traefik/reference/routing-configuration/kubernetes/crd/
    **dict.fromkeys(TRAEFIK, (("traefik.io", "traefik.containo.us"), (("spec", "routes", EACH, "services", EACH),))),
    # https://docs.openshift.com/container-platform/latest/rest_api/network_apis/route-route-openshift-io-v1.html
    "Route": (("route.openshift.io",), (("spec", "to"), ("spec", "alternateBackends", EACH))),
    # https://projectcontour.io/docs/main/config/api/
    "HTTPProxy": (
        ("projectcontour.io",),
        (("spec", "routes", EACH, "services", EACH), ("spec", "tcpproxy", "services", EACH)),
    ),
}
# https://istio.io/latest/docs/reference/config/networking/virtual-service/
ISTIO, MESH = "VirtualService", "mesh"

# What clouds' load balancers are told to stay within their network by, as Kubernetes lists it:
# https://kubernetes.io/docs/concepts/services-networking/service/#internal-load-balancer
# What is for a Service says nothing of an Ingress, and the other way round.
INTERNAL = {
    "Service": (
        # Google; AWS, in the older form any address; Azure, Oracle, OpenStack, Scaleway
        (r"(networking\.gke\.io|cloud\.google\.com)/load-balancer-type", r"internal"),
        (r"service\.beta\.kubernetes\.io/aws-load-balancer-scheme", r"internal"),
        (r"service\.beta\.kubernetes\.io/aws-load-balancer-internal", r"(?!false$).+"),
        (r"service\.beta\.kubernetes\.io/(azure|oci)-load-balancer-internal", r"true"),
        (r"service\.beta\.kubernetes\.io/(openstack-internal-load-balancer|scw-loadbalancer-private)", r"true"),
        # IBM, DigitalOcean, Alibaba, Tencent, Baidu
        (r"service\.kubernetes\.io/ibm-load-balancer-cloud-provider-ip-type", r"private"),
        (r"service\.beta\.kubernetes\.io/do-loadbalancer-network", r"internal"),
        (r"service\.beta\.kubernetes\.io/ali(baba-)?cloud-loadbalancer-address-type", r"intranet"),
        (r"service\.kubernetes\.io/qcloud-loadbalancer-internal-subnetid", r".+"),
        (r"service\.beta\.kubernetes\.io/cce-load-balancer-internal-vpc", r"true"),
    ),
    "Ingress": (
        (r"alb\.ingress\.kubernetes\.io/scheme", r"internal"),
        (r"kubernetes\.io/ingress\.class", r"(gce-)?internal"),
    ),
}
# AWS heeds the older form only without this.
PUBLIC = re.compile(r"(aws-load-balancer-|alb\.ingress\.kubernetes\.io/)scheme=internet-facing$")


def exposure(service: Node) -> Given[str] | None:
    """What of a Service leads to it from outside: its type, or addresses of the cluster's nodes, whatever its type."""
    type_ = service.text("spec", "type")
    if type_ in ("LoadBalancer", "NodePort"):
        return Given(f"a Service of type {type_}", service.at("spec", "type"))
    headless = service.text("spec", "clusterIP") == "None"  # nobody forwards what comes for such a one
    if type_ != "ExternalName" and not headless and service.items("spec", "externalIPs"):
        return Given("a Service with externalIPs", service.at("spec", "externalIPs"))
    return None


def is_internal(document: Node) -> bool:
    """Whether a Service's load balancer, or an Ingress, is one of its cloud's network alone."""
    if document.text("spec", "type") == "NodePort" or document.items("spec", "externalIPs"):
        return False
    annotations = [(name, (node.text() or "").lower()) for name, node in document.entries("metadata", "annotations")]
    if any(PUBLIC.search(f"{name}={value}") for name, value in annotations):
        return False
    return any(
        re.fullmatch(told, name) and re.fullmatch(within, value)
        for told, within in INTERNAL.get(kind_of(document), ())
        for name, value in annotations
    )


def services(document: Node) -> set[Service]:
    """Those that it leads to from outside; none of what is no such document."""
    kind, group = kind_of(document), (document.text("apiVersion") or "").rpartition("/")[0]
    if kind == "Ingress":
        return {(name, None) for node in _all(document) if (name := node.text("service", "name"))}
    if kind == ISTIO and group == "networking.istio.io":
        return _of_istio(document)
    if kind in GATEWAY_API and not any(_is_gateway(parent) for parent in document.items("spec", "parentRefs")):
        return set()
    groups, paths = KINDS.get(kind, ((), ()))
    if group not in groups:
        return set()
    targets = [node for path in paths for node in at(document, path)]
    return {
        (name, node.text("namespace"))
        for node in targets
        if node.text("kind") in (None, "Service") and (name := node.text("name"))
    }


def said(document: Node) -> str:
    kind = kind_of(document)
    return f"{'an' if kind.startswith(('H', 'I')) else 'a'} {kind}"


def leads_beside(service: Node, workload: Node) -> bool:
    """Whether all ports of a Service are ones that other containers than the worker's name as theirs."""
    main = main_container(workload)
    others = [one for one in workload.items(*POD_AT, "containers") if one is not main]
    targets = {port.text("targetPort") or port.text("port") for port in service.items("spec", "ports")}
    return bool(targets) and targets <= _ports(others) - _ports([main])


def _ports(containers: list[Node]) -> set[str | None]:
    """By number, and by name."""
    return {port.text(part) for one in containers for port in one.items("ports") for part in ("containerPort", "name")} - {None}


def _is_gateway(parent: Node) -> bool:
    """Not a Service, for which a route holds within the mesh alone."""
    return parent.text("kind") != "Service"


def _of_istio(document: Node) -> set[Service]:
    """Without a gateway it holds within the mesh alone."""
    if not any(gateway.text() not in (None, MESH) for gateway in document.items("spec", "gateways")):
        return set()
    hosts = [
        node.text("host") or ""
        for protocol in ("http", "tls", "tcp")
        for node in at(document, ("spec", protocol, EACH, "route", EACH, "destination"))
    ]
    # name, name.namespace, name.namespace.svc or name.namespace.svc.cluster.local
    parts = [host.split(".") for host in hosts if host]
    return {(names[0], names[1] if len(names) > 1 else None) for names in parts if names[2:3] in ([], ["svc"])}


def _all(node: Node) -> Iterator[Node]:
    yield node
    for below in [entry for _, entry in node.entries()] + node.items():
        yield from _all(below)

"""What is in clusters beside Kubernetes' own: gateways, meshes, KEDA, Knative; and what the API refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lkagents.checks import Evidence, NotJudgeable
from pytest_lkagents.manifests import rules
from pytest_lkagents.manifests.findings import Needs
from pytest_lkagents.manifests.load import load
from pytest_lkagents.manifests.model import Files
from suites import test_manifests as checks

CONTAINER = "{name: main, image: 'r/agent:1', args: [start], envFrom: [{secretRef: {name: livekit}}]}"
AGENT = f"""apiVersion: apps/v1
kind: Deployment
metadata: {{name: agent, namespace: voice}}
spec:
  replicas: 2
  template:
    metadata: {{labels: {{app: agent}}}}
    spec: {{containers: [{CONTAINER}]}}
"""
SERVICE = """apiVersion: v1
kind: Service
metadata: {name: status, namespace: voice}
spec: {selector: {app: agent}, ports: [{port: 8081}]}
"""


def document(version: str, kind: str, spec: str, space: str = "voice") -> str:
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: agent, namespace: {space}}}\nspec: {spec}\n"


def read(folder: Path, *documents: str) -> Files:
    folder.mkdir(exist_ok=True)
    (folder / "agent.yaml").write_text("---\n".join(documents))
    return load([str(folder)])


def reasons(files: Files) -> list[str]:
    return [one.reason for one in [*files.problems, *(problem for made in files.deployments for problem in made.problems)]]


# -- What leads to a worker

GATEWAY = "gateway.networking.k8s.io/v1"
ISTIO = "networking.istio.io/v1"
TO_STATUS = "rules: [{backendRefs: [{name: status, port: 8081}]}]"
FROM_ISTIO = "http: [{route: [{destination: {host: %s}}]}]"
TRAEFIK = "{routes: [{services: [{name: status, port: 8081}]}]}"
CONTOUR = "{tcpproxy: {services: [{name: status, port: 8081}]}}"


@pytest.mark.parametrize(
    ("version", "kind", "spec", "found"),
    [
        (GATEWAY, "HTTPRoute", f"{{parentRefs: [{{name: public}}], {TO_STATUS}}}", "an HTTPRoute"),
        (f"{GATEWAY}alpha2", "TCPRoute", f"{{parentRefs: [{{name: public}}], {TO_STATUS}}}", "a TCPRoute"),
        (GATEWAY, "GRPCRoute", f"{{parentRefs: [{{kind: Service, name: web}}], {TO_STATUS}}}", None),
        (ISTIO, "VirtualService", f"{{gateways: [public], {FROM_ISTIO % 'status'}}}", "a VirtualService"),
        (
            ISTIO,
            "VirtualService",
            f"{{gateways: [mesh, a/b], {FROM_ISTIO % 'status.voice.svc.cluster.local'}}}",
            "a VirtualService",
        ),
        (ISTIO, "VirtualService", f"{{gateways: [public], {FROM_ISTIO % 'status.other'}}}", None),
        (ISTIO, "VirtualService", f"{{gateways: [public], {FROM_ISTIO % 'status.example.com'}}}", None),
        (ISTIO, "VirtualService", f"{{gateways: [mesh], {FROM_ISTIO % 'status'}}}", None),
        (ISTIO, "VirtualService", f"{{{FROM_ISTIO % 'status'}}}", None),
        ("route.openshift.io/v1", "Route", "{to: {kind: Service, name: status}}", "a Route"),
        ("traefik.io/v1alpha1", "IngressRoute", TRAEFIK, "an IngressRoute"),
        ("traefik.io/v1alpha1", "IngressRoute", TRAEFIK.replace("name", "kind: TraefikService, name"), None),
        ("projectcontour.io/v1", "HTTPProxy", CONTOUR, "an HTTPProxy"),
        ("serving.example.com/v1", "Route", "{to: {name: status}}", None),
    ],
)
def test_what_leads_to_a_workers_service_opens_it(
    tmp_path: Path, version: str, kind: str, spec: str, found: str | None
) -> None:
    judged = rules.no_inbound(read(tmp_path, AGENT, SERVICE, document(version, kind, spec)), Needs())
    assert [finding.found for finding in judged.findings] == ([f"{found} opens the worker to others"] if found else [])


def test_a_route_leads_to_the_service_of_the_namespace_that_it_names(tmp_path: Path) -> None:
    spec = f"{{parentRefs: [{{name: public}}], {TO_STATUS}}}"
    elsewhere = document(GATEWAY, "HTTPRoute", spec, "other")
    assert not rules.no_inbound(read(tmp_path / "own", AGENT, SERVICE, elsewhere), Needs()).findings
    named = document(GATEWAY, "HTTPRoute", spec.replace("name: status", "name: status, namespace: voice"), "other")
    assert len(rules.no_inbound(read(tmp_path / "named", AGENT, SERVICE, named), Needs()).findings) == 1


@pytest.mark.parametrize("target", ["http", "3000"])
@pytest.mark.parametrize(
    ("version", "kind", "spec"),
    [
        (GATEWAY, "HTTPRoute", "{parentRefs: [{name: public}], rules: [{backendRefs: [{name: api, port: 80}]}]}"),
        ("networking.k8s.io/v1", "Ingress", "{defaultBackend: {service: {name: api}}}"),
        ("v1", "Service", "{type: LoadBalancer, selector: {app: agent}, ports: [{port: 80, targetPort: http}]}"),
    ],
)
def test_what_leads_to_another_container_of_the_pod_is_not_judged(
    tmp_path: Path, target: str, version: str, kind: str, spec: str
) -> None:
    beside = "{name: api, image: api:1, ports: [{name: http, containerPort: 3000}]}"
    agent = "{name: agent, image: agent:1, command: [python, agent.py, start], ports: [{containerPort: 8081}]}"
    pod = f"{{metadata: {{labels: {{app: agent}}}}, spec: {{containers: [{agent}, {beside}]}}}}"
    service = document("v1", "Service", f"{{selector: {{app: agent}}, ports: [{{port: 80, targetPort: {target}}}]}}")
    files = [document("apps/v1", "Deployment", f"{{template: {pod}}}"), service.replace("name: agent", "name: api", 1)]
    judged = rules.no_inbound(read(tmp_path, *files, document(version, kind, spec)), Needs())
    assert (judged.looked_at, judged.findings) == (0, [])
    assert "leads to another container of its pod; not judged" in "".join(judged.notes)


BALANCED = "{type: LoadBalancer, selector: {app: agent}, ports: [{port: 80}]}"
ROUTED = "{defaultBackend: {service: {name: status}}}"


@pytest.mark.parametrize(
    ("kind", "spec", "annotation", "judged"),
    [
        ("Service", BALANCED, "networking.gke.io/load-balancer-type: Internal", False),
        ("Service", BALANCED, "service.beta.kubernetes.io/aws-load-balancer-scheme: internal", False),
        ("Service", BALANCED, "service.beta.kubernetes.io/azure-load-balancer-internal: 'true'", False),
        ("Ingress", ROUTED, "alb.ingress.kubernetes.io/scheme: internal", False),
        ("Ingress", ROUTED, "kubernetes.io/ingress.class: gce-internal", False),
        ("Service", BALANCED, "service.beta.kubernetes.io/aws-load-balancer-scheme: internet-facing", True),
        ("Service", BALANCED, "service.beta.kubernetes.io/aws-load-balancer-type: external", True),
        ("Service", BALANCED, "service.beta.kubernetes.io/azure-load-balancer-internal: 'false'", True),
        ("Service", BALANCED.replace("LoadBalancer", "NodePort"), "networking.gke.io/load-balancer-type: Internal", True),
        ("Ingress", ROUTED, "kubernetes.io/ingress.class: gce", True),
        ("Service", BALANCED, "service.beta.kubernetes.io/aws-load-balancer-internal: 0.0.0.0/0", False),
        ("Service", BALANCED, "service.kubernetes.io/ibm-load-balancer-cloud-provider-ip-type: private", False),
        ("Service", BALANCED, "service.beta.kubernetes.io/openstack-internal-load-balancer: 'true'", False),
        ("Service", BALANCED, "service.beta.kubernetes.io/alibaba-cloud-loadbalancer-address-type: intranet", False),
        ("Service", BALANCED, "service.kubernetes.io/qcloud-loadbalancer-internal-subnetid: subnet-k2", False),
        ("Service", BALANCED, "service.beta.kubernetes.io/cce-load-balancer-internal-vpc: 'true'", False),
        ("Service", BALANCED, "service.beta.kubernetes.io/do-loadbalancer-network: INTERNAL", False),
        (
            "Service",
            BALANCED,
            "service.beta.kubernetes.io/aws-load-balancer-internal: 'true', "
            "service.beta.kubernetes.io/aws-load-balancer-scheme: internet-facing",
            True,
        ),
        ("Service", BALANCED, "service.beta.kubernetes.io/aws-load-balancer-internal: 'false'", True),
        ("Service", BALANCED, "alb.ingress.kubernetes.io/scheme: internal", True),
        ("Ingress", ROUTED, "service.beta.kubernetes.io/aws-load-balancer-scheme: internal", True),
        ("Ingress", ROUTED, "networking.gke.io/load-balancer-type: Internal", True),
        ("Ingress", ROUTED, "alb.ingress.kubernetes.io/scheme: internet-facing, kubernetes.io/ingress.class: internal", True),
    ],
)
def test_a_load_balancer_of_its_clouds_network_alone_is_not_judged(
    tmp_path: Path, kind: str, spec: str, annotation: str, judged: bool
) -> None:
    version = "v1" if kind == "Service" else "networking.k8s.io/v1"
    balancer = document(version, kind, spec).replace("metadata: {", f"metadata: {{annotations: {{{annotation}}}, ", 1)
    made = rules.no_inbound(read(tmp_path, AGENT, SERVICE, balancer), Needs())
    assert (made.looked_at, bool(made.findings)) == (judged, judged)
    assert judged or "is for its own network alone; not judged" in "".join(made.notes)


# -- What the API refuses

TARGET = "scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: agent}, minReplicas: 2"
CPU = "metrics: [{type: Resource, resource: {name: cpu, %s}}]"


@pytest.mark.parametrize(
    ("version", "spec", "found"),
    [
        (
            "v2",
            "maxReplicas: 9, targetCPUUtilizationPercentage: 50",
            "'targetCPUUtilizationPercentage' in autoscaling/v2, but in",
        ),
        ("v1", f"maxReplicas: 9, {CPU % 'target: {averageUtilization: 50}'}", "no field 'metrics' in autoscaling/v1, but in"),
        ("v2", f"maxReplicas: 9, {CPU % 'targetAverageUtilization: 50'}", "'target' with 'averageUtilization' is meant"),
        ("v2", f"maxReplicas: 9, {CPU % 'target: {type: Utilization}'}", "neither averageUtilization nor averageValue"),
        ("v2", f"maxReplicas: 9, {CPU % 'target: {averageUtilization: 50%}'}", "'50%' is text"),
        ("v1", "maxReplicas: 9, targetCPUUtilizationPercentage: '50'", "'50' is text"),
        ("v1", "maxReplicas: 1, targetCPUUtilizationPercentage: 50", "2 workers at least and 1 at most"),
        ("v1", "maxReplicas: 2, targetCPUUtilizationPercentage: 50", None),
        ("v2", f"maxReplicas: 9, {CPU % 'target: {type: AverageValue, averageValue: 500m}'}", None),
        ("v2", f"maxReplicas: 9, {CPU % 'target: {averageUtilization: $CPU}'}, behavior: {{}}", None),
        ("v2", "maxReplicas: 9, metrics: [{type: Pods, pods: {metric: {name: a}, target: {averageValue: 1}}}]", None),
    ],
)
def test_an_autoscaler_that_kubernetes_refuses_is_unreadable(
    tmp_path: Path, version: str, spec: str, found: str | None
) -> None:
    scaler = document(f"autoscaling/{version}", "HorizontalPodAutoscaler", f"{{{TARGET}, {spec}}}")
    said = reasons(read(tmp_path, AGENT, scaler))
    assert len(said) == (found is not None)
    assert all(found in one for one in said if found)


def test_numbers_of_a_trigger_are_text(tmp_path: Path) -> None:
    spec = (
        "{scaleTargetRef: {name: agent}, minReplicaCount: 2, triggers: [{type: cpu, metadata: {type: Utilization, value: %s}}]}"
    )
    files = read(tmp_path / "number", AGENT, document("keda.sh/v1alpha1", "ScaledObject", spec % "50"))
    assert reasons(files) == ["'value' is a number or a truth value, where KEDA takes text only, in quotes"]
    assert reasons(read(tmp_path / "text", AGENT, document("keda.sh/v1alpha1", "ScaledObject", spec % "'50'"))) == []


SCALER = "{scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %s}, minReplicas: 2, maxReplicas: 9}"


@pytest.mark.parametrize(
    ("name", "space", "said"),
    [
        ("agent", "voice", None),
        ("voice-agent", "voice", "Deployment voice-agent, which it scales, is in no file"),
        ("agent", "staging", "Deployment agent, which it scales, is in another namespace"),
        ("$NAME", "voice", None),
    ],
)
def test_an_autoscaler_that_scales_nothing_is_said(tmp_path: Path, name: str, space: str, said: str | None) -> None:
    files = read(tmp_path, AGENT, document("autoscaling/v2", "HorizontalPodAutoscaler", SCALER % name, space))
    for rule in (rules.scale_up_below_threshold, rules.scaling_metric, rules.stabilization):
        notes = [note for note in rule(files, Needs()).notes if "which it scales" in note]
        assert notes == ([f"agent.yaml:10: {said}; not judged"] if said else [])


RESOURCES = "resources: {requests: {cpu: %s, memory: %s}, limits: {cpu: '2', memory: 4Gi}}}"


@pytest.mark.parametrize(
    ("cpu", "memory", "found"),
    [
        ("'2'", "4Gi", []),
        ("500m", "1Gi", []),
        ("'4'", "8Gi", ["4 cores requested, and a limit of 2", "8589.93 MB requested, and a limit of 4294.97"]),
        ("'2'", "512m", ["less than a byte"]),
        ("'2'", "4096", ["4096 bytes"]),
    ],
)
def test_a_request_is_an_amount_that_the_limit_allows(tmp_path: Path, cpu: str, memory: str, found: list[str]) -> None:
    made = rules.resources(read(tmp_path, AGENT.replace("livekit}}]}", f"livekit}}}}], {RESOURCES % (cpu, memory)}")), Needs())
    assert ([finding.found for finding in made.findings], made.looked_at) == (found, 1)


# -- What else is in a cluster

SECRET = "kQ8s1Lm2Zp9Xc4Vb7Nn3Aa6Ss5Dd0Ff"
WITH_KEY = f"containers: [{{name: c, image: r/c, env: [{{name: LIVEKIT_API_SECRET, value: {SECRET}}}]}}]"
WITHOUT = WITH_KEY.replace("LIVEKIT_API_SECRET", "DB_PASSWORD")


@pytest.mark.parametrize(
    ("version", "kind", "spec", "found"),
    [
        ("apps/v1", "Deployment", f"{{template: {{spec: {{{WITH_KEY}}}}}}}", True),
        ("batch/v1", "CronJob", f"{{jobTemplate: {{spec: {{template: {{spec: {{{WITH_KEY}}}}}}}}}}}", True),
        ("batch/v1", "Job", f"{{template: {{spec: {{{WITH_KEY}}}}}}}", True),
        ("v1", "Pod", f"{{{WITH_KEY}}}", True),
        ("apps/v1", "Deployment", f"{{template: {{spec: {{{WITHOUT}}}}}}}", False),
        ("batch/v1", "Job", f"{{template: {{spec: {{{WITHOUT}}}}}}}", False),
    ],
)
def test_what_works_with_livekit_beside_a_worker_is_searched_for_secrets(
    tmp_path: Path, version: str, kind: str, spec: str, found: bool
) -> None:
    beside = document(version, kind, spec).replace("name: agent", "name: web")
    files = read(tmp_path, AGENT, beside)
    assert [one.name for one in files.deployments] == ["agent"]
    assert bool(rules.secrets(files, Needs()).findings) is found


def test_a_key_in_the_command_of_a_container_that_runs_before_is_found(tmp_path: Path) -> None:
    init = f"initContainers: [{{name: get, image: r/get, command: [get, --api-key, {SECRET}]}}], containers"
    (finding,) = rules.secrets(read(tmp_path, AGENT.replace("containers", init)), Needs()).findings
    assert (finding.found, finding.place.line) == ("the value of API_KEY is in the command", 8)


@pytest.mark.parametrize(("kind", "unruled"), [("Pod", 1), ("Job", 0)])
def test_an_agent_of_a_kind_without_rules_is_said_with_each_verdict_but_secrets(
    tmp_path: Path, kind: str, unruled: int
) -> None:
    spec = f"{{containers: [{CONTAINER}], template: {{spec: {{containers: [{CONTAINER}]}}}}}}"
    files = read(tmp_path, document("v1" if kind == "Pod" else "batch/v1", kind, spec))
    said = f"agent.yaml: agent is a {kind}, which no rule is for"
    assert files.unruled == [said] * unruled
    for rule, word in ((rules.grace_period, f"{said}; not judged"), (rules.readable, f"not judged but for secrets: {said}")):
        with pytest.raises(NotJudgeable) as reason:
            checks.judge(rule, (files, Needs()), Evidence(), "nothing", "well")
        assert (word in str(reason.value)) is bool(unruled)


def test_a_second_agent_in_a_pod_is_said(tmp_path: Path) -> None:
    agent = "{name: %s, image: 'r/agent:1', command: [python, agent.py, %s], env: [{name: LIVEKIT_URL, value: 'wss://a'}]}"
    pair = f"{agent % ('voice', 'start')}, {agent % ('video', 'dev')}"
    files = read(tmp_path, AGENT.replace(CONTAINER, pair))
    assert files.unruled == ["agent.yaml: agent has a second agent, its container video"]
    evidence = Evidence()
    checks.judge(rules.production_command, (files, Needs()), evidence, "nothing", "well")
    assert evidence["notes"] == [f"{files.unruled[0]}; not judged"]
    server = AGENT.replace(CONTAINER, f"{CONTAINER}, {{name: api, image: r/api, command: [uvicorn, api:app]}}")
    assert read(tmp_path, server).unruled == []


@pytest.mark.parametrize(
    ("version", "kind", "spec", "said"),
    [
        ("helm.toolkit.fluxcd.io/v2", "HelmRelease", "{chart: {spec: {chart: agent}}}", True),
        ("argoproj.io/v1alpha1", "Application", "{source: {repoURL: r, chart: agent}}", True),
        ("argoproj.io/v1alpha1", "Application", "{sources: [{repoURL: r, path: a, helm: {valueFiles: [v.yaml]}}]}", True),
        ("argoproj.io/v1alpha1", "Application", "{source: {repoURL: r, path: apps/agent}}", False),
    ],
)
def test_a_chart_that_is_only_named_is_said(tmp_path: Path, version: str, kind: str, spec: str, said: bool) -> None:
    files = read(tmp_path, document(version, kind, spec))
    for rule, word in (
        (rules.readable, "agent.yaml: what Helm makes of its chart"),
        (rules.replicas, "what Helm makes of a chart"),
    ):
        with pytest.raises(NotJudgeable) as reason:
            checks.judge(rule, (files, Needs()), Evidence(), "nothing", "well")
        assert (word in str(reason.value)) is said


@pytest.mark.parametrize(
    ("entry", "found"),
    [("tls.crt", False), ("ca.pem", False), ("tls.key", True)],
)
def test_a_certificate_in_a_secret_is_none(tmp_path: Path, entry: str, found: bool) -> None:
    what = "PRIVATE KEY" if found else "CERTIFICATE"
    body = f"-----BEGIN {what}-----\n    {'MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw' * 2}\n    -----END {what}-----\n"
    text = f"apiVersion: v1\nkind: Secret\nmetadata: {{name: tls}}\nstringData:\n  {entry}: |\n    {body}"
    assert [one.name for one in read(tmp_path, text).secrets] == [entry] * found


def test_the_reason_of_a_check_that_finds_no_worker_deployed_is_that(tmp_path: Path) -> None:
    none = AGENT.replace("replicas: 2", "replicas: 0\n  strategy: {type: RollingUpdate}")
    judged = rules.rolling_update(read(tmp_path, none), Needs())
    assert (judged.looked_at, judged.nothing) == (0, "no worker is deployed, which is for manifests.always-on")


# -- Values of Helm's charts

RELEASE = "helm.toolkit.fluxcd.io/v2"
ARGO = "argoproj.io/v1alpha1"


@pytest.mark.parametrize(
    ("version", "kind", "spec", "found"),
    [
        (RELEASE, "HelmRelease", f"{{values: {{livekit: {{apiSecret: {SECRET}}}}}}}", ["apiSecret"]),
        (
            RELEASE,
            "HelmRelease",
            "{values: {existingSecret: livekit-credentials-2, apiKey: 'ENC[AES256_GCM,data:p673w7sP]'}}",
            [],
        ),
        ("helm.cattle.io/v1", "HelmChart", f'{{valuesContent: "livekit:\\n  apiSecret: {SECRET}\\n"}}', ["apiSecret"]),
        (ARGO, "Application", f"{{source: {{helm: {{parameters: [{{name: a.apiSecret, value: {SECRET}}}]}}}}}}", ["apiSecret"]),
        (ARGO, "Application", f"{{sources: [{{helm: {{valuesObject: {{apiSecret: {SECRET}}}}}}}]}}", ["apiSecret"]),
        (
            ARGO,
            "ApplicationSet",
            f"{{template: {{spec: {{source: {{helm: {{valuesObject: {{apiSecret: {SECRET}}}}}}}}}}}}}",
            ["apiSecret"],
        ),
        (ARGO, "Application", f"{{source: {{path: apps/agent, directory: {{apiSecret: {SECRET}}}}}}}", []),
    ],
)
def test_a_secret_among_the_values_of_a_chart_is_found(
    tmp_path: Path, version: str, kind: str, spec: str, found: list[str]
) -> None:
    assert [one.name for one in read(tmp_path, document(version, kind, spec)).secrets] == found


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("values.yaml", f"livekit: {{url: 'wss://a.example.com', apiSecret: {SECRET}}}\n", ["apiSecret"]),
        ("chart/values-production.yml", f"env:\n- {{name: LIVEKIT_API_SECRET, value: {SECRET}}}\n", ["LIVEKIT_API_SECRET"]),
        ("staging.values.yaml", "database: postgres://agent:x8Kq29LmZp41@db.internal/voice\n", ["database"]),
        ("values.yaml", "livekit: {apiSecret: '', existingSecret: livekit-v2, secretKeys: {apiSecret: api-secret-1}}\n", []),
        ("values.yaml", f"livekit: {{apiSecret: '{{{{ .Values.global.secret }}}}', checksum: {SECRET}}}\n", []),
        # Names of Secrets, as generators end them, and what is made of a secret.
        *[
            ("values.yaml", f"livekit: {{{entry}}}\n", [])
            for entry in (
                *("existingSecret: livekit-api-secret-7d4f8b9912", "tokenSecret: livekit-token-secret-2024-v3"),
                *("imagePullSecrets: [regcred-7f9c2d41]", "apiSecret: livekit/prod#apiSecret-2024"),
                *(f"podAnnotations: {{checksum/token-secret: {SECRET}}}", f"secretsHash: {SECRET}", f"tokenCa: {SECRET}"),
                *(f"secretRevision: {SECRET}", f"credentialsSha256: {SECRET}", f"tokenPublicKey: {SECRET}"),
            )
        ],
        ("values.yaml", "apiSecret: 1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed\n", ["apiSecret"]),
        ("values.yaml", "apiSecret: wJalrXUtnFEMI/K7MDENG/bPxRfiCYZkQwTyUp42\n", ["apiSecret"]),
        ("values.schema.yaml", "properties: {apiSecret: {type: string, pattern: '[A-Za-z0-9]{32}'}}\n", []),
        ("valuesets.yaml", f"livekit: {{apiSecret: {SECRET}}}\n", []),
    ],
)
def test_a_secret_in_a_file_of_values_is_found(tmp_path: Path, name: str, text: str, found: list[str]) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    files = load([str(tmp_path)])
    assert ([one.name for one in files.secrets], files.read) == (found, [name] if found else [])


def test_a_secret_among_the_values_that_a_kustomization_gives_a_chart_is_found(tmp_path: Path) -> None:
    chart = f"helmCharts: [{{name: agent, valuesInline: {{livekit: {{apiSecret: {SECRET}}}}}}}]\n"
    (tmp_path / "kustomization.yaml").write_text(chart)
    files = load([str(tmp_path)])
    assert ([one.name for one in files.secrets], files.charts) == (["apiSecret"], ["kustomization.yaml"])


# -- What Flux and Argo CD change

FLUX = "kustomize.toolkit.fluxcd.io/v1"
LONGER = "'- {op: add, path: /spec/template/spec/terminationGracePeriodSeconds, value: 900}'"


@pytest.mark.parametrize(
    ("spec", "changed"),
    [
        (f"path: ./apps/agent, patches: [{{target: {{kind: Deployment}}, patch: {LONGER}}}]", True),
        (f"path: apps, patches: [{{target: {{kind: Deploy.*}}, patch: {LONGER}}}]", True),
        (f"path: ./, patches: [{{patch: {LONGER}}}]", True),
        (f"path: ./overlays/production, patches: [{{target: {{kind: Deployment}}, patch: {LONGER}}}]", True),
        ("path: ./apps/agent, images: [{name: r/agent, newTag: '2'}]", True),
        (f"path: ./apps/agent, patches: [{{target: {{kind: Service}}, patch: {LONGER}}}]", False),
        ('path: ./apps/agent, patches: [{patch: "apiVersion: v1\\nkind: Service\\n"}]', False),
        (f"path: ./apps/web, patches: [{{target: {{kind: Deployment}}, patch: {LONGER}}}]", False),
        ("path: ./apps/agent, targetNamespace: voice", False),
        ("source: {path: apps/agent, kustomize: {replicas: [{name: agent, count: 4}]}}", True),
        (f"sources: [{{path: apps, kustomize: {{patches: [{{target: {{kind: Deployment}}, patch: {LONGER}}}]}}}}]", True),
        ("source: {path: apps/agent, kustomize: {namePrefix: production-}}", False),
        ("source: {path: apps/agent}", False),
    ],
)
def test_what_flux_or_argo_cd_changes_is_not_judged_by_its_file(tmp_path: Path, spec: str, changed: bool) -> None:
    version, kind = (FLUX, "Kustomization") if spec.startswith("path") else (ARGO, "Application")
    for name, text in {
        "apps/agent/agent.yaml": AGENT,
        "overlays/production/kustomization.yaml": "resources: [../../apps/agent/agent.yaml]\n",
        "clusters/agent.yaml": document(version, kind, f"{{{spec}}}"),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    files = load([str(tmp_path)])
    assert files.changed == (["apps/agent/agent.yaml"] if changed else [])
    assert len(files.deployments) == (not changed)


# -- How workers end, and are replaced


@pytest.mark.parametrize(
    ("hook", "looked_at"),
    [
        ("sleep, infinity", 0),
        ("sh, -c, 'sleep $SECONDS_TO_WAIT'", 0),
        ("""sh, -c, 'sleep "${SECONDS_TO_WAIT}"'""", 0),
        ("sleep, '20'", 1),
        ("sh, -c, 'echo sleep $HOSTNAME; sleep 20'", 1),
    ],
)
def test_how_long_a_hook_sleeps_need_not_be_in_the_file(tmp_path: Path, hook: str, looked_at: int) -> None:
    container = CONTAINER.replace("args", f"lifecycle: {{preStop: {{exec: {{command: [{hook}]}}}}}}, args")
    pod = AGENT.replace(CONTAINER, container).replace(
        "spec: {containers", "spec: {terminationGracePeriodSeconds: 900, containers"
    )
    made = rules.grace_period(read(tmp_path, pod), Needs())
    assert (made.looked_at, made.findings, len(made.notes)) == (looked_at, [], 1 - looked_at)


@pytest.mark.parametrize(("most", "looked_at"), [("1", 1), ("100%", 0)])
def test_how_many_a_stateful_set_stops_at_once_depends_on_its_cluster(tmp_path: Path, most: str, looked_at: int) -> None:
    update = f"replicas: 2\n  updateStrategy: {{rollingUpdate: {{maxUnavailable: {most}}}}}"
    files = read(tmp_path, AGENT.replace("Deployment", "StatefulSet").replace("replicas: 2", update))
    made = rules.rolling_update(files, Needs())
    assert (made.looked_at, len(made.notes)) == (looked_at, 1 - looked_at)


@pytest.mark.parametrize(("replicas", "found"), [("{min: 0, max: 9}", 1), ("{max: 9}", 1), ("{min: 2, max: 9}", 0)])
def test_what_scales_by_requests_may_leave_no_worker(tmp_path: Path, replicas: str, found: int) -> None:
    scaler = document("http.keda.sh/v1alpha1", "HTTPScaledObject", f"{{scaleTargetRef: {{name: agent}}, replicas: {replicas}}}")
    assert len(rules.always_on(read(tmp_path, AGENT, scaler), Needs()).findings) == found


# -- Knative


def knative(notes: str = "", more: str = "", labels: str = "", container: str = CONTAINER) -> str:
    return (
        f"apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: agent, labels: {{{labels}}}}}\n"
        f"spec: {{template: {{metadata: {{annotations: {{{notes}}}}}, spec: {{{more}containers: [{container}]}}}}}}\n"
    )


KEPT = "autoscaling.knative.dev/min-scale: '2'"
PLAIN = "{image: 'r/agent:1', args: [start], env: [{name: LIVEKIT_URL, value: 'wss://a.example.com'}]}"


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        (knative(), "Knative"),
        (knative(KEPT, container=PLAIN), "Knative"),
        (knative(labels="networking.knative.dev/visibility: cluster-local", container=PLAIN), "Knative"),
        (knative(more="imagePullSecrets: [{name: registry}], ", container=PLAIN), "Knative"),
        (knative("autoscaling.knative.dev/minScale: '2', run.googleapis.com/cpu-throttling: 'false'"), "Cloud Run"),
        (knative("autoscaling.knative.dev/minScale: '2'", container=PLAIN), "Cloud Run"),
        (knative(labels="cloud.googleapis.com/location: europe-west1"), "Cloud Run"),
    ],
)
def test_a_service_of_a_clusters_knative_is_none_of_cloud_run(tmp_path: Path, text: str, platform: str) -> None:
    (deployment,) = read(tmp_path, text).deployments
    assert deployment.platform.name == platform


@pytest.mark.parametrize(
    ("seconds", "looked_at", "found"),
    [("timeoutSeconds: 1200, ", 1, []), ("timeoutSeconds: 600, ", 0, []), ("timeoutSeconds: 300, ", 1, ["300 s"]), ("", 0, [])],
)
def test_knative_waits_as_long_as_its_timeout(tmp_path: Path, seconds: str, looked_at: int, found: list[str]) -> None:
    judged = rules.grace_period(read(tmp_path, knative(KEPT, seconds)), Needs())
    assert (judged.looked_at, [finding.found for finding in judged.findings]) == (looked_at, found)
    assert bool(judged.notes) is (looked_at == 0)


@pytest.mark.parametrize(
    ("notes", "asleep", "workers"),
    [
        (KEPT, [], (1, 0)),
        ("autoscaling.knative.dev/minScale: '1'", [], (1, 1)),
        ("autoscaling.knative.dev/min-scale: '0'", ["scales to zero workers"], (0, 0)),
        ("", None, (0, 0)),
        ("autoscaling.knative.dev/class: hpa.autoscaling.knative.dev", [], (1, 1)),
    ],
)
def test_knative_keeps_as_many_workers_as_its_file_says(
    tmp_path: Path, notes: str, asleep: list[str] | None, workers: tuple[int, int]
) -> None:
    files = read(tmp_path, knative(notes))
    judged, counted = rules.always_on(files, Needs()), rules.replicas(files, Needs())
    assert (judged.looked_at, [finding.found for finding in judged.findings]) == (asleep is not None, asleep or [])
    assert (counted.looked_at, len(counted.findings)) == workers


def test_a_knative_service_is_open_unless_it_is_local_to_its_cluster(tmp_path: Path) -> None:
    (finding,) = rules.no_inbound(read(tmp_path / "open", knative()), Needs()).findings
    assert finding.found == "a Knative Service that is not cluster-local opens the worker to others"
    local = read(tmp_path / "local", knative(labels="networking.knative.dev/visibility: cluster-local"))
    assert (rules.no_inbound(local, Needs()).looked_at, rules.no_inbound(local, Needs()).findings) == (1, [])


@pytest.mark.parametrize(
    ("kind", "name", "found"),
    [
        ("Pods", "http_requests_per_second", ["scales by requests"]),
        ("Pods", "http_requests", ["scales by requests"]),
        ("Pods", "livekit_active_jobs", []),
        # Of what leads callers to a room they may be as good a sign as any.
        ("Object", "http_requests_per_second", []),
        ("External", "http_requests_per_second", []),
    ],
)
def test_requests_to_its_own_pods_scale_no_worker(tmp_path: Path, kind: str, name: str, found: list[str]) -> None:
    metric = f"{{type: {kind}, {kind.lower()}: {{metric: {{name: {name}}}, target: {{averageValue: '100'}}}}}}"
    scaler = document("autoscaling/v2", "HorizontalPodAutoscaler", f"{{{TARGET}, maxReplicas: 9, metrics: [{metric}]}}")
    files = read(tmp_path, AGENT, scaler)
    judged = rules.scaling_metric(files, Needs())
    assert (judged.looked_at, [finding.found for finding in judged.findings]) == (1, found)


def test_requests_to_a_knative_service_scale_no_worker(tmp_path: Path) -> None:
    by_requests = read(tmp_path / "requests", knative(f"{KEPT}, autoscaling.knative.dev/metric: rps"))
    assert len(rules.scaling_metric(by_requests, Needs()).findings) == 1
    by_cpu = read(tmp_path / "cpu", knative(f"{KEPT}, autoscaling.knative.dev/class: hpa.autoscaling.knative.dev"))
    assert (rules.scaling_metric(by_cpu, Needs()).looked_at, rules.scaling_metric(by_cpu, Needs()).findings) == (1, [])

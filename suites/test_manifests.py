"""Deployment files (--lk-manifests): each rule of pytest_lkagents/manifests/rules as a check."""

from __future__ import annotations

from pytest_lkagents.checks import MUST, SHOULD, Evidence, NotJudgeable, check
from pytest_lkagents.manifests import rules
from pytest_lkagents.manifests.findings import Needs
from pytest_lkagents.manifests.model import Files
from pytest_lkagents.manifests.rules.common import some

# What other checks measure comes first.
AFTER_WORKER = 10

Manifests = tuple[Files, Needs]

NO_WORKER = "nothing in the files is known to be a worker"


def judge(rule: rules.Rule, manifests: Manifests, evidence: Evidence, nothing: str, well: str) -> None:
    """Raises AssertionError with the first finding, NotJudgeable(``nothing``) where the rule applies to nothing."""
    files, needs = manifests
    found = rule(files, needs)
    if rule is not rules.readable:
        # Which says more of them.
        found.notes += [f"{one}; not judged" for one in files.left_out]
        found.notes += [f"{one}; not judged" for one in files.unruled if rule is not rules.secrets]
    evidence["looked_at"] = found.looked_at
    evidence["findings"] = [finding.evidence() for finding in found.findings]
    if found.notes:
        evidence["notes"] = found.notes
    if found.findings:
        more = f" (and {len(found.findings) - 1} more)" if len(found.findings) > 1 else ""
        raise AssertionError(f"{found.findings[0]}{more}")
    if not found.looked_at:
        lost = sorted({problem.place.file for problem in files.problems} - set(files.read))
        cannot = [f"{', '.join(lost)} cannot be read (manifests.readable)"] if lost else []
        if rule is not rules.readable:
            cannot += files.too_large
            cannot += ["templates are not judged (manifests.readable)"] if files.templates else []
            cannot += ["what Helm makes of a chart is not judged (manifests.readable)"] if files.charts else []
        # What is passed over may say a lot, and is judged by no rule.
        nothing = NO_WORKER if files.passed_over and not files.deployments else nothing
        raise NotJudgeable("; ".join([found.nothing or nothing, *cannot, *dict.fromkeys(found.notes)]))
    evidence.summary = "; ".join([f"{well} ({found.looked_at} looked at)", *dict.fromkeys(found.notes)])


@check(
    "manifests.readable",
    MUST,
    profile="smoke",
    section="Where to deploy",
    order=AFTER_WORKER,
    why="A file that cannot be read cannot be deployed, nor judged.",
    remedy="correct the file at the line that is named",
)
def test_readable(lk_evidence: Evidence, lk_manifests: Manifests) -> None:
    """Every deployment file can be read.

    Read are `*.yaml`, `*.yml`, `*.json`, `*.toml`, Dockerfiles and Containerfiles at `--lk-manifests`: Kubernetes,
    Compose, Render, Fly.io, ECS, Cloud Run, Knative, Azure Container Apps, Railway, DigitalOcean App Platform and
    Cerebrium. A failure is a file that cannot be parsed or is no UTF-8 text (in a folder: if its name or a word in it,
    such as `apiVersion`, shows that it is a deployment file; not JSON with comments, as tools have it), or (named
    itself) has more than 2 MB, a Dockerfile without FROM or with an unknown instruction, and a misspelt or misplaced
    field: one that is unknown and at least 85 % like a known one, or known at another place only, at the places that
    the rules read; a value that the platform does not take, such as `stop_grace_period: 600` of Compose, which wants a
    unit, a list as its health check's `test` without CMD, CMD-SHELL or NONE in front, or `grace_period_seconds: 900` of
    App Platform, which takes 600 at most; of Kubernetes' workloads and HPAs a field that only another kind has
    (`updateStrategy` of a Deployment), a number that is text (`replicas: "2"`, `periodSeconds: 10s`, the port of a
    probe; of KEDA's triggers text that is a number) or a variable's value that is none (`value: 8081`, or `yes`, which
    kubectl reads as a truth value, unless Kustomize gathers the file, or Flux is there, which hands it whole folders);
    and of Kubernetes' own kinds one that is misspelt (`Deployement`), has no `apiVersion`, or one that no current
    Kubernetes serves (`autoscaling/v2beta2`); of an HPA also what only its other version has
    (`targetCPUUtilizationPercentage` in `autoscaling/v2`), a CPU or memory metric without a target, and more workers at
    least than at most. Only noted are any other YAML or TOML that cannot be read, what cannot be opened in a folder, a
    document of more than 100,000 values (the others of its file are judged), a file of more than 1,000,000, standard
    input of more than 2 MB, a file of an unknown format, a template of Helm or Jinja that is no YAML before it is
    filled in, what names a chart alone (HelmRelease of Flux, Application of Argo CD), a Pod, ReplicationController or
    DeploymentConfig of an agent, a second agent in a pod, what stands beside the workers and does not look like one (a
    database, a web site, a LiveKit server), or that nothing does, or only by name, a Compose service that extends one
    of another file or has neither image nor build (a part, as in `docker-compose.prod.yml`), `compose.override.yaml`,
    and what a Kustomization (also one of Flux, or an Application of Argo CD) changes by patches, images and the like;
    no check judges these, but for secrets in the last three, in such Pods and agents, and in what works with LiveKit in
    a cluster. Nor is a service of CloudFormation whose task definition is a parameter, which each check names. Noted
    are also files of a folder that are for development by names (`Dockerfile.dev`, `docker-compose.local.yml`, `dev/`),
    beside others that have a worker, and all of `.devcontainer`: of the checks only this one, `manifests.secrets` and
    `manifests.separate-environments` judge them. Skipped if there is no deployment file, or nothing in them to judge (a
    Namespace alone).
    """
    judge(rules.readable, lk_manifests, lk_evidence, "no deployment in the files", f"read {some(lk_manifests[0].read)}")


@check(
    "manifests.grace-period",
    MUST,
    profile="smoke",
    section="Rollout",
    order=AFTER_WORKER,
    why="Calls that last longer than the grace period are cut at every rollout.",
    remedy="raise the grace period to the longest call you promise (else 10 minutes), or to the most the platform allows",
)
def test_grace_period(lk_evidence: Evidence, lk_manifests: Manifests) -> None:
    """The platform waits as long as the worker's drain needs: 10 minutes, or what --lk-drain-hold declares.

    Looked at are `terminationGracePeriodSeconds` of Kubernetes and Azure Container Apps (default 30 s, less what the
    preStop hook sleeps), `stop_grace_period` of Compose (10 s), `maxShutdownDelaySeconds` of Render (30 s, 300 s at
    most), `kill_timeout` of Fly.io (5 s, 300 s at most), `stopTimeout` of ECS, Cloud Run's fixed 10 s, `timeoutSeconds`
    of Knative, `drainingSeconds` of Railway, `grace_period_seconds` of App Platform (120 s, 600 s at most;
    `drain_seconds` comes before the signal) and `response_grace_period` of Cerebrium (900 s). It must be at least
    `--lk-drain-hold`, or 600 s (the guide's 10 minutes) where nothing is declared. Where the platform allows less than
    these 600 s, its maximum is enough and noted, if that is 60 s or more; a declared drain above the maximum is a
    failure. On ECS the default of 30 s and the maximum of 120 s hold where `requiresCompatibilities` is FARGATE alone,
    or the service in CloudFormation says so (`LaunchType`). On own instances (EC2, EXTERNAL, or a network mode other
    than awsvpc) there is no maximum. Where the file says neither, `stopTimeout` passes from 600 s on, fails below 120 s
    and is not judged between; left out, it is not judged except on Fargate, as the instance's agent has a default of
    its own. Nor is a value that is a variable, or one that is long enough only without the sleeps of a preStop hook
    that loops, sends a signal itself, sleeps for as long as a variable says, or is a program (`time.sleep(120)`), or
    without the 30 s of Knative's own hook. A stop signal that no process can act upon (`stop_signal`, `kill_signal`,
    `stopSignal`, STOPSIGNAL: SIGKILL, SIGSTOP) is a failure; with any other than SIGTERM and SIGINT nothing passes, as
    it is not known whether the worker handles it. Skipped without a file to judge.
    """
    judge(
        rules.grace_period,
        lk_manifests,
        lk_evidence,
        "no file that tells how long the platform waits",
        "long enough, or as allowed",
    )


@check(
    "manifests.scale-up-below-threshold",
    MUST,
    profile="smoke",
    section="Autoscaling",
    order=AFTER_WORKER,
    why="A worker that is full refuses calls; the next one has to be there before.",
    remedy="lower the autoscaler's target, such as 50 % where the load threshold is 0.75",
)
def test_scale_up_below_threshold(lk_evidence: Evidence, lk_manifests: Manifests) -> None:
    """The autoscaler's target is below the worker's load threshold, with margin.

    Looked at are CPU targets in cores for each pod (`averageValue` of an HPA, `metricType: AverageValue` of KEDA),
    which are divided by the CPU limit, or NUM_CPUS; and those in per cent: HPA (`averageUtilization`,
    `targetCPUUtilizationPercentage`, 80 % where it names no metric at all), KEDA and Azure Container Apps (trigger
    `cpu`), Render (`targetCPUPercent`), App Platform (`metrics.cpu.percent`), Cerebrium (`scaling_target`, by default
    100, of `cpu_utilization`) and ECS on Fargate (`TargetValue` of `ECSServiceAverageCPUUtilization` in CloudFormation;
    not judged elsewhere, as its load depends on the instance). In Kubernetes the target counts against the request, so
    it is multiplied by request / limit, or by request / NUM_CPUS where that variable is set, be it by a ConfigMap in
    these files. The result may be at most the load threshold less 0.1: `lk_load_threshold`, or the highest load that
    `availability.threshold` saw available, or 0.7, the SDKs' default. What the other containers of the pod request and
    may use is counted in, unless the metric is of the worker's container alone; a metric of another container alone is
    none of the worker's. Of several CPU targets of one autoscaler the lowest counts; each of several autoscalers is
    judged. An autoscaler whose target is in no file, or of another namespace, is noted. A target is not judged where
    that use decides, or the number of cores of the node (no CPU limit) does, or a container has no request to take the
    per cent of (then Kubernetes never scales, unless the cluster sets one), or where it is too high but a metric that
    is neither CPU nor memory may scale up before. Skipped without an autoscaler with a CPU target to judge.
    """
    judge(rules.scale_up_below_threshold, lk_manifests, lk_evidence, "no CPU target to judge", "below it")


@check(
    "manifests.stabilization",
    SHOULD,
    profile="smoke",
    section="Autoscaling",
    order=AFTER_WORKER,
    why="Calls are long: a rise in load stays, and workers need time to drain.",
    remedy="shorten the stabilisation window for scaling up, lengthen the one for scaling down",
)
def test_stabilization(lk_evidence: Evidence, lk_manifests: Manifests) -> None:
    """Scaling up waits shorter than scaling down, and that long enough.

    Looked at is `stabilizationWindowSeconds` of `scaleUp` and `scaleDown` in an HPA's `behavior`, or in that of KEDA's
    `horizontalPodAutoscalerConfig`; where the file says nothing, Kubernetes' defaults of 0 s and 300 s count. The
    window for scaling up must be shorter than the one for scaling down, and that one 300 s or longer. A `selectPolicy`
    of Disabled is a failure for scaling up; for scaling down it passes whatever the windows. Windows that are variables
    are not judged. Skipped without such an autoscaler.
    """
    judge(rules.stabilization, lk_manifests, lk_evidence, "no autoscaler with windows", "up sooner than down")


@check(
    "manifests.scaling-metric",
    SHOULD,
    profile="smoke",
    section="Autoscaling",
    order=AFTER_WORKER,
    why="An autoscaler that looks at something else adds workers when none is needed, and none when one is.",
    remedy="scale by what the worker's load function measures, by default CPU",
)
def test_scaling_metric(lk_evidence: Evidence, lk_manifests: Manifests) -> None:
    """The autoscaler follows the metric that moves the worker's load.

    Looked at are all metrics of an HPA, all triggers of a KEDA ScaledObject, Render's `targetCPUPercent` and
    `targetMemoryPercent`, App Platform's CPU target and its metrics of requests, `class` and `metric` of Knative, the
    rules of Azure Container Apps, `scaling_metric` of Cerebrium, and the metrics that ECS services in CloudFormation
    track. Memory alone is a failure, and so are requests, of which a worker gets none (of an HPA what is called
    `http_requests` among the metrics of its own pods); so are CPU and memory alone where calls, not CPU, moved the load
    of this worker in `availability.load-follows-work` or `availability.rejects-over-threshold` of the same run. What a
    container beside the worker uses alone (`containerResource`, KEDA's `containerName`) counts for nothing: alone, or
    beside these, it is a failure too. Any other metric counts as one of the worker's own. Skipped without an autoscaler
    that names a metric.
    """
    judge(rules.scaling_metric, lk_manifests, lk_evidence, "no autoscaler that names a metric", "by CPU or a metric of its own")


@check(
    "manifests.health-probe",
    MUST,
    profile="smoke",
    section="Networking",
    order=AFTER_WORKER,
    why="A probe that cannot succeed, or that a busy worker fails, ends workers that are well.",
    remedy="probe GET / on the worker's health port (8081 by default)",
)
def test_health_probe(lk_evidence: Evidence, lk_manifests: Manifests) -> None:
    """Probes name the port and path that exist, and a single late answer does not end a worker.

    Looked at are liveness, readiness and startup probes of Kubernetes, Cloud Run, Knative and Azure Container Apps,
    checks of Fly.io, `healthCheckPath` of Render, `healthcheckPath` of Railway, `health_check` (of a service; without a
    port it asks `http_port`, 8080 by default) and `liveness_health_check` of App Platform, `healthcheck_endpoint`
    (without it, `port`) and `readycheck_endpoint` of Cerebrium, and the commands of health checks of Compose, ECS and
    Dockerfiles, where a command asks one address of the container itself, such as `curl -f http://localhost:8081/` (of
    curl without `-f` only the port counts, as it takes any status, also 503, for success). The port, where there is
    one, must be `lk_health_port`, or the one measured in this run, or 8081; the path `/` or `/worker`, or
    `lk_health_path` if that is set, or where a redirect of it led in this run; a port by name must be one of the same
    container; the protocol plain HTTP (or TCP), as a probe over HTTPS or gRPC gets no answer. A check whose single
    failure ends the worker is a failure: `failureThreshold` 1 of a liveness probe, `failure_threshold` 1 of a liveness
    check of App Platform (18 by default), and `retries` 1 of a health check of ECS (of an essential container: the
    service replaces the task) or of Compose for Swarm, which replaces the container (elsewhere the default is 3).
    Compose by itself only shows what is unhealthy, and its `retries` are not judged; it is for Swarm where `deploy` has
    `mode`, `placement`, `endpoint_mode`, `update_config` or `rollback_config`. A command that asks several addresses,
    another host, or a port that is a variable, has no port or path to judge. A worker may have a health server of its
    own. Unless `lk_health_port` is set or the port was measured, a probe of another port than 8081 is not judged where
    the files name that port as the worker's: ports of its containers, `expose`, `internal_port`, `targetPort`,
    `http_port`, `port` of Cerebrium, EXPOSE, the value of a variable, its command, or a variable such as PORT or
    HEALTH_PORT whose value is not in the file. Nor is one of another path whose port is not known (Render, Railway),
    unless `lk_health_path` is set, or the command that is seen starts one script of an agent and nothing beside it, and
    nothing in the files names another port or a variable for one. Skipped without a probe to judge.
    """
    judge(rules.health_probe, lk_manifests, lk_evidence, "no probe whose port or path the file tells", "they fit")


@check(
    "manifests.no-inbound",
    SHOULD,
    profile="smoke",
    section="Networking",
    order=AFTER_WORKER,
    why="Workers connect to LiveKit; nobody has to connect to them.",
    remedy="remove the Service, Ingress, route or published port, or close the ingress",
)
def test_no_inbound(lk_evidence: Evidence, lk_manifests: Manifests) -> None:
    """Nothing opens the worker to the outside.

    A failure is a Kubernetes Service of type LoadBalancer or NodePort, or with `externalIPs`, that selects the worker
    (in its namespace), an Ingress to a Service that does, or what gateways have in its place (a route of the Gateway
    API with a parent that is no Service, a VirtualService of Istio with a gateway, a Route of OpenShift, IngressRoute
    of Traefik, HTTPProxy of Contour), a Knative Service that is not `cluster-local`, a `hostPort` of its container, or
    any port of it with `hostNetwork`; a port that Compose publishes on more than loopback; a service of type `web` on
    Render; on Fly.io an `http_service` or `services` with `ports`, for the worker's process group; on ECS
    `portMappings` with the network mode bridge (the default unless it is for Fargate) or host, or a load balancer of
    the service (CloudFormation); on Cloud Run an ingress of `all`, its default, even where IAM still asks who calls; an
    external ingress of Azure Container Apps; a service of App Platform, unless it has internal ports only;
    `disable_auth = true` of Cerebrium. Not judged are ECS with awsvpc (the service's security groups decide), an
    ingress of `internal-and-cloud-load-balancing` on Cloud Run, a load balancer or an Ingress that annotations keep
    within its cloud's network (`aws-load-balancer-scheme: internal`), an Ingress or the like to a Service that is in no
    file, what leads to ports that another container of the pod names as its own, a host's network without ports that
    are named, a Compose port whose address is a variable, a service of App Platform that no route of the file leads to
    while others have routes, and a cerebrium.toml without `disable_auth`. Skipped if nothing else is left.
    """
    judge(rules.no_inbound, lk_manifests, lk_evidence, "no file that says what is open", "nothing is open")


@check(
    "manifests.secrets",
    MUST,
    profile="smoke",
    section="Environment variables",
    order=AFTER_WORKER,
    why="Who can read the file, its history or its copies has the keys.",
    remedy="refer to the platform's secret store, and replace the keys that were in the file",
)
def test_secrets(lk_evidence: Evidence, lk_manifests: Manifests) -> None:
    """No secret stands in the files.

    Looked at are the literal values of variables in all formats (those of other containers in the pod or task, of tasks
    (CronJob, Job), Pods and workloads beside a Kubernetes worker that work with LiveKit too, of Render's
    `envVarGroups`, the arguments of a build in Compose and Fly.io files, and ENV and ARG in all stages of a Dockerfile
    included), `data` and `stringData` of a Kubernetes Secret, `data` of a ConfigMap, `content` of Compose's `configs`,
    the literals of a Kustomization's generators, what its patches (strategic merge and JSON 6902) put into variables of
    workers, Secrets and ConfigMaps, values of Helm's charts (`values.yaml`, `values-production.yaml` and the like, and
    those in HelmRelease, HelmChart and Argo CD's Application) that a generator made (not a Secret's name, nor a
    checksum, revision or certificate), `secrets` of Azure Container Apps, and `registry_credentials` of App Platform,
    where a value that begins with `EV[` is encrypted and counts as none. A variable or ConfigMap entry is a finding if
    its name is a secret's (SECRET, TOKEN, PASSWORD, API_KEY and the like; ENCRYPTION_KEY, FERNET_KEY, SIGNING_KEY,
    MASTER_KEY and SERVICE_ROLE_KEY if the value looks made by a generator; not a key that web sites show, as of
    `NEXT_PUBLIC_` or `VITE_`) and its value has 8 or more characters and is no placeholder, reference or path, nor an
    amount, a span of time or plain words behind the ending of a setting (`_SECONDS`, `_SIZE`, `_ROLE`), nor the end of
    its own name (`LIVEKIT_API_SECRET=api-secret`); or, whatever its name, if its value holds a private key, a token as
    its issuer writes them (`sk-proj-`, `ghp_`; not `AKIA` and `AIza`, which alone open nothing or are public) or a
    header with one (`Authorization=Basic ...`), which is a finding in a command and in a file that a ConfigMap holds,
    too; so is a setting with such a name and value (letters and digits) in a file that a ConfigMap holds, or that COPY
    or ADD write from a here-document; a Secret's entry, if its value has 8 or more and is no placeholder, template,
    reference, encrypted text, certificate, word or address without a password, and its name not that of a setting
    (`_REGION`, `_USER`; `_DATABASE` and `_PATH` of a plain name or path); what a variable of Compose falls back to
    (`${TOKEN:-...}`), or one of CloudFormation (the `Default` of a parameter, unless that names one of Systems
    Manager), if it looks made by a generator; any variable, ConfigMap entry, command or such here-document with a
    password in a URL that looks made by a generator (letters and digits). A command with such a name
    (`--api-secret VALUE`, `API_KEY=VALUE` before it) counts like a variable, one of RUN in a Dockerfile if the value
    has letters and digits (three digits and no call, in its here-documents). Values are never shown. Not looked at are
    commands in patches, what `transformers` and `replacements` put in, and a variable that an operation names by its
    number alone (`env/0/value`), unless the workload's file says for certain which one stands there: not where it lies
    elsewhere, labels select it, or another operation or patch may change the order. What is found on standard input may
    come from outside of the repository (`docker compose config` fills in `.env`): it is named, and neither a failure
    nor a pass. Skipped if there is no variable and no such entry.
    """
    judge(rules.secrets, lk_manifests, lk_evidence, "no variable and no Secret to judge", "no literal secret")


@check(
    "manifests.separate-environments",
    SHOULD,
    profile="smoke",
    section="Environment variables",
    order=AFTER_WORKER,
    why="Workers of one project share its calls: staging would serve production's callers.",
    remedy="give staging a LiveKit project of its own",
)
def test_separate_environments(lk_evidence: Evidence, lk_manifests: Manifests) -> None:
    """Staging and production differ in LiveKit URL and keys.

    Whether a deployment is staging or production is told by the first of these that says one of the two: in Kubernetes
    its label `environment` and its namespace, then its name, then the last three parts of its file's path. The literal
    values of LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET of one side, also those of a ConfigMap (of the
    workload's folder, or the nearest one above it that has one of this name and namespace) or of a group of Render's
    that lies there, are compared with those of the other; one that is the same is a failure, as is a URL that is only
    written otherwise (https for wss, upper case, a trailing slash). Placeholders and values from a secret store are not
    compared, nor those of which the files do not say for certain that they hold: of one of two ConfigMaps of a name in
    one folder, of one that a Kustomization's `configMapGenerator` makes too or that is of the other environment by its
    label or its file's path, of a group of Render's linked beside another one that sets the same or that lies
    elsewhere, and what a Kustomization changes. Skipped unless both sides have such a literal value of the same
    variable.
    """
    judge(rules.separate_environments, lk_manifests, lk_evidence, "no files of both staging and production", "they differ")


@check(
    "manifests.resources",
    SHOULD,
    profile="smoke",
    section="Memory and CPU",
    order=AFTER_WORKER,
    why="Without requests and limits a worker shares what others leave.",
    remedy="set requests and limits; the guide starts with 4 cores and 8 GB for 25 sessions",
)
def test_resources(lk_evidence: Evidence, lk_manifests: Manifests) -> None:
    """The worker has requests and limits, and they fit its need.

    Looked at are `requests` and `limits` of Kubernetes (or what a LimitRange in the files fills in),
    `deploy.resources`, `cpus`, `mem_limit` and `mem_reservation` of Compose (only with replicas or a CPU limit), `vm`
    of Fly.io (a `size` counts as what it stands for), `cpu`, `memory` and `memoryReservation` of ECS, `limits` of Cloud
    Run (by default 1 CPU and 512 MiB), `resources` of Azure Container Apps, `instance_size_slug` of App Platform (by
    default `apps-s-1vcpu-0.5gb`), and `cpu` and `memory` (GB of 1000 MB) of Cerebrium. CPU request, memory request and
    memory limit must be there (where only a limit is given, it is the request too); in Kubernetes also a CPU limit or
    the variable NUM_CPUS, because without one a worker counts its load against all cores of its node. If
    `capacity.sizing` ran before, the limits must carry the sessions that it found, with its cores and memory per
    session. Less than 6 MiB (Docker's least) is a failure, also as a request: in Kubernetes `512m` are thousandths of a
    byte. So is a request above the limit, which Kubernetes refuses. Not judged are resources of a whole pod, amounts
    that are variables, sizes of App Platform whose name does not tell them (`basic-xxs`), and a fly.toml without `vm`,
    where a machine keeps the size it has. Skipped where no file sets resources.
    """
    judge(rules.resources, lk_manifests, lk_evidence, "no file that sets resources", "set")


@check(
    "manifests.rolling-update",
    MUST,
    profile="smoke",
    section="Rollout",
    order=AFTER_WORKER,
    why="While no worker is free, calls are lost.",
    remedy="let new workers start before old ones are stopped",
)
def test_rolling_update(lk_evidence: Evidence, lk_manifests: Manifests) -> None:
    """A rollout never takes the last free worker away.

    Looked at are a Kubernetes Deployment's `strategy` (`Recreate`, or `maxUnavailable`, by default 25 % rounded down,
    and 1 where `maxSurge` is 0), a StatefulSet (one at a time, stopped first; with `maxUnavailable` it depends on the
    cluster's version, and is not judged), a DaemonSet with `maxUnavailable` 100 %, Swarm's `update_config` (`order`,
    `parallelism`; stop-first one by one by default), a single replica of Compose, `MinimumHealthyPercent` of an ECS
    service (CloudFormation; not judged where it is left out), `strategy` `immediate` of Fly.io, a `disk` of Render,
    which one instance at a time has, and Railway, which starts new workers first unless they need a volume
    (`requiredMountPath`). The number of workers that a rollout stops first must be below the number that there is: the
    autoscaler's minimum (1 where an HPA says nothing), and `replicas` where the file gives it; 1 where it says nothing
    of either. If all are stopped by the one count and not by the other, either may hold, and it is not judged; nor is
    it where the count is a variable (unless none is stopped first), or one per node, nor are ways of Argo Rollouts and
    others of Fly.io, which are noted. Skipped without a file that tells.
    """
    judge(rules.rolling_update, lk_manifests, lk_evidence, "no file that says how workers are replaced", "never all at once")


@check(
    "manifests.replicas",
    SHOULD,
    profile="smoke",
    section="Where to deploy",
    order=AFTER_WORKER,
    why="When the only worker ends, calls wait until another one has started.",
    remedy="run at least two workers",
)
def test_replicas(lk_evidence: Evidence, lk_manifests: Manifests) -> None:
    """There are at least two workers.

    Looked at is the autoscaler's minimum (HPA `minReplicas`, 1 where it says nothing; KEDA `minReplicaCount`, 1 where
    its triggers are CPU and memory only, which keep one; Render `minInstances`; Azure Container Apps `minReplicas`; App
    Platform `min_instance_count`; Cerebrium `min_replicas`; CloudFormation `MinCapacity`), or where there is none the
    number of workers: `replicas` of Kubernetes and Swarm (1 where the file says nothing), `replicas` or `scale` of
    Compose, `numInstances` of Render, `minScale` (of the revision or the service) or the manual instance count of Cloud
    Run (1 by default for a worker pool), `min-scale` of Knative, `numReplicas` of Railway (of all regions together),
    `instance_count` of App Platform and `DesiredCount` of an ECS service in CloudFormation (1 by default). A number of
    1 is a failure; 0 is for `manifests.always-on`. A DaemonSet, or Swarm's mode `global`, has one per node and is not
    judged, nor is a number that is a variable, or one of two autoscalers of one workload, or what a `scaling_buffer` of
    Cerebrium adds to less than 2. Skipped where no file tells.
    """
    judge(rules.replicas, lk_manifests, lk_evidence, "no file that says how many workers there are", "two or more")


@check(
    "manifests.production-command",
    MUST,
    profile="smoke",
    section="Where to deploy",
    order=AFTER_WORKER,
    why="Development mode does not drain: SIGTERM cuts its calls.",
    remedy="start the worker with 'start'",
)
def test_production_command(lk_evidence: Evidence, lk_manifests: Manifests) -> None:
    """The worker is started in production mode.

    Looked at are `command` and `args` of Kubernetes, Cloud Run and Azure Container Apps, entrypoint and command of
    Compose and ECS, `dockerCommand` and `startCommand` of Render, `processes` (the worker's, by its command or name, or
    else the first) and `experimental.cmd` of Fly.io, `startCommand` of Railway, `run_command` of App Platform,
    `entrypoint` of Cerebrium, and ENTRYPOINT and CMD (which an ENTRYPOINT that is a line of a shell does not get) in
    the stage of a Dockerfile that is built (by default the last), or in the one that it is made from, unless all that
    is built from it has a command of its own; where no file says what is built from it, and all that is deployed has a
    command of its own, a word of development there is only noted. The word `dev`, `console` or `connect` directly
    behind a script (`agent.py`, `main.ts`), a module (`-m name`) or `npm`, `pnpm` or `yarn` with a script's name, or as
    the first word, is a failure; of several commands of a shell the last counts that has one of these words or `start`,
    and none where a condition (`if`, `case`, `||`) decides between them, which is noted. Commands with none of these
    four words there do not tell and are passed over, noted where one of the first three stands elsewhere (`pnpm dev`);
    skipped if no other is left.
    """
    judge(rules.production_command, lk_manifests, lk_evidence, "no command that tells", "started with 'start'")


@check(
    "manifests.image-pinned",
    SHOULD,
    profile="smoke",
    section="Rollout",
    order=AFTER_WORKER,
    why="A rollback needs an image that is still the same.",
    remedy="name a version or a digest",
)
def test_image_pinned(lk_evidence: Evidence, lk_manifests: Manifests) -> None:
    """Images are named by version or digest.

    Looked at are `image` of Kubernetes, Compose, ECS, Cloud Run and Azure Container Apps, `image.url` of Render,
    `build.image` of Fly.io, `image` of App Platform, `docker_base_image_url` of Cerebrium without a Dockerfile, and the
    last FROM of a Dockerfile, or the one of the stage that is built (the one that its stage begins with, if that is
    another stage's name). An image without a tag, or with the tag `latest`, is a failure; any other tag counts as a
    version, and a sha256 digest is enough. Names with a variable or a template in them are passed over, and those of
    what Compose builds itself. Skipped if no image is left.
    """
    judge(rules.image_pinned, lk_manifests, lk_evidence, "no image is named", "by version or digest")


@check(
    "manifests.always-on",
    MUST,
    profile="smoke",
    section="Where to deploy",
    order=AFTER_WORKER,
    why="A worker gets no requests: what sleeps without them is never woken by a call.",
    remedy="keep at least one worker running, with CPU all the time",
)
def test_always_on(lk_evidence: Evidence, lk_manifests: Manifests) -> None:
    """Workers run all the time: no scaling to zero, no CPU for requests only.

    A failure is a Kubernetes workload or a Compose service of 0 replicas (an HPA leaves that alone; KEDA raises it), an
    autoscaler with a minimum of 0 (KEDA's default, unless its triggers are CPU and memory only), KEDA's
    `idleReplicaCount` 0, a pause at 0 or an HTTPScaledObject with a minimum of 0, its default, on Fly.io
    `auto_stop_machines` without `min_machines_running` for the worker's process group, `minReplicas` 0 of Azure
    Container Apps and `min_replicas` 0 of Cerebrium, their defaults, `DesiredCount` or `MinCapacity` 0 of an ECS
    service in CloudFormation, Render's plan `free`, Railway's `sleepApplication` or `cronSchedule`, App Platform's
    `inactivity_sleep` or `maintenance.archive`, and on Cloud Run a minimum (`minScale` of the revision or the service,
    or the manual instance count) that is 0 or missing, or `cpu-throttling` that is not false, its default (a worker
    pool: a manual instance count of 0), and `min-scale` 0 of Knative, unless Kubernetes' own autoscaler scales it. ECS
    task definitions and Dockerfiles say nothing of it and are not judged, nor are counts that are variables, nor a
    Knative Service without `min-scale`, of which the cluster decides, nor `auto_stop_machines` with
    `min_machines_running`: a worker gets no requests, so that all machines above that number are stopped, and how many
    there are no file says. Skipped if nothing else is left.
    """
    judge(rules.always_on, lk_manifests, lk_evidence, "no file that says when workers run", "they run all the time")

"""A deployment of a worker, in the words that all platforms share. What a file does not say is None."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pytest_lkagents.manifests.tree import Place

T = TypeVar("T")

# Tells livekit-agents how many cores it has, where no limit does.
CORES_VARIABLE = "NUM_CPUS"
# Where the SDKs' health server listens.
HEALTH_PORT = 8081


@dataclass(frozen=True)
class Given(Generic[T]):
    """A value and where it stands; ``default``: the platform fills it in, and it would stand there."""

    value: T
    place: Place
    default: bool = False


@dataclass(frozen=True)
class Platform:
    """What the platform does where the file says nothing. Seconds; None: unknown, or without a limit. ``most_perhaps``: the
    file does not say whether that limit holds. ``new_first``: what makes a rollout start new workers before it stops others."""

    name: str
    grace_default_s: float | None = None
    grace_most_s: float | None = None
    grace_field: str = ""
    source: str = ""
    most_perhaps: bool = False
    new_first: str = ""


KUBERNETES = Platform(
    "Kubernetes",
    30,
    None,
    "terminationGracePeriodSeconds",
    "https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination",
    new_first="a Deployment with strategy RollingUpdate and maxUnavailable 0",
)
COMPOSE = Platform(
    "Docker Compose",
    10,
    None,
    "stop_grace_period",
    "https://docs.docker.com/reference/compose-file/services/#stop_grace_period",
    new_first="update_config order start-first, on Swarm",
)
RENDER = Platform(
    "Render",
    30,
    300,
    "maxShutdownDelaySeconds",
    "https://render.com/docs/blueprint-spec#maxshutdowndelayseconds",
    new_first="a service without a disk",
)
FLY = Platform(
    "Fly.io",
    5,
    300,
    "kill_timeout",
    "https://fly.io/docs/reference/configuration/#kill_timeout",
    new_first="strategy bluegreen",
)
# A service variable or the dashboard may set it where the file does not.
RAILWAY = Platform(
    "Railway",
    None,
    None,
    "drainingSeconds",
    "https://docs.railway.com/deployments/deployment-teardown",
    new_first="a service without a volume",
)
# On Fargate there is a default and a limit. On own instances there is no limit, and the default is what the instance's agent is
# set to (ECS_CONTAINER_STOP_TIMEOUT), which no task definition tells.
ECS_SOURCE = "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html"
ECS_NEW_FIRST = "MinimumHealthyPercent 100 and MaximumPercent 200"
FARGATE = Platform("ECS on Fargate", 30, 120, "stopTimeout", ECS_SOURCE, new_first=ECS_NEW_FIRST)
ECS_INSTANCES = Platform("ECS on own instances", None, None, "stopTimeout", ECS_SOURCE, new_first=ECS_NEW_FIRST)
ECS = Platform("ECS", None, 120, "stopTimeout", ECS_SOURCE, most_perhaps=True, new_first=ECS_NEW_FIRST)
# Said of services and, in a section of their own, of worker pools.
CLOUD_RUN_SOURCE = "https://cloud.google.com/run/docs/container-contract#instance-shutdown"
CLOUD_RUN = Platform("Cloud Run", 10, 10, "", CLOUD_RUN_SOURCE)
CLOUD_RUN_POOL = Platform("Cloud Run (worker pool)", 10, 10, "", CLOUD_RUN_SOURCE)
# What a pod's grace period is made of; without it the cluster has one of its own.
KNATIVE = Platform("Knative", None, None, "timeoutSeconds", "https://knative.dev/docs/serving/configuration/config-defaults/")
CONTAINER_APPS = Platform(
    "Azure Container Apps",
    30,
    None,
    "terminationGracePeriodSeconds",
    "https://learn.microsoft.com/azure/container-apps/application-lifecycle-management#shutdown",
)
APP_PLATFORM = Platform(
    "DigitalOcean App Platform",
    120,
    600,
    "grace_period_seconds",
    "https://docs.digitalocean.com/products/app-platform/how-to/configure-termination/",
)
CEREBRIUM = Platform("Cerebrium", 900, None, "response_grace_period", "https://docs.cerebrium.ai/toml-reference/toml-reference")
DOCKERFILE = Platform("Dockerfile")


@dataclass(frozen=True)
class Variable:
    """``literal`` is its value in the file; None where it comes from a store, from outside, or is not set here. ``source``
    names the store's entry, as the file writes it. ``fallback`` holds where nothing comes from outside. ``doubted``: a later
    source, whose values are not known, may set another one."""

    name: str
    place: Place
    literal: str | None = None
    source: str | None = None
    fallback: str | None = None
    doubted: bool = False


@dataclass(frozen=True)
class Probe:
    """``kind`` is liveness, readiness, startup or health. Probes by command have port and path as far as the command tells.
    ``ends``: the platform ends or replaces the worker when it has failed ``failures`` times. ``over``: http, https, tcp or
    grpc. ``limit``: what ``failures`` should be, where its field or default is not that of Kubernetes or Docker.
    ``nowhere``: the name of a port that its container does not have. ``any_answer``: an HTTP status of failure is none."""

    kind: str
    place: Place
    port: int | None = None
    path: str | None = None
    failures: int | None = None
    ends: bool = False
    over: str = "http"
    limit: str = ""
    nowhere: str | None = None
    any_answer: bool = False
    # What its failure leaves the worker instead of the pod's grace period.
    grace_s: Given[float] | None = None
    # Where ``failures`` stands.
    failures_at: Place | None = None


# Whatever a platform counts of requests from outside: how many there are at once or in a second, how long they take.
REQUESTS = "requests"


@dataclass(frozen=True)
class Target:
    """What an autoscaler keeps at: ``share`` (0 to 1) of what is requested or there, or ``cores`` that are used, where it is
    such a figure. ``metric`` is cpu, memory, REQUESTS or what the file calls it. ``alone``: of the worker's container, not of
    all containers beside it too. ``elsewhere``: of a container beside it alone."""

    metric: str
    place: Place
    share: float | None = None
    alone: bool = False
    cores: float | None = None
    elsewhere: bool = False


@dataclass(frozen=True)
class Step:
    """At most ``value`` workers (kind Pods), or per cent of those there are (Percent), in ``period_s`` seconds."""

    kind: str
    value: int
    period_s: float


@dataclass(frozen=True)
class Pace:
    """How fast the number of workers may change; no steps: as fast as the platform does by default. ``select`` is Max, Min or
    Disabled; ``tolerance`` the share by which the metric may be off its target."""

    steps: tuple[Step, ...] = ()
    select: str = "Max"
    tolerance: float | None = None


@dataclass(frozen=True)
class Autoscaler:
    """Windows in seconds, as in effect (the platform's default where the file says nothing). ``kubernetes``: it works as a
    HorizontalPodAutoscaler does. ``wakes``: it raises a deployment of 0 workers; a HorizontalPodAutoscaler does not."""

    place: Place
    targets: tuple[Target, ...] = ()
    minimum: Given[int] | None = None
    maximum: Given[int] | None = None
    up_window: Given[float] | None = None
    down_window: Given[float] | None = None
    up: Pace = Pace()
    down: Pace = Pace()
    kubernetes: bool = False
    wakes: bool = False


@dataclass(frozen=True)
class Loss:
    """What a rollout stops before new workers are there: ``amount`` workers, or per cent of those there are; ``least`` in any
    case. ``reason``: what of the file says so, where that is not plain."""

    amount: int
    percent: bool = False
    least: int = 0
    reason: str = ""

    def of(self, workers: int) -> int:
        return min(max(self.amount * workers // 100 if self.percent else self.amount, self.least), workers)

    @property
    def everything(self) -> bool:
        return self.percent and self.amount >= 100

    @property
    def anything(self) -> bool:
        """Whether some are stopped first, however many there are."""
        return self.amount > 0 or self.least > 0


EVERYTHING = Loss(100, percent=True)


@dataclass(frozen=True)
class Resources:
    """Cores and bytes."""

    cpu_request: Given[float] | None = None
    cpu_limit: Given[float] | None = None
    memory_request: Given[int] | None = None
    memory_limit: Given[int] | None = None


@dataclass(frozen=True)
class Problem:
    """A file, or a part of it, that cannot be read."""

    place: Place
    reason: str


@dataclass
class Deployment:
    """``lost_at_rollout``: what a rollout may take away before new workers are there. ``exposures`` and ``sleeps`` (what makes
    the platform stop or starve an idle worker) are None where files of this kind say nothing of it."""

    platform: Platform
    name: str
    place: Place
    environment: str = ""
    image: Given[str] | None = None
    command: Given[list[str]] | None = None
    variables: list[Variable] = field(default_factory=list)
    # Whether it may have variables that its file does not list.
    more_variables: bool = True
    grace_s: Given[float] | None = None
    # Where each container has one of its own: the worker's by name, and where its grace period would stand.
    grace_of: Given[str] | None = None
    # Where it would stand otherwise, if not at ``place``.
    grace_at: Place | None = None
    # The drain gets what is left of the grace period after this.
    pre_stop_s: float = 0.0
    probes: list[Probe] = field(default_factory=list)
    # Those that it has by its file: of its containers, of a service that leads to it, of EXPOSE.
    ports: list[int] = field(default_factory=list)
    exposures: list[Given[str]] | None = None
    resources: Resources | None = None
    replicas: Given[int] | None = None
    autoscaler: Autoscaler | None = None
    # Of several for one workload, as overlays have them, all but the first.
    more_autoscalers: list[Autoscaler] = field(default_factory=list)
    lost_at_rollout: Given[Loss] | None = None
    sleeps: list[Given[str]] | None = None
    # One worker on each node; how many nodes there are no file says.
    per_node: bool = False
    # The containers that run beside the worker's, and the variables and commands of all others.
    beside: list[Resources] = field(default_factory=list)
    other_variables: list[Variable] = field(default_factory=list)
    other_commands: list[Given[list[str]]] = field(default_factory=list)
    # Those that it takes from elsewhere in these files: a ConfigMap, a group.
    referred: list[Variable] = field(default_factory=list)
    # The name of what its image is built from: a Dockerfile, as files are named here, with its stage where that is not the last
    # one; None: the file does not say.
    built_from: str | None = None
    # Where that may lie if not there, the likeliest first.
    or_built_from: list[str] = field(default_factory=list)
    # Whether it is what LiveKit Cloud builds, which runs nothing but agents.
    of_livekit_cloud: bool = False
    # Whether its image is given the files of an agent's plugins, and starts what may be one.
    holds_agent: bool = False
    # Whether its platform leads nobody to it, whatever its image exposes.
    in_background: bool = False
    # The stage that is built, as the file writes it; None: the last.
    target: Given[str] | None = None
    # What the platform sends first; None: the file does not say.
    stop_signal: Given[str] | None = None
    # A field of this class -> why it cannot be judged, though the file says something of it.
    unclear: dict[str, Given[str]] = field(default_factory=dict)
    # Values that the platform does not take.
    problems: list[Problem] = field(default_factory=list)

    @property
    def autoscalers(self) -> list[Autoscaler]:
        return ([self.autoscaler] if self.autoscaler is not None else []) + self.more_autoscalers


@dataclass(frozen=True)
class StoredSecret:
    """A secret's value that stands in a file; the value itself is not kept."""

    name: str
    place: Place


@dataclass
class Files:
    """All that was read."""

    deployments: list[Deployment] = field(default_factory=list)
    secrets: list[StoredSecret] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    # Named by the user, and of no format that is known here.
    strange: list[str] = field(default_factory=list)
    # In a folder: what cannot be read, and does not look as if it were meant for a deployment; with the line.
    unread: list[str] = field(default_factory=list)
    # What is too large to be looked at, and why.
    too_large: list[str] = field(default_factory=list)
    # No YAML yet: what is to be filled in stands between braces.
    templates: list[str] = field(default_factory=list)
    # Of Helm's charts what names them alone.
    charts: list[str] = field(default_factory=list)
    # What may be a worker by what it runs: of a kind that no rule is for, or beside another one in its pod.
    unruled: list[str] = field(default_factory=list)
    # Autoscalers that scale nothing that is in the files, and why.
    adrift: list[str] = field(default_factory=list)
    # Of each Dockerfile what its stages make, the last one under an empty name too.
    stages: dict[str, dict[str, Deployment]] = field(default_factory=dict)
    # Of which a Kustomization makes something else.
    changed: list[str] = field(default_factory=list)
    # Parts of workers in Compose files, and what else works with LiveKit in a cluster: judged for secrets alone. Before workers
    # are picked: parts of anything.
    parts: list[Deployment] = field(default_factory=list)
    # In a folder: files that are for development by their names.
    for_development: list[str] = field(default_factory=list)
    # Nothing looks like a worker: all is judged that may be one.
    doubtful: bool = False
    # The names of workers that are such by their names or variables alone.
    unsure: list[str] = field(default_factory=list)
    # What stands beside the workers and is not judged, each in a few words.
    passed_over: list[str] = field(default_factory=list)
    # Of these what may be a worker all the same, by its name, LiveKit's variables or what it is built from.
    left_out: list[str] = field(default_factory=list)

"""Misspelt and misplaced fields: what a platform refuses, or silently takes for nothing.

Each format's own names, at the places that the rules read. A name that is neither one of them, nor close to one, nor one of
another of these places is none of our business: formats grow.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from pytest_lkagents.manifests.model import Problem
from pytest_lkagents.manifests.tree import Node

# So alike are a name and its misspelling (difflib's ratio); names that both exist differ more.
ALIKE = 0.85
EACH = "*"

Fields = Sequence[tuple[tuple[str, ...], frozenset[str]]]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


POD = _names("""activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy enableServiceLinks
    ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostname hostnameOverride imagePullSecrets
    initContainers nodeName nodeSelector os overhead preemptionPolicy priority priorityClassName readinessGates
    resourceClaims resources restartPolicy runtimeClassName schedulerName schedulingGates securityContext serviceAccount
    serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain terminationGracePeriodSeconds tolerations
    topologySpreadConstraints volumes""")
CONTAINER = _names("""args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe
    resizePolicy resources restartPolicy restartPolicyRules securityContext startupProbe stdin stdinOnce
    terminationMessagePath terminationMessagePolicy tty volumeDevices volumeMounts workingDir""")
PROBE = _names("""exec failureThreshold grpc httpGet initialDelaySeconds periodSeconds successThreshold tcpSocket
    terminationGracePeriodSeconds timeoutSeconds""")
WORKLOAD = _names("""minReadySeconds ordinals paused persistentVolumeClaimRetentionPolicy podManagementPolicy
    progressDeadlineSeconds replicas revisionHistoryLimit selector serviceName strategy template updateStrategy
    volumeClaimTemplates""")
# Of these what each kind has; `kubectl apply` refuses another one's.
OF_KIND = {
    "Deployment": WORKLOAD
    - _names("""ordinals persistentVolumeClaimRetentionPolicy podManagementPolicy serviceName updateStrategy
        volumeClaimTemplates"""),
    "StatefulSet": WORKLOAD - _names("paused progressDeadlineSeconds strategy"),
    "ReplicaSet": _names("minReadySeconds replicas selector template"),
    "DaemonSet": _names("minReadySeconds revisionHistoryLimit selector template updateStrategy"),
    "HorizontalPodAutoscaler": frozenset(),
}
# Of a HorizontalPodAutoscaler what each of the versions has that Kubernetes serves.
OF_VERSION = {
    "autoscaling/v2": _names("behavior maxReplicas metrics minReplicas scaleTargetRef"),
    "autoscaling/v1": _names("maxReplicas minReplicas scaleTargetRef targetCPUUtilizationPercentage"),
}
STRATEGY = {"updateStrategy": "strategy", "strategy": "updateStrategy"}
RULES = _names("policies selectPolicy stabilizationWindowSeconds tolerance")

POD_AT, CONTAINER_AT = ("spec", "template", "spec"), ("spec", "template", "spec", "containers", EACH)
_WORKLOAD: Fields = (
    (("spec",), WORKLOAD),
    (("spec", "strategy"), _names("rollingUpdate type")),
    (("spec", "strategy", "rollingUpdate"), _names("maxSurge maxUnavailable")),
    (POD_AT, POD),
    (CONTAINER_AT, CONTAINER),
    *(((*CONTAINER_AT, f"{kind}Probe"), PROBE) for kind in ("liveness", "readiness", "startup")),
    (
        (*CONTAINER_AT, "livenessProbe", "httpGet"),
        _names("host httpHeaders path port scheme"),
    ),
    ((*CONTAINER_AT, "resources"), _names("claims limits requests")),
)


def _behavior(*path: str) -> Fields:
    return (
        (path, _names("scaleDown scaleUp")),
        ((*path, EACH), RULES),
        ((*path, EACH, "policies", EACH), _names("periodSeconds type value")),
    )


KUBERNETES: dict[str, Fields] = {
    **dict.fromkeys(("Deployment", "StatefulSet", "ReplicaSet", "DaemonSet"), _WORKLOAD),
    "HorizontalPodAutoscaler": (
        (("spec",), frozenset().union(*OF_VERSION.values())),
        *_behavior("spec", "behavior"),
    ),
    "ScaledObject": (
        (
            ("spec",),
            _names("""advanced cooldownPeriod fallback idleReplicaCount initialCooldownPeriod maxReplicaCount
                minReplicaCount pollingInterval scaleTargetRef triggers"""),
        ),
        *_behavior("spec", "advanced", "horizontalPodAutoscalerConfig", "behavior"),
    ),
}
COMPOSE: Fields = (
    (
        ("services", EACH),
        _names("""annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent command configs container_name
            cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset credential_spec
            depends_on deploy develop device_cgroup_rules devices dns dns_opt dns_search domainname driver_opts entrypoint
            env_file environment expose extends external_links extra_hosts gpus group_add healthcheck hostname image init
            ipc isolation label_file labels links logging mac_address mem_limit mem_reservation mem_swappiness memswap_limit
            models network_mode networks oom_kill_disable oom_score_adj pid pids_limit platform ports post_start pre_stop
            privileged profiles provider pull_policy read_only restart runtime scale secrets security_opt shm_size
            stdin_open stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits use_api_socket user userns_mode
            uts volumes volumes_from working_dir"""),
    ),
    (
        ("services", EACH, "deploy"),
        _names("endpoint_mode labels mode placement replicas resources restart_policy rollback_config update_config"),
    ),
    (
        ("services", EACH, "deploy", "update_config"),
        _names("delay failure_action max_failure_ratio monitor order parallelism"),
    ),
)
RENDER: Fields = (
    (
        ("services", EACH),
        _names("""autoDeploy autoDeployTrigger branch buildCommand buildFilter disk dockerCommand dockerContext
            dockerfilePath domain domains env envVars headers healthCheckPath image initialDeployHook ipAllowList
            maintenanceMode maxShutdownDelaySeconds name numInstances plan preDeployCommand previewPlan previews
            pullRequestPreviewsEnabled region registryCredential renderSubdomainPolicy repo rootDir routes runtime scaling
            schedule startCommand staticPublishPath type"""),
    ),
    (("services", EACH, "scaling"), _names("maxInstances minInstances targetCPUPercent targetMemoryPercent")),
)
FLY: Fields = (
    (
        (),
        _names("""app build checks console_command deploy env experimental files host_dedication_id http_service
            kill_signal kill_timeout machine_checks metrics mounts primary_region processes restart services statics
            swap_size_mb vm"""),
    ),
    (
        ("http_service",),
        _names("""auto_start_machines auto_stop_machines checks concurrency force_https http_options internal_port
            machine_checks min_machines_running processes tls_options"""),
    ),
    # What belongs to the top, and is written behind the head of a table, is one of that table's.
    (
        ("build",),
        _names("""args build-target builder buildpacks builtin compression compression_level dockerfile ignorefile image
            settings"""),
    ),
    (
        ("deploy",),
        _names("""max_unavailable release_command release_command_compute release_command_timeout release_command_vm
            seed_command strategy wait_timeout"""),
    ),
    (
        ("vm", EACH),
        _names("""cpu_kind cpus gpu_kind gpus host_dedication_id kernel_args memory memory_mb persist_rootfs processes
            size"""),
    ),
)
_RAILWAY_BUILD = _names("""buildCommand buildEnvironment builder dockerfilePath nixpacksConfigPath nixpacksPlan nixpacksVersion
    railpackVersion watchPatterns""")
_RAILWAY_DEPLOY = _names("""cronSchedule drainingSeconds healthcheckPath healthcheckTimeout limitOverride multiRegionConfig
    numReplicas overlapSeconds preDeployCommand region registryCredentials requiredMountPath restartPolicyMaxRetries
    restartPolicyType runtime sleepApplication startCommand useLegacyStacker""")
RAILWAY: Fields = (
    ((), _names("$schema build deploy environments")),
    (("build",), _RAILWAY_BUILD),
    (("deploy",), _RAILWAY_DEPLOY),
    (("environments", EACH, "build"), _RAILWAY_BUILD),
    (("environments", EACH, "deploy"), _RAILWAY_DEPLOY),
)
CONTAINER_APPS: Fields = (
    (
        ("properties", "template"),
        _names("containers initContainers revisionSuffix scale serviceBinds terminationGracePeriodSeconds volumes"),
    ),
    (("properties", "template", "scale"), _names("cooldownPeriod maxReplicas minReplicas pollingInterval rules")),
)
ECS: Fields = (
    (
        ("containerDefinitions", EACH),
        _names("""command cpu credentialSpecs dependsOn disableNetworking dnsSearchDomains dnsServers dockerLabels
            dockerSecurityOptions entryPoint environment environmentFiles essential extraHosts firelensConfiguration
            healthCheck hostname image interactive links linuxParameters logConfiguration memory memoryReservation
            mountPoints name portMappings privileged pseudoTerminal readonlyRootFilesystem repositoryCredentials
            resourceRequirements restartPolicy secrets startTimeout stopTimeout systemControls ulimits user
            versionConsistency volumesFrom workingDirectory"""),
    ),
)
# The reference has drain_seconds, and metrics other than CPU, for services only; other pages do not tell the two apart.
_COMPONENT = _names("""alerts autoscaling bitbucket build_command dockerfile_path environment_slug envs git github gitlab image
    instance_count instance_size_slug liveness_health_check log_destinations name run_command source_dir termination""")
_CHECK = _names("""failure_threshold http_path initial_delay_seconds path period_seconds port success_threshold
    timeout_seconds""")


def _component(kind: str, *own: str) -> Fields:
    place = (kind, EACH)
    return (
        (place, _COMPONENT | frozenset(own)),
        ((*place, "termination"), _names("drain_seconds grace_period_seconds")),
        ((*place, "autoscaling"), _names("max_instance_count metrics min_instance_count")),
        ((*place, "autoscaling", "metrics"), _names("cpu request_duration requests_per_second")),
        ((*place, "autoscaling", "metrics", "cpu"), _names("percent")),
        ((*place, "liveness_health_check"), _CHECK),
        ((*place, "image"), _names("deploy_on_push digest registry registry_credentials registry_type repository tag")),
    )


APP_PLATFORM: Fields = (
    (
        (),
        _names("""alerts databases disable_edge_cache disable_email_obfuscation domains egress enhanced_threat_control_enabled
            envs features functions ingress jobs maintenance name region services static_sites vpc workers"""),
    ),
    *_component("services", "cors", "health_check", "http_port", "inactivity_sleep", "internal_ports", "protocol", "routes"),
    (("services", EACH, "health_check"), _CHECK),
    *_component("workers"),
)
CEREBRIUM: Fields = (
    (("cerebrium",), _names("dependencies deployment hardware runtime scaling")),
    (
        ("cerebrium", "deployment"),
        _names("""deployment_initialization_timeout disable_auth docker_base_image_url exclude include name pre_build_commands
            python_version shell_commands use_uv"""),
    ),
    (("cerebrium", "hardware"), _names("compute cpu gpu_count memory provider region")),
    (
        ("cerebrium", "scaling"),
        _names("""compute_tier cooldown evaluation_interval_seconds load_balancing_algorithm max_replicas min_replicas
            replica_concurrency response_grace_period roll_out_duration_seconds scaling_buffer scaling_metric
            scaling_target"""),
    ),
    (
        ("cerebrium", "runtime", "custom"),
        _names("dockerfile_path entrypoint healthcheck_endpoint port readycheck_endpoint"),
    ),
)


def unknown(document: Node, fields: Fields) -> Iterator[Problem]:
    """A problem for each name that is not one of its place's, and nearly is, or belongs to another place."""
    for path, names in fields:
        for node in at(document, path):
            for name, below in node.entries():
                if name in names or name.startswith("x-"):
                    continue
                # In a table a name is easily cut short by the table's own: ``target`` of ``build`` for ``build-target``.
                close = meant(name, names) or next((known for known in names if path and known == f"{path[-1]}-{name}"), None)
                if close is not None and node.get(close) is None:
                    yield Problem(below.place, f"there is no field {name!r}; {close!r} is meant")
                elif close is None and (home := _home(name, fields)) is not None:
                    yield Problem(below.place, f"there is no field {name!r} here; it belongs to {home}")


def of_other_kind(document: Node, kind: str) -> Iterator[Problem]:
    """A problem for each name in the ``spec`` of a workload, or of what scales it, that only workloads of other kinds have."""
    own = OF_KIND.get(kind, WORKLOAD)
    for name, below in document.entries("spec"):
        if name in WORKLOAD and name not in own:
            meant_ = f"; {STRATEGY[name]!r} is meant" if STRATEGY.get(name) in own else ""
            yield Problem(below.place, f"there is no field {name!r} in a {kind}{meant_}")


def of_other_version(document: Node) -> Iterator[Problem]:
    """A problem for each name in the ``spec`` of a HorizontalPodAutoscaler that only its other version has."""
    version = document.text("apiVersion") or ""
    for name, below in document.entries("spec") if version in OF_VERSION else ():
        others = [other for other, names in OF_VERSION.items() if name in names]
        if others and version not in others:
            yield Problem(below.place, f"there is no field {name!r} in {version}, but in {others[0]}")


def _home(name: str, fields: Fields) -> str | None:
    """Where a field of this name belongs: the place nearest to the top that has it."""
    homes = sorted((path for path, names in fields if name in names), key=len)
    return (".".join(homes[0]) or "the top of the file") if homes else None


def meant(name: str, names: frozenset[str]) -> str | None:
    """Which of these names a misspelt one stands for; None: none is close."""

    def plain(text: str) -> str:
        return text.replace("_", "").replace("-", "").lower()

    alike = [known for known in names if plain(known) == plain(name)]
    return next(iter(alike or difflib.get_close_matches(name, sorted(names), 1, ALIKE)), None)


def at(node: Node, path: tuple[str, ...]) -> list[Node]:
    """Everything at a path in which EACH stands for every entry of a list or mapping."""
    found = [node]
    for step in path:
        below: list[Node] = []
        for one in found:
            if step == EACH:
                below += [entry for _, entry in one.entries()] + one.items()
            elif (entry := one.get(step)) is not None:
                below.append(entry)
        found = below
    return found

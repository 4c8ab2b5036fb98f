"""The rules: each is written once, against the model. A rule says nothing where a file does not say enough."""

from pytest_lkagents.manifests.rules.common import Rule
from pytest_lkagents.manifests.rules.files import readable, secrets, separate_environments
from pytest_lkagents.manifests.rules.health import health_probe
from pytest_lkagents.manifests.rules.rollout import always_on, grace_period, replicas, rolling_update
from pytest_lkagents.manifests.rules.scaling import scale_up_below_threshold, scaling_metric, stabilization
from pytest_lkagents.manifests.rules.worker import image_pinned, no_inbound, production_command, resources

__all__ = [
    "Rule",
    "always_on",
    "grace_period",
    "health_probe",
    "image_pinned",
    "no_inbound",
    "production_command",
    "readable",
    "replicas",
    "resources",
    "rolling_update",
    "scale_up_below_threshold",
    "scaling_metric",
    "secrets",
    "separate_environments",
    "stabilization",
]

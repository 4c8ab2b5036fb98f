"""What can be read, and what stands in the files that should not."""

from __future__ import annotations

from pytest_lkagents.manifests import RENDERED
from pytest_lkagents.manifests.commands import told_in
from pytest_lkagents.manifests.findings import Finding, Judgement, Needs
from pytest_lkagents.manifests.model import Deployment, Files, Variable
from pytest_lkagents.manifests.readers.common import from_outside
from pytest_lkagents.manifests.rules.common import some
from pytest_lkagents.secrets import (
    PLACEHOLDER_HOST,
    holds_key,
    holds_secret,
    is_secret,
    looks_generated,
    stands_in,
    url_passwords,
)


def readable(files: Files, _needs: Needs) -> Judgement:
    problems = [*files.problems, *(problem for deployment in files.deployments for problem in deployment.problems)]
    # What was read and holds nothing to judge (a Namespace) is no evidence of anything.
    found = files.deployments or files.secrets or problems
    made = Judgement(looked_at=len(files.read) + len(problems) if found else 0)
    made.notes += [f"{file}: of no format that is known here, not judged" for file in files.strange]
    if files.unread:
        made.notes.append(f"{some(files.unread)}: cannot be read, not judged")
    made.notes += [f"{one}, not judged" for one in files.too_large]
    if files.templates:
        made.notes.append(
            f"{some(files.templates)}: a template, not judged; hand over what it makes, "
            "as in `helm template CHART | pytest --lk-manifests -`"
        )
    if files.charts:
        made.notes.append(
            f"{some(list(dict.fromkeys(files.charts)))}: what Helm makes of its chart is not there, and not judged; "
            "hand it over, as in `helm template CHART | pytest --lk-manifests -`"
        )
    if files.changed:
        made.notes.append(
            f"{some(files.changed)}: parts of a kustomization, which changes them, not "
            "judged but for secrets; hand over what it makes, as in `kustomize build FOLDER | pytest --lk-manifests -`"
        )
    development = [file for file in files.read if file in files.for_development]
    if development:
        made.notes.append(
            f"{some(development)}: for development by name, judged only for secrets, separate environments "
            "and whether it can be read"
        )
    if files.doubtful:
        named = [deployment.name for deployment in files.deployments if deployment.place.file not in files.for_development]
        nothing = "nothing" if len(named) == len(files.deployments) else "nothing but what is for development"
        made.notes.append(f"{nothing} looks like a LiveKit worker; judged is {some(named)}")
    if files.unsure:
        made.notes.append(f"workers by their names or variables alone: {some(files.unsure)}")
    if files.unruled:
        made.notes.append(f"not judged but for secrets: {some(files.unruled, '; ')}")
    if files.passed_over:
        made.notes.append(f"not judged: {some(files.passed_over, '; ')}")
    for problem in problems:
        made.findings.append(
            Finding(
                problem.place,
                problem.reason,
                "a file that the platform can read",
                "A file that cannot be read cannot be deployed.",
            )
        )
    return made


def secrets(files: Files, _needs: Needs) -> Judgement:
    made = Judgement()
    why = "Who can read the file, its history or its copies has the key."
    for deployment in files.deployments:
        _search(deployment, made, why)
    # Alone they are no evidence that all is well.
    parts = Judgement()
    for part in files.parts:
        _search(part, parts, why)
    if parts.looked_at:
        made.nothing = "no literal secret was found in parts of workers, and nothing else to judge"
    made.looked_at += len(parts.findings)
    made.findings += parts.findings
    for stored in files.secrets:
        made.looked_at += 1
        found = f"the value of {stored.name} is in the file"
        made.findings.append(Finding(stored.place, found, "a Secret that is made outside of these files", why))
    # Stages of one file share values.
    made.findings = list(dict.fromkeys(made.findings))
    return _without_rendered(made)


def _without_rendered(made: Judgement) -> Judgement:
    """What another program printed (`docker compose config` with the values of .env) need not stand in the repository: of its
    secrets nothing is known, and that there are some is no evidence that all is well either."""
    rendered = [finding for finding in made.findings if finding.place.file == RENDERED]
    if not rendered:
        return made
    findings = [finding for finding in made.findings if finding not in rendered]
    said = "rendered, and may come from outside of the repository; not judged"
    notes = [f"{finding.place}: {finding.found}; {said}" for finding in rendered]
    return Judgement(findings, made.looked_at if findings else 0, made.notes + notes)


def _search(deployment: Deployment, made: Judgement, why: str) -> None:
    """What is secret in its variables and its command."""
    for variable in deployment.variables + deployment.other_variables:
        made.looked_at += 1
        found = _secret_in(variable)
        if found is not None:
            made.findings.append(Finding(variable.place, found, OUTSIDE, why))
    own = [deployment.command] if deployment.command is not None else []
    for command in own + deployment.other_commands:
        told = [name for name, value in told_in(command.value) if holds_secret(name, value) and not from_outside(value)]
        made.looked_at += len(told)
        made.findings += [Finding(command.place, f"the value of {name} is in the command", OUTSIDE, why) for name in told]
        if any(url_passwords(word) for word in command.value):
            made.looked_at += 1
            made.findings.append(Finding(command.place, "a password in a URL is in the command", OUTSIDE, why))
        if not told and any(map(holds_key, command.value)):
            made.looked_at += 1
            made.findings.append(Finding(command.place, "a key is in the command", OUTSIDE, why))


OUTSIDE = "a reference to the platform's secret store"


def _secret_in(variable: Variable) -> str | None:
    """What is secret in a variable's literal, in words that do not show it."""
    name, value, fallback = variable.name, variable.literal, variable.fallback
    if value is not None and is_secret(name, value):
        return f"{name} is a literal"
    # What a developer's machine falls back to is mostly a word.
    if fallback is not None and (holds_key(fallback) or (holds_secret(name, fallback) and looks_generated(fallback))):
        return f"what {name} falls back to is a literal"
    return f"{name} has a password in its URL" if url_passwords(value or "") else None


def _plain(name: str, value: str) -> str:
    """A value as it is compared: addresses of one server are written in several ways (RFC 3986, 6.2)."""
    if name != "LIVEKIT_URL":
        return value
    scheme, _, rest = value.strip().partition("://")
    scheme = {"https": "wss", "http": "ws"}.get(scheme.lower(), scheme.lower())
    host, slash, path = rest.partition("/")
    host = host.lower().removesuffix({"wss": ":443", "ws": ":80"}.get(scheme, "/"))
    return f"{scheme}://{host}{slash}{path}".rstrip("/")


def _is_filled_in_later(value: str) -> bool:
    host = value.partition("://")[2]
    return bool(PLACEHOLDER_HOST.match(host)) if host else stands_in(value)


def separate_environments(files: Files, _needs: Needs) -> Judgement:
    made = Judgement()
    seen: dict[str, dict[str, tuple[Variable, Deployment]]] = {"staging": {}, "production": {}}
    unknown = []
    for deployment in files.deployments:
        stage = seen.get(deployment.environment)
        if stage is None:
            continue
        for variable in deployment.variables + deployment.referred:
            if variable.name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
                value = variable.literal
                if value and not _is_filled_in_later(value):
                    stage.setdefault(f"{variable.name}={_plain(variable.name, value)}", (variable, deployment))
                elif variable in deployment.referred:
                    # A later source, such as a Secret, or whoever deploys it may set another value.
                    unknown.append(variable)
    staging, production = ({variable.name for variable, _ in stage.values()} for stage in seen.values())
    if not staging & production:
        # A URL on one side says nothing of a key on the other.
        if seen.keys() <= {deployment.environment for deployment in files.deployments}:
            made.nothing = "no LIVEKIT_URL, key or secret that these files tell of both staging and production"
            made.notes += [f"{one.place}: {one.name} may come from elsewhere, not compared" for one in unknown]
        if files.changed:
            made.notes.append("what a kustomization changes is not compared")
        return made
    made.looked_at = 1
    for same in sorted(set(seen["staging"]) & set(seen["production"])):
        (variable, one), (other, another) = seen["staging"][same], seen["production"][same]
        where = other.place.file if other.place.file != variable.place.file else f"line {other.place.line}"
        found = f"{variable.name} is the same as in {where}"
        if variable.place == other.place:
            found = f"staging's {one.name} and production's {another.name} both take {variable.name} from here"
        made.findings.append(
            Finding(
                variable.place,
                found,
                "a LiveKit project of its own for staging",
                "Workers of one project share its calls: a new version in staging serves production's callers.",
            )
        )
    return made

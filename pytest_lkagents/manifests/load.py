"""From paths to the model: which format a file has is told by its name and by what is in it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pytest_lkagents.manifests import RENDERED, STANDARD_INPUT, workers
from pytest_lkagents.manifests.model import Files, Problem
from pytest_lkagents.manifests.readers import (
    app_platform,
    cerebrium,
    cloud_run,
    cloudformation,
    compose,
    container_apps,
    dockerfile,
    ecs,
    fly,
    gitops,
    helm_values,
    knative,
    kubernetes,
    kustomize,
    kustomize_parts,
    kustomize_patches,
    railway,
    render,
)
from pytest_lkagents.manifests.readers.common import is_for_development
from pytest_lkagents.manifests.toml_files import read_toml
from pytest_lkagents.manifests.tree import Node, Place, Unreadable
from pytest_lkagents.manifests.yaml_files import FileTooLarge, TooLarge, by_yaml_1_1, read_yaml

SUFFIXES = (".yaml", ".yml", ".json", ".toml")
# Folders of tools, not of deployments.
SKIPPED = {".git", "node_modules", ".venv", "venv", "__pycache__", ".tox", "site-packages"}
LARGEST_BYTES = 2_000_000
# What Helm, or Jinja, has yet to fill in: such a file is in order, and is no YAML.
TEMPLATE = re.compile(r"\{\{-? *(\.|\$|include|template|if|with|range|define|end|toYaml|tpl|/\*)|\{%")


# What engines and people call them; not what BuildKit leaves out for one, nor a template or notes.
DOCKERFILES = re.compile(
    r"(Docker|Container)file([.-](?!.*(dockerignore|j2|jinja2?|tmpl|tpl|template|md|txt|bak|orig)$).+)?"
    r"|.+\.(docker|container)file",
    re.IGNORECASE,
)
# So ends the name of a program that works with such files, or of what has a format of its own; but a service of some language
# has a Dockerfile.go, which begins as such files do.
PROGRAMS = re.compile(
    r".+\.([cm]?[jt]sx?|vue|svelte|css|html|json|ya?ml|toml|lock|log|ipynb|py|go|rs|rb|java|kt|php|cs|sh)", re.IGNORECASE
)
BEGINS = re.compile(r"([ \t\r]*(#[^\n]*)?\n)*[ \t]*(FROM|ARG)[ \t]")
# What shows that a file was meant for a deployment although it cannot be read: its name, or a name in it.
NAMED = re.compile(
    r"(docker-)?compose[\w.-]*\.ya?ml|render\.ya?ml|fly[\w.-]*\.toml|railway\.(json|toml)|cerebrium\.toml|kustomization\.ya?ml"
)
# Railway is told the path of each service's file, which may have any name; so may what somebody keeps of it.
OF_RAILWAY = re.compile(r"""^({.*)?\s*(\[(build|deploy)\]|["'](build|deploy)["']\s*:)""", re.MULTILINE)
TELLS = re.compile(
    r"""^({[ \t]*)?["']?(apiVersion|services)["']?[ \t]*:|^kind:[ \t]*[A-Z]|^[ \t]*"apiVersion"[ \t]*:"""
    r"|\b(containerDefinitions|AWSTemplateFormatVersion)\b",
    re.MULTILINE,
)
# What a repository's host runs of its own, with services beside its jobs: https://docs.github.com/actions
WORKFLOWS = re.compile(r"(^|/)\.(github|gitea|forgejo)/workflows/")


def is_dockerfile(name: str, text: str) -> bool:
    return bool(DOCKERFILES.fullmatch(name)) and bool(not PROGRAMS.fullmatch(name) or BEGINS.match(text))


def _is_meant(file: str, text: str) -> bool:
    name = file.rsplit("/", 1)[-1]
    if WORKFLOWS.search(file):
        return False
    of_railway = railway.OWN.fullmatch(name) and OF_RAILWAY.search(text)
    return bool(NAMED.fullmatch(name) or of_railway or TELLS.search(text))


def find(path: Path) -> list[Path]:
    """The files at a path that may describe a deployment, in order."""
    if path.is_file():
        return [path]
    return [
        file
        for file in sorted(path.rglob("*"))
        # Path's own raises where a folder may not be entered.
        if os.path.isfile(file)
        and not SKIPPED & set(file.relative_to(path).parts)
        and (file.suffix in SUFFIXES or DOCKERFILES.fullmatch(file.name) or file.name in kustomize.NAMES)
    ]


def load(paths: Sequence[str], standard_input: str = "") -> Files:
    """Never raises for what is in a file: that is a Problem with its place. In a folder a file that describes no deployment,
    and perhaps cannot even be read, is passed over; one that is named itself is said to be strange. Raises OSError for one
    that is named and cannot be opened."""
    files = Files()
    known: list[Node] = []
    # A file that is named beside its folder is read once, and as one that is named.
    named = {os.path.abspath(given) for given in paths if given != STANDARD_INPUT and Path(given).is_file()}
    seen: set[str] = set()
    tops = _tops([given for given in paths if given != STANDARD_INPUT])
    # The outermost folder first, so that what files say of each other can be followed.
    for given in sorted(paths, key=lambda given: (os.path.abspath(given) in named, len(Path(os.path.abspath(given)).parts))):
        if given == STANDARD_INPUT:
            _read(RENDERED, standard_input, files, known, named=True)
            continue
        for file in find(Path(given)):
            where = os.path.abspath(file)
            if where not in seen:
                seen.add(where)
                top = tops[given]
                shown = os.path.relpath(where, top) if top is not None else str(file)
                if where not in named and is_for_development(
                    os.path.relpath(where, _innermost(where, paths)).replace(os.sep, "/")
                ):
                    files.for_development.append(shown)
                _open(file, shown, files, known, named=where in named)
    gathered = kustomize.gather(known)
    # Kustomize reads YAML 1.2, and quotes what kubectl would misread. Flux hands it whatever folder it is given.
    if not any(map(gitops.is_of_flux, known)):
        of_any = set().union(*gathered.values())
        known = [document if document.place.file in of_any else by_yaml_1_1(document) for document in known]
    kustomize.read(known, files, gathered)
    kubernetes.read(known, files)
    kustomize_parts.read(known, files, gathered)
    dockerfile.find_built(files)
    dockerfile.choose_stages(files)
    files.deployments = workers.pick(files)
    return files


def _innermost(file: str, paths: Sequence[str]) -> str:
    """Of the folders that are given the one that it lies deepest in: a name above that says nothing of it."""
    folders = [os.path.abspath(given) for given in paths if given != STANDARD_INPUT]
    return max((folder for folder in folders if file.startswith(os.path.join(folder, ""))), key=len)


def _tops(paths: Sequence[str]) -> dict[str, str | None]:
    """For each path the folder that its files are named by: one that is given, or what all paths lie in, as two folders may
    have files of one name. What lies above a project says nothing of it: where the paths have no more in common than that,
    each is named by itself, if names tell them apart. None where no folder is given: files are named as they were typed."""
    if not any(Path(path).is_dir() for path in paths):
        return dict.fromkeys(paths)
    folders = [os.path.abspath(path if Path(path).is_dir() else Path(path).parent) for path in paths]
    common, here = os.path.commonpath(folders), os.path.abspath(os.curdir)
    own = {os.path.basename(os.path.abspath(path)) for path in paths}
    if common in folders or os.path.commonpath([common, here]) == here or len(own) < len(paths):
        return dict.fromkeys(paths, common)
    return {path: os.path.dirname(os.path.abspath(path)) for path in paths}


def _open(file: Path, shown: str, files: Files, known: list[Node], *, named: bool) -> None:
    try:
        data = file.read_bytes()
    except OSError:
        if named:
            raise
        files.unread.append(shown)
        return
    if len(data) > LARGEST_BYTES:
        if named:
            files.problems.append(Problem(Place(shown, 1, ""), "larger than any deployment file"))
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if named or _is_meant(shown, data.decode("utf-8", "replace")):
            files.problems.append(Problem(Place(shown, 1, ""), "not UTF-8 text"))
        return
    _read(shown, text, files, known, named=named)


def _read(file: str, text: str, files: Files, known: list[Node], *, named: bool) -> None:
    name = file.rsplit("/", 1)[-1]
    if is_dockerfile(name, text):
        files.read.append(file)
        dockerfile.read(file, text, files)
        return
    if not named and DOCKERFILES.fullmatch(name) and not name.lower().endswith(SUFFIXES):
        return  # a program
    if file == RENDERED and len(text) > LARGEST_BYTES:
        files.too_large.append(f"{file}: more than {LARGEST_BYTES // 1_000_000} MB")
        return
    skipped: list[TooLarge] = []
    documents: list[Node] = []
    try:
        documents = [read_toml(file, text)] if name.endswith(".toml") else list(read_yaml(file, text, skipped))
    except FileTooLarge as problem:
        # What stands before it is not judged without what stands behind.
        skipped = [problem]
    except Unreadable as problem:
        if not named and not _is_meant(file, text):
            # JSON with comments, as tools have it, is not worth a word.
            files.unread += [] if name.endswith(".json") else [f"{file}:{problem.line}"]
            return
        if TEMPLATE.search(text):
            files.templates.append(file)
            return
        files.problems.append(Problem(Place(file, problem.line, ""), problem.reason))
        return
    files.too_large += [f"{file}:{problem.line}: {problem.reason}" for problem in skipped]
    used = [document for document in documents if _take(document, files, known)]
    if used:
        files.read.append(file)
    elif named and not skipped:
        files.strange.append(file)


def _take(document: Node, files: Files, known: list[Node]) -> bool:
    """Whether somebody reads this document."""
    if not isinstance(document.value, dict):
        known += [document] if kustomize_patches.is_json_patch(document) else []
        return False
    if kubernetes.reads(document) or kustomize.reads(document):
        known.append(document)
        return True
    # App Platform's ``services`` are a list, as Render's, but without a ``type``; Compose has a mapping.
    for reader in (
        knative,
        cloud_run,
        container_apps,
        render,
        app_platform,
        ecs,
        cloudformation,
        compose,
        fly,
        railway,
        cerebrium,
    ):
        if reader.reads(document):
            reader.read(document, files)
            return True
    if helm_values.reads(document):
        found = helm_values.of_file(document)
        files.secrets += found
        return bool(found)
    problem = kubernetes.without_version(document)
    if problem is not None:
        files.problems.append(problem)
        return True
    return _is_for_livekit_cloud(document)


def _is_for_livekit_cloud(document: Node) -> bool:
    """livekit.toml, which holds nothing to judge."""
    named = document.place.file.rsplit("/", 1)[-1].startswith("livekit.")
    return named and (document.get("project") is not None or document.get("agent") is not None)

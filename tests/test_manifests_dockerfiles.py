"""How a Dockerfile is taken apart: here-documents, continued lines, several names in one instruction."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lkagents.manifests import rules
from pytest_lkagents.manifests.findings import Needs
from pytest_lkagents.manifests.model import Problem
from pytest_lkagents.manifests.readers.dockerfile_instructions import instructions

from .deployment_files import written

KEY = "sk-proj-Zb7Qm2Xv9Kd4Tn8Lw1Rp6Hy3F5g8J2"
IMAGE = "FROM python:3.12.7-slim\n"
STARTED = 'CMD ["python", "agent.py", "start"]\n'


def leaks(folder: Path, text: str) -> list[str]:
    """Where secrets were found in this Dockerfile, and what is said of them."""
    files = written(folder, {"Dockerfile": IMAGE + text + STARTED})
    assert files.problems == []
    return [f"{finding.place.line} {finding.found}" for finding in rules.secrets(files, Needs()).findings]


def after_the_first(text: str) -> list[str]:
    """The names of all but the first instruction of a Dockerfile that has no problems."""
    problems: list[Problem] = []
    found = instructions("Dockerfile", text, problems)
    assert problems == []
    return [one.name for one in found][1:]


@pytest.mark.parametrize(
    "line",
    [
        'RUN pip install -r /dev/stdin <<< "livekit-agents"',
        'RUN python -c "n = 20; print(1 << n)"',
        "RUN echo $((1 << n)) $((1<<n))",
        "RUN echo '<<EOF' \"a <<EOF b\" x<<EOF <<EOF;",
        "RUN cat <<EOF",
        "COPY <<-'EOF\" /app/.env",
    ],
)
def test_what_is_no_here_document_takes_no_lines(line: str) -> None:
    assert after_the_first(f"{line}\nEXPOSE 1\nCMD dev\n") == ["EXPOSE", "CMD"]


@pytest.mark.parametrize(
    "text",
    [
        "RUN <<EOF\nexport A=b\n  EOF\nEOF\n",
        "RUN cat <<-'EOF' > /a && echo \"b\"\n\tA\n\tEOF\n",
        'COPY --chown=1 <<"a.b" <<C /srv/\n1\na.b\n2\nC\n',
        "RUN 3<<EOF cat \\\n  /dev/fd/3\nENV A=b\nEOF\n",
        'COPY <<"END OF FILE" /x\nRUN\nEND OF FILE\n',
        "ONBUILD RUN <<EOF\nENV A=b\nEOF\n",
    ],
)
def test_a_here_document_ends_at_its_word(text: str) -> None:
    assert after_the_first(f"{text}CMD dev\n") == ["CMD"]


@pytest.mark.parametrize(
    ("rest", "found"),
    [
        (f"RELEASE=4 OPENAI_API_KEY={KEY}", ["2 OPENAI_API_KEY is a literal"]),
        (f"OPENAI_API_KEY='{KEY}' RELEASE", ["2 OPENAI_API_KEY is a literal"]),
        ("OPENAI_API_KEY RELEASE=4", []),
    ],
)
def test_an_argument_of_a_build_is_not_alone_in_its_line(tmp_path: Path, rest: str, found: list[str]) -> None:
    assert leaks(tmp_path, f"ARG {rest}\n") == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            f"COPY <<EOF /app/.env\nLIVEKIT_URL=wss://a.livekit.cloud\nOPENAI_API_KEY={KEY}\nEOF\n",
            "4 the value of OPENAI_API_KEY",
        ),
        (f'ADD <<A <<B /app/\na = 1\nA\n\napi_key = "{KEY}"\nB\n', "6 the value of api_key"),
        (
            "COPY <<EOF /key.pem\n# ours\n-----BEGIN PRIVATE KEY-----\n"
            + 4 * "MIIEvQIBADANBgk1"
            + "\n-----END PRIVATE KEY-----\nEOF\n",
            "4 the value of /key.pem",
        ),
        ("COPY <<EOF /.env\nDB=postgres://u:k3w9x1q7z5@db/a\nEOF\n", "3 the value of a password in the URL of /.env"),
        (f"RUN <<EOF\nset -e\nexport OPENAI_API_KEY={KEY}\nEOF\n", "4 OPENAI_API_KEY is a literal"),
        (f"RUN cat > /.env <<'EOF'\nOPENAI_API_KEY='{KEY}'\nEOF\n", "3 OPENAI_API_KEY is a literal"),
        ("COPY <<EOF /app/.env\nOPENAI_API_KEY=${KEY_123}\nDEEPGRAM_API_KEY=change-me-123\nEOF\n", None),
        ("RUN <<EOF\nexport OPENAI_API_KEY=$(cat /run/secrets/key123)\nEOF\n", None),
        ("RUN python <<EOF\ntoken=encode(text123)\npassword=settings_v2\napi_key=os.environ['KEY123']\nEOF\n", None),
    ],
)
def test_secrets_in_a_here_document_are_found_in_their_lines(tmp_path: Path, text: str, found: str | None) -> None:
    said = leaks(tmp_path, text)
    assert [line.removesuffix(" is in the file") for line in said] == ([found] if found else [])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("# syntax=docker/dockerfile:1\n#Escape = `\nRUN a `\n # b\n  c\nCOPY a C:\\\nCMD dev\n", ["RUN", "COPY", "CMD"]),
        ("# escape=\\\nRUN a \\\n  c\nCMD dev `\n", ["RUN", "CMD"]),
        ("# an image\n# escape=`\nRUN a \\\n  c\nCMD dev\n", ["RUN", "CMD"]),
        ("\n# escape=`\nRUN a \\\n  c\nCMD dev\n", ["RUN", "CMD"]),
    ],
)
def test_a_directive_says_what_continues_a_line(text: str, names: list[str]) -> None:
    problems: list[Problem] = []
    assert ([one.name for one in instructions("Dockerfile", text, problems)], problems) == (names, [])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"ENV A=1 \\\n    # a key\n\n    OPENAI_API_KEY='{KEY}' \\\n    B=2\n", 5),
        (f"ENV NO_OPENAI_API_KEY=1 \\\n    OPENAI_API_KEY={KEY}\n", 3),
        (f"ENV OPENAI_API_KEY {KEY}\n", 2),
        (f"ARG A \\\n    OPENAI_API_KEY={KEY}\n", 3),
        (f"RUN set -e; \\\n  export OPENAI_API_KEY={KEY}; \\\n  make\n", 3),
        (f'ENV A=1 \\\n    "OPENAI_API_KEY"={KEY}\n', 2),
    ],
)
def test_a_secret_in_a_continued_line_is_named_with_it(tmp_path: Path, text: str, line: int) -> None:
    assert leaks(tmp_path, text) == [f"{line} OPENAI_API_KEY is a literal"]

"""How keys and tokens are written that tell by themselves what they are, in any text."""

from __future__ import annotations

import re

# A JSON document, such as a cloud's service account, has no line breaks but writes them.
PRIVATE_KEY = re.compile(rb"-----BEGIN (?:RSA |EC |DSA |OPENSSH |ENCRYPTED )?PRIVATE KEY-----(?:\s|\\n)+([A-Za-z0-9+/=]{16,})")
# Formats that their issuers document as recognisable: OpenAI and look-alikes, ElevenLabs, Cartesia and Stripe, AWS, Google,
# GitHub, GitLab, Slack, Groq, Hugging Face, NVIDIA, xAI. Google's Slovak voices look like one: sk-SK-Chirp3-HD-Achernar.
TOKENS = re.compile(
    rb"\b(?<!sk-)(sk-(?![Ss][Kk]-)(?:proj-|ant-)?[A-Za-z0-9_-]{20,}|sk_(?:live_|car_)?[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}|"
    rb"gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{50,}|glpat-[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{20,}|"
    rb"gsk_[A-Za-z0-9]{40,}|hf_[A-Za-z0-9]{30,}|nvapi-[A-Za-z0-9_-]{40,}|xai-[A-Za-z0-9]{40,})"
)
# How these begin, and what of the rest is one piece: names are words between hyphens. GitLab's are short, and may have some.
PREFIX = re.compile(
    r"sk-(?:proj-|ant-(?:api\d\d-)?|or-v1-)?|sk_(?:live_|car_)?|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|gsk_|hf_|nvapi-|xai-|AKIA|AIza"
)
PIECE = re.compile(r"[A-Za-z0-9]{16,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# What has no more different signs is a row of them.
SIGNS = 8
# What fingers write, and generators do not.
ROW = re.compile(r"123456789|abcdefgh", re.IGNORECASE)
# Of these one alone opens nothing, or may be known to all: the name of a key of AWS, and Google's keys of web pages.
NOT_ALONE = ("AKIA", "AIza")

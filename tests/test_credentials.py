"""What is taken for a credential in an image, and what only looks like one."""

from __future__ import annotations

import base64
import gzip
import io
import json
import marshal
import tarfile
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from pytest_lkagents.checks import StageError
from pytest_lkagents.secrets import Redactor, can_be_told, holds_key, holds_secret, secrets_of, spellings
from pytest_lkagents.worker import contents, scanner
from pytest_lkagents.worker.credentials import findings_in, findings_in_words, in_text
from pytest_lkagents.worker.layers import ImageScan, scan

SECRET = "h7Jd2kP0" + "xQ9vR4mT1sLw8yZc"
KEY = "-----BEGIN PRIVATE KEY-----"
HASH = "A0Zk" * 9
HEX = "9f8e7d6c5b4a" * 3 + "0321"

LEAKS = {
    "an argument": ("app/agent.py", f'api.LiveKitAPI(URL, api_key="APIabc", api_secret="{SECRET}")'),
    "a default": ("app/agent.py", f"os.environ.setdefault('LIVEKIT_API_SECRET', '{SECRET}')"),
    "an item": ("app/agent.py", f'os.environ["LIVEKIT_API_SECRET"] = "{SECRET}"'),
    "an object": ("app/agent.ts", f"new Worker({{ url, apiKey, apiSecret: '{SECRET}' }})"),
    "another service's key": ("app/agent.py", 'stt = deepgram.STT(api_key="' + "9f8e7d6c5b4a" * 3 + '0321")'),
    "another service's variable": ("app/agent.ts", "process.env['CARTESIA_API_KEY'] = '" + "q1Wx7" * 6 + "'"),
    "a token of ElevenLabs": ("app/voice.yaml", "key: sk_" + "0d1c2b3a" * 6),
    "a key in Go's folder of one's own": ("go/src/agent/main.go", f"`{KEY}\nMIIEvQIBADANBgkqhkiG`"),
    "a token of OpenAI": ("app/agent.py", 'OpenAI("sk-SKab' + "9f8e7d" * 5 + '")'),
    "a token of Groq": ("app/llm.json", '["gsk_' + "x9Yk2" * 10 + '"]'),
    "a token of Hugging Face": ("root/.cache/huggingface/token", "hf_" + "aB3dE" * 7),
    "a default in JavaScript": ("app/agent.ts", f"const key = process.env.DEEPGRAM_API_KEY ?? '{HEX}';"),
    "an older one": ("app/agent.js", f'new STT({{ apiKey: process.env.DEEPGRAM_API_KEY || "{HEX}" }})'),
    "a default in Python": ("app/agent.py", f"key = os.getenv('DEEPGRAM_API_KEY') or '{HEX}'"),
    "a setting with its type": ("app/settings.py", f'class Settings(BaseSettings):\n    deepgram_api_key: str = "{HEX}"'),
    "one that is hidden": ("app/settings.py", f'livekit_api_secret: SecretStr = SecretStr("{SECRET}")'),
    "a field": ("app/settings.py", f'deepgram_api_key: str | None = Field(default="{HEX}")'),
    "Go": ("app/main.go", f'apiKey := "{HEX}"'),
    "a header": ("app/tts.py", f'headers={{"xi-api-key": "{HEX}"}}'),
    "Azure's": ("app/stt.py", f'azure.STT(speech_key="{HEX}", speech_region="westeurope")'),
    "Twilio's": ("app/sip.py", f'TWILIO_AUTH_TOKEN = "{HEX}"'),
    "a notebook": ("app/try.ipynb", json.dumps({"source": [f'os.environ["DEEPGRAM_API_KEY"] = "{HEX}"']})),
    "direnv": ("app/.envrc", f"export DEEPGRAM_API_KEY={HEX}\n"),
    "a shell's history": ("root/.bash_history", f"export DEEPGRAM_API_KEY={HEX}\nexit\n"),
    "every user's variables": ("etc/environment", f'DEEPGRAM_API_KEY="{HEX}"\n'),
    "behind its key": ("app/agent.ts", f'new RoomServiceClient(url, "APIx7Kd93jfQ", "{SECRET}")'),
    "JSON": ("app/settings.json", f'{{"livekit_api_secret": "{SECRET}"}}'),
    "YAML": ("app/compose.yaml", f"environment:\n  LIVEKIT_API_SECRET: {SECRET}\n"),
    "a Dockerfile": ("app/Dockerfile", f"FROM python\nENV LIVEKIT_API_SECRET={SECRET}\n"),
    "a script": ("app/start.sh", "#!/bin/sh\nexport DEEPGRAM_API_KEY=9f8e7d6c5b4a\nexec python agent.py start\n"),
    "YAML, by the service's own name": ("app/config.yaml", f"livekit:\n  api_secret: {SECRET}  # of production\n"),
    "YAML, another service's": ("app/config.yml", "stt:\n- apiKey: " + HEX + "\r\n"),
    "a key to search with": ("app/config.yaml", f"azure_search_api_key: {HEX}\n"),
    "Algolia's own": ("app/config.yaml", f"algolia_admin_api_key: {HEX}\n"),
    "INI": ("app/agent.ini", "[deepgram]\nDEEPGRAM_API_KEY = " + HEX + "\n"),
    "TOML": ("app/livekit.toml", f'[project]\n"client-secret" = "x"\nclient_secret = "{SECRET}"\n'),
    "a LiveKit server's": ("app/livekit.yaml", f"keys:\n  APIx7Kd93jfQq: {SECRET}\n"),
    ".env of production": ("app/.env.production.local", "OPENAI_API_KEY=abcdefgh1\n"),
    ".env below dist": ("app/dist/.env", "OPENAI_API_KEY=abcdefgh1\n"),
    ".env below examples": ("app/examples/agent/.env", f"LIVEKIT_API_SECRET={SECRET}\n"),
    ".env": ("app/.env", "OPENAI_API_KEY='abcdefgh1'\n"),
    "a service account": ("app/gcp.json", f'{{"private_key": "{KEY}\\nMIIEvQIBADANBgkqhkiG\\n"}}'),
    "a key": ("root/.ssh/id_rsa", f"{KEY}\nMIIEvQIBADANBgkqhkiG\n"),
    "npm": ("root/.npmrc", "//registry.example.com/:_authToken=npm-0a1b2c3d4e\n"),
    "netrc": ("root/.netrc", "machine git.example.com login ci password 0a1b2c3d4e\n"),
    "Docker": ("root/.docker/config.json", '{"auths": {"r.example.com": {"auth": "Y2k6MGExYjJjM2Q0ZQ=="}}}'),
    "git": ("app/.git/config", "[remote]\n url = https://ci:0a1b2c3d4e@git.example.com/a.git\n"),
    "pip": ("etc/pip.conf", "[global]\nindex-url = https://ci:0a1b2c3d4e@pypi.example.com/simple\n"),
}

INNOCENT = {
    "from the environment": ("app/agent.py", 'api.LiveKitAPI(api_secret=os.environ["LIVEKIT_API_SECRET"])'),
    "a stand-in": ("app/agent.py", 'os.environ.setdefault("LIVEKIT_API_SECRET", "your-livekit-api-secret-0001")'),
    "a name": ("app/values.yaml", 'apiSecret: "livekit-api-secret-production-1"'),
    "a path": ("app/config.json", '{"api_secret": "projects/123456/secrets/livekit/versions/1"}'),
    "a sentence": ("app/agent.py", 'raise SystemExit("LIVEKIT_API_SECRET, 3rd of the variables, is missing")'),
    "a style": ("app/page.html", '<div class="sk-toggleable__label-arrow sk-estimator-doc-link">'),
    "a Slovak voice": ("app/agent.py", 'tts = google.TTS(voice_name="sk-SK-Chirp3-HD-Achernar")'),
    "the same in small letters": ("app/voices.txt", "sk-sk-chirp3-hd-zubenelgenubi"),
    "Go's own tests": ("usr/local/go/src/crypto/tls/testdata/example-key.pem", f"{KEY}\nMIIEvQIBADANBgkqhkiG\n"),
    "Go's, elsewhere": ("root/.asdf/installs/golang/1.24/go/src/crypto/x509/a.go", f"{KEY}\nMIIEvQIBADANBgkqhkiG\n"),
    "what Bun keeps": ("root/.bun/install/cache/jose/test.js", f"{KEY}\nMIIEvQIBADANBgkqhkiG\n"),
    "what pnpm keeps": ("app/.pnpm-store/v3/files/00/1a", f"{KEY}\nMIIEvQIBADANBgkqhkiG\n"),
    "a key in fingers' order": ("app/agent.py", 'Client(api_key="abcdef0123456789abcdef0123456789")'),
    "a type": ("app/settings.py", "api_key: str | None = None\nauth_token: str = Field(default='', description='Twilio')\n"),
    "a name in JavaScript": ("app/agent.ts", 'const key = process.env.API_KEY ?? "deepgramApiKeyOfProduction";'),
    "a shell's own": ("root/.bashrc", "export PS1='\\h:\\w# '\n# export LS_OPTIONS='--color=auto'\nHISTCONTROL=ignoredups\n"),
    "a key by name": ("app/agent.py", 'Client(api_key="deepgram", apiKey="productionKeyOfTheSpeechService")'),
    "a test's": ("app/tests/test_token.py", f'Token(api_secret="{SECRET}")'),
    "a sample": ("app/.env.example", "LIVEKIT_API_SECRET=abcdefgh12345678\n"),
    "a sample of production": ("app/.env.production.example", "LIVEKIT_API_SECRET=abcdefgh12345678\n"),
    "a sample by its folder": ("app/examples/agent/.env", "LIVEKIT_API_SECRET=correcthorse\n"),
    "a lock file's": ("app/pnpm-lock.yaml", f"lodash:\n  checksum: {HEX}\n  sha512: {HASH}\n  commit: {HEX}\n"),
    "a digest of one": ("app/config.yaml", f"api_key_sha256: {HEX}\nhashed_api_key: {HEX}\nAPI: {HEX}\n"),
    "known to all": ("app/config.yaml", f"public_api_key: {HEX}\n"),
    "a name of one": (
        "app/config.yaml",
        "api_secret: livekitApiSecretOfProduction1\nAPIVERSIONING: aVeryLongNameOfAVersion2\n",
    ),
    "what begins as LiveKit's": ("app/config.yaml", f"apiSchemaHash: {HEX}\napiPublicKey: {HEX}\napigatewayid: {HEX}\n"),
    "known to all who search": ("app/mkdocs.yml", f"algolia_search_api_key: {HEX}\n"),
    "a stand-in in base64": ("app/secret.yaml", "OPENAI_API_KEY: eW91ci1vcGVuYWktYXBpLWtleQ==\n"),
    "a reference": ("app/config.yaml", f"api_key: ${{KEY}}\napi_secret:\n  {HEX}\napi_key: !secret {HEX}\n"),
    "a sentence in YAML": ("app/config.yaml", f"hint: api_key: {HEX} is an example\n"),
    "a sample in YAML": ("app/examples/config.yaml", f"api_key: {HEX}\n"),
    "what an installed package consists of": (
        "root/.cache/uv/archive-v0/x/numpy-2.4.6.dist-info/RECORD",
        "numpy/lib/_ufunclike.pyi,sha256=sk_" + HASH + ",1403\n",
    ),
    "the same elsewhere": ("app/deps/x-1.0.dist-info/RECORD", "x.py,sha256=sk_" + HASH + ",1403\n"),
    "a library's": ("usr/lib/python3/site-packages/jwt/sample.py", f"{KEY}\nMIIEvQIBADANBgkqhkiG\n"),
    "a package's": ("etc/ssl/private/ssl-cert-snakeoil.key", f"{KEY}\nMIIEvQIBADANBgkqhkiG\n"),
    "a script that reads": (
        "app/start.sh",
        "export API_TOKEN=$(cat /run/secrets/token)\nAPI_KEY=`vault read x`\nAPI_KEY=${K:-x}\n",
    ),
    "npm by variable": ("root/.npmrc", "//registry.example.com/:_authToken=${NPM_TOKEN}\n"),
    "a local database": ("app/pip.conf", "url = postgres://postgres:postgres@localhost/app\n"),
}


@pytest.mark.parametrize("where", LEAKS)
def test_a_credential_in_a_file_is_found_and_not_shown(where: str) -> None:
    path, text = LEAKS[where]
    found = findings_in(path, text.encode(), [])
    assert found
    assert SECRET not in " ".join(found)


@pytest.mark.parametrize("where", INNOCENT)
def test_what_only_looks_like_one_is_left_alone(where: str) -> None:
    path, text = INNOCENT[where]
    assert findings_in(path, text.encode(), []) == []


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        ("postgres://agent:k3Y0fTheDb@db.internal/app", True),
        ("redis://:k3Y0fTheDb@cache:6379/0", True),
        ("ghp_" + HASH, True),
        (f"{KEY}\nMIIEvQIBADANBgkqhkiG", True),
        ("postgres://postgres:postgres@db/app", False),
        ("https://user:${TOKEN}@git.example.com", False),
        ("wss://project.livekit.cloud", False),
        ("A035C8C19219BA821ECEA86B64E628F8D684696D", False),
        ("http://proxy.internal:8080", False),
    ],
)
def test_a_credential_in_a_variable(text: str, leaks: bool) -> None:
    assert in_text(text) is leaks


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("OPENAI_API_KEY", "abcdefgh1", True),
        ("DB_PASSWORD", "correcthorse", True),
        ("SLACK_TOKEN", "https://hooks.internal/x?sig=abcdefgh1", True),
        ("GOOGLE_APPLICATION_CREDENTIALS", "gcp-key.json", False),
        ("GOOGLE_APPLICATION_CREDENTIALS", "./secrets/sa.json", False),
        ("TOKEN_ENDPOINT", "https://auth.example.com/oauth/token", False),
        ("AUTH_TOKEN_AT", "https://auth.example.com/oauth/token", False),
        ("TOKENIZER_MODEL", "cl100k_base", False),
        ("TIKTOKEN_ENCODER", "cl100k_base", False),
        ("SECRETS_BACKEND", "aws-secretsmanager", False),
        ("DEEPGRAM_API_KEY_SOURCE", "environment", False),
        ("OPENAI_API_KEY", "sk-no-key-required", False),
        ("LIVEKIT_API_SECRET", "build-time-only", False),
        ("LIVEKIT_PRIVATE_KEY", "abcdefgh1", True),
        ("PRIVATE_TOKEN", "abcdefgh1", True),
        *[(f"{name}_PRIVATE", "abcdefgh1", True) for name in ("VAPID", "SIGNING", "EC", "JWT_SIGNING")],
        *[
            (name, "tenant,role,plan", False)
            for name in ("WG_PRIVATE_SUBNET", "JWT_PRIVATE_CLAIMS", "SUBNET_IDS_PRIVATE", "VPC_PRIVATE")
        ],
        ("JWT_PRIVATE_B64", "abcdefgh1", True),
        ("DB_PASSWORD", "SUPER_SECRET_PASSWORD", True),
        ("DJANGO_SECRET_KEY", "PROD_SECRET_2024", True),
        ("JWT_PRIVATE_PEM", "abcdefgh1", True),
        ("PGHOST_PRIVATE", "postgres.railway.internal", False),
        ("BUCKET_PRIVATE", "acme-recordings-prod", False),
        ("REQUIRED_SECRET", "OPENAI_API_KEY", False),
        ("PRIVATE_SUBNET", "10.12.0.0/16", False),
        ("GOPRIVATE", "github.com/acme/*", False),
        ("PRIVATE_REGISTRY", "registry.internal:5000", False),
        ("UV_INDEX_PRIVATE_USERNAME", "deployer1", False),
        ("PRIVATE_HOST", "agent.railway.internal", False),
        ("RAILWAY_PRIVATE_DOMAIN", "agent.railway.internal", False),
        ("SECRET_NAMES", "livekit,openai", False),
        ("VAULT_SECRET_MOUNT", "kv-production", False),
        ("TOKEN_SERVER", "tokens.internal:8080", False),
        *[
            (name, value, False)
            for name, value in (
                *(("TOKEN_TTL_SECONDS", "31536000"), ("TOKEN_EXPIRY_MS", "86400000"), ("PASSWORD_LENGTH", "12345678")),
                *(("ACCESS_TOKEN_LIFETIME", "15 minutes"), ("TOKEN_MAX_AGE", "1h30m 15s"), ("JWT_SECRET_LIFETIME", "P30DT12H")),
                *(("TOKENS_PER_MINUTE", "10000000"), ("MAX_TOKENS", "4096000001"), ("MAX_TOKENS_PER_DAY", "100,000,000")),
                *(("LLM_MAX_OUTPUT_TOKENS", "10000000"), ("TOKEN_BUCKET_SIZE", "10000000")),
                ("STT_EOU_TOKEN", "end-of-utterance"),
                *(("VAULT_TOKEN_ROLE", "voice-agent-prod"), ("SECRET_MANAGER_PROJECT", "acme-prod-123456")),
                *(("JWT_SECRET_ROTATION", "every-30-days"), ("API_KEY_ROTATION", "rotation-enabled")),
                *(("VAULT_SECRET_ENGINE", "kv-v2-engine"), ("TOKEN_COUNT_METHOD", "tiktoken-o200k")),
            )
        ],
        *[
            (name, value, True)
            for name, value in (
                *(("DB_PASSWORD", "12345678"), ("ACCESS_KEY", "1234567890"), ("API_SECRET", "1234567890")),
                *(("ADMIN_TOKENS", "12345678"), ("AUTH_TOKEN", "12345678"), ("DB_PASSWORD", "15 minutes")),
                *(("MAX_TOKENS", "h7Jd2kP0xQ9v"), ("TOKEN_TTL_SECONDS", "h7Jd2kP0xQ9v"), ("TOKEN_SIZE_KEY", "12345678")),
                *(("DB_PASSWORD_APP_ROLE", "h7Jd2kP0xQ9v"), ("SECRET_PROJECT", "c2hvcnQtbGl2ZWQ5MXF6")),
                ("STT_EOU_TOKEN", "h7Jd2kP0xQ9v"),
            )
        ],
        *[
            (name, value, False)
            for name, value in (
                *(
                    ("SECRETARY_PHONE", "+4940123456789"),
                    ("SECRETARIAT_QUEUE", "desk-9Xk2ab88"),
                    ("secretariesDesk", "desk-9Xk2ab88"),
                ),
                *(("PASSWORD_RESET_MESSAGE", "We sent a link, valid for 24 hours"), ("PASSWORDLESS_LOGIN", "desk-9Xk2ab88")),
                *((name, "Please say the password now.\n") for name in ("PASSWORD_PROMPT", "PASSWORD_RESET_INSTRUCTIONS")),
                *(("TOKENS_PER_MINUTE_NOTE", "about 1200 per call"), ("ASK_FOR_TOKEN_PROMPT", "Say the 6 digits on it")),
            )
        ],
        *[
            (name, value, True)
            for name, value in (
                *((name, "h7Jd2kP0xQ9v") for name in ("CLIENT_SECRET", "SECRETS", "SECRET_KEY", "MY_SECRET2", "clientSecret")),
                *(
                    (name, "h7Jd2kP0xQ9v")
                    for name in ("SECRETARY_TOKEN", "PASSWORDLESS_API_SECRET", "SECRET_ARGON", "SECRET_NOTE")
                ),
                *((name, "Zk39dkf93kdkf93kdfk3") for name in ("PASSWORDLESS_JWT", "SIGNING_KEY_PASSWORDLESS_HMAC")),
                ("DB_CREDENTIALS_TEXT", '{"user": "admin", "password": "Tr!ck-yHorse"}'),
                *(("PASSWORDLESS_SIGNING_KEY", "Zk39dkf93kdkf93kdfk3"), ("APP_PASSWORD_NOTE", "abcd efgh ijkl mnop")),
                *(("TOKEN_MESSAGE", "it is h7Jd2kP0xQ9v"), ("API_KEY_TEXT", "abcd efgh ijkl mnop")),
                *(("TOKEN_MESSAGE", "abcd efgh ijkl mnop"), ("PASSWORD_TEXT", "correct horse battery staple")),
            )
        ],
        ("HF_TOKEN", "os.environ['HF_TOKEN']", False),
        ("HF_TOKEN", "process.env.HF_TOKEN", False),
        ("OPENAI_API_KEY", "openai-api-key", False),
        ("PASSWORD", "password", True),
        ("HF_TOKEN", "os.urandom-9Xk2", True),
        *[
            ("LIVEKIT_API_SECRET", stand_in, False)
            for stand_in in (
                *("REPLACE_ME", "replace-with-deepgram-key", "put-your-secret-here", "APIxxxxxxxxxxxx", "sk-your-openai-key"),
                *("set_in_the_dashboard", "TODO-a-real-one", "secret-goes-here", "your-livekit-api-secret-0001"),
                *("your-32-character-secret-here", "fake-key-12345678", "sk-ant-api03-xxxx", "eu1-xxxxxxxx", "REPLACE_ME_2"),
            )
        ],
        *[
            ("LIVEKIT_API_SECRET", stand_in, False)
            for stand_in in (
                *("your-256-bit-secret", "sk-or-v1-your-openrouter-key", "your-s3-secret-key", "your_auth0_client_secret"),
                *("set-in-k8s-secret", "TO_BE_REPLACED", "REPLACE_API_KEY", "replace-in-production", "__REPLACE__"),
            )
        ],
        *[
            ("OPENAI_API_KEY", stand_in, False)
            for stand_in in (
                *(
                    "OPENAI_API_KEY",
                    "__OPENAI_API_KEY__",
                    "__openai_key__",
                    "{{OPENAI_API_KEY}}",
                    "{{ key }}",
                    "#{OPENAI_KEY}#",
                ),
                *(
                    "@@OPENAI_KEY@@",
                    "REDACTED",
                    "[REDACTED]",
                    "undefined",
                    "not-a-secret",
                    "not-a-real-key",
                    "not_a_valid_api_key",
                ),
                *("set-at-runtime", "injected-at-runtime", "provided_at_run_time", "given-on-deploy", "to-be-set"),
                *("must-be-set", "to-be-injected-by-vault", "override-me", "OVERRIDE_ME", "devsecret", "dev-secret"),
                *("devsecret_change_me_0123456789abcdef", "dev-only-changeme", "a-secret-change-in-production"),
                *("change-this-in-production", "my_secret_key_2024_change_it"),
                *("access_token", "API_SECRET", "auth-token", "client secret"),
            )
        ],
        *[
            ("OPENAI_API_KEY", value, True)
            for value in (
                *("override99x", "override-me9Xk2", "__9Xk2ab88__", "devsecret9", "not-a-chance-9Xk2", "redacted99x"),
                *("to-be-or-not-2b", "must-be-set-9Xk2", "set-at-noon-9Xk2", "undefined9Xk2", "a{{9Xk2ab}}"),
                *("access_token9", "api-secret-9Xk2", "secret_access"),
                *("exchange-me9Xk2", "i-change-it-9Xk2", "unchange_me9Xk2", "x9Kd82LmQ0vZ-change-me", "9Xk2ab88-changeme"),
            )
        ],
        *[("HOOKS_CLIENT_TOKEN", value, found) for value, found in (("client-token", False), ("ent_token", True))],
        ("TSIG_SECRET_ALG", "hmac-sha256", False),
        *[
            (name, "9f86d081884c7d659a2feaa0c55ad015", True)
            for name in ("ENCRYPTION_KEY", "RAILS_MASTER_KEY", "JWT_SIGNING_KEY", "SUPABASE_SERVICE_ROLE_KEY")
        ],
        *[
            ("ENCRYPTION_KEY", value, False)
            for value in (
                *("voice-calls", "your-32-byte-key-00001", "/run/secrets/key-2024", "alias/voice-calls"),
                "arn:aws:kms:eu-central-1:123456789012:key/1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed",
                "projects/x/locations/global/keyRings/voice/cryptoKeys/calls-2024",
                *("gcp-kms://projects/x/keyRings/voice-22/cryptoKeys/calls-2024", "awskms:///alias/calls-2024"),
                *("alias/prod/voice-calls-2024", "key-2024-01", "mrk-1b9d6bcdbbfd4b2d9b5dab8dfbbd4bed"),
                *("C874011F0AB405110D02105534365D9472D7468F", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2k3 a@b"),
                "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE3n7x\n-----END PUBLIC KEY-----",
            )
        ],
        ("KMS_ENCRYPTION_KEY", "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed", False),
        ("ENCRYPTION_KEY", "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed", True),
        ("GPG_SIGNING_KEY", "3AA5C34371567BD2", False),
        ("API_TOKEN", "myco/9f86d081884c7d65", True),
        ("DB_PASSWORD", "team/k2jd82mxq0v", True),
        *[
            ("tls-secret", name, False)
            for name in ("prod/edge-tls-7d4f8b9912", "ingress-nginx/basic-auth", "prod/edge.example")
        ],
        *[("tls-secret", value, True) for value in ("hunter2/9Xk2", "Prod/edge-tls", "k2Jd/82mxQ0vR", "a/b/c9Xk2ab")],
        ("MONKEY", "9f86d081884c7d659a2feaa0c55ad015", False),
        # As kube-rbac-proxy has it.
        ("AUTH_TOKEN_AUDIENCES", "agent-7d4f8b9912", False),
        *[
            ("LIVEKIT_API_SECRET", entry, False)
            for entry in (
                *("vault:secret/data/livekit#API_KEY", "op://prod/openai/credential", "ref+awsssm://livekit/secret"),
                *("sm://livekit-secret", "arn:aws:secretsmanager:eu-central-1:123456789012:secret:livekit-Ab12Cd"),
                *("projects/x/secrets/y", "ENC[AES256_GCM,data:p673w7sP,iv:YY9x,tag:gKe1,type:str]"),
                "@Microsoft.KeyVault(SecretUri=https://x.vault.azure.net/secrets/y)",
                "livekit-secret@azurekeyvault",
                "livekit-secret-2@azurekeyvault?api-key",
                # Of SealedSecrets and KMS.
                *("AgB" + "y3i4OJSWK+" * 70, "AQICAHh" + "Xk2jd82mxQ" * 20),
            )
        ],
        *[
            (name, "AIzaSyD4x8Kq2mZ7vLw9Np3RtYuIoPaSdFgHjKl", False)
            for name in ("NEXT_PUBLIC_MAPS_API_KEY", "VITE_MAPBOX_TOKEN", "FIREBASE_API_KEY", "AUTH_TOKEN_PUBLIC_KEY")
        ],
        *[(name, SECRET, True) for name in ("NEXT_PUBLIC_LIVEKIT_API_SECRET", "VITE_DB_PASSWORD", "INVITE_TOKEN")],
        *[
            ("LIVEKIT_API_SECRET", value, True)
            for value in (
                *("Irreplaceable#77", "not-used-anywhere-9Xk2", "todo_prod_9Xk2ab88", "set-in-stone-4711", "fill_9a8b7c6d5e"),
                *("fakeit-till-9Xk2", "sk-9a8b7c6dxxxx", "Tell-your-9Xk2", "build-only-9Xk2ab"),
            )
        ],
        *[("LIVEKIT_API_SECRET", value, True) for value in (SECRET, "set-k2Jd82mxQ0vR", "vault-k2Jd82mxQ0", "yourk2Jd82mxQ0")],
    ],
)
def test_a_variable_that_holds_a_secret(name: str, value: str, secret: bool) -> None:
    assert holds_secret(name, value) is secret


COMMANDS = {
    "RUN python -c \"import os; token=os.environ['HF_TOKEN']; load(token)\"": [],
    "RUN python -c \"token=os.getenv('HF_TOKEN')\" # buildkit": [],
    'RUN python -c "token=os.environ.get(NAME_OF_TOKEN)"': [],
    "RUN python -c \"token=getenv('HF_TOKEN')\"": [],
    "RUN python -c \"load('x', token=hf_token)\"": [],
    'RUN python -c "load(token=settings.HF_TOKEN, name=x)"': [],
    "RUN node -e 'const apiKey=process.env.OPENAI_API_KEY'": [],
    'RUN API_TOKEN="$(cat /run/secrets/token)" ./fetch': [],
    "RUN API_TOKEN=$(cat /run/secrets/token) ./fetch": [],
    'RUN API_TOKEN="Bearer-$TOKEN" ./fetch': [],
    "RUN echo \"API_TOKEN='set one before the start'\"": [],
    'RUN PASSWORD="" ./init --user="$NAME"': [],
    "RUN |1 DB_PASSWORD=pa(ss$word9 /bin/sh -c ./init": ["DB_PASSWORD"],
    'RUN DB_PASSWORD="correcthorse" ./init': ["DB_PASSWORD"],
    "RUN export DB_PASSWORD='correct$horse' && ./init": ["DB_PASSWORD"],
    'CMD ["sh" "-c" "DB_PASSWORD=\\"correcthorse\\" ./agent"]': ["DB_PASSWORD"],
    "RUN python -c \"password='correcthorse'\"": ["password"],
    "ENV DB_PASSWORD=correcthorse": ["DB_PASSWORD"],
    'CMD ["python" "agent.py" "start" "--deepgram-api-key" "8f3b6c1d9e2a4f7b"]': ["--deepgram-api-key"],
    "RUN ./fetch --api-key=8f3b6c1d9e2a4f7b --verbose": ["--api-key"],
    "RUN ./fetch --api-key $API_KEY_V2 --token '${TOKEN_123}' --auth-token=\"`cat token123`\"": [],
    "RUN --mount=type=secret,id=token2024 ./serve --max-tokens 4096 --api-key-file /run/key12345 --token your-token-123": [],
    "RUN ./serve --use-token --listen=0.0.0.0:8081 --no-auth-token --log-file=/var/log/a-2024.log": [],
    "RUN ./serve --secret prod/livekit-2024-07 --livekit-secret prod-agents-2024-11 --token @/run/secrets/tok123456": [],
    "RUN ./serve --api-key-hash 8f3b6c1d9e2a4f7b8f3b6c1d9e2a4f7b --token file:///run/secrets/tok-123": [],
    "RUN ./serve --api-secret p9a/bcd1234Xfgh5678ij9QQwwZZ77mmkk0=": ["--api-secret"],
    "RUN ./serve --redis-password kX82!hf02mzq7w": ["--redis-password"],
    "RUN ./login --password-stdin --token-id 8f3b6c1d9e2a4f7b --tokenizer cl100k_base": [],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_command_of_the_history_writes_out(command: str) -> None:
    assert findings_in_words({}, [command], []) == [f"history: {name}" for name in COMMANDS[command]]


def test_variables_labels_and_history_are_searched_for_the_environments_values() -> None:
    config = {"Env": ["SETTING=x-opensesame-1", "PATH=/bin"], "Labels": {"note": "opensesame-1", "com.x.token": "abcdefgh1"}}
    found = findings_in_words(config, ["RUN login opensesame-1", "RUN true"], ["opensesame-1"])
    assert found == ["ENV SETTING", "label note", "label com.x.token", "history: a value of the worker's environment"]
    assert findings_in_words({"Env": None, "Labels": None}, [], ["opensesame-1"]) == []


def test_commands_are_searched_where_an_image_has_no_history() -> None:
    config = {"Entrypoint": ["agent", "--api-secret", SECRET], "Cmd": ["/bin/sh", "-c", f"exec run --auth-token='{SECRET}'"]}
    assert findings_in_words(config, [], []) == ["Entrypoint --api-secret", "Cmd --auth-token"]
    assert findings_in_words({"Entrypoint": None, "Cmd": ["run", "--api-secret", "secret"]}, [], []) == []


@pytest.mark.parametrize(
    ("name", "value", "secrets"),
    [
        ("REDIS_URL", "redis://agent:k3Y0fTh%40Db12@cache:6379/0", ["k3Y0fTh%40Db12", "k3Y0fTh@Db12"]),
        ("BROKER_URL", "amqp://rabbitmq3a72:rabbitmq3a72@broker:5672/", []),
        ("REDIS_URL", "redis://:redis1234@cache:6379/0", []),
        ("REDIS_URL", "redis://:kYfT3hDbQxzLmPw@cache:6379/0", ["kYfT3hDbQxzLmPw"]),
        ("DATABASE_URL", "postgres://my%2Dapp:my%2Dapp@db/x", []),
        ("DATABASE_URL", "postgres://postgres:postgres@db/agents", []),
        ("LIVEKIT_URL", "wss://example.livekit.cloud", []),
        ("OPENAI_API_KEY", SECRET, [SECRET]),
    ],
)
def test_what_of_a_variable_is_a_secret_wherever_it_stands(name: str, value: str, secrets: list[str]) -> None:
    assert secrets_of(name, value) == secrets


def test_a_setting_that_is_named_after_a_secret_is_masked_all_the_same() -> None:
    redactor = Redactor()
    redactor.add("TOKEN_TTL_SECONDS", "31536000")
    assert redactor.text("31536000 s") == "[TOKEN_TTL_SECONDS] s"


@pytest.mark.parametrize(("value", "told"), [("postgres", False), ("not-needed", False), ("Change it", False), (SECRET, True)])
def test_a_value_that_is_a_secret_wherever_it_stands(value: str, told: bool) -> None:
    assert can_be_told("POSTGRES_PASSWORD", value) is told


class Saved:
    """An image of layers, as an engine saves it; the name of a layer says how it is stored."""

    def __init__(self, *layers: str) -> None:
        self._layers = layers
        self.attrs: dict[str, Any] = {"Config": {"Env": ["SSL_CERT_FILE=/nix/store/cacert/ca-bundle.crt"]}}

    def save(self, chunk_size: int) -> Iterator[bytes]:
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as layer:
            text = f'api_secret = "{SECRET}"'.encode()
            entry = tarfile.TarInfo("app/agent.py")
            entry.size = len(text)
            layer.addfile(entry, io.BytesIO(text))
            entry = tarfile.TarInfo("nix/store/cacert/ca-bundle.crt")
            entry.size = 2000
            layer.addfile(entry, io.BytesIO(bytes(2000)))
            for place in ("", "pip/_vendor/"):
                entry = tarfile.TarInfo(f"lib/site-packages/{place}certifi/cacert.pem")
                entry.size = 2000
                layer.addfile(entry, io.BytesIO(bytes(2000)))
            entry = tarfile.TarInfo("etc/ssl/cert.pem")
            entry.type, entry.linkname = tarfile.LNKTYPE, "nix/store/cacert/ca-bundle.crt"
            layer.addfile(entry)
            entry = tarfile.TarInfo("usr/bin/python3")
            entry.type, entry.linkname = tarfile.SYMTYPE, "python3.11"
            layer.addfile(entry)
        data = {"plain": plain.getvalue(), "gzip": gzip.compress(plain.getvalue()), "zstd": b"\x28\xb5\x2f\xfd" + b"x" * 600}
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w") as outer:
            manifest = json.dumps([{"Layers": [f"{name}/layer.tar" for name in self._layers]}]).encode()
            entry = tarfile.TarInfo("manifest.json")
            entry.size = len(manifest)
            outer.addfile(entry, io.BytesIO(manifest))
            for name in self._layers:
                entry = tarfile.TarInfo(f"{name}/layer.tar")
                if name == "link":
                    entry.type, entry.linkname = tarfile.SYMTYPE, "../plain/layer.tar"
                    outer.addfile(entry)
                else:
                    entry.size = len(data[name])
                    outer.addfile(entry, io.BytesIO(data[name]))
        yield whole.getvalue()


@pytest.mark.parametrize("layers", [("plain",), ("gzip",), ("plain", "link")])
def test_layers_are_read_however_they_are_saved(layers: tuple[str, ...]) -> None:
    found = scan(Saved(*layers), [])  # type: ignore[arg-type]
    assert (found.layers, len(found.secrets)) == (len(layers), 1)
    assert found.ca_bundles == [
        "etc/ssl/cert.pem",
        "lib/site-packages/certifi/cacert.pem",  # and not that of pip, for pip
        "nix/store/cacert/ca-bundle.crt",
    ]


def test_files_are_counted_that_are_read_for_secrets() -> None:
    """Those of libraries only for values that must not be in the image."""
    assert scan(Saved("plain"), []).files == 2  # type: ignore[arg-type]
    assert scan(Saved("plain"), ["hunter2-hunter2"]).files == 4  # type: ignore[arg-type]


def test_a_layer_that_cannot_be_read_is_said_beside_what_was_found() -> None:
    found = scan(Saved("plain", "zstd"), [])  # type: ignore[arg-type]
    assert found.secrets == ["/app/agent.py: a LiveKit API secret"]
    with pytest.raises(StageError, match="1 of 2 are damaged, or compressed"):
        found.raise_if_unread()
    scan(Saved("plain", "link"), []).raise_if_unread()  # type: ignore[arg-type]


def test_all_who_wait_for_the_layers_wait_for_one_time_which_grows_with_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(scanner.Scanner, "scan", lambda *_: ended.wait(20) and ImageScan(layers=3))
    monkeypatch.setattr(contents, "READ_SECONDS", 0.4)
    small, large = (contents.ImageContents(SimpleNamespace(id="x", attrs={"Size": size}), []) for size in (0, 10**9))  # type: ignore[arg-type]
    try:
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(StageError, match="not read after 0 s"):
                small.scan()
        assert time.monotonic() - began < 0.4
        threading.Timer(0.7, ended.set).start()
        assert large.scan().layers == 3
    finally:
        ended.set()
        small.close()
        large.close()


LAYERS = {"Size": 300, "RootFS": {"Layers": ["a", "b"]}}


@pytest.mark.parametrize(
    ("sizes", "stated", "unpacked"),
    [
        ((200, 0, 100), 300, 300),  # as the classic store has it, which nobody needs to read
        ((500, 0, 400), 900, 850),  # as containerd's store has it: what is compressed is less
        ((100, 0, 100), 200, 850),  # and both together are more
        ((), 300, 850),
        ((100,), 300, 850),  # a part of it
        ((0, 0, 0), 300, 850),
    ],
)
def test_an_images_size_is_that_of_the_files_in_its_layers(
    sizes: tuple[int, ...], stated: int, unpacked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanner.Scanner, "scan", lambda *_: ImageScan(file_bytes=850))
    steps = [{"Size": size, "CreatedBy": "RUN x"} for size in sizes]
    made = contents.ImageContents(SimpleNamespace(id="x", attrs=LAYERS, history=lambda: steps), [])  # type: ignore[arg-type]
    assert (made.stated_bytes(), made.unpacked_bytes(), made.stated_bytes()) == (stated, unpacked, unpacked)
    assert bool(made.under_way()) is (unpacked == 850)
    assert made.history() == ["RUN x"] * len(sizes)
    made.close()


@pytest.mark.parametrize("found", [ImageScan(file_bytes=1, unread="1 of 2 are damaged"), StageError("cannot be read")])
def test_the_engines_word_counts_where_the_layers_cannot_be_read(
    found: ImageScan | StageError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scanned(*_: object) -> ImageScan:
        if isinstance(found, StageError):
            raise found
        return found

    monkeypatch.setattr(scanner.Scanner, "scan", scanned)
    steps = [{"Size": size} for size in (500, 0, 400)]
    made = contents.ImageContents(SimpleNamespace(id="x", attrs=LAYERS, history=lambda: steps), [])  # type: ignore[arg-type]
    if isinstance(found, StageError):
        with pytest.raises(StageError, match="cannot be read"):
            made.unpacked_bytes()
    else:
        assert made.unpacked_bytes() == 900
    assert made.stated_bytes() == 900
    made.close()


def test_the_bytes_of_files_are_counted_as_a_classic_store_does() -> None:
    one = scan(Saved("plain"), []).file_bytes  # type: ignore[arg-type]
    assert one == len(f'api_secret = "{SECRET}"') + 3 * 2000 + len("python3.11")
    assert scan(Saved("gzip", "plain", "link"), []).file_bytes == 3 * one  # type: ignore[arg-type]


def test_an_engine_that_is_gone_takes_no_verdict_away() -> None:
    def history() -> list[object]:
        raise requests.ConnectionError

    made = contents.ImageContents(SimpleNamespace(attrs=LAYERS, history=history), [])  # type: ignore[arg-type]
    assert made.stated_bytes() == 300
    made.close()


def test_whoever_reads_an_image_waits_for_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts: list[int | None] = []

    def from_env(timeout: int | None) -> SimpleNamespace:
        timeouts.append(timeout)
        http = SimpleNamespace(base_url="http+docker://localhost", proxies={}, verify=True)
        images = SimpleNamespace(get=lambda _: Saved("plain"))
        return SimpleNamespace(api=http, ping=lambda: True, images=images, close=lambda: None)

    monkeypatch.setattr("docker.from_env", from_env)
    assert scanner.read("x", []).layers == 1
    assert timeouts == [None]


def test_a_value_of_the_environment_counts_in_libraries_too() -> None:
    assert findings_in("usr/lib/x/site-packages/a.py", b"token = 'opensesame'", ["opensesame"])


def test_a_token_in_a_compiled_module_is_found_whatever_its_length() -> None:
    """In it the length of a string comes right before the string, and is a letter for some."""
    for length in range(40, 130):
        token = ("sk-proj-" + HASH * 4)[:length]
        assert findings_in("app/settings.pyc", marshal.dumps(compile(f"K = {token!r}", "", "exec")), []) == ["an access token"]
    plain = marshal.dumps(compile("K = 'disk-task-scheduler-of-the-2nd-kind'", "", "exec"))
    assert findings_in("app/settings.pyc", plain, []) == []


@pytest.mark.parametrize("before", ["", "APIkey:", "APIkey12:", "k:"])
def test_a_secret_is_known_within_base64(before: str) -> None:
    text = base64.b64encode(f"{before}{SECRET}:x".encode()).decode()
    assert any(spelling in text for spelling in spellings(SECRET))
    redactor = Redactor()
    redactor.add("MY_SECRET", SECRET)
    hidden = redactor.text(text)
    assert "[MY_SECRET]" in hidden
    assert len(hidden) <= len(text) - 18, "nearly all of it"
    other = base64.b64encode(b"APIkey:another-secret-of-36-characters").decode()
    assert redactor.text(other) == other


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("wss://sk-voice-assistant-4x7k2m1q.livekit.cloud", False),
        ("NODE=sk-prod-agents-cluster-2025-01", False),
        ("sk-fake-key-for-testing-123", False),
        ("sk-proj-xxxxxxxxxxxx123456", False),
        ("sk-" + 28 * "0", False),
        ("ghp_" + 36 * "0", False),
        ("xoxb-1111111111-2222222222-yourtokenhere", False),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC...\n-----END PRIVATE KEY-----", False),
        ("sk-9f2KcP4xQ7mZ1tLw8RbVy6Hd", True),
        ("sk-proj-9f2KcP4x-7mZ1tLw8RbVy6Hd3sNq5TgUa_x", True),
        ("sk-lf-9f2c1b7a-4d3e-4f5a-8b6c-7d8e9f0a1b2c", True),
        ("glpat-9f2K-P4xQ7mZ1_Lw8RbV", True),
        ("-----BEGIN PRIVATE KEY-----\n" + 4 * "MIIEvQIBADANBgk1" + "\n-----END PRIVATE KEY-----", True),
    ],
)
def test_names_and_rows_are_no_tokens(text: str, holds: bool) -> None:
    from pytest_lkagents.secrets import holds_key

    assert holds_key(text) is holds


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("Authorization=Basic cGstbGYtOGE3YjZjNWQ6c2stbGYtazJKZDgybXhRMHZSazJKZDgy", True),
        ("Authorization=Basic%20cGstbGYtOGE3YjZjNWQ6c2stbGYtazJKZDgybXhRMHZSazJKZDgy,x-a=b", True),
        ("curl -H 'Authorization: Bearer k2Jd82mxQ0vRk2Jd82mx' https://a.example.com", True),
        ('{"authorization": "Bearer k2Jd82mxQ0vRk2Jd82mx"}', True),
        ("Authorization: Basic ${env:OTLP_AUTH_2024_PRODUCTION}", False),
        ("Authorization=Bearer your-langfuse-key-0001", False),
        ("Authorization=Basic eW91ci1hcGkta2V5OnlvdXItc2VjcmV0LWtleQ==", False),
        ("Authorization: Bearer <token>", False),
        # admin:changeme, guest:guest, admin:password, user:xxxxxxxx1234
        ("Authorization=Basic YWRtaW46Y2hhbmdlbWU=", False),
        ("Authorization=Basic Z3Vlc3Q6Z3Vlc3Q=", False),
        ("Authorization=Basic YWRtaW46cGFzc3dvcmQ=", False),
        ("Authorization=Basic dXNlcjp4eHh4eHh4eDEyMzQ=", False),
        # user:k2Jd82mxQ0vRk2Jd82mx, also without what fills its last group up
        ("Authorization=Basic dXNlcjprMkpkODJteFEwdlJrMkpkODJteA==", True),
        ("Authorization=Basic dXNlcjprMkpkODJteFEwdlJrMkpkODJteA", True),
        ("Authorization: Bearer test-token-123456", False),
        ("Authorization: Bearer sk-proj-abc...1234567", False),
        (r"{\"Authorization\": \"Bearer k2Jd82mxQ0vRk2Jd82mx\"}", True),
    ],
)
def test_a_header_that_authorises_holds_a_key(text: str, held: bool) -> None:
    assert holds_key(text) is held
    assert in_text(text) is held, "in an image's variables and history, too"

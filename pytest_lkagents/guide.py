"""Figures of LiveKit's guide "Deploying to production": cores and bytes."""

# Where to start: 4 cores and 8 GB for every 25 concurrent sessions.
RULE_CORES = 4 / 25
RULE_BYTES = 8_000_000_000 // 25
# Its load test: 30 agents, about 3.8 of 4 cores and 2.8 GB.
TEST_AGENTS = 30
TEST_LIMIT = 4.0
TEST_CORES = 3.8 / TEST_AGENTS
TEST_BYTES = 2_800_000_000 // TEST_AGENTS

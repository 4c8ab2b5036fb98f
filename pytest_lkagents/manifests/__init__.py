"""Deployment files: read into one small model of "a deployment of a worker", and judged by rules. Knows no engine, no stage."""

# The path by which standard input is meant.
STANDARD_INPUT = "-"
# What it is called among the files.
RENDERED = "standard input"

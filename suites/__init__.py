"""The conformance tests, one file per section of the guide "Deploying to production"; beside them what they observe, and how
that is judged."""

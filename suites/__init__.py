"""The conformance tests, one file per section of the guide "Deploying to production"."""

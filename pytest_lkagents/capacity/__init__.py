"""From a measured load curve to a sizing. Knows no engine, no worker and no pytest."""

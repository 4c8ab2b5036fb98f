"""The side container: sockets, firewall and requests inside a worker's network namespace."""

"""The worker under test."""

"""Prefect: scheduled deployments, and what a server is told."""

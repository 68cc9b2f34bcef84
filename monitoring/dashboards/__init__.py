"""Grafana dashboards as data, and what turns them into the JSON files in ``dist/``."""

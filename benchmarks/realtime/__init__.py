"""Freshness, throughput, latency, scale and recovery, each beside its peer or limit."""

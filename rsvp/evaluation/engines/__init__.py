"""Engines: what answers the samples of a run, in this process or on a cluster."""

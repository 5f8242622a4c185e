"""Peer benchmarks: minidl beside the frameworks it must be compared with, on one and the same job."""

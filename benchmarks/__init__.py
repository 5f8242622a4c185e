"""Peer benchmarks: minidl compared with other frameworks on the same job."""

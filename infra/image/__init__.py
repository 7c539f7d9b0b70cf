"""Container images without a daemon: packages of Debian, wheels and jars, each pinned by hash, become OCI archives. `python -m infra.image`."""

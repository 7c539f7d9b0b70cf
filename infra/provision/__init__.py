"""What a city needs before its pods start and no chart may hold: secrets in the cluster, roles in the database. Called by `city provision`."""

from infra.provision.items import Need, needs
from infra.provision.rounds import SecretStore, provision, remove
from infra.provision.wanted import GROUPS, Change, Found, Wanted

__all__ = ["GROUPS", "Change", "Found", "Need", "SecretStore", "Wanted", "needs", "provision", "remove"]

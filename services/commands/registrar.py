"""Body of `city provision registrar`: the first person of a city, who can make all others. Run in a pod of identity, which may call itself."""

from __future__ import annotations

import grpc.aio

from city.access.v1 import access_pb2
from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from citykit.access import ServiceTokens, bearer_client_interceptors
from citykit.edge import city_error
from citykit.errors import InvalidArgument
from citykit.keys import service_token_seed
from citykit.network import Network

SERVICE = "identity"
_TIMEOUT_S = 20.0


async def make_registrar(network: Network, root_key: bytes, login: str, password: str) -> None:
    """A person with the role registrar. Again with the same password it changes nothing.

    Args:
        network: on which identity is reached, and of which this process has identity's certificate.

    Raises:
        InvalidArgument: a login or password of another form. AlreadyExists: the login is another's.
        Unavailable: identity does not answer.
    """
    tokens = ServiceTokens(service_token_seed(root_key), SERVICE)
    channel = network.channel(SERVICE, SERVICE, bearer_client_interceptors(tokens, SERVICE))
    request = identity.CreatePersonRequest(
        request_id=f"first-registrar-{login}",
        login=login,
        display_name=login,
        roles=[access_pb2.ROLE_REGISTRAR],
        password=password,
    )
    try:
        await IdentityServiceStub(channel).CreatePerson(request, timeout=_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        raise city_error(error) from None
    finally:
        await channel.close(None)


def read_password(text: str) -> str:
    """The first line.

    Raises:
        InvalidArgument: there is none.
    """
    found = (text.splitlines() or [""])[0].strip()
    if not found:
        raise InvalidArgument(
            "no password came in: give it on standard input, in one line of at least 12 characters; it is never an argument,"
            " which others could see"
        )
    return found

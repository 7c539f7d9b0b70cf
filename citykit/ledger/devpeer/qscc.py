"""The system chaincode `qscc`: what is on the ledger, asked through Evaluate. Used by the endorser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fabric_protos.common import common_pb2, ledger_pb2
from fabric_protos.peer import proposal_response_pb2, transaction_pb2

from citykit.errors import CityError, NotFound
from citykit.ledger.devpeer.ordering import Chain

NAME = "qscc"
_OK, _ERROR = 200, 500
_ARGUMENTS = 3


class SystemChaincode:
    """Answers GetChainInfo, GetBlockByNumber, GetBlockByHash, GetBlockByTxID and GetTransactionByID."""

    def __init__(self, chain: Chain, channel: str) -> None:
        self._chain = chain
        self._channel = channel
        self._functions: Mapping[str, Callable[[bytes], bytes]] = {
            "GetChainInfo": self._info,
            "GetBlockByNumber": self._by_number,
            "GetBlockByHash": self._by_hash,
            "GetBlockByTxID": lambda arg: self._chain.block_bytes(self._place(arg)[0]),
            "GetTransactionByID": self._transaction,
        }

    def serves(self, chaincode: str) -> bool:
        return chaincode == NAME

    def answer(self, args: Sequence[bytes]) -> proposal_response_pb2.Response:
        """The response to arguments [function, channel, parameter]."""
        function = args[0].decode(errors="replace") if args else ""
        if function not in self._functions:
            return _refused(f"Requested function {function} not found; there are {', '.join(self._functions)}")
        if len(args) < 2 or args[1].decode(errors="replace") != self._channel:  # noqa: PLR2004 - function and channel
            return _refused(f"the second argument is the channel, here {self._channel}")
        if len(args) < _ARGUMENTS and function != "GetChainInfo":
            return _refused(f"{function} takes the channel and a parameter")
        try:
            parameter = args[2] if len(args) >= _ARGUMENTS else b""
            return proposal_response_pb2.Response(status=_OK, payload=self._functions[function](parameter))
        except CityError as error:
            return _refused(f"{function}: {error.message}")

    def _info(self, _: bytes) -> bytes:
        info = ledger_pb2.BlockchainInfo(height=self._chain.height, currentBlockHash=self._chain.last_hash)
        info.previousBlockHash = self._chain.block(self._chain.height - 1).header.previous_hash
        return bytes(info.SerializeToString())

    def _by_number(self, argument: bytes) -> bytes:
        number = int(argument) if argument.isdigit() else self._chain.height
        if number >= self._chain.height:
            raise NotFound(f"no such block number [{argument.decode(errors='replace')}] in index")
        return self._chain.block_bytes(number)

    def _by_hash(self, argument: bytes) -> bytes:
        number = self._chain.number_of(argument)
        if number is None:
            raise NotFound("no block of that hash")
        return self._chain.block_bytes(number)

    def _place(self, argument: bytes) -> tuple[int, int, int]:
        identifier = argument.decode(errors="replace")
        found = self._chain.find(identifier)
        if found is None:
            raise NotFound(f"no such transaction ID [{identifier}] in index")
        return found.block, found.place, found.code

    def _transaction(self, argument: bytes) -> bytes:
        block, place, code = self._place(argument)
        envelope = common_pb2.Envelope.FromString(self._chain.block(block).data.data[place])
        found = transaction_pb2.ProcessedTransaction(transactionEnvelope=envelope, validationCode=code)
        return bytes(found.SerializeToString())


def _refused(message: str) -> proposal_response_pb2.Response:
    return proposal_response_pb2.Response(status=_ERROR, message=message, payload=b"")

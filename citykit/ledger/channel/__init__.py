"""The ledger on a Fabric channel, through a gateway peer: Fabric itself, or the development peer. See `citykit.ledger.port.Ledger`."""

from citykit.ledger.channel.ledger import ChannelLedger, open_channel_ledger

__all__ = ["ChannelLedger", "open_channel_ledger"]

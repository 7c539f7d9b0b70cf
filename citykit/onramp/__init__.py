"""The way of a signed device package into a service: who may send, is it genuine, where it stands in its device's chain. One rule for all."""

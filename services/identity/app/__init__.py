"""The use cases of identity: devices, people, logins and tokens."""

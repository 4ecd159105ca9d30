"""How good the lists are: Headwater and its peers under one prequential protocol.

The protocol and the peers need numpy (and ``implicit``, for two of them) only, so
that they run in an environment of their own.
"""

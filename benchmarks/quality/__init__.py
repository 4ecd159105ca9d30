"""How good the lists are: Headwater and its peers under one prequential protocol.

The protocol and the registry of peers need numpy only, and a peer what its own module
imports, so that each runs in an environment of its own.
"""

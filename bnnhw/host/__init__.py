"""The host's side of a board: the protocol, and a client that speaks it on a serial port."""

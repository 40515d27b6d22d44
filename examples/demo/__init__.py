"""`make demo`: relays a dozen messages through a real gateway and shows what became of each.

`case.py` says what is sent and what must become of it, `site/` is the gateway's configuration,
`installation.py` starts the gateway, `transmission.py` hands it a message as any mail program
does, `verdict.py` compares what happened with what must happen, and `report.py` prints it.
"""

"""The terminal client behind `manage.py chat`: a client like any other, over the public WebSocket and REST.

Imports nothing of the server: what it knows of it is the wire contract. The person's side (keyboard, screen, tools) is
plain synchronous code in the main thread; the socket lives in an event loop in a thread of its own (`link`), so that
neither a prompt nor a running command ever keeps it from answering.
"""

"""The metadata service: a store of JSON that the guest reads over HTTP.

Frames in, frames out: Ethernet, ARP, IPv4, a small TCP and a small HTTP, all as
state machines without a socket, a clock or a task. Times are given by the caller.
"""

"""What stands between clients and services: the relay, and the telephone.

Layer above client and server, which it joins; nothing below imports it.
"""

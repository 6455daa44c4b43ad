"""What stands between clients and services: the telephone, with a media stream in one hand and a session in the other.

Layer above client and server, which it joins; nothing below imports it.
"""

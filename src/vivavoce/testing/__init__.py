"""The test kit: for the session machine, for both ends over any transport, and for programs built on them.

- `playbook`: dialogues with the session machine, input by input, effect by effect
- `rehearsal`: the session machine with scripted engines, in an order of your choice
- `referee`: objects to server events that break the protocol
- `traces`: golden recordings of what was said
- `virtual_time`: an event loop on which hours pass in no time
- `sounds`: audio that its description makes again
- `simulation`: whole conversations from a seed, with the `user` and the `network` that they need
- `real_server`: the server itself, on a free port, with a script (`directions`), `faults` and a `record` of its wires
- `phone_call`: a telephone at Twilio, simulated, for phone apps
- `checks`: assertions on what was heard, said, called and spent, and how soon
- `bench`: how soon an endpoint answers, and what sessions cost it; `serving`, a server in a process of its own
- `plugin`: the pytest fixtures `realtime_server` and `realtime_server_factory`

Nothing here is imported by the rest of the package.
"""

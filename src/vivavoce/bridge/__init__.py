"""What lies between a client and a service: the relay. Above `client` and `server`, and made of parts of both."""

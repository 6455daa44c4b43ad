"""The language: every event, item and setting of the Realtime API as frozen structs, and the codec for the wire."""

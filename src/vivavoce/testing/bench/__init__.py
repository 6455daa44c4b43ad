"""How soon a Realtime endpoint answers: what `vivavoce bench` and the programs in `benchmarks/` measure with.

- `speech`: what is said, and where in it speech begins and ends
- `microphone`: says it in real time, on the clock of the event loop
- `turn`: one turn as the client sees it; one interruption
- `conversation`: a session that is spoken to turn by turn
- `rounds`: turns and interruptions at one endpoint or at several, interleaved
- `load`: many conversations at once, and the CPU that they take of the server
- `figures`, `report`, `plot`: the results as numbers, as text, as a picture

All time is the event loop's, so that a measurement on virtual time is a matter of arithmetic. What is measured is what
crosses the wire at the client's end; nothing here knows what the server is made of.
"""

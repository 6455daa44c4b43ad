.PHONY: help demo serve test check format bench

help:  ## show this
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo:  ## a spoken conversation with the embedded engines
	uv run vivavoce demo

serve:  ## the server with the embedded engines
	uv run vivavoce serve

test:  ## all tests
	uv run pytest -n auto

check:  ## everything that CI runs
	.ci/run

format:  ## format and fix what can be fixed
	uv run ruff format .
	uv run ruff check --fix .

bench:  ## the benchmarks that need no models
	uv run python benchmarks/codec.py
	uv run python benchmarks/sessions.py
	uv run python benchmarks/client.py

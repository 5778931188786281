# make install   make .venv and install the project with what its tests need
# make demo      all four stages on a laptop, offline: runs/demo/report.html, runs/demo/answer.wav
# make test      every test
# make lint      ruff and mypy
# make chat      talk to what `make demo` trained
# make bench     speed, side by side with what a user would use instead

PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: install demo test lint chat bench clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

demo: .venv/installed
	$(BIN)/python -m demo.run --out runs/demo

test: .venv/installed
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

chat: .venv/installed
	$(BIN)/python -m speech_head.chat --gemma runs/demo/models/gemma --mimi runs/demo/models/mimi \
		--finetune runs/demo/finetune --head runs/demo/head --out runs/demo/chat \
		--max-new-tokens 64 --cut-long-answers

bench: .venv/installed
	$(BIN)/python -m benchmarks.tokenize
	$(BIN)/python -m benchmarks.rvq
	$(BIN)/python -m benchmarks.rvq --quality

clean:
	rm -rf runs/demo

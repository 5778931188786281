# make install   make .venv and install the project with what its tests need
# make demo      all four stages on a laptop, offline: runs/demo/report.html, runs/demo/answer.wav
# make demo-full the same, with all of the demo's world and about four times the steps: runs/demo-full
# make test      every test, in two processes
# make test-variants  the same under other conditions (threads, order, load, user...), which
#                tests/variants.py lists; some of them: .venv/bin/python -m tests.variants ci busy
# make attacks   a thousand hostile inputs, given to every command: how they end
# make kill-points  kill every command before every change of its folder, and resume it
# make ray-kills    kill actors, a node and the driver of a Ray cluster at work, and go on
# make rehearse  every command once on a Gemma 4 E2B of true size: time, memory, disk. 22 GB of disk
# make lint      ruff and mypy
# make chat      talk at once, with the small trained models that come along
# make talk      the same hands free, with the microphone
# make serve     the same hands free in the browser, for many at once: http://127.0.0.1:7861
# make bench     speed, side by side with what a user would use instead

PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: install demo demo-full test test-variants attacks kill-points ray-kills lint rehearse chat talk serve bench clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

demo: .venv/installed
	$(BIN)/python -m demo.run --out runs/demo

demo-full: .venv/installed
	$(BIN)/python -m demo.run --effort full --out runs/demo-full

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-variants: .venv/installed
	$(BIN)/python -m tests.variants

attacks: .venv/installed
	$(BIN)/python -m tests.attacks --count 1000 --out runs/attacks

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

ray-kills: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[ray]'
	$(BIN)/python -m tests.ray_kills --rounds 5 --longest-s 30

kill-points: .venv/installed
	$(BIN)/python -m tests.kill_points --faults 3

rehearse: .venv/installed
	$(BIN)/python -m pipeline.rehearse --size E2B --out runs/rehearsal

# make chat PIPELINE=runs/twi-repository talks with another one: a folder, or a name on the hub
# (for a download: HF_HUB_OFFLINE=0 make chat PIPELINE=...). REMEMBER=1 shows Gemma the question
# before, and none that is older: in long conversations, the demo's models make more mistakes.
PIPELINE := demo/weights
TALKER := --pipeline "$(PIPELINE)"
ifeq ($(PIPELINE),demo/weights)
TALKER += --max-new-tokens 64 --cut-long-answers --examples demo/world/examples.txt
REMEMBER ?= 1
endif
ifneq ($(REMEMBER),)
TALKER += --remember $(REMEMBER)
endif

chat: .venv/installed
	$(BIN)/python -m voice_chat.chat $(TALKER) --out runs/chat

talk: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[live]'
	$(BIN)/python -m voice_chat.talk $(TALKER) --out runs/talk

serve: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[live]'
	$(BIN)/python -m voice_chat.serve $(TALKER)

bench: .venv/installed
	$(BIN)/python -m benchmarks.tokenize
	$(BIN)/python -m benchmarks.rvq
	$(BIN)/python -m benchmarks.rvq --quality
	$(BIN)/python -m benchmarks.speechless
	$(BIN)/python -m benchmarks.finetune
	$(BIN)/python -m benchmarks.speech_head
	$(BIN)/python -m benchmarks.shared_cores

clean:
	rm -rf runs/demo runs/demo-full

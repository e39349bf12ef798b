# Everything here needs Python 3.11 or newer and make; a virtual environment is made in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test bench lint clean train-shipped-model

demo: $(VENV)/demo.stamp
	$(BIN)/unmask detect samples/*.mp4

test: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

bench: $(VENV)/bench.stamp
	$(BIN)/python benchmarks/speed.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/demo.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/test.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[train,dev]'
	touch $@ $(VENV)/demo.stamp

$(VENV)/bench.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[train,bench]'
	touch $@ $(VENV)/demo.stamp

# The shipped model, made again. DATA_FOLDER holds manifest.csv (openly licensed people) and
# manifest_demo.csv (generators' demonstration clips); DATA=open leaves the latter out. INIT may be
# an .h5 to start from where the ImageNet weights cannot be downloaded. Goes on after a kill.
DATA_FOLDER ?= ../shared/data/train
DATA ?= all
INIT ?= imagenet
RUN := runs/shipped-$(DATA)
OPEN := $(if $(filter open,$(DATA)),--open)

train-shipped-model: $(RUN)/preprocessed/index.csv
	$(BIN)/unmask split $(<D) $(RUN)/split --ratios 100/0/0 --min-blur 4
	$(BIN)/unmask train $(RUN)/split $(RUN)/model --resume --init $(INIT) \
	  --head moments --batch 24 --epochs 1 --steps-per-epoch 450 --ridge 0.3 \
	  --local-steps 350 --learning-rate 2e-4 --average 0.98 \
	  --degrade 0.6 --pseudo-fakes $(if $(OPEN),1,0) \
	  --families self_blend=0.3,decoder_look=0.2,cross_swap=0.2,mouth_edit=0.15,resynthesis=0.15
	$(BIN)/unmask export $(RUN)/model/xception_best.h5 $(RUN)/exported \
	  --crops $(RUN)/split/train --calibrate $(RUN)/model/held_out.csv

$(RUN)/preprocessed/index.csv: | $(VENV)/test.stamp
	mkdir -p $(RUN)
	$(BIN)/python models/training_manifest.py $(OPEN) --all $(DATA_FOLDER) $(RUN)/manifest.csv
	$(BIN)/unmask preprocess --manifest $(RUN)/manifest.csv dataset $(@D) \
	  --every 10 --max-frames 40 --balance none

clean:
	rm -rf $(VENV)

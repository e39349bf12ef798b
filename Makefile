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
CROPS := --every 10 --max-frames 40 --balance none
ALL_LAYERS := --trainable-layers all --batch 24 --train-crop 192 --steps-per-epoch 120 \
  --optimizer adamw --schedule cosine --label-smoothing 0.05 --patience 0 --select auc \
  --families self_blend=0.35,decoder_look=0.25,cross_swap=0.2,mouth_edit=0.2

# A network of which all layers learn, one whose head is fitted to textures, and both as one.
train-shipped-model: $(RUN)/pool/exported/xception_best.xml $(RUN)/moments/exported/xception_best.xml
	$(if $(OPEN),# no real fakes to calibrate their sum on: two models,$(BIN)/python models/join.py $^ \
	  $(RUN)/moments/model $(RUN)/pool/split $(RUN)/xception)

$(RUN)/%/preprocessed/index.csv: | $(VENV)/test.stamp
	mkdir -p $(RUN)/$*
	$(BIN)/python models/training_manifest.py $(OPEN) $(if $(filter pool,$*),--search,--all) \
	  $(DATA_FOLDER) $(RUN)/$*/manifest.csv
	$(BIN)/unmask preprocess --manifest $(RUN)/$*/manifest.csv dataset $(@D) $(CROPS)

$(RUN)/pool/exported/xception_best.xml: $(RUN)/pool/preprocessed/index.csv
	$(BIN)/unmask split $(<D) $(RUN)/pool/split --ratios 85/15/0 --min-blur 4
	$(BIN)/unmask train $(RUN)/pool/split $(RUN)/pool/harsh --resume --init $(INIT) $(ALL_LAYERS) \
	  --epochs 6 --learning-rate 2e-4 --average 0.99 --degrade 1 --pseudo-fakes \
	  $(if $(OPEN),1,0.5)
	$(BIN)/unmask train $(RUN)/pool/split $(RUN)/pool/model --resume \
	  --init $(RUN)/pool/harsh/xception_best.h5 $(ALL_LAYERS) \
	  --epochs 3 --learning-rate 1.5e-4 --average 0.98 --degrade 0.4 --pseudo-fakes \
	  $(if $(OPEN),1,0.4)
	$(BIN)/unmask export $(RUN)/pool/model/xception_best.h5 $(@D) --crops $(RUN)/pool/split/val \
	  $(if $(OPEN),,--calibrate $(RUN)/pool/split)

$(RUN)/moments/exported/xception_best.xml: $(RUN)/moments/preprocessed/index.csv
	$(BIN)/unmask split $(<D) $(RUN)/moments/split --ratios 100/0/0 --min-blur 4
	$(BIN)/unmask train $(RUN)/moments/split $(RUN)/moments/model --resume --init $(INIT) \
	  --head moments --batch 24 --epochs 1 --steps-per-epoch 450 --ridge 0.3 \
	  --degrade 0.6 --pseudo-fakes $(if $(OPEN),1,0.35) \
	  --families self_blend=0.3,decoder_look=0.2,cross_swap=0.2,mouth_edit=0.15,resynthesis=0.15
	$(BIN)/unmask export $(RUN)/moments/model/xception_best.h5 $(@D) \
	  --crops $(RUN)/moments/split/train --calibrate $(RUN)/moments/model/held_out.csv

clean:
	rm -rf $(VENV)

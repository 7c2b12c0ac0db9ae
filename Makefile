# SPDX-License-Identifier: Apache-2.0
# Everything that is made lies in the checkout: .venv/ (with ROS 2 sourced: .venv-<distro>/) and
# demo_output/. pip's downloads too, unless PIP_CACHE_DIR names another place.

PYTHON ?= python3
VENV := $(CURDIR)/.venv$(if $(ROS_DISTRO),-$(ROS_DISTRO))
RUN := $(VENV)/bin/python
JAZZY := $(CURDIR)/.venv-jazzy-wheels
VIDEO ?=
OUTPUT ?= demo_output
BENCHMARK ?=
DATA ?=
BACKBONE ?=
RUNS ?= runs
# Processes of the tests; one more than cores, because nodes wait for each other much of the time.
TEST_PROCESSES ?= $(shell expr $$(nproc) + 1)

# What nodes, plots, torch, OpenVINO and pytest keep would otherwise go to the home folder and to
# /tmp.
export ROS_LOG_DIR ?= $(VENV)/var/log
export XDG_CACHE_HOME ?= $(VENV)/var/cache
export MPLCONFIGDIR ?= $(VENV)/var/matplotlib
export TORCHINDUCTOR_CACHE_DIR ?= $(VENV)/var/torchinductor
export PYTEST_DEBUG_TEMPROOT ?= $(VENV)/var/pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo weights benchmark test test-fast test-jazzy trials coverage docs lint format clean

help:
	@echo 'make demo        detect objects in a clip over ROS 2; result in $(OUTPUT)/'
	@echo '                 VIDEO=path for a video of your own, OUTPUT=folder for another place'
	@echo 'make weights     train the three checkpoints anew: DATA=folder, BACKBONE=file, RUNS=folder; many hours'
	@echo 'make benchmark   measure everything and write docs/results/benchmark.md: 15 minutes, on a quiet machine'
	@echo '                 BENCHMARK=options, for example --peer-onnx yolo11n.onnx:320'
	@echo 'make test        run all tests; TEST_PROCESSES=n: processes at a time (one more than cores)'
	@echo 'make test-fast   run the tests that take seconds'
	@echo 'make coverage    measure which lines of the robot rooms their tests run'
	@echo 'make docs        make the pages of docs/ into a site: docs/_build/index.html'
	@echo 'make test-jazzy  run nodes, detector, images, clips and four verbs on Jazzy, OpenCV 4.6, NumPy 1.26'
	@echo 'make trials      trouble a running node for a minute, then be a camera to one for a minute'
	@echo 'make lint        run the linters'
	@echo 'make format      fix what ruff can fix'
	@echo 'make setup       only install what the others need, into $(VENV)'
	@echo 'make clean       delete everything that was made'
	@echo 'PYTHON=python3.12 chooses the interpreter, PIP_CACHE_DIR=folder a lasting download cache.'
	@echo 'Packages of Debian or Ubuntu that are needed: see dev/apt.txt'

# Python itself is looked for here; all else that may be missing is named by dev/bootstrap.
define bootstrap
@command -v '$(PYTHON)' >/dev/null || { \
	echo 'Error: $(PYTHON) not found: sudo apt-get install python3 python3-venv' >&2; exit 1; }
@PYTHONDONTWRITEBYTECODE=1 '$(PYTHON)' -m dev.bootstrap '$(VENV)'
endef

setup:
	$(bootstrap)

demo:
	$(bootstrap)
	'$(RUN)' -m forecast_detector_ros.cli demo --output '$(OUTPUT)' $(if $(VIDEO),--video '$(VIDEO)')

weights:
	$(bootstrap)
	dev/remake_weights.sh '$(RUN)' '$(DATA)' '$(BACKBONE)' '$(RUNS)'

benchmark:
	$(bootstrap)
	'$(RUN)' -m forecast_detector_ros.cli benchmark --device cpu --graph --start-up --output docs/results/benchmark.json \
		--report docs/results/benchmark.md $(BENCHMARK)

# pytest itself makes folders only below one that exists.
define bootstrap_tests
$(bootstrap) --tests
@mkdir -p "$$PYTEST_DEBUG_TEMPROOT"
endef

# OMP: whoever shares the cores takes one.
define run_tests
OMP_NUM_THREADS=1 dev/run_tests.sh '$(RUN)' $(TEST_PROCESSES) $(1)
endef

test:
	$(bootstrap_tests)
	$(call run_tests)

test-fast:
	$(bootstrap_tests)
	$(call run_tests,-m 'not slow')

# What a robot imports, at least 90 % of its lines; lines that run in another process count, too.
COVERED := node detector model images recording
coverage:
	$(bootstrap_tests)
	rm -f .coverage .coverage.*
	OMP_NUM_THREADS=1 PARTS='test/node,test/detector,test/model test/images test/recording' \
		dev/run_tests.sh '$(RUN)' $(TEST_PROCESSES) -m 'not slow' \
		$(COVERED:%=--cov=forecast_detector_ros/%) --cov-append --cov-report=
	'$(RUN)' -m coverage combine --quiet .coverage.part*
	'$(RUN)' -m coverage report --skip-covered --fail-under=90

docs:
	$(bootstrap_tests)
	'$(RUN)' -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build
	@echo 'docs/_build/index.html'

# Clips and a test of each verb: what the workshop asks of OpenCV.
WORKSHOP := $(addprefix test/clips/test_,affine.py augment.py drawn_clips.py scene.py) \
	test/training/test_trainer.py::test_command \
	test/cli/test_evaluate_accuracy.py::test_annotated_video_to_table_and_json \
	test/cli/test_figures.py::test_figure_6_makes_a_picture_a_sequence \
	test/cli/test_check_data.py::test_decoding_finds_what_the_header_hides

# The oldest that is supported; make test runs on Kilted and what is current.
test-jazzy:
	$(bootstrap_tests)
	@PYTHONDONTWRITEBYTECODE=1 '$(PYTHON)' -m dev.bootstrap '$(JAZZY)' --jazzy-on '$(VENV)'
	OMP_NUM_THREADS=1 PARTS='test/node,test/detector,test/images test/annotations,$(WORKSHOP)' \
		dev/run_tests.sh '$(JAZZY)/bin/python' $(TEST_PROCESSES) -m 'not slow'

# For machines that are busy with something else: what is too slow there is no failure.
UNHURRIED := --seconds 60 --warm-up 20 --growth 10 --callback 60 --logs
trials:
	$(bootstrap_tests)
	'$(RUN)' -m dev.fuzz_node --seed 1 $(UNHURRIED)
	'$(RUN)' -m dev.soak $(UNHURRIED)

lint:
	$(bootstrap_tests)
	'$(RUN)' -m pytest test/test_lint.py

format:
	$(bootstrap) --tests
	'$(RUN)' -m ruff check --fix .

clean:
	rm -rf '$(VENV)' '$(JAZZY)' demo_output build install log
	rm -rf docs/_build .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -path ./.git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

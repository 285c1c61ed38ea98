"""Model folders: a local one as it is, a complete snapshot without a request, else a download."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from rsvp.errors import ModelUnavailable
from rsvp.platform.hub import hub_file, hub_folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`hub(cached, remote)`: the files in the cache and on the hub; returns the requests made."""

    def install(cached: tuple[str, ...] | None, remote: tuple[str, ...] | None) -> list[dict]:
        requests: list[dict] = []

        def snapshot_download(model: str, *, local_files_only: bool, **options: object) -> str:
            files = cached if local_files_only else remote
            requests.append({"model": model, "local": local_files_only, **options})
            if files is None:
                raise FileNotFoundError("no such snapshot\nsecond line")
            for name in files:
                (tmp_path / name).touch()
            return str(tmp_path)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        return requests

    return install


def test_a_local_folder_is_returned_as_it_is(tmp_path, hub) -> None:
    requests = hub(None, None)
    assert hub_folder(str(tmp_path), "weights") == tmp_path
    assert requests == []


def test_a_complete_snapshot_makes_no_request(tmp_path, hub) -> None:
    requests = hub(("config.json", "model.safetensors"), None)
    assert hub_folder("owner/model", "weights", needs=("config.json", "*.safetensors")) == tmp_path
    assert [one["local"] for one in requests] == [True]


def test_an_incomplete_snapshot_is_downloaded(tmp_path, hub, caplog) -> None:
    requests = hub(("config.json",), ("config.json", "model.safetensors"))
    with caplog.at_level(logging.WARNING):
        assert hub_folder("owner/model", "weights", ("*.json", "*.py"), ignore=("x/*",)) == tmp_path
    assert "downloading owner/model" in caplog.text
    assert [one["local"] for one in requests] == [True, False]
    assert requests[1]["allow_patterns"] == ["*.json", "*.py"]
    assert requests[1]["ignore_patterns"] == ["x/*"]


def test_an_interrupted_download_is_resumed(tmp_path, hub) -> None:
    """One of two shards is not the model, with or without the index that lists them."""
    shards = tuple(f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    requests = hub(shards[:1], shards)
    assert hub_folder("owner/model", "weights") == tmp_path
    assert [one["local"] for one in requests] == [True, False]
    assert hub_folder("owner/model", "weights") == tmp_path
    assert [one["local"] for one in requests] == [True, False, True]


def test_an_interrupted_download_without_the_hub_is_no_model(hub) -> None:
    hub(("model-00002-of-00002.safetensors",), None)
    with pytest.raises(ModelUnavailable, match="get them with: hf download owner/model"):
        hub_folder("owner/model", "weights")


@pytest.mark.parametrize("remote", [None, ("config.json",)])
def test_the_error_has_the_command(hub, remote) -> None:
    hub(None, remote)
    with pytest.raises(ModelUnavailable, match=r"hf download owner/model$") as caught:
        hub_folder("owner/model", "weights")
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelUnavailable, match=r"hf download owner/model a\.pt$"):
        hub_file("owner/model", "a.pt", "weights")


@pytest.mark.parametrize("name", ["no-such-folder", "./owner/model", "a/b/c"])
def test_a_path_is_never_looked_for_on_the_hub(hub, name) -> None:
    requests = hub(None, None)
    with pytest.raises(ModelUnavailable, match="there are no weights at"):
        hub_folder(name, "weights")
    assert requests == []


def test_a_name_without_owner_only_where_allowed(tmp_path, hub) -> None:
    hub(("a.safetensors",), None)
    assert hub_folder("bert-base-uncased", "weights", bare=True) == tmp_path

"""Settings are read from the environment, refused by name if they are wrong, and documented in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootstock.service.runner_choice import check_processes, runs_on_torch
from rootstock.service.settings import PREFIX, Settings, SettingsError, read_settings

ROOT = Path(__file__).parents[2]


def test_every_setting_is_documented_with_its_default_and_its_description_and_nothing_else_is() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| `{PREFIX}")]
    documented = {name.strip("`"): (default.strip("` ").lower(), meaning) for name, default, meaning in rows}
    assert documented == {
        PREFIX + name.upper(): ("" if field.default is None else str(field.default).lower(), field.description)
        for name, field in Settings.model_fields.items()
    }


@pytest.mark.parametrize("name", ["HOME", "DATA"])
def test_an_empty_path_is_refused_where_it_would_be_the_working_folder(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + name, "")
    with pytest.raises(SettingsError, match=f"^{PREFIX}{name}: the path is empty; name a folder"):
        read_settings()


def test_the_versions_to_keep_fit_in_a_query_of_every_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTSTOCK_KEEP_VERSIONS", str(2**63))
    with pytest.raises(SettingsError, match="ROOTSTOCK_KEEP_VERSIONS"):
        read_settings()


def test_an_empty_folder_of_exports_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROOTSTOCK_EXPORTS", "")
    monkeypatch.setenv("ROOTSTOCK_HOME", str(tmp_path))
    assert read_settings().export_folders == (tmp_path,)


@pytest.mark.parametrize("runner", ["auto", "onnx", "torch"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("cuda", [True, False])
def test_torch_runs_where_it_is_asked_for_or_auto_finds_a_device(
    runner: str, precision: str, cuda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rootstock.service.runner_choice._has_cuda", lambda: cuda)
    monkeypatch.setenv("ROOTSTOCK_RUNNER", runner)
    monkeypatch.setenv("ROOTSTOCK_PRECISION", precision)
    if (runner, precision) == ("torch", "int8"):
        with pytest.raises(SettingsError, match="does not support"):
            read_settings()
        return
    expected = runner == "torch" or (runner == "auto" and cuda and precision == "fp32")
    assert runs_on_torch(read_settings()) == expected


@pytest.mark.parametrize(
    ("registry", "store", "told"),
    [
        ("mysql://user:s3cret@host/db", "s3://b", "ROOTSTOCK_REGISTRY_URL: this is not the URL of a PostgreSQL"),
        ("postgresql+psycopg://user:s3cret@host", "s3://b", "ROOTSTOCK_REGISTRY_URL: this is not the URL"),
        ("postgresql+psycopg://user:s3cret@host/db", "", "ROOTSTOCK_STORE_URL is not"),
        ("", "s3://key:s3cret@bucket", "ROOTSTOCK_STORE_URL: this is not a place in object storage"),
        ("", "file:///s3cret", "ROOTSTOCK_STORE_URL: this is not a place in object storage"),
        ("", "s3://", "ROOTSTOCK_STORE_URL: this is not a place in object storage"),
    ],
)
def test_a_place_that_no_registry_or_store_can_be_at_is_refused_without_its_secrets(
    registry: str, store: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOTSTOCK_REGISTRY_URL", registry)
    monkeypatch.setenv("ROOTSTOCK_STORE_URL", store)
    with pytest.raises(SettingsError, match=told) as refused:
        read_settings()
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgresql://host/db", "postgresql+psycopg://u:p@h:5432/db?sslmode=require"])
@pytest.mark.parametrize("store", ["s3://bucket", "s3://bucket/a/prefix/", "gs://bucket/x", "az://container"])
def test_a_registry_and_a_store_are_named_by_url_and_the_settings_show_no_password(url: str, store: str) -> None:
    settings = Settings(registry_url=url, store_url=store)
    assert (settings.registry_address, settings.store_url) == (url, store)
    assert "u:p@" not in repr(settings)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"PROCESSES": "0"}, "ROOTSTOCK_PROCESSES is 0, and the server may use 3 cores; give 1 to 3, because"),
        ({"PROCESSES": "4"}, "ROOTSTOCK_PROCESSES is 4, and the server may use 3 cores; give 1 to 3, because"),
        ({"PROCESSES": "2", "GATEWAY_METRICS": "open"}, "ROOTSTOCK_GATEWAY_METRICS is open: a gateway reads one"),
    ],
)
def test_processes_that_the_cores_or_a_gateway_do_not_allow_are_refused(
    settings: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 2, 4})
    for name, value in settings.items():
        monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError, match=told):
        read_settings()


@pytest.mark.parametrize(("processes", "threads", "each"), [(1, 0, 7), (2, 0, 3), (7, 0, 1), (2, 5, 5)])
def test_the_processes_share_the_cores_unless_the_threads_are_stated(
    processes: int, threads: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(7)))
    assert Settings(processes=processes, threads=threads).runner_threads == each


def test_processes_that_would_each_choose_a_precision_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setenv("ROOTSTOCK_PRECISION", "auto")
    check_processes(read_settings(processes=1))
    with pytest.raises(SettingsError, match="two could answer in different precisions; set ROOTSTOCK_PRECISION"):
        check_processes(read_settings(processes=2))


@pytest.mark.parametrize("runner", ["auto", "onnx", "torch"])
@pytest.mark.parametrize("cuda", [True, False])
def test_several_processes_on_one_device_are_refused(
    runner: str, cuda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rootstock.service.runner_choice._has_cuda", lambda: cuda)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setenv("ROOTSTOCK_RUNNER", runner)
    check_processes(read_settings(processes=1))
    settings = read_settings(processes=2)
    if cuda and runner != "onnx":
        with pytest.raises(SettingsError, match="the runner computes on a GPU: each process would hold"):
            check_processes(settings)
    else:
        check_processes(settings)

"""`rootstock adapters`: what is asked of the server, what is printed where, and the exit codes."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import HTMLResponse, JSONResponse
from typer.testing import CliRunner, Result

from rootstock.adapters.cli.adapter_commands import app
from rootstock.adapters.cli.rollout_commands import rollout_lines
from rootstock.adapters.foundation.location import FoundationFiles
from tests.adapters.stand_in import DIGESTS, VERIFICATION, ZIP, StandIn, bound, raw_server, refusal, serving
from tests.peft_adapters import save_adapter

COMMANDS = (
    "push",
    "list",
    "show",
    "pull",
    "promote",
    "alias",
    "rollback",
    "share",
    "split",
    "shadow",
    "rule",
    "history",
    "diff",
    "remove",
    "deleted",
    "undelete",
    "import",
    "verify",
    "convert",
)


@pytest.fixture(scope="module")
def running() -> Iterator[StandIn]:
    with serving(StandIn()) as stand_in:
        yield stand_in


@pytest.fixture
def server(running: StandIn) -> StandIn:
    running.reset()
    return running


@pytest.fixture
def run(server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROOTSTOCK_ADMIN_KEY", raising=False)
    return lambda *words: CliRunner().invoke(app, ["--url", server.url, *map(str, words)])


@pytest.fixture
def peft_folder(tmp_path: Path) -> Path:
    """What save_pretrained and a trainer leave, with weights that only a server would look into."""
    folder = tmp_path / "intents"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md", "training_args.bin", ".x"):
        (folder / name).write_bytes(b"{}")
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "optimizer.pt").write_bytes(b"a pickle")
    return folder


def printed(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


def failed(result: Result, code: int) -> str:
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("rootstock adapters: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_pushing_a_peft_folder_packs_the_known_members_under_the_folders_name(
    server: StandIn, run: Callable[..., Result], peft_folder: Path
) -> None:
    result = run("push", peft_folder, "--labels", "no, yes")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "intents@4 is ready and live: text-classification",
        f"digest {DIGESTS[1]}",
        "golden set passed: 8 outputs compared on onnx fp32, largest difference 3e-06",
        "warning: [a] warning",
        "ignored: .x, checkpoint-10/, training_args.bin",
    ]
    assert result.stderr == ""
    with zipfile.ZipFile(io.BytesIO(server.seen[0].bundle)) as archive:
        assert archive.namelist() == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert server.seen[0].form == {
        "name": "intents",
        "labels": '["no", "yes"]',
        "activate": "true",
        "bundle": "intents.zip",
    }


def test_labels_may_be_the_id2label_of_a_model_s_config(
    server: StandIn, run: Callable[..., Result], peft_folder: Path
) -> None:
    assert run("push", peft_folder, "--labels", '{"1": "yes", "0": "no"}').exit_code == 0
    assert server.seen[0].form["labels"] == '["no", "yes"]'


def test_pushing_from_inside_the_folder_takes_the_folders_name(
    server: StandIn, run: Callable[..., Result], peft_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(peft_folder)
    assert run("push", ".").exit_code == 0
    assert server.seen[0].form["name"] == "intents"


def test_pushing_a_bundle_folder_packs_its_five_members(
    server: StandIn, run: Callable[..., Result], peft_folder: Path
) -> None:
    for name in ("bundle.json", "golden.json"):
        (peft_folder / name).write_bytes(b"{}")
    assert run("push", peft_folder).exit_code == 0
    with zipfile.ZipFile(io.BytesIO(server.seen[0].bundle)) as archive:
        assert len(archive.namelist()) == 5


def test_pushing_a_zip_sends_it_unchanged_with_every_field(
    server: StandIn, run: Callable[..., Result], tmp_path: Path
) -> None:
    path = tmp_path / "intents-2.zip"
    path.write_bytes(ZIP)
    assert run("push", path).exit_code == 0
    fields = ("--task", "text-classification", "--problem-type", "regression", "--max-length", "64")
    answer = printed(run("push", path, "--name", "b", "--labels", '["x,y"]', *fields, "--no-activate", "--json"))
    assert (answer["name"], answer["version"], answer["verification"]["golden"]) == ("b", 4, "passed")
    plain, full = (seen for seen in server.seen if seen.method == "POST")
    assert plain.bundle == full.bundle == ZIP
    assert plain.form == {"name": "intents-2", "activate": "true", "bundle": "intents-2.zip"}
    assert full.form == {
        "name": "b",
        "task": "text-classification",
        "labels": '["x,y"]',
        "problem_type": "regression",
        "max_length": "64",
        "activate": "false",
        "bundle": "b.zip",
    }


def test_a_push_that_does_not_go_live_says_how_to_make_it_live(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "a.zip").write_bytes(ZIP)
    assert run("push", tmp_path / "a.zip", "--no-activate").stdout.splitlines()[:2] == [
        "a@4 is ready, not live (live is version 2): text-classification",
        "make it live: rootstock adapters promote a 4",
    ]


@pytest.mark.parametrize(("number", "state"), [(2, "and live"), (1, "not live (live is version 2)")])
def test_a_push_of_content_that_is_there_says_that_nothing_is_published(
    server: StandIn, run: Callable[..., Result], tmp_path: Path, number: int, state: str
) -> None:
    (tmp_path / "a.zip").write_bytes(ZIP)
    told = {"name": "a", "version": number, "digest": DIGESTS[number], "task": "text-classification"}
    server.instead = [JSONResponse({**told, "status": "ready", "verification": VERIFICATION})]
    (line, *_) = run("push", tmp_path / "a.zip", "--no-activate").stdout.splitlines()
    assert line.startswith(f"nothing is published: this content is already version {number} of a")
    assert state in line
    server.instead = [JSONResponse({**told, "status": "ready", "verification": VERIFICATION})]
    assert printed(run("push", tmp_path / "a.zip", "--json"))["created"] is False


@pytest.mark.parametrize("word", ["promot", "remov", "move"])
def test_a_wrong_command_never_leads_to_the_one_that_removes(run: Callable[..., Result], word: str) -> None:
    result = run(word, "a", "2")
    assert result.exit_code == 2
    assert f"No such command '{word}'" in result.stderr
    assert "'remove'" not in result.stderr


def test_pickled_weights_are_refused_before_anything_is_sent(
    server: StandIn, run: Callable[..., Result], peft_folder: Path
) -> None:
    (peft_folder / "adapter_model.safetensors").rename(peft_folder / "adapter_model.bin")
    assert "a pickle, which is never read; save it again" in failed(run("push", peft_folder), 2)
    assert server.seen == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("push", "EMPTY"), "no adapter_config.json and no adapter_model.safetensors"),
        (("push", "FILE"), "'Bad Name' cannot name an adapter"),
        (("push", "CARD"), "README.md is not a zip: give a bundle's zip, or the folder"),
        (
            ("push", "nowhere"),
            "nowhere does not exist; give a file, a folder, or org/name@revision of",
        ),
        (
            ("convert", "nowhere", "out.zip"),
            "nowhere does not exist; give a file, a folder, or",
        ),
        (("push", "FILE", "--rank", "0"), "--rank is '0'; give a whole number of at least 1, or auto"),
        (("push", "FILE", "--name", "a", "--labels", "[1]"), "--labels: '[1]' is not a list of strings; give '["),
        (("push", "FILE", "--name", "a", "--labels", "[1"), "--labels: '[1' is not JSON"),
        (("push", "FILE", "--name", "a", "--labels", '{"1": "a"}'), "has other keys than the ids 0 to 0"),
        (("push", "FILE", "--name", "a", "--labels", "a,b,"), "--labels: label 2 is empty; give each id a name"),
        (("push", "FILE", "--name", "a", "--labels", ""), "--labels: label 0 is empty"),
        (("show", "A"), "cannot name an adapter"),
        (("pull", "a@?"), "neither a version"),
        (("alias", "a", "3", "3"), "cannot name an alias"),
        (("remove", "a"), "add --yes"),
        (("remove", "A"), "'A' cannot name an adapter"),
        (("remove", "a@1"), "'a@1' is no name; one version goes with: rootstock adapters remove NAME --version"),
        (("promote", "a", "3", "--alias", "3"), "cannot name an alias"),
        (("list", "--url", "localhost"), "not an http address"),
        (("list", "--key", "a b\n"), "the key is not one line"),
        (("verify", "EMPTY"), "not an adapter's folder"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    server: StandIn, run: Callable[..., Result], tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "Bad Name.zip").write_bytes(ZIP)
    (tmp_path / "README.md").write_text("# A card")
    places = {"EMPTY": tmp_path / "empty", "FILE": tmp_path / "Bad Name.zip", "CARD": tmp_path / "README.md"}
    assert told in failed(run(*(places.get(word, word) for word in words)), 2)
    assert server.seen == []


@pytest.mark.parametrize("words", [("show",), ("verify", "/nowhere"), ("alias", "a", "b", "x"), ("nothing",)])
def test_what_cannot_be_parsed_is_exit_code_2(run: Callable[..., Result], words: tuple[str, ...]) -> None:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr


def test_listing_prints_every_page_as_a_table(server: StandIn, run: Callable[..., Result]) -> None:
    server.names = [f"adapter-{i:03}" for i in range(101)]
    result = run("list")
    assert result.exit_code == 0
    assert server.asked == ["GET /v1/adapters"] * 2
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["adapter-100", "2", "2", "text-classification", "live=2", "slot"] in lines
    assert ["name", "live", "versions", "task", "aliases", "residency"] in lines


def test_listing_as_json_is_one_document(server: StandIn, run: Callable[..., Result]) -> None:
    listed = printed(run("list", "--json"))["adapters"]
    assert [(entry["name"], entry["live"]) for entry in listed] == [("a", 2), ("b", None), ("c", 2)]
    server.names = []
    assert printed(run("list", "--json")) == {"adapters": []}
    assert "publish one: rootstock adapters push PATH" in run("list").stdout


def test_showing_prints_aliases_and_versions(run: Callable[..., Result]) -> None:
    shown = run("show", "a").stdout
    assert "a: text-classification; aliases: live=2, prod=1" in shown
    row = ["3", "ready", "text-classification", DIGESTS[3][:19], "1234567", "2025-01-02T03:04:05", "store"]
    assert [*row, "passed"] in [line.split() for line in shown.splitlines()]
    assert len(printed(run("show", "a", "--json"))["versions"]) == 3


def test_pulling_writes_the_version_that_the_reference_means(run: Callable[..., Result], tmp_path: Path) -> None:
    assert run("pull", "a").stdout == "a@2 is in a-2.zip: 22 bytes\n"
    assert (tmp_path / "a-2.zip").read_bytes() == ZIP
    told = printed(run("pull", "a@prod", "-o", tmp_path / "x.zip", "--json"))
    assert told == {"name": "a", "version": 1, "file": str(tmp_path / "x.zip"), "bytes": 22}
    assert (tmp_path / "x.zip").read_bytes() == ZIP
    (tmp_path / "folder").mkdir()
    assert run("pull", "a", "-o", "folder").stdout == "a@2 is in folder/a-2.zip: 22 bytes\n"
    assert (tmp_path / "folder" / "a-2.zip").read_bytes() == ZIP
    assert "a@staging means 0 versions" in failed(run("pull", "a@staging"), 1)
    assert "No such file or directory" in failed(run("pull", "a", "-o", "nowhere/x.zip"), 1)


def test_aliases_are_moved_and_rolled_back(server: StandIn, run: Callable[..., Result]) -> None:
    assert run("alias", "a", "prod", "3").stdout == f"a@prod is version 3 ({DIGESTS[3]})\n"
    assert run("promote", "a", "3").stdout == f"a@live is version 3 ({DIGESTS[3]})\n"
    assert run("promote", "a", "3", "--alias", "prod").stdout == f"a@prod is version 3 ({DIGESTS[3]})\n"
    assert run("rollback", "a").stdout == f"a@live is version 1 ({DIGESTS[1]})\n"
    assert printed(run("alias", "a", "prod", "3", "--json"))["version"] == 3
    assert printed(run("rollback", "a", "--json"))["alias"] == "live"
    aliases = ["prod", "live", "prod"]
    assert server.asked[:4] == [
        *(f"PUT /v1/adapters/a/aliases/{alias}" for alias in aliases),
        "POST /v1/adapters/a/rollback",
    ]


def test_an_alias_is_split_and_the_split_ended(server: StandIn, run: Callable[..., Result]) -> None:
    assert run("split", "a", "3=10", "2=2.5").stdout.splitlines() == [
        "a@live is version 1, which answers the rest",
        "version 2 answers 2.5 %",
        "version 3 answers 10 %",
    ]
    assert printed(run("split", "a", "4=10%", "--alias", "prod", "--json"))["candidates"] == {"4": 10}
    assert run("split", "a", "--end").stdout == f"a@live is version 1 ({DIGESTS[1]})\n"
    assert server.asked == [
        "PUT /v1/adapters/a/aliases/live/split",
        "PUT /v1/adapters/a/aliases/prod/split",
        "DELETE /v1/adapters/a/aliases/live/split",
    ]
    assert server.seen[0].json == {"candidates": {"3": 10, "2": 2.5}}


@pytest.mark.parametrize("words", [(), ("3",), ("3=",), ("x=10",), ("3=ten",), ("3=1", "3=2"), ("3=10", "--end")])
def test_shares_that_cannot_be_read_are_wrong_usage(
    server: StandIn, run: Callable[..., Result], words: tuple[str, ...]
) -> None:
    failed(run("split", "a", *words), 2)
    assert server.asked == []


def test_a_version_shadows_live_until_that_ends(server: StandIn, run: Callable[..., Result]) -> None:
    told = run("shadow", "a", 3, "--percent", 20).stdout
    assert told == "a@3 computes 20 % of live's requests too, and answers none\n"
    assert run("shadow", "a", "--end").stdout == "a has no shadow\n"
    assert server.asked == ["PUT /v1/adapters/a/shadow", "DELETE /v1/adapters/a/shadow"]
    assert server.seen[0].json == {"version": 3, "percent": 20.0}
    for words in (["3"], ["--percent", "20"], ["3", "--percent", "20", "--end"], []):
        assert "give a version and --percent, or --end alone" in failed(run("shadow", "a", *words), 2)


def test_a_rollback_rule_is_set_shown_and_removed(server: StandIn, run: Callable[..., Result]) -> None:
    limits = ["--max-disagreement", 0.1, "--max-p95-ratio", 1.5, "--window", 60]
    sentence = "a: max_disagreement 0.1, max_p95_ratio 1.5; over 60 s, from 50 requests on\n"
    assert run("rule", "a", *limits).stdout == sentence
    assert server.seen[0].json == {"max_disagreement": 0.1, "max_p95_ratio": 1.5, "window_seconds": 60.0}
    assert printed(run("rule", "a", "--json"))["rule"]["min_requests"] == 50
    assert run("rule", "a", "--remove").stdout == "a: no rollback rule\n"
    path = "/v1/adapters/a/rollback-rule"
    assert server.asked == [f"PUT {path}", f"GET {path}", f"DELETE {path}"]
    assert "give limits, or --remove alone" in failed(run("rule", "a", *limits, "--remove"), 2)


def test_showing_prints_the_splits_the_shadow_and_the_rule_of_an_adapter() -> None:
    rule = {"window_seconds": 300, "min_requests": 50, "max_disagreement": 0.1}
    splits = {"live": {"3": 10.0, "4": 2.5}}
    document = {"splits": splits, "shadow": {"version": 2, "percent": 20.0}, "rule": rule}
    assert rollout_lines(document) == [
        "splits: live: version 3 with 10 %, version 4 with 2.5 %",
        "shadow: version 2 with 20 %",
        "rule: max_disagreement 0.1; over 300 s, from 50 requests on",
    ]
    assert rollout_lines({"splits": {}, "shadow": None, "rule": None}) == []
    # A server of the release before has none of them.
    assert rollout_lines({}) == []


def test_an_adapter_is_shared_with_all_tenants_and_taken_back(
    server: StandIn, run: Callable[..., Result]
) -> None:
    assert run("share", "a").stdout == "a is for all tenants\n"
    assert run("share", "a", "--off").stdout == "a is for its own tenant alone\n"
    assert printed(run("share", "a", "--json")) == {"name": "a", "shared": True}
    assert server.asked == ["PUT /v1/adapters/a/sharing"] * 3
    assert [seen.json for seen in server.seen] == [{"shared": True}, {"shared": False}, {"shared": True}]


def test_removing_wants_a_yes(server: StandIn, run: Callable[..., Result]) -> None:
    assert "add --yes" in failed(run("remove", "a", "--version", "2"), 2)
    assert server.seen == []
    assert run("remove", "a", "--yes").stdout == "a with all its versions is removed\n"
    told = printed(run("remove", "a", "--version", "2", "--force", "-y", "--json"))
    assert told == {"name": "a", "version": 2, "removed": True}
    assert server.asked == ["DELETE /v1/adapters/a", "DELETE /v1/adapters/a/versions/2"]
    assert [seen.query for seen in server.seen] == [{}, {"force": "true"}]


def test_deleted_versions_are_listed_brought_back_and_removed_for_good(
    server: StandIn, run: Callable[..., Result]
) -> None:
    shown = run("deleted", "a").stdout
    assert "2025-01-10T03:04:05" in shown
    assert "prod" in shown
    assert printed(run("deleted", "a", "--json"))["versions"][0]["version"] == 1
    assert run("undelete", "a", "3").stdout == "a@3 is back; aliases: -\n"
    assert run("undelete", "a").stdout == "a@1, a@2 are back; aliases: live=2, prod=1\n"
    assert run("remove", "a", "--version", "3", "--purge", "-y").stdout == "a@3 is removed for good\n"
    assert server.seen[-1].query == {"purge": "true"}


def test_a_push_that_awaits_approval_says_so(server: StandIn, run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(ZIP)
    told = {"name": "a", "version": 4, "digest": DIGESTS[1], "task": "t", "verification": VERIFICATION}
    server.instead = [JSONResponse({**told, "awaits_approval": True}, 201)]
    said = run("push", "a.zip").stdout
    assert "a@4 is ready, not live (awaits approval, live is version 2)" in said
    assert "somebody who may approve it can make it live: rootstock adapters promote a 4" in said


def test_options_for_every_command_may_stand_before_or_after_it(
    server: StandIn, run: Callable[..., Result]
) -> None:
    assert printed(run("--json", "--key", "one", "list"))["adapters"]
    assert printed(CliRunner().invoke(app, ["list", "--json", "--key", "two", "--url", server.url]))["adapters"]
    environment = {"ROOTSTOCK_ADMIN_KEY": "three"}
    for words in (["list"], ["--key", "four", "list"], ["list", "--key", "five"]):
        CliRunner().invoke(app, ["--url", server.url, *words], env=environment)
    CliRunner().invoke(app, ["--url", server.url, "list"], env={"ROOTSTOCK_ADMIN_KEY": ""})
    keys = [seen.key and seen.key.removeprefix("Bearer ") for seen in server.seen]
    assert keys == ["one", "two", "three", "four", "five", None]


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (401, "missing_key", "; give a key: --key, or ROOTSTOCK_ADMIN_KEY"),
        (403, "wrong_key", "; give the server's admin key: --key, or ROOTSTOCK_ADMIN_KEY"),
        (403, "approval_needed", ""),
        (409, "version_in_use", ""),
    ],
)
def test_a_refusal_is_one_line_with_the_servers_words(
    server: StandIn, run: Callable[..., Result], status: int, code: str, advice: str
) -> None:
    server.instead = [refusal(status, code, "not now")]
    told = failed(run("--json", "rollback", "a"), 1)
    assert told == f"rootstock adapters: not now ({status} {code}){advice}\n"


def test_a_proxys_page_is_one_line(server: StandIn, run: Callable[..., Result]) -> None:
    server.instead = [HTMLResponse("<html>\n<body>\nBad Gateway", 502)]
    assert "answered 502 Bad Gateway with text/html that is not Rootstock's" in failed(run("show", "a"), 1)


def test_an_unreachable_server_is_named_with_how_to_start_one(run: Callable[..., Result]) -> None:
    with bound() as refusing:
        url = f"http://127.0.0.1:{refusing.getsockname()[1]}"
        told = failed(run("list", "--url", url), 1)
    assert f"cannot reach {url}" in told
    assert "Start one: rootstock serve" in told
    with raw_server(lambda connection: connection.recv(10)) as url:
        assert "broke off before it had answered" in failed(run("rollback", "a", "--url", url), 1)


@pytest.fixture(scope="module")
def adapter_folder(foundation: FoundationFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peft") / "intents"
    return save_adapter(foundation.folder, folder, "SEQ_CLS", seed=1).folder


def test_verifying_says_what_was_checked_and_what_was_not(
    run: Callable[..., Result], adapter_folder: Path
) -> None:
    told = printed(run("verify", adapter_folder, "--labels", "a,b,c", "--json"))
    assert (told["task"], told["labels"], told["rank"]) == ("text-classification", ["a", "b", "c"], 8)
    assert "tensor names and shapes" in told["checked"]
    assert {"foundation fingerprint", "golden replay (the server does it on upload)"} <= {*told["not_checked"]}
    human = run("verify", adapter_folder)
    assert human.exit_code == 0
    assert "rank 8, labels LABEL_0, LABEL_1, LABEL_2\n" in human.stdout
    assert "not checked: golden replay" in human.stdout


@pytest.mark.parametrize("command", ["verify", "push", "convert", "import"])
def test_a_refusal_names_the_command_s_option_and_not_the_form_s_field(
    server: StandIn, run: Callable[..., Result], adapter_folder: Path, tmp_path: Path, command: str
) -> None:
    shutil.copytree(adapter_folder, tmp_path / "many" / "named")
    config = json.loads((adapter_folder / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": "google-bert/other", "task_type": None}
    (tmp_path / "many" / "named" / "adapter_config.json").write_text(json.dumps(config))
    words: tuple[object, ...] = (command, tmp_path / "many" / "named")
    if command == "push":
        told = "foundation: trained on 'google-bert/other'; give the form field `foundation`"
        server.instead = [refusal(422, "rejected_foundation", told)]
    elif command == "convert":
        words = (*words, "out.zip")
    elif command == "import":
        words = ("import", tmp_path / "many", "--home", tmp_path / "home")
    result = run(*words)
    assert result.exit_code == 1
    assert "'google-bert/other'" in result.stderr
    assert "give the option --foundation" in result.stderr
    assert "form field" not in result.stderr
    if command == "verify":
        assert "give the option --task" in failed(run(*words, "--foundation", "default"), 1)
        named = run(*words, "--foundation", "default", "--task", "text-classification")
        assert named.exit_code == 0
        assert (
            "warning: no labels were given: answers say LABEL_0 to LABEL_2; publish it again with" in named.stdout
        )
        assert "the option --labels" in named.stdout
    if command == "import":
        stated = run(*words, "--foundation", "default")
        assert "give the option --task" in stated.stderr
        assert "google-bert" not in stated.stderr
    if command == "push":
        answer = printed(run(*words, "--foundation", "default", "--json"))
        assert server.seen[-1].form["foundation"] == "default"
        assert answer["verification"]["golden"] == "passed"


@pytest.mark.parametrize("name", ["notes.txt", "model.safetensors", "sub/adapter_config.json"])
def test_an_unknown_file_in_a_folder_is_refused_before_anything_is_sent(
    server: StandIn, run: Callable[..., Result], peft_folder: Path, name: str
) -> None:
    (peft_folder / name).parent.mkdir(exist_ok=True)
    (peft_folder / name).write_bytes(b"x")
    assert f"holds {name}, which is no known part of an adapter" in failed(run("push", peft_folder), 2)
    assert server.seen == []


def test_without_a_golden_set_the_answer_says_what_was_compared(
    server: StandIn, run: Callable[..., Result], peft_folder: Path
) -> None:
    verification = {**VERIFICATION, "golden": "none", "inputs": 1, "max_difference": None, "ignored": ["a.txt"]}
    answer = {"name": "a", "version": 1, "status": "ready", "verification": verification}
    answer |= {"digest": DIGESTS[1], "task": "text-classification"}
    server.instead = [JSONResponse(answer, 201)]
    lines = run("push", peft_folder).stdout.splitlines()
    assert "no golden set: no outputs were compared; 1 probe input ran on onnx fp32" in lines
    assert "ignored: .x, a.txt, checkpoint-10/, training_args.bin" in lines
    assert not any("difference" in line for line in lines)


def test_verifying_names_the_check_that_fails(
    run: Callable[..., Result], adapter_folder: Path, tmp_path: Path
) -> None:
    assert "would be refused: labels: " in failed(run("verify", adapter_folder, "--labels", "a,b"), 1)
    assert "would be refused: labels: 2 labels" in failed(run("verify", adapter_folder, "--labels", "a,a"), 1)
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(b"no zip")
    assert "would be refused: members: bundle: not a zip archive" in failed(run("verify", damaged), 1)
    assert "is no folder and not `default`" in failed(run("verify", damaged, "--foundation", "x"), 2)


@pytest.mark.parametrize("by_option", [True, False])
def test_verifying_applies_the_server_s_limits_that_it_is_given(
    run: Callable[..., Result],
    adapter_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    by_option: bool,
) -> None:
    def under(path: Path, limit: str, value: int) -> Result:
        if by_option:
            return run("verify", path, f"--{limit}", value)
        with monkeypatch.context() as environment:
            environment.setenv(f"ROOTSTOCK_{limit.replace('-', '_').upper()}", str(value))
            return run("verify", path)

    assert "rank 8; this server serves at most 7" in failed(under(adapter_folder, "max-rank", 7), 1)
    large = tmp_path / "large.zip"
    large.write_bytes(b"x" * (2**20 + 1))
    assert "the limit is 1048576 bytes" in failed(under(large, "max-bundle-mb", 1), 1)
    assert "not a zip archive" in failed(under(large, "max-bundle-mb", 2), 1)
    passed = under(adapter_folder, "max-rank", 8).stdout
    assert "limits of a server other than 64 MiB and rank 8" in passed


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"ROOTSTOCK_ADMIN_KEY": "secret"})
    assert shown.exit_code == 0
    assert f"rootstock adapters {command}" in shown.stdout
    assert "Example" in shown.stdout
    assert "--json" in shown.stdout
    assert "secret" not in shown.stdout


@pytest.mark.parametrize("options", [[], ["--url"], ["list", "--url"]])
def test_the_address_is_the_option_s_before_the_variable_s(
    server: StandIn, tmp_path: Path, options: list[str]
) -> None:
    nobody = "http://127.0.0.1:1"
    words = [*options, server.url] if options else []
    words += [] if "list" in words else ["list"]
    listed = CliRunner().invoke(app, words, env={"ROOTSTOCK_URL": nobody if options else server.url})
    assert listed.exit_code == 0, listed.stderr
    assert f"cannot reach {nobody}" in failed(CliRunner().invoke(app, ["list"], env={"ROOTSTOCK_URL": nobody}), 1)


def test_listing_loads_nothing_heavy(server: StandIn) -> None:
    program = (
        "import sys\nfrom rootstock.adapters.cli.adapter_commands import app\n"
        f"app(['list', '--json', '--url', {server.url!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'numpy', 'safetensors', 'sqlalchemy', 'peft', 'tokenizers'}\n"
        "sys.exit(f'loaded: {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_on_a_terminal_the_upload_is_shown_on_stderr_and_stdout_stays_json(
    server: StandIn, peft_folder: Path
) -> None:
    ours, theirs = pty.openpty()
    try:
        words = ["adapters", "--url", server.url, "push", str(peft_folder), "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "rootstock.adapters.cli.console", *words],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
            check=True,
        )
    finally:
        os.close(theirs)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal, suppress(OSError):
        # Linux ends a terminal that nobody writes to any more with an error.
        while piece := terminal.read(4096):
            shown += piece
    assert json.loads(done.stdout)["name"] == "intents"
    assert shown.index(b"sending") < shown.index(b"verifying")

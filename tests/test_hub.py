"""Pushing to the Hub: huggingface_hub itself against a local server."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import hub_server
import pytest
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from segplus.errors import InputError
from segplus.reporting import hub
from segplus.reporting.hub import list_pushed_files

ROOT = Path(__file__).parents[1]


PUSHED = [
    "README.md",
    "config.json",
    "logs/events.out.tfevents.1",
    "metrics.json",
    "model.safetensors",
    "pictures/best.png",
    "preprocessor_config.json",
]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a finished run: a tiny SegFormer, its processor, card, logs, and a checkpoint that stays here."""
    folder = tmp_path_factory.mktemp("run")
    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 8],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 1],
        mlp_ratios=[2, 2],
        decoder_hidden_size=8,
        num_labels=2,
    )
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlibrary_name: transformers\nlicense: mit\n---\n# tiny\n", encoding="utf-8")
    (folder / "metrics.json").write_text("{}\n")
    for name, content in {
        "logs/events.out.tfevents.1": b"\x00\x01log",
        "pictures/best.png": bytes(range(256)) * 500,
        "checkpoint-10/model.safetensors": b"old",
        "checkpoint-10/optimizer.pt": b"state",
        "optimizer.pt": b"state",
        "rng_state_0.pth": b"state",
        ".metrics.json.1.part": b"half",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def run_python(code: str, endpoint: str, home: Path, token: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a process whose huggingface_hub talks to the endpoint and knows nothing of this machine."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    environment = kept | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    environment |= {"HF_TOKEN": token} if token else {}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=home,
    )


def push(
    folder: Path,
    server_url: str,
    home: Path,
    *,
    private: bool = False,
    token: str | None = hub_server.TOKEN,
    repo_id: str = "someone/tiny",
) -> subprocess.CompletedProcess[str]:
    return run_python(
        f"""
        import sys
        from segplus.errors import InputError
        from segplus.reporting.hub import push_folder
        try:
            print(push_folder({str(folder)!r}, {repo_id!r}, {private}, "Train tiny: mIoU 0.61"))
        except InputError as error:
            print(error, file=sys.stderr)
            raise SystemExit(2)
        """,
        server_url,
        home,
        token,
    )


@pytest.mark.parametrize("chunk_size", [None, 10_000])
def test_push_brings_every_byte_in_one_commit(run_folder: Path, tmp_path: Path, chunk_size: int | None) -> None:
    with hub_server.HubServer(chunk_size) as server:
        result = push(run_folder, server.url, tmp_path, private=True, repo_id="tiny")
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip() == f"{server.url}/someone/tiny"
    repository = server.repositories["someone/tiny"]
    assert repository.private
    assert len(repository.commits) == 1
    assert repository.commits[0].message == "Train tiny: mIoU 0.61"
    assert repository.commits[0].paths == PUSHED
    assert sorted(repository.files) == PUSHED
    for name in PUSHED:
        assert repository.files[name] == (run_folder / name).read_bytes()
    weights = (run_folder / "model.safetensors").read_bytes()
    assert repository.lfs_oids["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert "POST /api/models/someone/tiny/preupload/main" in server.calls
    assert "POST /someone/tiny.git/info/lfs/objects/batch" in server.calls
    parts = [call for call in server.calls if call.startswith("PUT") and call.endswith("/part")]
    expected = sum(
        -(-(run_folder / name).stat().st_size // 10_000) for name in ("model.safetensors", "pictures/best.png")
    )
    assert len(parts) == (0 if chunk_size is None else expected)


@pytest.mark.slow
def test_what_was_pushed_loads_again(run_folder: Path, tmp_path: Path) -> None:
    with hub_server.HubServer() as server:
        assert push(run_folder, server.url, tmp_path).returncode == 0
        result = run_python(
            """
            from PIL import Image
            from transformers import pipeline
            segment = pipeline("image-segmentation", model="someone/tiny")
            regions = segment(Image.new("RGB", (50, 40)), subtask="semantic")
            print({region["mask"].size for region in regions})
            """,
            server.url,
            tmp_path,
            hub_server.TOKEN,
        )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "{(50, 40)}"


def test_upload_folder_of_huggingface_hub_works_against_the_server(run_folder: Path, tmp_path: Path) -> None:
    code = f"""
        from huggingface_hub import create_repo, upload_folder
        create_repo("someone/plain", private=False)
        upload_folder(folder_path={str(run_folder)!r}, repo_id="someone/plain", commit_message="plain",
                      ignore_patterns=["checkpoint-*/**", "*.part"])
        """
    with hub_server.HubServer() as server:
        result = run_python(code, server.url, tmp_path, hub_server.TOKEN)
        assert result.returncode == 0, result.stderr
    repository = server.repositories["someone/plain"]
    assert [commit.message for commit in repository.commits] == ["plain"]
    assert set(repository.files) == {*PUSHED, "optimizer.pt", "rng_state_0.pth"}
    assert all(content == (run_folder / name).read_bytes() for name, content in repository.files.items())


def test_second_push_uploads_only_what_changed(run_folder: Path, tmp_path: Path) -> None:
    with hub_server.HubServer() as server:
        assert push(run_folder, server.url, tmp_path).returncode == 0
        before = len(server.calls)
        (run_folder / "metrics.json").write_text('{"second": 2}\n')
        assert push(run_folder, server.url, tmp_path).returncode == 0
        assert not [call for call in server.calls[before:] if call.startswith("PUT")]
    repository = server.repositories["someone/tiny"]
    assert [commit.paths for commit in repository.commits] == [PUSHED, ["metrics.json"]]
    assert repository.files["metrics.json"] == b'{"second": 2}\n'


@pytest.mark.parametrize("refused", ["/commit/", "/preupload/"])
def test_refused_push_says_that_nothing_is_lost_and_how_to_repeat(
    run_folder: Path, tmp_path: Path, refused: str
) -> None:
    with hub_server.HubServer(refuse={refused: 403}) as server:
        result = push(run_folder, server.url, tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert f"nothing that was trained is lost, it lies in {run_folder}" in result.stderr
    assert f"hf upload someone/tiny {run_folder} . --exclude 'checkpoint-*'" in result.stderr
    assert "hf auth login" in result.stderr
    assert not server.repositories["someone/tiny"].commits


def test_push_without_a_token_asks_for_one(run_folder: Path, tmp_path: Path) -> None:
    with hub_server.HubServer() as server:
        result = push(run_folder, server.url, tmp_path, token=None)
    assert result.returncode == 2
    assert "hf auth login" in result.stderr


def test_push_without_a_network_fails_with_one_message(run_folder: Path, tmp_path: Path) -> None:
    with hub_server.HubServer() as server:
        gone = server.url
    result = push(run_folder, gone, tmp_path)
    assert result.returncode == 2
    assert "nothing that was trained is lost" in result.stderr
    assert "Traceback" not in result.stderr


def test_private_push_never_lands_in_a_public_repository(run_folder: Path, tmp_path: Path) -> None:
    with hub_server.HubServer() as server:
        assert push(run_folder, server.url, tmp_path).returncode == 0
        result = push(run_folder, server.url, tmp_path, private=True)
    assert result.returncode == 2
    assert "exists and is public" in result.stderr
    assert len(server.repositories["someone/tiny"].commits) == 1


def test_misspelt_repository_name_is_an_input_error(run_folder: Path, tmp_path: Path) -> None:
    result = push(run_folder, "http://127.0.0.1:9", tmp_path, repo_id="some one/tiny model")
    assert result.returncode == 2
    assert "Repo id must" in result.stderr


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model to push"):
        list_pushed_files(tmp_path)


def test_pushed_files(run_folder: Path) -> None:
    assert list_pushed_files(run_folder) == PUSHED


def test_the_machines_name_is_hidden_in_the_names_of_event_files_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.socket, "gethostname", lambda: "ml")
    assert hub._hide_host("recipe.yaml") == "recipe.yaml"
    assert hub._hide_host("logs/ml/notes.ml.txt") == "logs/ml/notes.ml.txt"
    assert hub._hide_host("logs/events.out.tfevents.17.ml.4.0") == "logs/events.out.tfevents.17.host.4.0"
    assert hub._hide_host("events.out.tfevents.17.ml.4.0") == "events.out.tfevents.17.host.4.0"
    monkeypatch.setattr(hub.socket, "gethostname", lambda: "e")
    assert hub._hide_host("logs/events.out.tfevents.17.e.4.0") == "logs/events.out.tfevents.17.host.4.0"


def prepare(
    server_url: str, home: Path, repo_id: str = "someone/tiny", token: str | None = hub_server.TOKEN, *, private: bool
) -> subprocess.CompletedProcess[str]:
    code = f"""
        import sys
        from segplus.errors import InputError
        from segplus.reporting.hub import prepare_repository
        try:
            prepare_repository({repo_id!r}, {private})
        except InputError as error:
            print(error, file=sys.stderr)
            raise SystemExit(2)
        """
    return run_python(code, server_url, home, token)


def test_a_repository_is_made_before_training_and_may_be_there_already(tmp_path: Path) -> None:
    with hub_server.HubServer() as server:
        for _ in range(2):
            result = prepare(server.url, tmp_path, "tiny", private=True)
            assert result.returncode == 0, result.stderr
        assert list(server.repositories) == ["someone/tiny"]
        assert server.repositories["someone/tiny"].private
        assert not server.repositories["someone/tiny"].commits
        assert "GET /api/models/someone/tiny/auth-check/write" in server.calls


@pytest.mark.parametrize(
    ("repo_id", "token", "refused", "said"),
    [
        ("someone/tiny", None, {}, "hf auth login"),
        ("some one/tiny model", hub_server.TOKEN, {}, "Repo id must"),
        ("someone/tiny", hub_server.TOKEN, {"/api/repos/create": 403}, "hf auth login"),
        ("someone/tiny", hub_server.TOKEN, {"/auth-check/write": 403}, "hf auth login"),
    ],
)
def test_a_push_that_cannot_succeed_is_told_before_training(
    tmp_path: Path, repo_id: str, token: str | None, refused: dict[str, int], said: str
) -> None:
    with hub_server.HubServer(refuse=refused) as server:
        result = prepare(server.url, tmp_path, repo_id, token, private=False)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert f"training.push_to_hub: {repo_id} cannot be written, so nothing was trained" in result.stderr
    assert said in result.stderr
    assert "training.hub_model_id" in result.stderr


def test_a_private_run_of_a_public_repository_is_told_before_training(tmp_path: Path) -> None:
    with hub_server.HubServer() as server:
        assert prepare(server.url, tmp_path, private=False).returncode == 0
        result = prepare(server.url, tmp_path, private=True)
    assert result.returncode == 2
    assert "exists and is public" in result.stderr

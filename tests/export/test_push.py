"""What is pushed is on the Hub, and comes from there; what is not is said."""

import pytest
import torch

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.errors import NetworkError, UsageError
from gpt2cli.hub import hub_client, models, resumable_download
from tests.hub_server import Faults

REPO = "somebody/my-gpt2"
BY_HTTP = {"HF_HUB_DISABLE_XET": "1"}  # the local Hub does not speak the newer of the client's two ways


@pytest.fixture
def theirs(hub, monkeypatch):
    """An empty repository, and no waiting."""
    from huggingface_hub import constants

    hub.repo, hub.files = REPO, {}
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(resumable_download, "sleep", lambda seconds: None)
    return hub


@pytest.fixture
def files(tmp_path):
    for name, content in (("README.md", b"# A model\n"), ("model.safetensors", b"x" * 5000)):
        (tmp_path / name).write_bytes(content)
    return [tmp_path / "README.md", tmp_path / "model.safetensors"]


def test_out_to_the_hub_and_back(theirs, run, tmp_path):
    out = tmp_path / "my-gpt2"
    command = ("export", "--model", "tiny", "--format", "hf", "--out", str(out), "--push", REPO, "--private")
    done = run(*command, env=BY_HTTP | {"HF_TOKEN": "hf_secret"})
    assert (done.returncode, done.stdout) == (0, f"{theirs.url}/{REPO}\n"), done.stderr
    assert "wrote" in done.stderr
    assert "hf_secret" not in done.stdout + done.stderr
    assert theirs.files == {path.name: path.read_bytes() for path in out.iterdir()}
    assert theirs.authorizations == {"Bearer hf_secret"}
    assert (theirs.made[0]["organization"], theirs.made[0]["name"]) == ("somebody", "my-gpt2")
    assert "private" in str(theirs.made[0])
    assert f'from_pretrained("{REPO}")' in theirs.files["README.md"].decode()
    assert theirs.messages == ["Upload from gpt2 export"]
    back, tiny = load_plain(REPO, device="cpu"), load_plain("tiny", device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), tiny.parameters(), strict=True))


def test_a_busy_hub_is_asked_again(theirs, files):
    theirs.faults["create"] = Faults(status=503, status_times=1)
    theirs.faults["commit"] = Faults(status=429, status_times=2)
    notes = []
    assert models.upload(REPO, files, progress=notes.append) == f"{theirs.url}/{REPO}"
    assert len(notes) == 3
    assert theirs.files == {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize("step", ["create", "preupload", "batch", "put", "commit"])
@pytest.mark.parametrize(("status", "message"), [(401, "HF_TOKEN"), (403, "may not be written with your token")])
def test_a_hub_that_refuses(theirs, files, step, status, message):
    theirs.faults[step] = Faults(status=status)
    with pytest.raises(NetworkError, match=message):
        models.upload(REPO, files)
    assert theirs.files == {}


@pytest.mark.parametrize("step", ["create", "commit"])
def test_a_hub_that_hangs_is_given_up(theirs, files, monkeypatch, step):
    monkeypatch.setattr(hub_client, "UPLOAD_TIMEOUT", 0.2)
    theirs.faults[step] = Faults(hang_at=0)
    with pytest.raises(NetworkError, match=r"no answer in time .*after 5 tries"):
        models.upload(REPO, files)


def test_a_hub_that_talks_nonsense(theirs, files, monkeypatch):
    monkeypatch.setattr("tests.hub_server._Handler._preupload", lambda self, body: {"files": [{"path": "x"}]})
    with pytest.raises(NetworkError, match="makes no sense"):
        models.upload(REPO, files)


def test_no_hub_at_all(theirs, files, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NetworkError, match="after 5 tries"):
        models.upload(REPO, files)


def test_offline_nothing_is_asked(theirs, files, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NetworkError, match="network is off"):
        models.upload(REPO, files)
    assert theirs.log == []


def test_a_wrong_name_is_refused(theirs, files):
    with pytest.raises(UsageError, match="not a model"):
        models.upload("../../x", files)
    assert theirs.log == []

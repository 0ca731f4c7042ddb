"""Publishing a version to the Hugging Face hub."""

import os
from pathlib import Path

import httpx
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from schemas.errors import WarehouseError
from warehouse.export.manifest import MANIFEST_NAME, verify_export

TOKEN_VARIABLE = "HF_TOKEN"


def push_export(path: Path, repo_id: str, *, api: HfApi | None = None) -> str:
    """Upload a version to a dataset repository and tag it with the version's name; return the tag's address.

    The shards of the version that was there before are deleted in the same commit. A repository that does not exist is
    made, as a private one. The token comes from the environment variable HF_TOKEN; ``api`` replaces the client.

    Raises:
        WarehouseError: the export does not agree with its manifest, there is no token, or the hub refuses.
    """
    manifest = verify_export(path)
    if api is None:
        token = os.environ.get(TOKEN_VARIABLE)
        if not token:
            raise WarehouseError(
                f"pushing to {repo_id} needs a token with write access in {TOKEN_VARIABLE}, which is not set"
            )
        api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, repo_type="dataset", private=True, exist_ok=True).repo_id
        commit = api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=path,
            allow_patterns=["README.md", MANIFEST_NAME, *(file.path for file in manifest.files)],
            delete_patterns=["sft/*", "preference/*"],
            commit_message=f"{manifest.name} {manifest.version}",
            commit_description=f"export {manifest.export_id}, warehouse snapshot {manifest.snapshot}",
        )
        api.create_tag(repo_id, tag=manifest.version, revision=commit.oid, repo_type="dataset", exist_ok=True)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        raise WarehouseError(f"pushing {path} to {repo_id} failed: {' '.join(str(error).split())}") from error
    return f"{api.endpoint}/datasets/{repo_id}/tree/{manifest.version}"

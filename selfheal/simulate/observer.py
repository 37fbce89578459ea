"""Read-only client of a running platform: Dagster over GraphQL, the API over REST."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfheal.kit.errors import ServiceUnavailableError

if TYPE_CHECKING:
    import httpx

MATERIALIZATION_QUERY = """
query Latest($path: [String!]!) {
  assetOrError(assetKey: {path: $path}) {
    ... on Asset {
      assetMaterializations(limit: 1) {
        runId
        timestamp
        metadataEntries {
          label
          ... on TextMetadataEntry { text }
          ... on MarkdownMetadataEntry { mdStr }
          ... on FloatMetadataEntry { floatValue }
          ... on IntMetadataEntry { intValue }
          ... on BoolMetadataEntry { boolValue }
          ... on TableMetadataEntry { table { records } }
        }
      }
    }
  }
}
"""

FAILED_RUNS_QUERY = """
query Failed { runsOrError(filter: {statuses: [FAILURE]}, limit: 1) { ... on Runs { results { runId jobName } } } }
"""

VALUE_FIELDS = ("text", "mdStr", "floatValue", "intValue", "boolValue")


@dataclass(frozen=True, slots=True)
class Materialization:
    """The newest materialisation of an asset: its time (Unix seconds), run and metadata."""

    run_id: str
    timestamp_s: float
    metadata: dict[str, Any]


class DagsterReader:
    """Reads from a Dagster webserver over GraphQL."""

    def __init__(self, client: httpx.AsyncClient, url: str, api_key: str | None = None) -> None:
        self._client = client
        self._url = f"{url}/graphql"
        self._headers = {} if api_key is None else {"X-API-Key": api_key}

    async def latest(self, asset: str) -> Materialization | None:
        """Return the newest materialisation of the asset, or None."""
        answer = await self._ask(MATERIALIZATION_QUERY, {"path": [asset]})
        found = answer["assetOrError"].get("assetMaterializations") or []
        if not found:
            return None
        metadata = {entry["label"]: _value(entry) for entry in found[0]["metadataEntries"]}
        return Materialization(found[0]["runId"], float(found[0]["timestamp"]) / 1000, metadata)

    async def failed_run(self) -> str | None:
        """Return the newest failed run, named for people; None if no run has failed."""
        answer = await self._ask(FAILED_RUNS_QUERY, {})
        results = answer["runsOrError"].get("results") or []
        return f"{results[0]['jobName']} ({results[0]['runId']})" if results else None

    async def _ask(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        import httpx

        try:
            asked = {"query": query, "variables": variables}
            response = await self._client.post(self._url, json=asked, headers=self._headers)
            response.raise_for_status()
            body: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ServiceUnavailableError(f"Dagster at {self._url} does not answer: {error}") from error
        if body.get("errors"):
            raise ServiceUnavailableError(f"Dagster at {self._url} refused a query: {body['errors'][0]['message']}")
        data: dict[str, Any] = body["data"]
        return data


def _value(entry: dict[str, Any]) -> Any:
    if "table" in entry:
        import json

        return [json.loads(record) for record in entry["table"]["records"]]
    return next((entry[field] for field in VALUE_FIELDS if entry.get(field) is not None), None)

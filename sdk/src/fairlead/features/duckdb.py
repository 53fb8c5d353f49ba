"""A DuckDB offline store that joins only the rows that can match.

Feast's point-in-time join is an inequality join over every source row of a key; what lies outside the ttl of every
entity row is thrown away after it was paired. :class:`WindowedDuckDBOfflineStore` leaves such rows out while the
source is read, so that a training set built in time chunks costs what its chunks hold. The join itself is Feast's.
It also resolves relative paths of sources against the feature repository, not against the working directory.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Literal

import ibis
import pandas as pd
from feast.data_source import DataSource
from feast.feature_view import FeatureView
from feast.infra.offline_stores import ibis as feast_ibis
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig
from typing_extensions import override


class OfflineStoreError(ValueError):
    """What this store is asked for is not what it does; the message says what to use instead."""


class WindowedDuckDBOfflineStoreConfig(DuckDBOfflineStoreConfig):  # type: ignore[misc]  # feast is untyped here
    """The ``offline_store`` section of ``feature_store.yaml``."""

    type: Literal["fairlead.features.duckdb.WindowedDuckDBOfflineStore"] = (
        "fairlead.features.duckdb.WindowedDuckDBOfflineStore"
    )


class WindowedDuckDBOfflineStore(DuckDBOfflineStore):  # type: ignore[misc]  # feast is untyped here
    """Feast's DuckDB store over parquet files, reading only what the entity rows can see."""

    @staticmethod
    @override
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        """Join features to entity rows as of each row's time; see Feast's ``get_historical_features``.

        Raises:
            OfflineStoreError: ``entity_df`` is SQL, or a source is not a parquet file.
        """
        if isinstance(entity_df, str):
            raise OfflineStoreError("entity rows are given as SQL; give a DataFrame")
        times = entity_df[infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))]
        times = pd.to_datetime(times, utc=True)
        ttls = {view.batch_source.name: view.ttl for view in feature_views}
        return feast_ibis.get_historical_features_ibis(
            config=config,
            feature_views=feature_views,
            feature_refs=feature_refs,
            entity_df=entity_df,
            registry=registry,
            project=project,
            data_source_reader=_windowed_reader(times.min(), times.max(), ttls),
            data_source_writer=_refuse_to_write,
            full_feature_names=full_feature_names,
            filter_by_created_timestamp=filter_by_created_timestamp,
        )

    @staticmethod
    @override
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Return the last row of each key with ``start_date <= event time <= end_date``."""
        return feast_ibis.pull_latest_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            data_source_reader=_read,
            data_source_writer=_refuse_to_write,
        )

    @staticmethod
    @override
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Return all rows with ``start_date <= event time <= end_date``."""
        return feast_ibis.pull_all_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            data_source_reader=_read,
            data_source_writer=_refuse_to_write,
        )


def _windowed_reader(
    first: pd.Timestamp, last: pd.Timestamp, ttls: dict[str, timedelta | None]
) -> Callable[[DataSource, str], Any]:
    """Return a reader of the rows that entity rows between ``first`` and ``last`` can see."""

    def read(source: DataSource, repo_path: str) -> Any:
        table = _read(source, repo_path)
        known_at = table[source.timestamp_field]
        visible = table.filter(known_at <= ibis.literal(last))
        ttl = ttls[source.name]
        return visible.filter(known_at >= ibis.literal(first - ttl)) if ttl else visible

    return read


def _read(source: DataSource, repo_path: str) -> Any:
    if not isinstance(source, FileSource) or not source.path.endswith(".parquet"):
        raise OfflineStoreError(f"source {source.name}: not a parquet file; use Feast's own `offline_store: duckdb`")
    return ibis.read_parquet(FileSource.get_uri_for_file_path(repo_path, source.path))


def _refuse_to_write(_table: Any, source: DataSource, *_: Any) -> None:
    raise OfflineStoreError(f"source {source.name}: this store does not write; use Feast's own `offline_store: duckdb`")

"""One frozen `Settings`, read from the environment or `.env` and passed as an argument. There is no global instance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    AliasChoices,
    Field,
    FilePath,
    HttpUrl,
    SecretStr,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from selfheal.kit.api_keys import first_plain_key, parse_api_keys
from selfheal.kit.errors import ConfigurationError
from selfheal.kit.notify_urls import parse_channels
from selfheal.kit.owners import parse_owners
from selfheal.kit.postgres_url import parse_postgres_url, postgres_url, without_password
from selfheal.kit.secret_files import read_secrets, secret_files
from selfheal.kit.word_lists import parse_words

SECONDS_PER_DAY = 86_400

FORMER_NAMES = {
    "monitoring_results_retention_days": "monitoring_results_keep_days",
    "monitoring_runs_retention_days": "monitoring_runs_keep_days",
    "monitoring_metrics_retention_days": "monitoring_metrics_keep_days",
    "alerts_retention_days": "alerts_keep_days",
    "predictions_retention_days": "predictions_keep_days",
    "max_drift_reports": "drift_reports_keep",
    "ingest_lag_alert_seconds": "sink_lag_alert_seconds",
    "ingest_interval_seconds": "sink_interval_seconds",
}
"""Former names of settings, which are still read. The current name wins."""

PARSED: Mapping[str, Callable[[str], object]] = {
    "database_url": parse_postgres_url,
    "api_keys": parse_api_keys,
    "asset_owners": parse_owners,
    **dict.fromkeys(("notify_urls", "notify_urls_critical", "notify_urls_warning", "notify_urls_info"), parse_channels),
}
"""Settings with a text that its reader parses: what that refuses is refused at the start."""


MAY_CONTAIN_PASSWORDS = ("assets_url", "mlflow_tracking_uri", "otel_exporter_otlp_endpoint")
"""Addresses that may have a password in them. They may be in a file, like a secret, and are printed without it."""


def _renamed(name: str) -> AliasChoices:
    return AliasChoices(name, FORMER_NAMES[name])


@contextmanager
def _as_value_error() -> Iterator[None]:
    """Raise what is wrong with a value as pydantic wants it in a validator."""
    try:
        yield
    except ConfigurationError as error:
        raise ValueError(str(error)) from None


class Settings(BaseSettings):
    """The current settings. A field's upper-case name is its environment variable."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (pydantic's own, which only warns)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where settings come from, what counts most first."""
        assert isinstance(env_settings, EnvSettingsSource)
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        files = secret_files(
            names_of_files(settings_cls), init_settings(), env_settings.env_vars, dotenv_settings.env_vars
        )
        of_environment, of_file, in_folder = (InitSettingsSource(settings_cls, read_secrets(one)) for one in files)
        return init_settings, env_settings, of_environment, dotenv_settings, of_file, in_folder

    use_case: str = Field("selfheal.credit_risk:contract", description="the contract, as package.module:attribute")
    data_dir: Path = Field(Path("data"), description="folder of everything the platform writes to disk")
    data_umask: Literal["077", "027"] = Field(
        "077", description="permissions of group and others taken from all files: 077, or 027 to let the group read"
    )
    assets_url: str | None = Field(
        None,
        description="where assets are stored: a folder or an fsspec URL (s3://...); absent: DATA_DIR/assets",
    )
    asset_owners: str = Field(
        "", description="who owns the assets in Dagster, comma-separated: e-mail addresses, team:name; empty: nobody"
    )
    secrets_dir: Path | None = Field(
        None, description="folder of files with secrets, each named like its setting; besides, NAME_FILE names one file"
    )
    data: Path | None = Field(None, description="labelled CSV to bootstrap from; absent: DATA_DIR, then synthetic rows")
    data_delimiter: str = Field(",", description="character between the fields of the CSV: one character, or tab")
    data_decimal: str = Field(".", description="decimal sign in the CSV: . or a comma")
    data_missing_words: str = Field(
        "", description="words for a missing value in the CSV, comma-separated, besides blank, NA, NaN and null"
    )
    data_true_words: str = Field("", description="words for 1 in the CSV, comma-separated, such as yes")
    data_false_words: str = Field("", description="words for 0 in the CSV, comma-separated, such as no")
    data_ignored_columns: str = Field(
        "",
        description="columns of the CSV that are left out, comma-separated; `selfheal check-data` names unknown ones",
    )
    data_rows: int | None = Field(None, ge=500, description="use only this many rows of the CSV, from its start")
    synthetic_rows: int = Field(20_000, ge=1_000, le=1_000_000, description="size of the synthetic stand-in")
    random_seed: int = Field(20, ge=0, description="seed of training, splits and the stand-in")

    database_url: SecretStr | None = Field(
        None, description="external Postgres; absent (and no POSTGRES_HOST): embedded"
    )
    postgres_host: str | None = Field(None, description="external Postgres host, if DATABASE_URL is not given")
    postgres_port: int = Field(5432, ge=1, le=65_535)
    postgres_user: str = "postgres"
    postgres_password: SecretStr = SecretStr("")
    mlops_db_name: str = Field("selfheal", pattern=r"^[a-z_][a-z0-9_]{0,62}$", description="the platform's database")
    mlflow_tracking_uri: str | None = Field(None, description="tracking server; absent: Postgres and DATA_DIR/mlflow")

    monitoring_interval: int = Field(300, ge=5, le=86_400, description="seconds between two monitoring ticks")
    monitoring_lookback: int = Field(24, ge=1, le=24 * 90, description="hours of traffic in the monitoring window")
    monitoring_max_lookback: int = Field(
        24 * 30,
        ge=1,
        le=24 * 365,
        description="hours that the window reaches back at most, where MONITORING_LOOKBACK has fewer than MIN_DRIFT_ROWS",
    )
    monitoring_max_rows: int = Field(
        5_000, ge=200, le=100_000, description="rows of the window that are compared: a random sample of it"
    )
    min_drift_rows: int = Field(200, ge=50, le=100_000, description="fewer rows than this are `insufficient`")
    false_alarm_budget_days: float = Field(
        90.0, ge=1, le=3_650, description="at most one false drift alarm in so many days"
    )
    min_drift_effect: float = Field(
        0.05,
        ge=0.01,
        le=0.9,
        description="smallest shift of a column that is material: KS distance or rank shift, of a category total variation, 0 to 1",
    )
    harm_min_auc: float = Field(
        0.72,
        ge=0.5,
        le=1,
        description="area under the ROC curve below which an estimate shows harm; independent of MIN_AUC",
    )
    harm_min_brier_excess: float = Field(
        0.01,
        ge=0,
        le=1,
        description="realised minus announced Brier score from which on a loss is harm; independent of MAX_BRIER_DEGRADATION",
    )
    harm_min_loss_pct: float = Field(
        10.0,
        ge=1,
        le=100,
        description="percent of F1, or of AUC-ROC above one half, that labels must show to be lost before it is harm",
    )

    primary_metric: Literal["f1", "log_loss", "brier", "auc", "expected_cost"] = Field(
        "f1", description="metric that must improve for a promotion; F1 must then not be lost, if it is another"
    )
    min_f1_improvement_pct: float = Field(2.0, ge=0, le=100, description="percent by which F1 must improve")
    max_f1_degradation_pct: float = Field(
        10.0, ge=0, le=100, description="percent by which F1 may fall where another PRIMARY_METRIC improves"
    )
    cost_of_false_alarm: float = Field(
        1.0, gt=0, le=1e9, description="cost of a false alarm, for PRIMARY_METRIC=expected_cost; any unit"
    )
    cost_of_miss: float = Field(1.0, gt=0, le=1e9, description="cost of a missed event, in the same unit")
    max_brier_degradation: float = Field(0.01, ge=0, le=1, description="by how much the Brier score may rise")
    max_skill_loss_pct: float = Field(
        25.0,
        ge=0,
        le=1_000,
        description="percent of the champion's skill (Brier score of the base rate minus its own) that a rise may cost",
    )
    min_samples_for_decision: int = Field(
        200, ge=30, le=1_000_000, description="labelled rows on which both models are compared"
    )
    min_coverage_pct: float = Field(30.0, ge=0, le=100, description="percent of the window's predictions with a label")
    min_recall: float = Field(0.3, ge=0, le=1, description="recall that the model must reach")
    min_auc: float = Field(0.72, ge=0.5, le=1, description="area under the ROC curve that the model must reach")
    training_max_rows: int = Field(
        50_000, ge=1_000, le=5_000_000, description="newest labelled predictions to train on"
    )
    training_timeout_seconds: int = Field(
        14_400, ge=10, le=604_800, description="seconds after which a training is ended; it is not repeated"
    )
    launch_timeout_seconds: int = Field(120, ge=30, le=3_600, description="seconds to start a run or evaluate a sensor")
    training_jobs: int | None = Field(
        None,
        ge=-1,
        le=1_024,
        description="fits that run at once in training, on every backend; -1: one per core, on Dask per thread of the cluster; "
        "empty: 1, on Dask -1",
    )
    dask_scheduler: str | None = Field(
        None, description="address of a Dask cluster, tcp://...; for TRAINING_BACKEND=dask"
    )
    training_backend: Literal["loky", "threading", "dask"] = Field(
        "loky", description="where the fits of a training run: processes, threads, or the cluster of DASK_SCHEDULER"
    )
    repairs: Literal["cheapest", "retraining"] = Field(
        "cheapest",
        description="what a retraining may end in: the cheapest repair that is as good, or always a newly fitted model",
    )
    gate_level: float = Field(
        0.05, gt=0, lt=0.5, description="probability that a version is ever replaced by a model that is no better"
    )
    gate_segments: Literal["report", "enforce"] = Field(
        "report",
        description="whether a significant regression in a segment blocks the promotion (`enforce`) or is only reported",
    )

    max_latency_ratio: float = Field(
        5.0, ge=1, le=1_000, description="how many times the latency of the model it replaces a new model may have"
    )
    promotion_cooldown_days: float = Field(7.0, ge=0, le=365, description="days between two promotions")
    max_attempts_per_episode: int = Field(10, ge=1, le=100, description="retrainings per drift episode at most")
    probation_hours: float = Field(
        72.0, gt=0, le=24 * 90, description="hours for which the old version is compared with the new one"
    )
    min_probation_labels: int = Field(200, ge=30, le=1_000_000, description="labels before probation may roll back")
    probation_max_hours: float = Field(
        720.0, gt=0, le=24 * 365, description="hours after which a probation without enough labels ends"
    )

    api_host: str = "127.0.0.1"
    api_port: int = Field(8000, ge=1, le=65_535)
    dagster_port: int = Field(3000, ge=1, le=65_535)
    code_server_port: int = Field(4000, ge=1, le=65_535)
    mlflow_port: int = Field(5000, ge=1, le=65_535)
    code_server_host: str = Field("127.0.0.1", description="where Dagster's webserver and daemon reach its code server")
    training_pod_file: FilePath | None = Field(
        None, description="with TRAINING_RUNS_IN=kubernetes: a PodTemplate (YAML) of the pods that train"
    )
    training_runs_in: Literal["daemon", "trainer", "kubernetes"] = Field(
        "daemon",
        description="where runs that train are executed: by Dagster's daemon, by a process for them alone, or each in a pod",
    )
    api_public_url: HttpUrl | None = Field(
        None,
        description="address at which browsers reach the API, if not API_HOST and API_PORT; links in Dagster use it",
    )
    mlflow_public_url: HttpUrl | None = Field(None, description="the same for MLflow's pages")
    dagster_public_url: HttpUrl | None = Field(None, description="the same for Dagster's pages; links in MLflow use it")
    api_workers: int = Field(1, ge=1, le=64, description="API processes on this machine")
    otel_exporter_otlp_endpoint: str | None = Field(
        None, description="OpenTelemetry collector (OTLP over HTTP) that gets a trace of each request; absent: none"
    )
    champion_poll_seconds: float = Field(
        2.0, ge=0.1, le=300, description="seconds between two polls for a newly promoted version"
    )
    journal_fsync: Literal["always", "interval", "off"] = Field(
        "always", description="fsync policy: before each response, periodically, or left to the operating system"
    )
    journal_fsync_interval_seconds: float = Field(
        1.0, ge=0.01, le=60, description="seconds between two syncs with JOURNAL_FSYNC=interval"
    )
    max_model_mb: float = Field(
        512.0, ge=0.1, le=16_384, description="largest accepted model file in MB, packed and unpacked"
    )
    journal_max_mb: float = Field(64.0, ge=0.01, le=4_096, description="size at which a journal file is rotated")
    ingest_lag_alert_seconds: float = Field(
        60.0,
        validation_alias=_renamed("ingest_lag_alert_seconds"),
        ge=1,
        le=86_400,
        description="seconds without progress in copying the journal after which an alert is raised",
    )
    ingest_interval_seconds: float = Field(
        0.5,
        validation_alias=_renamed("ingest_interval_seconds"),
        ge=0.05,
        le=60,
        description="seconds between two copies of the journal to Postgres",
    )
    entity_secret: SecretStr | None = Field(
        None,
        min_length=16,
        description="secret of the pseudonyms of entities, one for all hosts that share Postgres; absent: made in DATA_DIR",
    )
    api_keys: SecretStr = Field(
        SecretStr(""),
        description="API keys, comma-separated, as `selfheal api-key` prints them or plain; none: loopback only; the pages of "
        "Dagster and MLflow ask for one with the scope admin",
    )
    api_key: SecretStr | None = Field(
        None, description="the key that `selfheal simulate` sends; absent: the first plain key of API_KEYS"
    )
    rate_limit_per_second: float | None = Field(
        None, ge=0.01, le=1_000_000, description="requests per second, key and API worker; absent: unlimited"
    )
    notify_urls: SecretStr = Field(
        SecretStr(""), description="destinations for all alerts: apprise URLs, comma-separated"
    )
    notify_urls_critical: SecretStr = Field(
        SecretStr(""), description="additional destinations for critical alerts, e.g. a pager"
    )
    notify_urls_warning: SecretStr = Field(
        SecretStr(""), description="additional destinations for warnings, e.g. a chat"
    )
    notify_urls_info: SecretStr = Field(SecretStr(""), description="additional destinations for informational alerts")
    traffic_silence_hours: float = Field(
        24.0, ge=0.1, le=24 * 365, description="hours without a prediction, after there was one, that raise an alert"
    )
    label_silence_hours: float = Field(
        168.0,
        ge=1,
        le=24 * 3_650,
        description="hours in which predictions go on and no label comes that raise an alert; more than outcomes take",
    )
    label_maturity_hours: float | None = Field(
        None,
        ge=0,
        le=24 * 3_650,
        description="hours after which the outcome of a prediction is known, if it ever is; absent: estimated from the labels",
    )
    monitoring_results_retention_days: int = Field(
        30,
        validation_alias=_renamed("monitoring_results_retention_days"),
        ge=1,
        le=3_650,
        description="days after which files of monitoring ticks are deleted",
    )
    monitoring_runs_retention_days: int = Field(
        7,
        validation_alias=_renamed("monitoring_runs_retention_days"),
        ge=1,
        le=3_650,
        description="days after which Dagster's runs of monitoring, probation and maintenance are deleted",
    )
    monitoring_metrics_retention_days: int = Field(
        365,
        validation_alias=_renamed("monitoring_metrics_retention_days"),
        ge=7,
        le=36_500,
        description="days after which rows of monitoring_metrics are deleted",
    )
    alerts_retention_days: int = Field(
        365,
        validation_alias=_renamed("alerts_retention_days"),
        ge=7,
        le=36_500,
        description="days after which resolved alerts are deleted",
    )
    predictions_retention_days: int | None = Field(
        None,
        validation_alias=_renamed("predictions_retention_days"),
        ge=30,
        le=36_500,
        description="days after which predictions without a label are deleted from Postgres; absent: never",
    )
    max_drift_reports: int = Field(
        50,
        validation_alias=_renamed("max_drift_reports"),
        ge=1,
        le=10_000,
        description="how many HTML drift reports are retained",
    )
    policy_report_days: int = Field(
        90, ge=1, le=3_650, description="days of the platform's own logs that the monthly report on policies replays"
    )
    policy_report_max_rows: int = Field(
        200_000, ge=1_000, le=10_000_000, description="newest predictions that the report on policies replays at most"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("use_case")
    @classmethod
    def _names_an_attribute(cls, value: str) -> str:
        module, separator, attribute = value.partition(":")
        if not (module and separator and attribute):
            raise ValueError("must be of the form package.module:contract")
        return value

    @field_validator("data_dir")
    @classmethod
    def _is_text_of_one_line(cls, value: Path) -> Path:
        if not str(value).isprintable():
            raise ValueError("must be printable text of one line: addresses and lists of files contain it")
        return value

    @field_validator("data_delimiter")
    @classmethod
    def _is_a_delimiter(cls, value: str) -> str:
        delimiter = {"tab": "\t", "\\t": "\t"}.get(value, value)
        if len(delimiter) != 1 or delimiter.isalnum() or delimiter in '"\r\n.+-_':
            raise ValueError("must be one character that is no part of a number or name, such as , ; or |, or tab")
        return delimiter

    @field_validator("data_decimal")
    @classmethod
    def _is_a_decimal_sign(cls, value: str) -> str:
        if value not in {".", ","}:
            raise ValueError("must be . or ,")
        return value

    @field_validator("data_missing_words", "data_true_words", "data_false_words", "data_ignored_columns")
    @classmethod
    def _are_words(cls, value: str, info: ValidationInfo) -> str:
        with _as_value_error():
            words = {word.casefold() for word in parse_words(value)}
        true = {word.casefold() for word in parse_words(info.data.get("data_true_words", ""))}
        if info.field_name == "data_false_words" and words & true:
            raise ValueError(
                f"{', '.join(sorted(words & true))} is in DATA_TRUE_WORDS too; a word stands for one of them"
            )
        return value

    @field_validator(*PARSED)
    @classmethod
    def _can_be_parsed(cls, value: SecretStr | str | None, info: ValidationInfo) -> SecretStr | str | None:
        if value is not None:
            text = value.get_secret_value() if isinstance(value, SecretStr) else value
            with _as_value_error():
                PARSED[str(info.field_name)](text)
        return value

    @field_validator("mlflow_tracking_uri")
    @classmethod
    def _is_of_postgres_in_words_of_mlflow(cls, value: str | None) -> str | None:
        if value is None or not value.lower().startswith("postgres"):
            return value
        with _as_value_error():
            parts = parse_postgres_url(value)
        return postgres_url(parts, parts.get("dbname", "")).replace("postgresql://", "postgresql+psycopg2://", 1)

    @field_validator("training_jobs")
    @classmethod
    def _is_a_number_of_fits(cls, value: int | None) -> int | None:
        if value == 0:
            raise ValueError("must be 1 or more, or -1 for one a core")
        return value

    @field_validator("training_backend")
    @classmethod
    def _has_a_cluster(cls, value: str, info: ValidationInfo) -> str:
        if value == "dask" and not info.data.get("dask_scheduler"):
            raise ValueError("needs the address of a cluster in DASK_SCHEDULER, such as tcp://127.0.0.1:8786")
        return value

    @field_validator("training_runs_in")
    @classmethod
    def _has_a_pod(cls, value: str, info: ValidationInfo) -> str:
        if value == "kubernetes" and not info.data.get("training_pod_file"):
            raise ValueError("needs the path of a PodTemplate in TRAINING_POD_FILE; the Helm chart sets both")
        return value

    @property
    def own_api_key(self) -> str | None:
        """Return the key that clients on this machine send."""
        if self.api_key is not None:
            return self.api_key.get_secret_value()
        return first_plain_key(self.api_keys.get_secret_value())

    @property
    def has_tracking_server(self) -> bool:
        """Whether MLFLOW_TRACKING_URI names a server, which runs elsewhere, and not a store."""
        return (self.mlflow_tracking_uri or "").startswith(("http://", "https://"))

    @property
    def has_external_database(self) -> bool:
        """Return whether Postgres is an external server instead of the embedded one."""
        return self.database_url is not None or self.postgres_host is not None

    def external_database_url(self, database: str) -> str:
        """Return the external server's URL for one of its databases; `postgresql://`, no driver named."""
        if self.database_url is not None:
            return postgres_url(parse_postgres_url(self.database_url.get_secret_value()), database)
        parts = {"host": self.postgres_host or "", "port": str(self.postgres_port), "user": self.postgres_user}
        return postgres_url(parts | {"password": self.postgres_password.get_secret_value()}, database)

    @property
    def umask(self) -> int:
        """DATA_UMASK as a number."""
        return int(self.data_umask, 8)

    def ticks_per_budget(self) -> float:
        """Return the number of monitoring ticks in which one false alarm is expected at most."""
        return self.false_alarm_budget_days * SECONDS_PER_DAY / self.monitoring_interval


def load_settings(**overrides: Any) -> Settings:
    """Return the settings from the environment and `.env`, including those that gates declare; keyword arguments win.

    Raises:
        ConfigurationError: if settings are wrong; the message names each, its value and what is allowed.
    """
    try:
        return _settings_with_gates()(**overrides)
    except ValidationError as error:
        problems = [_problem(str(e["loc"][0]), e["input"], e["msg"]) for e in error.errors()]
        raise ConfigurationError("wrong setting: " + "; ".join(problems)) from None


def default_settings() -> Settings:
    """Return the default settings, ignoring the environment and `.env`."""
    return _settings_with_gates().model_construct()


WITH_GATES = "SettingsWithGates"


@cache
def _settings_with_gates() -> type[Settings]:
    """Return `Settings` with the fields of gates that declare a setting; `Settings` itself if none does.

    Raises:
        ConfigurationError: if a gate declares an existing setting, or names one that does not exist.
    """
    from selfheal.domain.retraining.gates import GATES

    brought: dict[str, Any] = {}
    for gate in GATES:
        for limit in gate.limits:
            name = limit.setting_name
            if (name in Settings.model_fields) == limit.brings_setting:
                problem = "is a setting already: choose another" if limit.brings_setting else "is no setting: bring one"
                raise ConfigurationError(f"the gate {gate.name} has the limit {limit.name}: {name.upper()} {problem}")
            if limit.brings_setting:
                field = Field(limit.default, ge=limit.at_least, le=limit.at_most, description=limit.description)
                brought[name] = (limit.type, field)
    return create_model(WITH_GATES, __base__=Settings, __module__=__name__, **brought) if brought else Settings


def __getattr__(name: str) -> Any:
    """Return the class of settings with those of gates, by which they can be sent to another process."""
    if name == WITH_GATES:
        return _settings_with_gates()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _problem(name: str, value: Any, message: str) -> str:
    """Return what is wrong with a setting, by the name under which it was given; a secret is not revealed."""
    present = {former: name for name, former in FORMER_NAMES.items()}.get(name, name)
    is_secret = present in secret_names(_settings_with_gates())
    shown = "***" if is_secret else without_password(str(value))
    return f"{name.upper()}={shown}: {message.removeprefix('Value error, ')}"


def secret_names(kind: type[BaseSettings]) -> list[str]:
    """Return the settings that are secrets."""
    fields = kind.model_fields.items()
    return [name for name, field in fields if SecretStr.__name__ in str(field.annotation)]


def names_of_files(kind: type[BaseSettings]) -> list[str]:
    """Return the settings that are also read from a file: NAME_FILE, or one of their name in SECRETS_DIR."""
    return [*secret_names(kind), *MAY_CONTAIN_PASSWORDS]

"""Train on point-in-time features, package as ONNX with the contract, write the digest into both manifests."""

import hashlib
import re
from datetime import timedelta
from pathlib import Path

import data
import features
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from fairlead.contract import Training
from fairlead.features.service import describe
from fairlead.packaging import package

HERE = Path(__file__).parent
VARIANT = "baseline"
MODEL = HERE / "build" / f"{VARIANT}.onnx"
MANIFESTS = (HERE / "modeldeployment.yaml", HERE / "cluster" / "modeldeployment.yaml")
SERVICE = "returns_v1"


def main() -> None:
    """Do all of it."""
    store = features.build()
    columns = [feature.input for feature in describe(store, SERVICE).features]
    rows = training_rows(store)
    split = rows["event_timestamp"].max() - timedelta(weeks=2)
    past, held_out = rows[rows["event_timestamp"] < split], rows[rows["event_timestamp"] >= split]

    steps = [("impute", SimpleImputer()), ("scale", StandardScaler()), ("model", LogisticRegression())]
    estimator = Pipeline(steps).fit(past[columns], past["returned"])

    newest = held_out.iloc[-1]
    packaged = package(
        estimator,
        store=store,
        feature_service=SERVICE,
        name="order-returns",
        version="1",
        outputs="probability_returned",
        path=MODEL,
        trained_on=past,
        training=Training(
            start=past["event_timestamp"].min().isoformat(),
            end=split.isoformat(),
            rows=len(past),
            data_digest=f"sha256:{hashlib.sha256((data.DATA / 'orders.parquet').read_bytes()).hexdigest()}",
        ),
        holdout=held_out,
        labels=held_out["returned"],
        example={"customer_id": newest["customer_id"], "basket_eur": 80.0, "items": 3},
    )
    for manifest in MANIFESTS:
        set_digest(manifest, VARIANT, packaged.digest)
    scores = packaged.contract.evaluation[0].metrics
    print(f"{MODEL.relative_to(HERE)}: Brier {scores['brier']:.4f} on {len(held_out)} orders, {packaged.digest}")


def training_rows(store: features.FeatureStore) -> pd.DataFrame:
    """Return every order with its features as they were known when it was made."""
    orders = pd.read_parquet(data.DATA / "orders.parquet")
    joined = store.get_historical_features(orders, store.get_feature_service(SERVICE), full_feature_names=True)
    return joined.to_df().sort_values("event_timestamp", ignore_index=True)


def set_digest(manifest: Path, variant: str, digest: str) -> None:
    """Write the digest of a variant's model into a manifest; everything else in it stays."""
    pattern = rf"(- name: {variant}\n.*?digest: )\S+"
    text, found = re.subn(pattern, rf"\g<1>{digest}", manifest.read_text(), count=1, flags=re.DOTALL)
    if not found:
        raise SystemExit(f"{manifest}: has no variant {variant} with a digest; add it")
    manifest.write_text(text)


if __name__ == "__main__":
    main()

"""What the tour does and shows; docs/TOUR.md has a row per step and shows each screen."""

from __future__ import annotations

from collections.abc import Mapping

MORE = 36  # pictures that arrive after the demo

# Each is measured; the page has these words beside the time.
STEPS: Mapping[str, str] = {
    "clone": "`git clone`",
    "setup": "`make setup`: the locked packages are downloaded and installed",
    "demo": "`make demo`: servers, three small models, 24 pictures tagged",
    "arrivals": f"{MORE} more pictures arrive, are tagged and published",
    "training": "another recipe is trained and compared, until a person is asked",
    "approval": "after the answer: the new versions are live, and all pictures tagged again",
    "audit": "`dvc repro`, which finds everything computed, and `shoetagger audit`",
}

# By the moment at which they are there: the file in docs/tour/, and what it shows.
MOMENTS: Mapping[str, Mapping[str, str]] = {
    "after the demo": {
        "airflow-home": "Airflow's home",
        "airflow-dags": "the list of DAGs",
        "airflow-graph": "the graph of the demo's training",
        "airflow-form": "the form that starts a training",
    },
    "before an answer": {
        "airflow-approval": "an approval that waits for a person",
        "desk-challenger": "what a new version would change",
        "comparison": "the comparison of a version with the champion",
        "comparison-dark": "the same in dark mode",
    },
    "after a promotion": {
        "mlflow-training": "a training's run, with a run per group below it",
        "mlflow-metrics": "the metrics of a group's run, in sections",
        "mlflow-model": "a registered version with its model card",
        "airflow-rollback": "the form that takes a model back",
        "pages-day": "a published page",
        "pages-phone": "the same on a phone, in dark mode",
        "desk-queue": "the pictures to label next",
        "desk-quality": "how right the tags are",
        "desk": "the picture desk",
        "desk-picture": "a picture on the desk, with its scores",
        "desk-why": "the heat map of a score",
    },
    "after an audit": {
        "desk-audit": "the cells of the label sheet to check again",
    },
}
SCREENS: Mapping[str, str] = {k: v for screens in MOMENTS.values() for k, v in screens.items()}

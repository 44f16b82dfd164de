"""How the recipe was found; `dvc repro experiments/dvc.yaml` runs it all."""

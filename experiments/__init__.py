"""How the recipe was chosen: `dvc repro experiments/dvc.yaml` runs all experiments."""
